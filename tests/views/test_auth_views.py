"""Which views are open, what closes them, and what it takes to change something."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response

from c2c_otel import admin, auth
from c2c_otel_views import answers
from tests.auth_kit import SECRET, Telemetry, cookie, fake, log_in, make, post
from tests.pyramid_kit import Answer, get

__all__ = ["fake"]

KEY = {"HTTP_X_API_KEY": SECRET}
OPEN = ("/metrics", "/c2c/stats.json", "/c2c/versions.json", "/c2c/debug/time")
RESET = "/c2c/stats.json?reset=1"


@pytest.fixture
def versions(tmp_path: Any) -> Any:
    path = tmp_path / "versions.json"
    path.write_text("{}")
    return path


def token_of(found: str) -> str:
    """What a page of ours puts into its forms."""

    def look(config: Configurator) -> None:
        config.add_route("token", "/token")
        config.add_view(lambda request: Response(auth.csrf_token(request)), route_name="token")

    return get(make(look), "/token", HTTP_COOKIE=found).body.decode()


def assert_is_error(answer: Answer, status: int, says: str) -> None:
    assert answer.status == status, answer.body
    body = json.loads(answer.body)
    assert body["status"] == status and re.search(says, body["message"]), body
    assert (answer.header("Content-Type") or "").startswith("application/json")
    assert "no-store" in (answer.header("Cache-Control") or "")


# -- what is open -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*OPEN, "/c2c", "/c2c/"])
@pytest.mark.parametrize("secret", [SECRET, None])
def test_open_views(fake: Telemetry, versions: Any, path: str, secret: str | None) -> None:
    answer = get(make(secret=secret, versions_file=versions), path)
    assert answer.status == 200
    assert answer.header("Referrer-Policy") == "no-referrer"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("X-Frame-Options") == "DENY"
    assert "no-store" in (answer.header("Cache-Control") or "")
    assert answer.all("Set-Cookie") == []


@pytest.mark.parametrize("path", OPEN)
def test_one_setting_closes_them(fake: Telemetry, versions: Any, path: str) -> None:
    app = make(versions_file=versions, open_views=0)
    assert_is_error(get(app, path), 403, "Missing or invalid secret")
    assert_is_error(get(app, path, HTTP_X_API_KEY="wrong"), 403, "Missing or invalid secret")
    assert get(app, path, **KEY).status == 200
    assert get(app, path, HTTP_AUTHORIZATION=f"Bearer {SECRET}").status == 200
    assert get(app, path, HTTP_COOKIE=log_in(app)).status == 200


def test_the_closed_index_offers_a_login_and_nothing_else(fake: Telemetry) -> None:
    app = make(open_views=0)
    answer = get(app, "/c2c")
    assert b'name="secret"' in answer.body
    assert b"stats.json" not in answer.body and b"/metrics" not in answer.body
    assert b"stats.json" in get(app, "/c2c", **KEY).body


@pytest.mark.parametrize("path", [*OPEN, "/c2c", "/c2c/"])
def test_closed_and_without_a_secret_there_is_nothing(fake: Telemetry, versions: Any, path: str) -> None:
    app = make(secret=None, versions_file=versions, open_views=0)
    assert get(app, path).status == 404
    assert get(app, path, HTTP_X_API_KEY="").status == 404


def test_a_protected_view_exists_with_its_flag_and_a_secret(fake: Telemetry) -> None:
    for secret, flag, expected in [(SECRET, 1, 403), (SECRET, 0, 404), (None, 1, 404), (None, 0, 404)]:
        assert get(make(secret=secret, debug_view_enabled=flag), "/c2c/debug/headers").status == expected


# -- errors -----------------------------------------------------------------------------------------------------------


def test_errors_are_json(fake: Telemetry) -> None:
    app = make()
    assert_is_error(get(app, "/c2c/debug/headers"), 403, "Missing or invalid secret")
    assert_is_error(get(app, "/c2c/debug/headers", "DELETE"), 405, "DELETE is not allowed")
    assert_is_error(get(app, "/c2c/debug/headers?a=%ff", **KEY), 400, "cannot be read; expected")
    assert_is_error(get(app, f"{RESET}&reset=0", **KEY), 400, "reset is given 2 times")
    assert_is_error(get(app, "/c2c/stats.json?reset=maybe", **KEY), 400, "reset is 'maybe'; expected one of 1")
    assert get(app, "/c2c/nowhere").status == 404


def test_headers_of_an_error_are_sent(fake: Telemetry, monkeypatch: Any) -> None:
    def elsewhere(request: Any) -> Any:
        raise HTTPFound("/there", headers=[("Retry-After", "5")])

    def include(config: Configurator) -> None:
        answers.add_view(config, "x", "/x", elsewhere)

    monkeypatch.setattr(admin, "VIEWS", (*admin.VIEWS, include))
    answer = get(make(), "/x")
    assert (answer.status, answer.header("Retry-After")) == (302, "5")
    assert (answer.header("Location") or "").endswith("/there")
    assert len(answer.all("Content-Type")) == len(answer.all("Content-Length")) == 1
    assert answer.header("Referrer-Policy") == "no-referrer"


# -- changes ----------------------------------------------------------------------------------------------------------


def resets(fake: Telemetry) -> int:
    found: int = fake.parts.scraper.resets
    return found


def test_a_reset_needs_the_secret(fake: Telemetry) -> None:
    app = make()
    assert_is_error(get(app, RESET), 403, "Missing or invalid secret")
    assert_is_error(post(app, RESET), 403, "Missing or invalid secret")
    assert get(app, "/c2c/stats.json?reset=0").status == 200
    assert resets(fake) == 0


@pytest.mark.parametrize("way", ["header", "parameter", "bearer", "form"])
def test_the_secret_changes_by_get_and_post(fake: Telemetry, way: str) -> None:
    app = make()
    if way == "form":
        assert post(app, "/c2c/stats.json", {"reset": "1", "secret": SECRET}).status == 200
    else:
        more = {"header": KEY, "bearer": {"HTTP_AUTHORIZATION": f"Bearer {SECRET}"}}.get(way, {})
        query = f"{RESET}&secret={SECRET.replace(' ', '+')}" if way == "parameter" else RESET
        assert get(app, query, **more).status == 200
    assert resets(fake) == 1


def test_the_cookie_changes_by_post_with_the_token_alone(fake: Telemetry) -> None:
    app = make()
    found = log_in(app)
    token = token_of(found)
    more = {"HTTP_COOKIE": found}
    assert_is_error(get(app, RESET, **more), 403, "by GET")
    assert_is_error(get(app, f"{RESET}&csrf_token={token}", **more), 403, "by GET")
    assert_is_error(get(app, RESET, HTTP_X_CSRF_TOKEN=token, **more), 403, "by GET")
    assert_is_error(post(app, "/c2c/stats.json", {"reset": "1"}, **more), 403, "csrf_token is missing")
    assert_is_error(post(app, f"{RESET}&csrf_token={token}", **more), 403, "csrf_token is missing")
    assert_is_error(post(app, "/c2c/stats.json", {"reset": "1", "csrf_token": ""}, **more), 403, "csrf_token")
    assert_is_error(post(app, "/c2c/stats.json", {"reset": "1", "csrf_token": token[:-1]}, **more), 403, "csrf_token")
    assert_is_error(post(app, "/c2c/stats.json", {"reset": "1", "csrf_token": "é"}, **more), 403, "csrf_token")
    assert resets(fake) == 0
    assert post(app, "/c2c/stats.json", {"reset": "1", "csrf_token": token}, **more).status == 200
    assert post(app, RESET, {}, HTTP_X_CSRF_TOKEN=token, **more).status == 200
    assert resets(fake) == 2


def test_the_token_of_another_login(fake: Telemetry) -> None:
    app = make()
    mine, theirs = log_in(app), log_in(app, REMOTE_ADDR="203.0.113.4")
    fields = {"reset": "1", "csrf_token": token_of(theirs)}
    assert_is_error(post(app, "/c2c/stats.json", fields, HTTP_COOKIE=mine), 403, "csrf_token")
    assert resets(fake) == 0


def test_nobody_and_the_empty_token(fake: Telemetry) -> None:
    app = make()
    assert token_of("") == ""
    fields = {"reset": "1", "csrf_token": ""}
    assert post(app, "/c2c/stats.json", fields).status == 403


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"HTTP_SEC_FETCH_SITE": "same-origin"}, True),
        ({"HTTP_SEC_FETCH_SITE": "none"}, True),
        ({"HTTP_SEC_FETCH_SITE": "same-site"}, False),
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, False),
        ({"HTTP_SEC_FETCH_SITE": "cross-site", "HTTP_ORIGIN": "http://localhost"}, False),
        ({"HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_ORIGIN": "https://rewritten.example"}, True),
        ({"HTTP_ORIGIN": "http://localhost"}, True),
        ({"HTTP_ORIGIN": "http://LOCALHOST:80"}, True),
        ({"HTTP_ORIGIN": "null"}, True),
        ({"HTTP_ORIGIN": "http://localhost:81"}, False),
        ({"HTTP_ORIGIN": "https://evil.example"}, False),
        ({"HTTP_ORIGIN": "localhost"}, False),
        ({"HTTP_ORIGIN": "http://["}, False),
        ({"HTTP_ORIGIN": "\xff"}, False),
        ({"HTTP_ORIGIN": "https://shop.example", "HTTP_X_FORWARDED_HOST": "shop.example"}, True),
        ({"HTTP_ORIGIN": "https://evil.example", "HTTP_X_FORWARDED_HOST": "shop.example"}, False),
    ],
)
def test_pages_of_other_sites(fake: Telemetry, headers: dict[str, str], allowed: bool) -> None:
    """Even if one had found out the token."""
    app = make()
    found = log_in(app)
    fields = {"reset": "1", "csrf_token": token_of(found)}
    answer = post(app, "/c2c/stats.json", fields, HTTP_COOKIE=found, REMOTE_ADDR="203.0.113.4", **headers)
    if not allowed:
        assert_is_error(answer, 403, "another site")
    assert (answer.status, resets(fake)) == ((200, 1) if allowed else (403, 0))


def test_no_statistics_no_reset(fake: Telemetry, monkeypatch: Any) -> None:
    def full() -> None:
        raise OSError("No space left on device")

    app = make()
    monkeypatch.setattr(fake.parts.scraper, "reset_stats", full)
    assert_is_error(get(app, RESET, **KEY), 503, "were not reset: No space left")
    fake.parts = None
    assert_is_error(get(app, RESET, **KEY), 503, "telemetry is off")


def test_a_change_is_logged(fake: Telemetry, caplog: Any) -> None:
    app = make()
    found = log_in(app)
    post(app, "/c2c/stats.json", {"reset": "1", "csrf_token": token_of(found)}, HTTP_COOKIE=found)
    assert "192.0.2.1 (cookie) has reset the statistics: 0 keys before, 0 after" in caplog.messages


# -- the index --------------------------------------------------------------------------------------------------------


def test_login_and_logout_on_the_index(fake: Telemetry) -> None:
    app = make()
    answer = post(app, "/c2c", {"secret": SECRET})
    value = cookie(answer)
    assert answer.status in (200, 303) and value
    found = f"C2C_SECRET={value}"
    assert get(app, "/c2c/debug/headers", HTTP_COOKIE=found).status == 200
    assert post(app, "/c2c", {"secret": "wrong"}).status == 403
    assert cookie(post(app, "/c2c", {"secret": "wrong"})) is None
    assert cookie(post(app, "/c2c", {"secret": ""}, HTTP_COOKIE=found)) == ""
    assert get(app, "/c2c/debug/headers", HTTP_COOKIE=found).status == 403
