"""The page of our views: what it shows to whom, that it is valid HTML, and that nothing said to it becomes HTML."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import hypothesis
import pytest
from hypothesis import strategies as st
from pyramid.config import Configurator
from pyramid.response import Response

from c2c_otel import auth, index
from c2c_otel.index import Html
from c2c_otel.settings import Settings
from c2c_otel_exporters import guard, hostname
from c2c_otel_views import answers, pages
from tests import pyramid_kit as kit
from tests.pyramid_kit import Answer, FakeTelemetry, assert_left_nothing, get

SECRET = "s3cret-of-the-service"
HOSTILE = "\"'></title></style><script>alert(1)</script><img src=x onerror=alert(1)>&amp;"
VOID = {"input", "link", "meta", "img", "br", "hr"}


class Page(HTMLParser):
    """A document, read strictly: what is not well-formed is an AssertionError."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.unlabelled: list[dict[str, str | None]] = []
        self.text: dict[str, str] = {}
        self.said = ""
        assert text.startswith("<!DOCTYPE html>\n<html lang=")
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        assert not [name for name in names if name.startswith("on") or name == "style"], (tag, names)
        given = dict(attrs)
        self.seen.append((tag, given))
        shown = given.get("type") != "hidden" and "hidden" not in given
        if tag in ("input", "select") and shown and "label" not in self.open:
            self.unlabelled.append(given)
        assert not (tag == "form" and "form" in self.open)
        assert not (tag in ("p", "section", "form", "dl", "div", "h2", "h3") and "p" in self.open), self.open
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        raise AssertionError(f"<{tag}/>")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data
            if self.open[-1] != "style":
                self.said += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [given for name, given in self.seen if name == tag]

    def forms(self) -> dict[tuple[str, str], list[str]]:
        """(method, action) -> the names that it sends; of two with one action, those of both."""
        found: dict[tuple[str, str], list[str]] = {}
        names: list[str] = []
        for tag, given in self.seen:
            if tag == "form":
                names = found.setdefault((given["method"] or "", given["action"] or ""), [])
            elif tag in ("input", "select") and given.get("name"):
                names.append(given["name"] or "")
        return found


_clients = itertools.count(1)


@pytest.fixture(autouse=True)
def own_address(monkeypatch: Any) -> str:
    """Each test is a client of its own: wrong secrets are counted for each."""
    environ, address = kit.environ, str(ipaddress.ip_address("198.18.0.0") + next(_clients))

    def with_address(path: str = "/", method: str = "GET", **more: Any) -> dict[str, Any]:
        return environ(path, method, **{"REMOTE_ADDR": address, **more})

    monkeypatch.setattr(kit, "environ", with_address)
    return address


@pytest.fixture(autouse=True)
def fake(monkeypatch: Any) -> Iterator[FakeTelemetry]:
    for name in ("additional_title", "additional_auth", "additional_noauth"):
        monkeypatch.setattr(index, name, None if name == "additional_title" else [])
    fake = kit.install(monkeypatch)
    yield fake
    assert_left_nothing()


EVERYTHING = {
    "stats_view": 1,
    "debug_view_enabled": 1,
    "log_view_enabled": 1,
    "db_maintenance_view_enabled": 1,
    "sql_profiler_enabled": 1,
}


def make(secret: str | None = SECRET, **settings: Any) -> Any:
    ini = {f"c2c.{name}": str(value) for name, value in settings.items()}
    if secret is not None:
        ini["c2c.secret"] = secret
    config = Configurator(settings=ini)
    config.include("c2c_otel")
    return config.make_wsgi_app()


def post(app: Any, body: str | bytes, content_type: str = "application/x-www-form-urlencoded", **more: Any) -> Answer:
    import io

    data = body.encode() if isinstance(body, str) else body
    return get(
        app,
        "/c2c",
        "POST",
        **{
            "wsgi.input": io.BytesIO(data),
            "CONTENT_LENGTH": str(len(data)),
            "CONTENT_TYPE": content_type,
            "HTTP_HOST": "localhost",
            **more,
        },
    )


