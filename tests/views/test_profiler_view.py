"""The profiler's page: where it is, for whom, what it changes, and that whatever it shows is text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from c2c_otel import profiler, shared
from c2c_otel.profiler import everybody, switch
from c2c_otel.profiler.sessions import kept
from c2c_otel.profiler.tree import Tree
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel.shared_files import FileBackend
from c2c_otel_views import profiler_svg
from c2c_otel_views.profiler_tree import call_tree
from tests import pyramid_kit as kit
from tests import view_kit
from tests.core.test_profiler_export import check_speedscope
from tests.pyramid_kit import Answer
from tests.shared_kit import FakeBroadcast, forget, network, process, settings
from tests.view_kit import SECRET, body, login, message

__all__ = ["network", "process", "settings"]

HOME = "/c2c/profiler"
EVIL = "<script>alert(1)</script>&\"'"


@pytest.fixture
def world(process: FakeBroadcast, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBroadcast]:
    monkeypatch.setattr(everybody, "broadcast", process)
    kept.delete(None)
    yield process
    forget()
    kept.delete(None)
    assert switch.active is None
    kit.assert_left_nothing()


@pytest.fixture
def app(world: FakeBroadcast, tmp_path: Path) -> Any:
    return make(tmp_path)


def make(tmp_path: Path, path: str = "/__profiler", secret: str | None = SECRET, **more: str) -> Any:
    return view_kit.make("profiler_path", tmp_path, path, secret, **more)


def call(app: Any, below: str = "", /, method: str = "GET", form: Any = None, **parameters: Any) -> Answer:
    query = urlencode(parameters)
    return view_kit.call(app, f"{HOME}{below}{'?' if query else ''}{query}", method, form=form)


def session(identity: str = "one", name: str = "hot", **more: Any) -> str:
    """One that was followed: two thirds in package pa, one in pb."""
    tree = Tree()
    tree.add(["view\x00/app/pa/web.py\x001\x01l1", f"{name}\x00/app/pa/hot.py\x005\x01l1"], 0.2)
    tree.add(["view\x00/app/pa/web.py\x001\x01l1", "warm\x00/app/pb/warm.py\x005\x01l1"], 0.1)
    tree.name_frames(lambda file: file.removeprefix("/app/").removesuffix(".py").replace("/", "."))
    head = {
        "id": identity,
        "method": "GET",
        "path": "/tiles",
        "route": "tiles",
        "pattern": "/tiles",
        "status": 200,
        "error": None,
        "started": 1_700_000_000.0,
        "seconds": 0.301,
        "samples": 2,
        "sampled": 0.3,
        "interval": 0.001,
        "thread": "MainThread",
        "request_id": "r-1",
        "trace_id": "0" * 32,
        **more,
    }
    kept.add(head, tree)
    return identity


def html(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    assert answer.header("Content-Type") == "text/html; charset=UTF-8"
    assert "no-store" in (answer.header("Cache-Control") or "")
    assert "script-src" not in (policy := answer.header("Content-Security-Policy") or "")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    text = answer.body.decode()
    Checked().feed(text)
    return text


class Checked(HTMLParser):
    """That what is open is closed, in its order, and nothing runs or is loaded."""

    EMPTY = ("meta", "link", "input", "br", "rect", "circle", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "iframe", "object")
        assert not any(name.startswith("on") or name in ("style", "src") for name, _ in attrs), attrs
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.EMPTY

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# -- where it is, and for whom ----------------------------------------------------------------------------------------


def test_the_path_leads_to_the_page(app: Any) -> None:
    """The cookie is not sent to a path outside of the base."""
    for key in (None, SECRET):
        answer = view_kit.call(app, "/__profiler", key=key)
        assert (answer.status, answer.header("Location")) == (303, HOME)
    assert "<h1>Profiler</h1>" in html(call(app))


@pytest.mark.parametrize("path", ["", "/session", "/speedscope", "/text", "/sessions.json"])
def test_only_with_the_secret(app: Any, path: str) -> None:
    session()
    assert view_kit.call(app, HOME + path).status == 200
    for key in (None, "wrong"):
        answer = view_kit.call(app, HOME + path, key=key)
        assert "secret" in message(answer, 403)


@pytest.mark.parametrize("path", ["/__profiler", HOME, f"{HOME}/session", f"{HOME}/sessions.json"])
def test_there_is_none_without_secret_or_path(world: FakeBroadcast, tmp_path: Path, path: str) -> None:
    assert view_kit.call(make(tmp_path, secret=None), path).status == 404
    assert view_kit.call(make(tmp_path, path=""), path).status == 404


@pytest.mark.parametrize(
    ("path", "base", "home"),
    [
        ("/tools/profiler", "/c2c", "/c2c/profiler"),
        ("profiler", "/c2c", "/c2c/profiler"),
        ("/c2c/perf/requests", "/c2c", "/c2c/perf/requests"),
        ("/perf", "", "/perf"),
        ("/c2cprofiler", "/c2c", "/c2c/profiler"),
    ],
)
def test_where_the_page_is(world: FakeBroadcast, tmp_path: Path, path: str, base: str, home: str) -> None:
    app = make(tmp_path, path, **{"c2c.base_path": base})
    assert "<h1>Profiler</h1>" in html(view_kit.call(app, home))
    asked = f"/{path.lstrip('/')}"
    if asked != home:
        assert view_kit.call(app, asked).header("Location") == home
    assert view_kit.call(app, f"{home}/sessions.json").status == 200


@pytest.mark.parametrize("path", ["/", "//x", "/a b", "/a*", "/c2c", "/metrics"])
def test_paths_that_cannot_be(world: FakeBroadcast, tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"profiler_path|C2C_PROFILER_PATH"):
        make(tmp_path, path)


def test_where_everything_is_closed(world: FakeBroadcast, tmp_path: Path) -> None:
    app = make(tmp_path, **{"c2c.open_views": "0"})
    assert view_kit.call(app, "/__profiler", key=None).status == 303
    assert view_kit.call(app, HOME, key=None).status == 403


def test_it_is_on_the_index(app: Any) -> None:
    assert f'href="{HOME}"' in view_kit.call(app, "/c2c").body.decode()
    assert HOME not in view_kit.call(app, "/c2c", key=None).body.decode()


# -- the switch -------------------------------------------------------------------------------------------------------


def test_on_and_off(app: Any) -> None:
    assert "<h2>Off</h2>" in html(call(app))
    answer = call(app, method="POST", form={"enable": "1", "duration": "60", "interval_ms": "2.5", "path": "/tiles"})
    assert (answer.status, answer.header("Location"), answer.body) == (303, HOME, b"")
    mode = profiler.mode()
    assert mode is not None and (mode.interval, mode.min_seconds, mode.path) == (0.0025, 0.0, "/tiles")
    assert 55 < mode.seconds_left() <= 60
    text = html(call(app))
    assert "<h2>On</h2>" in text and "path begins with /tiles, with a sample each 2.5 ms" in text
    assert "On in 1 of 1 workers." in text
    state = body(call(app, "/sessions.json"))
    assert (state["enabled"], state["interval"], state["path"]) == (True, 0.0025, "/tiles")
    assert call(app, enable=0).status == 303
    assert profiler.mode() is None


def test_what_a_form_leaves_empty_is_the_default(world: FakeBroadcast, tmp_path: Path) -> None:
    app = make(tmp_path, **{"c2c.profiler_seconds": "90", "c2c.profiler_interval_seconds": "0.004"})
    assert 'value="90"' in (text := html(call(app))) and 'value="4"' in text
    blank = {"enable": "1", "duration": "", "interval_ms": "", "min_seconds": "", "path": ""}
    assert call(app, method="POST", form=blank).status == 303
    mode = profiler.mode()
    assert mode is not None and mode[:3] == (0.004, 0.0, "") and 85 < mode.seconds_left() <= 90


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"enable": ""}, "enable is ''"),
        ({"enable": "maybe"}, "enable is 'maybe'"),
        ({"enable": 1, "duration": 0}, "duration is '0'"),
        ({"enable": 1, "duration": "nan"}, "duration is 'nan'"),
        ({"enable": 1, "interval_ms": 0.01}, "interval_ms is '0.01'"),
        ({"enable": 1, "min_seconds": -1}, "min_seconds is '-1'"),
        ({"enable": 1, "path": "tiles"}, "path is 'tiles'"),
        ({"delete": ""}, "delete is ''"),
        ({"sort": "size"}, "sort is 'size'"),
        ({"limit": 0}, "limit is '0'"),
    ],
)
def test_what_is_wrong_is_said(app: Any, parameters: dict[str, Any], what: str) -> None:
    session()
    assert message(call(app, **parameters), 400).startswith(what)
    assert profiler.mode() is None and len(kept.heads()) == 1


def test_the_cookie_changes_by_post_with_its_token_alone(world: FakeBroadcast, tmp_path: Path) -> None:
    app = make(tmp_path, **{"c2c.log_view_enabled": "1"})
    session()
    cookie, token = login(app)
    with_cookie = {"key": None, "HTTP_COOKIE": cookie}
    assert view_kit.call(app, HOME, **with_cookie).status == 200
    for change in ({"enable": "1"}, {"delete": "all"}):
        query = urlencode(change)
        assert view_kit.call(app, f"{HOME}?{query}", **with_cookie).status == 403
        assert view_kit.call(app, HOME, "POST", form=change, **with_cookie).status == 403
        cross = {**with_cookie, "HTTP_SEC_FETCH_SITE": "cross-site"}
        assert view_kit.call(app, HOME, "POST", form={**change, "csrf_token": token}, **cross).status == 403
    assert profiler.mode() is None and len(kept.heads()) == 1
    forms = re.findall(r"<form.*?</form>", html(view_kit.call(app, HOME, **with_cookie)), re.DOTALL)
    assert len(forms) == 3 and all(f'value="{token}"' in form for form in forms)
    answer = view_kit.call(app, HOME, "POST", form={"enable": "1", "csrf_token": token}, **with_cookie)
    assert answer.status == 303 and profiler.mode() is not None


def test_the_store_is_away(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*args: Any) -> Any:
        raise shared.Unavailable("The disk is full")

    monkeypatch.setattr(FileBackend, "write", unavailable)
    assert message(call(app, enable=1), 503) == "The disk is full"
    assert profiler.mode() is None


def test_without_pyinstrument(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = switch.importlib.util.find_spec

    def find(name: str, *more: Any) -> Any:
        return None if name == "pyinstrument" else real(name, *more)

    monkeypatch.setattr(switch.importlib.util, "find_spec", find)
    text = html(call(app))
    assert "<code>pip install &quot;c2c-otel[profiler]&quot;</code>" in text and "Switch on" not in text
    assert 'pip install "c2c-otel[profiler]"' in message(call(app, enable=1), 503)
    assert kit.get(app, "/nothing").status == 404


# -- what it shows ----------------------------------------------------------------------------------------------------


def test_the_list(app: Any) -> None:
    assert "None was followed yet." in html(call(app))
    for number, seconds in enumerate((0.2, 0.5, 0.1)):
        session(f"id{number}", path=f"/tiles/{9 - number}", seconds=seconds, started=1_700_000_000.0 + number)
    session("broken", path="/a", status=None, error="KeyError", route=None, seconds=0.01, started=1.0)

    def order(**parameters: Any) -> list[str]:
        return re.findall(r'session\?id=(\w+)"', html(call(app, **parameters)))

    assert order() == order(sort="seconds") == ["id1", "id0", "id2", "broken"]
    assert order(sort="started") == ["id2", "id1", "id0", "broken"]
    assert order(sort="path") == ["broken", "id2", "id1", "id0"]
    assert order(limit=2) == ["id1", "id0"]
    text = html(call(app, limit=3))
    assert "1 more are not shown." in text and "All 4 together" in text
    assert "2023-11-14 22:13:20" in text and "500.0 ms" in text and "here/1" in text
    assert "KeyError" in html(call(app))
    state = body(call(app, "/sessions.json"))
    assert [one["id"] for one in state["sessions"]] == ["id1", "id0", "id2", "broken"]
    assert state["workers"] == [
        {"worker": "here/1", "on": False, "sessions": 4, "bytes": kept.state()["bytes"], "dropped": 0}
    ]


def test_delete(app: Any) -> None:
    for number in range(3):
        session(f"id{number}")
    assert call(app, method="POST", form={"delete": "id1"}).status == 303
    assert [head["id"] for head in kept.heads()] == ["id0", "id2"]
    assert "'id1'" in message(call(app, delete="id1"), 404)
    assert call(app, method="POST", form={"delete": "all"}).status == 303
    assert kept.heads() == []


@pytest.mark.parametrize("path", ["/session", "/speedscope", "/text"])
def test_one_that_is_gone(app: Any, path: str) -> None:
    assert "'nobody'" in message(call(app, path, id="nobody"), 404)


def test_one_request(world: FakeBroadcast, tmp_path: Path) -> None:
    app = make(tmp_path, **{"c2c.profiler_modules": "pa.hot pb"})
    text = html(call(app, "/session", id=session()))
    assert "<h1>GET /tiles</h1>" in text
    for fact in ("tiles (/tiles)", "here/1, thread MainThread", "r-1", "301.0 ms", "2, of 300.0 ms"):
        assert fact in text
    pie = re.findall(r"<g><title>([^<]*)</title><(?:path|circle)", text)
    assert pie == ["pa.hot: 66.7%", "pb: 33.3%"]
    flame = re.findall(
        r'<g><title>(\w+)\n([^<\n]*)\n([^<]*)</title><rect class="(k\d)" x="(\d+)" y="(\d+)" width="(\d+)"', text
    )
    assert [(box[0], *box[3:]) for box in flame] == [
        ("hot", "k0", "0", "0", "800"),
        ("warm", "k1", "800", "0", "400"),
    ]
    assert flame[0][1:3] == ("/app/pa/hot.py:5", "200.0 ms, 66.7% (own: 200.0 ms)")
    tree = re.sub(r"<[^>]*>", " ", text.partition('<div class="tree">')[2])
    assert re.findall(r"([\d.]+ ms) +([\d.]+%) +(\w+)", tree)[:3] == [
        ("300.0 ms", "100.0%", "view"),
        ("200.0 ms", "66.7%", "hot"),
        ("100.0 ms", "33.3%", "warm"),
    ]
    assert f'href="{HOME}/speedscope?id=one"' in text and f'href="{HOME}/text?id=one"' in text


def test_many_together(app: Any) -> None:
    session("a")
    session("b", route="other")
    session("c", route=None)
    assert "<dd>3</dd>" in (text := html(call(app, "/session"))) and "900.0 ms" in text
    text = html(call(app, "/session", route="tiles"))
    assert "Requests of tiles" in text and "<dd>1</dd>" in text and f'href="{HOME}/text?route=tiles"' in text
    assert "<dd>1</dd>" in html(call(app, "/session", route=""))


def test_one_without_samples(app: Any) -> None:
    head = {**kept.heads()[0], "id": "quick"} if session() and kept.heads() else {}
    kept.add(head, Tree())
    assert "There is none" in html(call(app, "/session", id="quick"))
    assert call(app, "/text", id="quick").status == 200
    assert call(app, "/speedscope", id="quick").status == 200


def test_downloads(app: Any) -> None:
    session()
    answer = call(app, "/speedscope", id="one")
    assert answer.header("Content-Disposition") == 'attachment; filename="profile-one.speedscope.json"'
    file = body(answer)
    check_speedscope(file)
    assert file["name"] == "GET /tiles" and file["profiles"][0]["endValue"] == 0.3
    session("two")
    together = body(call(app, "/speedscope"))
    assert together["name"] == "2 requests" and together["profiles"][0]["endValue"] == 0.6
    answer = call(app, "/text", id="one")
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"
    assert "0.200 hot" in answer.body.decode() and "GET /tiles" in answer.body.decode()


def test_all_of_it_is_text(app: Any) -> None:
    """A path, a route, a function or a thread may be named by who does us harm."""
    session("evil", name=EVIL, path=f"/{EVIL}", route=EVIL, pattern=EVIL, thread=EVIL, error=EVIL, request_id=EVIL)
    pages = [call(app), call(app, "/session", id="evil"), call(app, "/session"), call(app, "/session", route=EVIL)]
    for answer in pages:
        text = html(answer)
        assert "<script" not in text and "&lt;script&gt;" in text
    assert "/tiles" not in html(pages[0])


def test_who_does_not_answer_is_named(app: Any, world: FakeBroadcast) -> None:
    session()
    world.missing = ("other/7",)
    assert "No answer from other/7." in html(call(app))
    assert body(call(app, "/sessions.json"))["missing"] == ["other/7"]
    assert "other/7" in html(call(app, "/session"))


def test_what_fails_in_one_worker_is_not_everybodys(app: Any, world: FakeBroadcast) -> None:
    session()
    world.callbacks["c2c_profiler"] = lambda **params: {"status": 500, "message": "planted"}
    assert "No answer from here/1." in html(call(app))


# -- drawings ---------------------------------------------------------------------------------------------------------


def deep(depth: int, width: int = 2) -> Tree:
    """Each function calls the next one, and others."""
    tree = Tree()
    for level in range(1, depth):
        for number in range(width):
            names = [f"f{one}" for one in range(level)] + [f"g{number}"]
            tree.add([f"{name}\x00/app/{name}.py\x001" for name in names], 1.0)
    tree.name_frames(lambda file: "")
    return tree


def test_big_trees_make_bounded_pages() -> None:
    tree = deep(110)
    packages = ["x"] * len(tree)
    text = call_tree(tree, packages, ())
    Checked().feed(text)
    assert "see the downloads" in text and 70 < text.count("<details") <= 81
    flame = profiler_svg.flame(tree, packages, {"x": 0})
    Checked().feed(flame)
    assert 100 < flame.count("<rect") <= 300
    wide = Tree()
    for number in range(3000):
        wide.add([f"a{number}\x00/a.py\x001"], 1.0)
    wide.name_frames(lambda file: "a")
    text = call_tree(wide, ["x"] * 3000, ())
    assert len(text) < 2000 and "3000 more" in text
    assert profiler_svg.flame(wide, ["x"] * 3000, {}).count("<rect") == 0


def test_settings_of_the_profiler() -> None:
    given = {"C2C_PROFILER_MODULES": " myapp  myapp.db,json ", "C2C_PROFILER_PATH": "profiler/"}
    made = Settings.load(given)
    assert made.profiler_modules == ("myapp", "myapp.db", "json") and made.profiler_path == "/profiler"
    for name, wrong in (
        ("C2C_PROFILER_MODULES", "my-app"),
        ("C2C_PROFILER_MODULES", "a..b"),
        ("C2C_PROFILER_INTERVAL_SECONDS", "0"),
        ("C2C_PROFILER_INTERVAL_SECONDS", "2"),
        ("C2C_PROFILER_MAX_SESSIONS", "0"),
    ):
        with pytest.raises(ConfigurationError, match=name):
            Settings.load({name: wrong})


def test_it_follows_the_application(world: FakeBroadcast, tmp_path: Path) -> None:
    """All of it together: on, a request, its page."""
    app = make(tmp_path)
    assert call(app, enable=1).status == 303
    assert kit.get(app, "/nothing").status == 404
    (head,) = kept.heads()
    assert (head["path"], head["status"]) == ("/nothing", 404)
    assert "<h1>GET /nothing</h1>" in html(call(app, "/session", id=head["id"]))
    assert len(kept.heads()) == 1
