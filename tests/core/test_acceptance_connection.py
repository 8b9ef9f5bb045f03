"""`Connection` against a real server: what it sends, what it takes, what it refuses, and how it says so."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel.acceptance.connection import CacheExpected, Connection, check_response
from tests.acceptance_kit import GOOD, NO_CACHE, OPEN, Answer, Asked, Fake, serving

ORIGIN = "https://shop.example.com"


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving() as fake:
        yield fake


@pytest.fixture
def api(fake: Fake) -> Iterator[Connection]:
    with Connection(fake.url, ORIGIN) as connection:
        yield connection


def echo(asked: Asked) -> Answer:
    body = asked.body.decode() if "multipart" not in asked.headers.get("Content-Type", "") else len(asked.body)
    return 200, GOOD, json.dumps([asked.method, asked.path, body]).encode()


# -- what it sends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["get", "post", "put", "patch"])
def test_verbs_for_text(api: Connection, fake: Fake, verb: str) -> None:
    fake.answers["/a/b"] = echo
    body = {} if verb == "get" else {"data": "x"}
    assert getattr(api, verb)("a/b", **body) == json.dumps([verb.upper(), "/a/b", body.get("data", "")])


@pytest.mark.parametrize("verb", ["get", "post", "put", "patch"])
def test_verbs_for_json(api: Connection, fake: Fake, verb: str) -> None:
    fake.answers["/a"] = echo
    body = {} if verb == "get" else {"json": {"value": 1}}
    sent = "" if verb == "get" else '{"value": 1}'
    assert getattr(api, f"{verb}_json")("a", **body) == [verb.upper(), "/a", sent]


def test_delete_head_and_raw(api: Connection, fake: Fake) -> None:
    fake.answers["/gone"] = (204, {**NO_CACHE, **OPEN}, b"")
    fake.answers["/a"] = (200, GOOD, b"[]")
    assert api.delete("gone").status_code == 204
    head = api.head("a")
    assert (head.headers["Content-Length"], head.content) == ("2", b"")
    assert api.get_raw("a").content == b"[]"
    assert [asked.method for asked in fake.asked] == ["DELETE", "HEAD", "GET"]


def test_head_does_not_follow_a_redirect(api: Connection, fake: Fake) -> None:
    fake.answers["/old"] = (302, {**GOOD, "Location": "/new"}, b"")
    fake.answers["/new"] = (200, GOOD, b"")
    assert api.head("old", 302).headers["Location"] == "/new"
    assert api.get("old") == ""
    assert api.get_raw("old", 302, allow_redirects=False).status_code == 302


def test_files_and_fields_are_posted(api: Connection, fake: Fake) -> None:
    fake.answers["/up"] = (200, GOOD, b'{"ok": true}')
    assert api.post_files("up", files={"map": ("map.gpx", b"<gpx/>")}, data={"name": "tour"}) == {"ok": True}
    asked = fake.asked[0]
    assert asked.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert b'name="map"; filename="map.gpx"' in asked.body
    assert b"<gpx/>" in asked.body
    assert b'name="name"\r\n\r\ntour\r\n' in asked.body


@pytest.mark.parametrize("verb", ["get", "get_json", "get_xml", "post", "post_json", "post_files", "put", "put_json"])
def test_no_content_is_none(api: Connection, fake: Fake, verb: str) -> None:
    fake.answers["/empty"] = (204, {**NO_CACHE, **OPEN}, b"")
    assert getattr(api, verb)("empty", expected_status=204) is None


@pytest.mark.parametrize("verb", ["patch", "patch_json"])
def test_no_content_of_a_patch_is_none(api: Connection, fake: Fake, verb: str) -> None:
    fake.answers["/empty"] = (204, {**NO_CACHE, **OPEN}, b"")
    assert getattr(api, verb)("empty", (200, 204)) is None


def test_urls_are_relative_to_the_base(fake: Fake) -> None:
    for path in ("/base/", "/base/a", "/base/a?b=c"):
        fake.answers[path.partition("?")[0]] = echo
    with Connection(f"{fake.url}base", ORIGIN) as api:
        for url in ("", "a", "/a", f"{fake.url}base/a", "a?b=c"):
            api.get(url)
        api.get("a", params={"b": "c d"})
    paths = [asked.path for asked in fake.asked]
    assert paths == ["/base/", "/base/a", "/base/a", "/base/a", "/base/a?b=c", "/base/a?b=c+d"]


def test_a_path_with_an_address_in_it_is_a_path(api: Connection, fake: Fake) -> None:
    fake.answers["/proxy"] = echo
    api.get("proxy?url=http://elsewhere.example/x")
    assert fake.asked[0].path == "/proxy?url=http://elsewhere.example/x"


def test_headers_of_the_request_and_of_the_session(api: Connection, fake: Fake) -> None:
    fake.answers["/"] = (200, GOOD, b"")
    api.session.headers["X-API-Key"] = "always"
    api.get("", headers={"User-Agent": "mine", "X-Once": "1"})
    api.get("", cors=False)
    api.get("", headers={"origin": "https://other.example"})
    first, second, third = (asked.headers for asked in fake.asked)
    assert (first["User-Agent"], first["X-Once"], first["X-API-Key"], first["Origin"]) == (
        "mine",
        "1",
        "always",
        ORIGIN,
    )
    assert "Origin" not in second
    assert "X-Once" not in second
    assert [value for name, value in third.items() if name.lower() == "origin"] == ["https://other.example"]


def test_a_session_keeps_cookies_and_its_connection(api: Connection, fake: Fake) -> None:
    fake.answers["/login"] = (200, {**GOOD, "Set-Cookie": "who=me; Path=/"}, b"")
    fake.answers["/a"] = echo
    api.post("login")
    for _ in range(5):
        api.get("a")
    assert {asked.headers.get("Cookie") for asked in fake.asked[1:]} == {"who=me"}
    assert len(fake.peers) == 1


def test_threads_share_one_connection_object(api: Connection, fake: Fake) -> None:
    together = threading.Barrier(8)
    fake.answers["/n"] = echo

    def ask(number: int) -> bool:
        if number < 8:
            together.wait(10)
        return api.post_json("n", json=number) == ["POST", "/n", str(number)]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))
    assert len(fake.asked) == 200
    assert len(fake.peers) < 50  # eight would do, but one that fails to be reused is not what is tested


def test_there_is_always_a_timeout(fake: Fake) -> None:
    ask = threading.Event()
    fake.answers["/slow"] = lambda asked: (ask.wait(20), (200, GOOD, b""))[1]
    with Connection(fake.url, ORIGIN, timeout=0.05) as api:
        with pytest.raises(requests.exceptions.Timeout):
            api.get("slow")
        with pytest.raises(requests.exceptions.Timeout):
            api.get("slow", timeout=0.06)
    ask.set()
    assert Connection(fake.url, ORIGIN).timeout == 60


def test_this_machine_is_not_asked_through_a_proxy(
    api: Connection, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    fake.answers["/"] = (200, GOOD, b"direct")
    assert api.get("") == "direct"
    with pytest.raises(requests.exceptions.ProxyError):
        api.get("http://service.example/")


# -- what it refuses --------------------------------------------------------------------------------------------------


def failure(api: Connection, url: str = "a", verb: str = "get", **options: object) -> str:
    with pytest.raises(AssertionError) as caught:
        getattr(api, verb)(url, **options)
    return str(caught.value)


def test_another_status_shows_what_was_asked_and_answered(api: Connection, fake: Fake) -> None:
    fake.answers["/a"] = (500, GOOD, b'{"message": "the cat is on the table"}')
    said = failure(api, "a?b=c", "put_json", json={})
    assert said == (
        f'PUT {fake.url}a?b=c: 500 Internal Server Error; expected 200\n{{"message": "the cat is on the table"}}'
    )
    assert "expected 200 or 404" in failure(api, expected_status=(200, 404))
    api.get("a", (500, 503))
    api.get("a", [500])


def test_long_and_binary_bodies_are_cut(api: Connection, fake: Fake) -> None:
    fake.answers["/a"] = (500, {"Content-Type": "text/plain; charset=utf-8"}, "é".encode() * 5000)
    said = failure(api)
    assert said.endswith("é" * 1000 + "...")
    assert "é" * 1001 not in said
    fake.answers["/a"] = (500, {"Content-Type": "image/png"}, b"\x89PNG")
    assert failure(api).endswith("\n4 bytes of image/png")
    fake.answers["/a"] = (500, {}, b"")
    assert failure(api).endswith("\nno body")


def test_secrets_are_not_shown(api: Connection, fake: Fake) -> None:
    fake.answers["/a"] = (403, GOOD, b"{}")
    said = failure(api, "a?secret=cat-on-the-table")
    assert "secret=***" in said
    assert "cat-on" not in said


@pytest.mark.parametrize(
    ("header", "no", "yes"),
    [
        (None, False, False),
        ("no-cache", True, False),
        ("max-age=0, must-revalidate, no-cache, no-store", True, False),
        ("No-Cache", True, False),
        ("max-age=0,NO-CACHE", True, False),
        ("no-cachex", False, False),
        ("max-age=0", False, False),
        ("max-age=00", False, False),
        ("max-age=10", False, True),
        ("public, Max-Age=010", False, True),
        ("max-age=10, no-cache", True, False),
        ("max-age=10, no-store", False, False),
        ("max-age=-5", False, False),
        ("x-max-age=5", False, False),
        ("", False, False),
    ],
)
def test_what_is_said_of_caching(api: Connection, fake: Fake, header: str | None, no: bool, yes: bool) -> None:
    fake.answers["/a"] = (200, {**OPEN, **({} if header is None else {"Cache-Control": header})}, b"text")
    for expected, good in {CacheExpected.NO: no, CacheExpected.YES: yes, CacheExpected.DONT_CARE: True}.items():
        if good:
            assert api.get("a", cache_expected=expected) == "text"
        else:
            said = failure(api, cache_expected=expected)
            assert f"CacheExpected.{expected.name}" in said
            assert f"not {header!r}\ntext" in said
    if no:
        api.get("a")
    else:
        failure(api)


@pytest.mark.parametrize(
    ("origin", "credentials", "good"),
    [
        ("*", None, True),
        ("*", "false", True),
        ("*", "true", False),
        ("*", "TRUE ", False),
        (ORIGIN, "true", True),
        (ORIGIN, None, True),
        ("https://other.example.com", None, False),
        ("https://other.example.com", "true", False),
        ("", None, False),
        (None, None, False),
        (None, "true", False),
        ("null", None, False),
        (f"{ORIGIN}/", None, False),
    ],
)
def test_cors_as_a_browser_sees_it(
    api: Connection, fake: Fake, origin: str | None, credentials: str | None, good: bool
) -> None:
    headers = {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": credentials}
    fake.answers["/a"] = (
        200,
        {**NO_CACHE, **{name: value for name, value in headers.items() if value is not None}},
        b"",
    )
    api.get("a", cors=False)
    if good:
        api.get("a")
        assert fake.asked[-1].headers["Origin"] == ORIGIN
    else:
        said = failure(api)
        assert f"not {origin!r} (cors=False: not checked)" in said
        assert repr(ORIGIN) in said


def test_cors_is_checked_for_the_origin_that_was_sent(api: Connection, fake: Fake) -> None:
    other = "https://other.example.com"
    fake.answers["/a"] = (200, {**NO_CACHE, "Access-Control-Allow-Origin": other}, b"")
    for name, value in (("origin", other), ("Origin", other.encode())):
        api.get("a", headers={name: value})
    assert repr(ORIGIN) in failure(api)


def test_what_holds_for_a_connection_holds_for_each_request_that_does_not_say_otherwise(fake: Fake) -> None:
    fake.answers["/a"] = (200, {}, b"")
    with Connection(fake.url, ORIGIN, cors=False, cache_expected=CacheExpected.DONT_CARE) as api:
        api.get("a")
        assert "Allow-Origin" in failure(api, cors=True)
        assert "Cache-Control" in failure(api, cache_expected=CacheExpected.NO)


def test_a_preflight(api: Connection, fake: Fake) -> None:
    fake.answers["/a"] = (200, {**OPEN, "Cache-Control": "max-age=86400"}, b"")
    api.options("a", cache_expected=CacheExpected.YES)
    api.options("a", headers={"Access-Control-Request-Method": "PUT"}, cache_expected=CacheExpected.YES)
    api.options("a", cors=False, cache_expected=CacheExpected.YES)
    one, two, three = (asked.headers for asked in fake.asked)
    assert (one["Access-Control-Request-Method"], one["Origin"]) == ("GET", ORIGIN)
    assert two["Access-Control-Request-Method"] == "PUT"
    assert "Access-Control-Request-Method" not in three


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=UTF-8", "application/geo+json"])
def test_types_of_json(api: Connection, fake: Fake, kind: str) -> None:
    fake.answers["/a"] = (200, {**GOOD, "Content-Type": kind}, b"[1]")
    assert api.get_json("a") == [1]


@pytest.mark.parametrize("kind", ["text/html", "application/jsonx", "text/json; x=application/json", ""])
def test_what_is_no_type_of_json(api: Connection, fake: Fake, kind: str) -> None:
    fake.answers["/a"] = (200, {**GOOD, "Content-Type": kind}, b"[1]")
    assert "expected Content-Type application/json, not" in failure(api, verb="get_json")


def test_broken_json(api: Connection, fake: Fake) -> None:
    fake.answers["/a"] = (200, GOOD, b"{]")
    said = failure(api, verb="get_json")
    assert "; expected JSON: " in said
    assert said.endswith("\n{]")


def test_a_streamed_answer_is_closed_when_it_is_refused(api: Connection, fake: Fake) -> None:
    fake.answers["/a"] = (500, GOOD, b"x" * 10)
    failure(api, verb="get_raw", stream=True)
    fake.answers["/a"] = (200, GOOD, b"x" * 10)
    with api.get_raw("a", stream=True) as answer:
        assert answer.raw.read(3) == b"xxx"


# -- XML --------------------------------------------------------------------------------------------------------------

SCHEMA = """\
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <xs:element name="tour"><xs:complexType><xs:sequence>
    <xs:element name="km" type="xs:decimal" maxOccurs="unbounded"/>
  </xs:sequence></xs:complexType></xs:element>