def multipart(secret: str) -> tuple[bytes, str]:
    body = f'--xyz\r\nContent-Disposition: form-data; name="secret"\r\n\r\n{secret}\r\n--xyz--\r\n'
    return body.encode(), "multipart/form-data; boundary=xyz"


def cookie(answer: Answer) -> str:
    """What a browser sends back."""
    (given,) = answer.all("Set-Cookie")
    return given.partition(";")[0]


def read(answer: Answer, status: int = 200) -> Page:
    assert answer.status == status
    assert answer.header("Content-Type") == "text/html; charset=UTF-8"
    assert "no-store" in (answer.header("Cache-Control") or "")
    return Page(answer.body.decode())


def hrefs(page: Page) -> set[str | None]:
    return {given["href"] for given in page.all("a")}


# -- who sees what -----------------------------------------------------------------------------------------------------


def test_without_a_secret_there_are_the_open_views_and_no_login() -> None:
    page = read(get(make(None, **EVERYTHING), "/c2c"))
    assert hrefs(page) == {"/metrics", "/c2c/stats.json", "/c2c/debug/time"}
    assert page.forms() == {}


def test_anonymous() -> None:
    page = read(get(make(**EVERYTHING), "/c2c"))
    assert hrefs(page) == {"/metrics", "/c2c/stats.json", "/c2c/debug/time"}
    assert page.forms() == {("post", "/c2c"): ["secret"]}
    assert hostname.host_name() not in page.said


def test_with_the_secret() -> None:
    page = read(get(make(**EVERYTHING), "/c2c", HTTP_X_API_KEY=SECRET))
    assert {"/metrics", "/c2c/stats.json", "/c2c/debug/time", "/c2c/debug/headers"} <= hrefs(page)
    forms = page.forms()
    assert forms["get", "/c2c/debug/sleep"] == ["time"]
    assert forms["get", "/c2c/debug/error"] == ["status"]
    assert forms["post", "/c2c"] == ["secret"]  # the way out
    assert hostname.host_name() in page.said


def test_every_view_is_on_the_page(monkeypatch: Any) -> None:
    """Whoever adds one adds its link or form."""
    paths: set[str] = set()
    add_view = answers.add_view

    def seen(config: Any, name: str, path: str, *args: Any, **more: Any) -> None:
        paths.add(path)
        add_view(config, name, path, *args, **more)

    monkeypatch.setattr(answers, "add_view", seen)
    page = read(get(make(**EVERYTHING), "/c2c", HTTP_X_API_KEY=SECRET))
    there = hrefs(page) | {action for _, action in page.forms()}
    missing = {path for path in paths if path not in there and "*" not in path and "{" not in path}
    assert missing == {"/c2c/"}
    assert len(paths) >= 15


@pytest.mark.parametrize("path", ["/c2c", "/c2c/"])
@pytest.mark.parametrize("script", ["", "/mounted"])
@pytest.mark.parametrize("prefix", [None, "/api"])
def test_links_and_forms_lead_to_views_that_are_there(path: str, script: str, prefix: str | None) -> None:
    """And take the method: what they say of another one is which ones they take."""
    config = Configurator(settings={**{f"c2c.{name}": "1" for name in EVERYTHING}, "c2c.secret": SECRET})
    config.include("c2c_otel", route_prefix=prefix)
    app = config.make_wsgi_app()
    page = read(get(app, f"{prefix or ''}{path}", SCRIPT_NAME=script, HTTP_X_API_KEY=SECRET))
    targets = {("get", href) for href in hrefs(page)} | set(page.forms())
    assert len(targets) > 15
    for method, target in targets:
        assert target is not None and target.startswith(f"{script}{prefix or ''}/")
        answer = get(app, target.removeprefix(script), "PUT", SCRIPT_NAME=script)
        assert answer.status == 405, target
        assert method.upper() in (answer.header("Allow") or ""), target


def test_a_flag_that_is_off_has_no_link() -> None:
    page = read(get(make(), "/c2c", HTTP_X_API_KEY=SECRET))
    assert hrefs(page) == {"/metrics", "/c2c/debug/time"}
    assert set(page.forms()) == {("post", "/c2c")}


