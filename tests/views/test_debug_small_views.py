"""debug/sleep, debug/headers, debug/error, debug/time and versions.json: what they answer, and to whom."""

from __future__ import annotations

import ipaddress
import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPError, status_map
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response

from c2c_otel.settings import Settings
from c2c_otel_views import debug_headers, debug_sleep
from tests import pyramid_kit as kit
from tests.pyramid_kit import Answer, assert_left_nothing, get

SECRET = "s3cret-of-the-service"
ERRORS = sorted(status for status, kind in status_map.items() if issubclass(kind, HTTPError) and 400 <= status < 600)


_clients = itertools.count(1)


@pytest.fixture(autouse=True)
def own_address(monkeypatch: Any) -> str:
    """Each test is a client of its own: wrong secrets are counted for each."""
    environ, address = kit.environ, str(ipaddress.ip_address("198.18.4.0") + next(_clients))

    def with_address(path: str = "/", method: str = "GET", **more: Any) -> dict[str, Any]:
        return environ(path, method, **{"REMOTE_ADDR": address, **more})

    monkeypatch.setattr(kit, "environ", with_address)
    return address


@pytest.fixture(autouse=True)
def fake(monkeypatch: Any) -> Any:
    yield kit.install(monkeypatch)
    assert_left_nothing()


def make(debug: Any = 1, secret: str | None = SECRET, **settings: Any) -> Any:
    ini = {f"c2c.{name}": str(value) for name, value in settings.items()}
    if secret is not None:
        ini["c2c.secret"] = secret
    config = Configurator(settings={**ini, "c2c.debug_view_enabled": str(debug)})
    config.include("c2c_otel")
    return config.make_wsgi_app()


def ask(path: str, app: Any = None, **headers: Any) -> Answer:
    return get(app or make(), f"/c2c/debug/{path}", **{"HTTP_X_API_KEY": SECRET, **headers})


def refusal(answer: Answer) -> str:
    """What a 400 says."""
    assert answer.status == 400
    assert (answer.header("Content-Type") or "").startswith("application/json")
    assert "no-store" in (answer.header("Cache-Control") or "")
    body = json.loads(answer.body)
    assert body["status"] == 400
    return str(body["message"])


# -- who may, and where they are ---------------------------------------------------------------------------------------

PATHS = ["/c2c/debug/sleep?time=0", "/c2c/debug/headers", "/c2c/debug/error?status=404"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("options", [{"debug": 0}, {"secret": None}, {"secret": ""}])
def test_none_without_flag_or_secret(path: str, options: Any) -> None:
    answer = get(make(**options), path, HTTP_X_API_KEY=SECRET)
    assert answer.status == 404
    assert b"message" not in answer.body  # the application's own 404: there is no view of ours


@pytest.mark.parametrize("path", PATHS)
def test_closed_without_the_secret(path: str) -> None:
    app = make()
    for headers in ({}, {"HTTP_X_API_KEY": "wrong"}):
        answer = get(app, path, **headers)
        assert answer.status == 403
        assert json.loads(answer.body)["status"] == 403
    assert get(app, path, HTTP_X_API_KEY=SECRET).status in (200, 204, 404)
    assert get(app, f"{path}{'&' if '?' in path else '?'}secret={SECRET}").status in (200, 204, 404)


@pytest.mark.parametrize("path", PATHS)
def test_other_methods(path: str) -> None:
    answer = get(make(), path, "POST", HTTP_X_API_KEY=SECRET)
    assert (answer.status, answer.header("Allow")) == (405, "GET, HEAD")


@pytest.mark.parametrize("traversal", [False, True])
def test_unknown_paths_are_a_404(traversal: bool) -> None:
    """Also where the application has traversal views, but none that is found there."""
    config = Configurator(settings={"c2c.secret": SECRET, "c2c.debug_view_enabled": "1"}, root_factory=lambda _: {})
    config.include("c2c_otel")
    if traversal:
        config.add_view(lambda context, request: Response("root"), context=dict)
    app = config.make_wsgi_app()
    paths = ("/c2c/unknown", "/c2c/debug", "/c2c/debug/", "/c2c/debug/sleep/", "/c2c/debug/sleep/x", "/c2c//", "/c2cx")
    for path in paths:
        assert get(app, path, HTTP_X_API_KEY=SECRET).status == 404, path
    assert get(app, "/c2c").status == 200


# -- debug/sleep -------------------------------------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch: Any) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(debug_sleep.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("60.2", 60.2), ("300", 300), ("1e1", 10), (".5", 0.5)])
def test_sleep(slept: list[float], text: str, seconds: float) -> None:
    answer = ask(f"sleep?time={text}")
    assert (answer.status, answer.body) == (204, b"")
    assert slept == [seconds]
    assert answer.header("Content-Type") is None
    assert "no-store" in (answer.header("Cache-Control") or "")


def test_sleep_really_waits() -> None:
    before = time.monotonic()
    assert ask("sleep?time=0.05").status == 204
    assert time.monotonic() - before >= 0.05


@pytest.mark.parametrize("value", ["", "x", "-1", "-0.001", "300.1", "1e9", "nan", "inf", "-inf", "0x10"])
def test_sleep_refuses(slept: list[float], value: str) -> None:
    said = refusal(ask(f"sleep?time={value}"))
    assert said == f"time is {value!r}; expected a number of seconds from 0 to 300."
    assert slept == []


def test_sleep_needs_a_time(slept: list[float]) -> None:
    assert refusal(ask("sleep")) == "time is missing; expected a number of seconds from 0 to 300."
    assert "2 times" in refusal(ask("sleep?time=1&time=2"))
    assert slept == []


def test_only_a_few_sleep_at_once(monkeypatch: Any) -> None:
    """The others are told so at once; afterwards there is room again."""
    asleep, wake = threading.Semaphore(0), threading.Event()

    def sleep(seconds: float) -> None:
        asleep.release()
        assert wake.wait(30)

    monkeypatch.setattr(debug_sleep.time, "sleep", sleep)
    app = make()
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(ask("sleep?time=1", app).status))
        for _ in range(debug_sleep.AT_ONCE)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert asleep.acquire(timeout=30)
    answer = ask("sleep?time=1", app)
    assert (answer.status, answer.header("Retry-After")) == (503, "1")
    assert json.loads(answer.body)["status"] == 503
    wake.set()
    for thread in threads:
        thread.join(30)
    assert statuses == [204] * debug_sleep.AT_ONCE
    assert ask("sleep?time=1", app).status == 204