</xs:schema>
"""


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    (tmp_path / "tour.xsd").write_text(SCHEMA)
    return tmp_path / "tour.xsd"


def test_xml_with_and_without_a_schema(api: Connection, fake: Fake, schema: Path) -> None:
    fake.answers["/t"] = (200, {**GOOD, "Content-Type": "text/xml"}, b"<?xml version='1.0'?><tour><km>7.5</km></tour>")
    for tour in (api.get_xml("t"), api.get_xml("t", schema), api.get_xml("t", schema=str(schema))):
        assert [km.text for km in tour.getroot().iterfind("km")] == ["7.5"]


def test_xml_that_is_not_valid(api: Connection, fake: Fake, schema: Path) -> None:
    body = b"<tour>\n" + b"<km>far</km>\n" * 7 + b"</tour>"
    fake.answers["/t"] = (200, {**GOOD, "Content-Type": "text/xml"}, body)
    api.get_xml("t")
    said = failure(api, "t", "get_xml", schema=schema)
    assert f"not valid for {schema}: line 2: " in said
    assert "'far'" in said
    assert said.count("'far'") == 5
    assert "; 2 more\n" in said
    fake.answers["/t"] = (200, {**GOOD, "Content-Type": "text/xml"}, b"<tour>")
    assert "; expected XML: " in failure(api, "t", "get_xml")


def test_xml_does_not_read_files(api: Connection, fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("private text")
    body = f'<!DOCTYPE t [<!ENTITY f SYSTEM "file://{tmp_path}/private">]><t>&f;</t>'.encode()
    fake.answers["/t"] = (200, {**GOOD, "Content-Type": "text/xml"}, body)
    try:
        text = "".join(api.get_xml("t").getroot().itertext())
    except AssertionError as error:
        text = str(error)
    assert "private text" not in text


# -- properties, libraries that are missing ---------------------------------------------------------------------------


@given(st.text(max_size=40))
def test_any_cache_control_is_judged(text: str) -> None:
    response = requests.Response()
    response.status_code, response._content = 200, b""
    response.request = requests.Request("GET", "http://a/").prepare()
    response.headers["Cache-Control"] = text
    judged = set()
    for expected in (CacheExpected.NO, CacheExpected.YES):
        try:
            check_response(response, 200, expected)
            judged.add(expected)
        except AssertionError:
            pass
    assert len(judged) < 2


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
try:
    {code}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("blocked", "code", "who"),
    [
        ("requests", "import c2c_otel.acceptance.connection", "c2c_otel.acceptance.connection needs requests"),
        ("requests", "import c2c_otel.acceptance.print", "c2c_otel.acceptance.connection needs requests"),
        ("requests", "from c2c_otel.acceptance import utils; utils.wait_url('')", "wait_url needs requests"),
        ("pytest", "from c2c_otel.acceptance import utils; utils.approx(1.0)", "approx needs pytest"),
        ("pytest", "from c2c_otel.acceptance.utils import skipIfCI", "skipIfCI needs pytest"),
        ("PIL", "import c2c_otel.acceptance.images", "c2c_otel.acceptance.images needs PIL"),
    ],
)
def test_a_missing_library_is_named_with_the_command(blocked: str, code: str, who: str) -> None:
    said = run(BLOCKED.format(blocked=[blocked], code=code))
    assert said == f"{who}. Run: pip install 'c2c-otel[acceptance]'\n"


def test_lxml_and_playwright_are_needed_by_their_functions_alone(fake: Fake) -> None:
    fake.answers["/t"] = (200, {**GOOD, "Content-Type": "text/xml"}, b"<t/>")
    code = f"from c2c_otel.acceptance.connection import Connection; Connection({fake.url!r}, 'x').get_xml('t')"
    said = run(BLOCKED.format(blocked=["lxml"], code=code))
    assert said == "Connection.get_xml needs lxml. Run: pip install 'c2c-otel[acceptance]'\n"
    code = "from c2c_otel.acceptance import images; images.check_screenshot('', '.', 'x.png')"
    said = run(BLOCKED.format(blocked=["playwright"], code=code))
    assert said == "check_screenshot needs playwright. Run: pip install playwright && playwright install chromium\n"


def test_what_pytest_loads_is_light() -> None:
    code = """
        import sys, c2c_otel.acceptance.pytest_plugin
        print(sorted({"requests", "lxml", "PIL", "playwright"} & set(sys.modules)))
        """
    assert run(textwrap.dedent(code)) == "[]\n"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