def test_closed_views_leave_nothing_but_the_login(fake: FakeTelemetry) -> None:
    index.additional_noauth.append("what everybody sees")
    app = make(open_views=0, **EVERYTHING)
    fake.settings = Settings(service_name="the shop")
    page = read(get(app, "/c2c"))
    assert hrefs(page) == set()
    assert page.forms() == {("post", "/c2c"): ["secret"]}
    assert "the shop" not in page.said and "what everybody sees" not in page.said
    page = read(get(app, "/c2c", HTTP_X_API_KEY=SECRET))
    assert "/metrics" in hrefs(page) and "what everybody sees" in page.said


# -- the login ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", [multipart, lambda secret: (urlencode({"secret": secret}), "application/x-www-form-urlencoded")]
)
@pytest.mark.parametrize("path", ["/c2c", "/c2c/"])
def test_log_in_and_out(form: Any, path: str) -> None:
    app = make(**EVERYTHING)
    answer = post(app, *form(SECRET), PATH_INFO=path)
    assert (answer.status, answer.header("Location"), answer.body) == (303, "/c2c", b"")
    assert "no-store" in (answer.header("Cache-Control") or "")
    assert SECRET not in str(answer.headers)
    session = cookie(answer)
    page = read(get(app, path, HTTP_COOKIE=session))
    assert "/c2c/debug/headers" in hrefs(page)
    answer = post(app, *form(""), HTTP_COOKIE=session)
    assert (answer.status, answer.header("Location")) == (303, "/c2c")
    assert cookie(answer) == "C2C_SECRET="
    assert "/c2c/debug/headers" not in hrefs(read(get(app, "/c2c", HTTP_COOKIE=cookie(answer))))
    assert "/c2c/debug/headers" not in hrefs(read(get(app, "/c2c", HTTP_COOKIE=session)))


def test_the_way_back_is_relative_whatever_the_proxy_says() -> None:
    answer = post(
        make(), f"secret={SECRET}", SCRIPT_NAME="/mounted", HTTP_HOST="evil.example", HTTP_X_FORWARDED_PROTO="gopher"
    )
    assert answer.header("Location") == "/mounted/c2c"


def test_a_wrong_secret_is_said() -> None:
    answer = post(make(), "secret=wrong")
    page = read(answer, 403)
    assert "That is not the secret." in page.said
    assert page.forms() == {("post", "/c2c"): ["secret"]}
    assert answer.all("Set-Cookie") == []


def test_too_many_wrong_secrets_are_said() -> None:
    app = make()
    for _ in range(100):
        answer = post(app, "secret=wrong", REMOTE_ADDR="198.18.8.77")
        if answer.status == 429:
            break
    page = read(answer, 429)
    assert int(answer.header("Retry-After") or 0) > 0
    assert "Too many wrong secrets" in page.said
    assert read(post(app, f"secret={SECRET}", REMOTE_ADDR="198.18.8.77"), 429)
    assert post(app, f"secret={SECRET}", REMOTE_ADDR="198.18.8.78").status == 303


def test_the_secret_in_the_address_logs_in_too() -> None:
    app = make(**EVERYTHING)
    answer = get(app, f"/c2c?secret={SECRET}")
    page = read(answer)
    assert "/c2c/debug/headers" in hrefs(page)
    assert SECRET.encode() not in answer.body
    assert "/c2c/debug/headers" in hrefs(read(get(app, "/c2c", HTTP_COOKIE=cookie(answer))))


def test_forms_that_change_something_carry_the_token_of_the_login() -> None:
    app = make(**EVERYTHING)
    session = cookie(post(app, f"secret={SECRET}"))
    page = read(get(app, "/c2c", HTTP_COOKIE=session))
    tokens = {given["value"] for given in page.all("input") if given.get("name") == "csrf_token"}
    assert len(tokens) == 1 and all(tokens)
    for (method, action), names in page.forms().items():
        if method == "post" and action != "/c2c":
            assert "csrf_token" in names, action
        if method == "get":
            assert "csrf_token" not in names, action
    again = read(get(app, f"/c2c?secret={SECRET}"))  # the answer that brings the cookie brings its token, too
    assert [given["value"] for given in again.all("input") if given.get("name") == "csrf_token"]