# -- debug/error -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ERRORS)
def test_error(status: int) -> None:
    answer = ask(f"error?status={status}")
    assert answer.status == status
    assert json.loads(answer.body) == {"message": "Test", "status": status}
    assert "no-store" in (answer.header("Cache-Control") or "")


def test_there_are_errors() -> None:
    assert {400, 403, 404, 418, 429, 500, 502, 503, 504} <= set(ERRORS)


@pytest.mark.parametrize(
    "value", ["", "200", "302", "399", "499", "600", "520", "0", "-404", "404.0", "4o4", "%d9%a4%d9%a0%d9%a4", "0404"]
)
@pytest.mark.parametrize("view", ["error", "headers"])
def test_no_such_error(view: str, value: str) -> None:
    said = refusal(ask(f"{view}?status={value}"))
    assert said.startswith("status is ") and said.endswith(
        "; expected the status of an HTTP error, such as 404 or 503."
    )


def test_error_needs_a_status() -> None:
    assert refusal(ask("error")).startswith("status is missing; expected the status of an HTTP error")


# -- debug/headers -----------------------------------------------------------------------------------------------------


def test_headers(own_address: str) -> None:
    answer = ask(
        "headers",
        HTTP_ACCEPT_LANGUAGE="de",
        HTTP_HOST="shop.example.com:8443",
        CONTENT_TYPE="text/plain",
        **{"wsgi.url_scheme": "https"},
    )
    assert answer.status == 200
    body = json.loads(answer.body)
    assert body == {
        "headers": {
            "Accept-Language": "de",
            "Content-Type": "text/plain",
            "Host": "shop.example.com:8443",
            "X-Api-Key": "***",
        },
        "client_info": {
            "client_addr": own_address,
            "host": "shop.example.com:8443",
            "host_port": "8443",
            "http_version": "HTTP/1.1",
            "path": "/c2c/debug/headers",
            "path_info": "/c2c/debug/headers",
            "remote_addr": own_address,
            "remote_host": None,
            "scheme": "https",
            "server_name": "localhost",
            "server_port": 80,
        },
    }
    assert SECRET.encode() not in answer.body