@pytest.mark.parametrize("body", ["secret=%ff", "secret=a&secret=b", f"secret={SECRET}&secret=b"])
def test_forms_that_cannot_be_read(body: str) -> None:
    answer = post(make(), body)
    assert answer.status in (400, 403)
    assert answer.all("Set-Cookie") == []


def test_other_methods() -> None:
    answer = get(make(), "/c2c", "PUT")
    assert (answer.status, answer.header("Allow")) == (405, "GET, HEAD, POST")
    assert get(make(None), "/c2c", "POST").status == 405


# -- what it is made of ------------------------------------------------------------------------------------------------


def test_headers() -> None:
    for answer in (get(make(), "/c2c"), post(make(), "secret=wrong")):
        policy = dict(
            part.strip().partition(" ")[::2] for part in (answer.header("Content-Security-Policy") or "").split(";")
        )
        assert policy.pop("style-src").startswith("'sha256-")
        assert policy == {
            "default-src": "'none'",
            "img-src": "data:",
            "form-action": "'self'",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
        }
        assert answer.header("Referrer-Policy") == "no-referrer"
        assert answer.header("X-Content-Type-Options") == "nosniff"
        assert answer.header("X-Frame-Options") == "DENY"


def test_it_needs_nothing_from_anywhere() -> None:
    page = read(get(make(**EVERYTHING), "/c2c", HTTP_X_API_KEY=SECRET))
    assert {tag for tag, _ in page.seen} & {"script", "img", "iframe", "object", "base", "svg"} == set()
    assert [given["href"] for given in page.all("link")] == ["data:,"]
    assert not re.search(r"url\(|@import", page.text["style"])
    for _, given in page.seen:
        for name in ("href", "src", "action"):
            assert not (given.get(name) or "").startswith(("http:", "https:", "//"))


def test_everything_that_is_filled_in_has_a_label() -> None:
    page = read(get(make(**EVERYTHING), "/c2c", HTTP_X_API_KEY=SECRET))
    assert len(page.all("label")) >= 8
    assert page.unlabelled == []
    assert [given for given in page.all("button") if given.get("type") != "submit"] == []
    assert len(page.all("h1")) == 1


def _luminance(colour: str) -> float:
    if len(colour) == 4:
        colour = "#" + "".join(digit * 2 for digit in colour[1:])
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    ("front", "back"),
    [
        ("text", "card"),
        ("text", "back"),
        ("soft", "card"),
        ("soft", "back"),
        ("accent", "card"),
        ("on-accent", "accent"),
        ("bad", "card"),
    ],
)
def test_contrast_is_that_of_wcag_aa(dark: bool, front: str, back: str) -> None:
    colours = dict(
        re.findall(r"--([a-z-]+): (#[0-9a-f]+)", pages._STYLE.split("@media (prefers-color-scheme: dark)")[dark])
    )
    one, two = sorted((_luminance(colours[front]), _luminance(colours[back])))
    assert (two + 0.05) / (one + 0.05) >= 4.5


# -- escaping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [False, True])
def test_a_hostile_title_host_and_hook_stay_text(fake: FakeTelemetry, monkeypatch: Any, known: bool) -> None:
    app = make(**EVERYTHING)
    fake.settings = Settings(service_name=HOSTILE)
    monkeypatch.setattr(hostname, "_name", HOSTILE)
    monkeypatch.setattr(hostname, "_settled", True)
    index.additional_title = HOSTILE
    index.additional_noauth.append(HOSTILE)
    index.additional_auth.append(index.section(HOSTILE, HOSTILE))
    more = {"HTTP_X_API_KEY": SECRET} if known else {}
    for header in ("HTTP_HOST", "HTTP_X_FORWARDED_HOST", "HTTP_REFERER", "HTTP_USER_AGENT", "HTTP_X_FORWARDED_FOR"):
        answer = get(app, f"/c2c?{urlencode({'x': HOSTILE})}", **{header: HOSTILE, **more})
        page = read(answer)
        assert page.text["title"] == page.text["h1"] == HOSTILE
        assert b"<script" not in answer.body and b"<img" not in answer.body
    assert page.said.count("alert(1)</script>") == (4 if not known else 7)


def test_a_hostile_mount_point_stays_in_its_attribute() -> None:
    page = read(get(make(), "/c2c", SCRIPT_NAME='/"><script>alert(1)</script>', HTTP_X_API_KEY=SECRET))
    assert page.all("script") == []


# -- the hooks ---------------------------------------------------------------------------------------------------------


class Foreign:
    """As markupsafe's."""

    def __html__(self) -> str:
        return "<em>foreign</em>"


def test_hooks_are_shown_to_whom_they_are_for() -> None:
    index.additional_title = "Tiles & more"
    index.additional_noauth.append(index.paragraph(index.link("/tiles", "Tiles")))
    index.additional_auth.extend(
        [index.link("/generate", "Generate"), Foreign(), lambda request: f"at {request.path_info}"]
    )
    app = make()
    anonymous, known = read(get(app, "/c2c")), read(get(app, "/c2c", HTTP_X_API_KEY=SECRET))
    assert "/tiles" in hrefs(anonymous) and "/tiles" in hrefs(known)
    assert "/generate" not in hrefs(anonymous) and "/generate" in hrefs(known)
    assert "Tiles & more" in anonymous.text["h2"]
    assert known.text["em"] == "foreign"
    assert "at /c2c" in known.said and "at /c2c" not in anonymous.said


def test_a_form_of_the_application_s_changes_something_with_the_login() -> None:
    """As docs/admin.md says: its route is below ours, and its form carries the login's token."""

    def generate(request: Any) -> Response:
        auth.require_change(request)
        return Response("done")

    def hook(request: Any) -> Any:
        token = index.input_("csrf_token", type_="hidden", value=auth.csrf_token(request))
        return index.form("/c2c/tiles", token, index.button("Start"), method="post")

    index.additional_auth.append(hook)
    config = Configurator(settings={"c2c.secret": SECRET})
    config.include("c2c_otel")
    config.add_route("tiles", "/c2c/tiles")
    config.add_view(generate, route_name="tiles")
    app = config.make_wsgi_app()
    session = cookie(post(app, f"secret={SECRET}"))
    page = read(get(app, "/c2c", HTTP_COOKIE=session))
    (token,) = {given["value"] for given in page.all("input") if given.get("name") == "csrf_token"}
    assert page.forms()["post", "/c2c/tiles"] == ["csrf_token"]
    sent = urlencode({"csrf_token": token})
    assert post(app, sent, PATH_INFO="/c2c/tiles", HTTP_COOKIE=session).body == b"done"
    refused = post(app, "csrf_token=wrong", PATH_INFO="/c2c/tiles", HTTP_COOKIE=session)
    assert refused.status == 403 and b"csrf_token is missing" in refused.body
    assert post(app, sent, PATH_INFO="/c2c/tiles").status == 403


def test_a_title_alone_is_not_shown() -> None:
    index.additional_title = "Tiles"
    assert "Tiles" not in read(get(make(), "/c2c")).said


@pytest.mark.parametrize("hook", [None, "", [], (), lambda request: None, [None, lambda request: []]])
def test_an_empty_hook_leaves_no_section(hook: Any) -> None:
    index.additional_noauth = hook
    assert "Application" not in read(get(make(), "/c2c")).text["h2"]


@pytest.mark.parametrize("hook", ["a < b", lambda request: "a < b", ["a < b"], ("a < b",), [lambda request: ["a < b"]]])
def test_hooks_may_be_text_lists_and_callables(hook: Any) -> None:
    index.additional_noauth = hook
    page = read(get(make(), "/c2c"))
    assert "a < b" in page.said
    assert "Application" in page.text["h2"]


def test_a_hook_that_raises_is_left_out_and_counted() -> None:
    index.additional_noauth.extend(["before", lambda request: 1 / 0, "after"])
    app = make()
    guard.strict(False)
    try:
        page = read(get(app, "/c2c"))
        assert guard.tally["failed.index.hook"] == 1
    finally:
        guard.strict(None)
        guard.reset()
    assert "before" in page.said and "after" in page.said