def test_headers_with_a_status_are_the_message_of_that_error() -> None:
    answer = ask("headers?status=502", HTTP_ACCEPT="x/y")
    assert answer.status == 502
    body = json.loads(answer.body)
    assert body["status"] == 502
    dump = json.loads(body["message"])
    assert dump["headers"]["Accept"] == "x/y"
    assert dump["client_info"]["path"] == "/c2c/debug/headers"
    assert SECRET not in body["message"]


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Set-Cookie",
        "X-API-Key",
        "X-Amz-Security-Token",
        "X-Auth-User",
        "X-CSRF-Token",
        "X-Client-Secret",
        "X-Goog-IAP-JWT-Assertion",
        "X-Hub-Signature-256",
        "X-Password",
        "X-Session-Id",
        "X-Amzn-Oidc-Data",
    ],
)
def test_headers_whose_name_is_a_secret_s(name: str) -> None:
    value = "value-of-it"
    answer = ask("headers", **{f"HTTP_{name.upper().replace('-', '_')}": value, "HTTP_X_API_KEY": SECRET})
    assert value.encode() not in answer.body
    assert json.loads(answer.body)["headers"][name.title()] == "***"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("https://shop/?a=1&secret=abc&b=2", "https://shop/?a=1&secret=REDACTED&b=2"),
        ("/c2c?SECRET=abc#here", "/c2c?SECRET=REDACTED#here"),
        ("/x?api%4bey=abc", "/x?api%4bey=REDACTED"),
        ("https://me:abc@shop/a", "https://***@shop/a"),
        ("Bearer abc", "***"),
        ("basic YWJjOmRlZg==", "***"),
        ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.abc", "***"),
        (f"prefix-{SECRET}-suffix", "prefix-***-suffix"),
        ("text/html;q=0.9, */*?", "text/html;q=0.9, */*?"),
        ("", ""),
    ],
)
def test_values_that_hold_a_secret(value: str, shown: str) -> None:
    answer = ask("headers", HTTP_REFERER=value, HTTP_X_ORIGINAL_URI=value)
    headers = json.loads(answer.body)["headers"]
    assert headers["Referer"] == headers["X-Original-Uri"] == shown


@given(st.text(alphabet=st.characters(max_codepoint=255)), st.text(alphabet=st.characters(max_codepoint=255)))
def test_no_header_shows_the_service_s_secret(before: str, after: str) -> None:
    for name in ("Referer", "X-Anything", "Host"):
        assert SECRET not in debug_headers.masked(name, f"{before}{SECRET}{after}", SECRET)


@given(st.binary(max_size=60))
def test_any_bytes_in_a_header(value: bytes) -> None:
    """A server hands bytes on as latin-1; whatever they are, the answer is JSON."""
    text = value.decode("latin-1")
    request = Request(kit.environ("/c2c/debug/headers", HTTP_X_ANY=text))
    request.registry = Registry("test")
    request.registry.c2c_settings = Settings(secret=SECRET)
    body = json.loads(debug_headers.debug_headers(request).body)
    assert body["headers"]["X-Any"] == debug_headers.masked("X-Any", text)


# -- versions.json -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"",
        b"\xff\xfe\x00",
        b'{"a": "\\ud800"}',
        b'{"a": 123456789012345678901234567890}',
        b"[" * 2000 + b"]" * 2000,
    ],
)
def test_versions_that_cannot_be_shown_have_no_route_and_are_said(tmp_path: Path, caplog: Any, content: bytes) -> None:
    path = tmp_path / "versions.json"
    path.write_bytes(content)
    assert get(make(versions_file=path), "/c2c/versions.json").status == 404
    said = [message for message in caplog.messages if "versions.json is not served" in message]
    assert len(said) == 1 and str(path) in said[0]


def test_versions_that_are_a_directory(tmp_path: Path, caplog: Any) -> None:
    assert get(make(versions_file=tmp_path), "/c2c/versions.json").status == 404
    assert "versions.json is not served" in caplog.text


def test_versions_are_those_of_the_start(tmp_path: Path) -> None:
    path = tmp_path / "versions.json"
    path.write_text('{"main": {"git_hash": "abc"}, "packages": {}}')
    app = make(versions_file=path)
    path.unlink()
    answer = get(app, "/c2c/versions.json")
    assert (answer.status, answer.header("Content-Type")) == (200, "application/json")
    assert answer.body == b'{\n  "main": {\n    "git_hash": "abc"\n  },\n  "packages": {}\n}'
    assert get(app, "/c2c/versions.json", "HEAD").body == b""