# -- the helpers -------------------------------------------------------------------------------------------------------


def test_helpers() -> None:
    assert index.link("/a?b=1&c=2", "A & B") == '<a href="/a?b=1&amp;c=2">A &amp; B</a>'
    assert index.link(None, "nowhere") == ""
    assert index.link("/a", "A", cssclass="btn", target="_blank") == (
        '<a href="/a" class="btn" target="_blank" rel="noopener noreferrer">A</a>'
    )
    assert index.button("Go") == '<button type="submit">Go</button>'
    assert index.paragraph("a", Html("<b>b</b>"), title="T") == "<p><strong>T:</strong> a\n<b>b</b></p>"
    assert index.section("T", "a", Html("<b>b</b>")) == "<section>\n<h2>T</h2>\na\n<b>b</b>\n</section>"
    assert index.form("/x", index.button("Go"), method="POST") == (
        '<form action="/x" method="post" enctype="multipart/form-data">\n<button type="submit">Go</button>\n</form>'
    )
    assert index.form("/x", target="_blank") == '<form action="/x" method="get" target="_blank">\n\n</form>'


def test_inputs() -> None:
    assert index.input_("max_level", value=1) == (
        '<label><span>Max level</span> <input type="number" name="max_level" value="1"></label>'
    )
    assert index.input_("a", "B", required=True) == (
        '<label><span>B</span> <input type="text" name="a" value="" required></label>'
    )
    assert index.input_("a", type_="hidden", value="x") == '<input type="hidden" name="a" value="x">'
    assert index.input_("a", value=True) == (
        '<label class="check"><input type="checkbox" name="a" value="true" checked> <span>A</span></label>'
    )
    assert " checked" not in index.input_("a", value=False)
    assert " checked" not in index.input_("a", type_="checkbox")
    assert index.input_("t", type_="number", value=1, min=0, step="any") == (
        '<label><span>T</span> <input type="number" name="t" value="1" min="0" step="any"></label>'
    )
    assert index.select("l", ["A", "B"], value="B") == (
        '<label><span>L</span> <select name="l"><option value="A">A</option>'
        '<option value="B" selected>B</option></select></label>'
    )
    assert '<option value="a">&lt;A&gt;</option>' in index.select("l", {"a": "<A>"})


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", " JavaScript:x", "java\tscript:x", "\x01javascript:x", "data:text/html,x", "vbscript:x"],
)
def test_urls_that_are_code(url: str) -> None:
    with pytest.raises(ValueError, match="The URL is"):
        index.link(url, "x")
    with pytest.raises(ValueError, match="The URL is"):
        index.form(url)


@pytest.mark.parametrize(
    "url", ["", "/a:b", "a", "?q=a:b", "#a:b", "https://x/", "HTTP://x", "mailto:a@b", "../x", "//host/x"]
)
def test_urls_that_are_none(url: str) -> None:
    assert index.link(url, "x").startswith("<a href=")


def test_form_methods() -> None:
    with pytest.raises(ValueError, match="'put'; expected get or post"):
        index.form("/x", method="put")


@hypothesis.given(st.text(), st.text(), st.text())
def test_whatever_helpers_are_told_stays_text(one: str, two: str, three: str) -> None:
    made = index.section(
        one,
        two,
        index.paragraph(three, title=one),
        index.link("/x", two, cssclass=three),
        index.form("/x", index.input_(one, two, value=three), index.select(two, [one, three]), index.button(three)),
    )
    page = Page(f"<!DOCTYPE html>\n<html lang=en>{made}</html>")
    assert {tag for tag, _ in page.seen} == {
        *("html", "section", "h2", "p", "strong", "a", "form", "label", "span", "input", "select", "option", "button")
    }
    assert page.all("input")[0]["name"] == one.replace("\r", "\r")
    assert isinstance(made, Html)


def test_text_added_to_html_is_escaped_again() -> None:
    assert index.escape(Html("<b>") + "<i>") == "&lt;b&gt;&lt;i&gt;"
