"""Who is let in: the secret in each of the documented ways, whatever bytes come, and what is refused."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyramid.config import Configurator
from pyramid.response import Response

from c2c_otel import application, auth, credentials
from c2c_otel.settings import ConfigurationError, Settings
from tests.auth_kit import (
    SECRET,
    Telemetry,
    attributes,
    cookie,
    fake,
    log_in,
    make,
    multipart,
    other_address,
    post,
)
from tests.pyramid_kit import get

__all__ = ["fake"]

QUERY = urlencode({"secret": SECRET})
RIGHT_WAYS: dict[str, dict[str, Any]] = {
    "secret": {"query": QUERY},
    "secret, spelled out": {"query": "%73ecre%74=" + "".join(f"%{ord(c):02x}" for c in SECRET)},
    "X-API-Key": {"HTTP_X_API_KEY": SECRET},
}


def app_of_its_own(**more: Any) -> Any:
    """Whose own views say who asks."""

    def configure(config: Configurator) -> None:
        config.add_route("who", "/who")
        config.add_view(lambda request: Response(f"{auth.is_auth(request)} {auth.who(request)}"), route_name="who")
        config.add_route("only", "/only")
        config.add_view(only, route_name="only")
        config.add_route("login", "/login")
        config.add_view(login, route_name="login")

    def only(request: Any) -> Response:
        auth.auth_view(request)
        return Response("in")

    def login(request: Any) -> Response:
        response = Response("ok")
        (auth.logout if "out" in request.GET else auth.login)(request, response)
        return response

    return make(configure, **more)


def may(app: Any, query: str = "", **more: Any) -> bool:
    """Whether a protected view answers; as a client of its own."""
    more.setdefault("REMOTE_ADDR", other_address())
    answer = get(app, f"/c2c/debug/headers{'?' + query if query else ''}", **more)
    assert answer.status in (200, 403), answer.body
    return answer.status == 200


@pytest.fixture
def app(fake: Telemetry) -> Any:
    return make()


# -- ways in ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", RIGHT_WAYS)
def test_each_way_opens(app: Any, way: str) -> None:
    assert may(app, **RIGHT_WAYS[way])


@pytest.mark.parametrize("method", ["form", "multipart"])
def test_the_secret_in_a_form(app: Any, method: str) -> None:
    if method == "form":
        answer = post(app, "/c2c/stats.json", {"secret": SECRET, "reset": "1"})
    else:
        body, kind = multipart({"secret": SECRET, "reset": "1"})
        answer = post(app, "/c2c/stats.json", body, CONTENT_TYPE=kind)
    assert answer.status == 200
    assert cookie(answer)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_bearer_opens_our_views(app: Any, scheme: str) -> None:
    assert may(app, HTTP_AUTHORIZATION=f"{scheme} {SECRET}")


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Bearer x", f"Basic {SECRET}", SECRET])
def test_other_authorizations_do_not(app: Any, value: str) -> None:
    assert not may(app, HTTP_AUTHORIZATION=value)


def test_nothing_opens_nothing(app: Any) -> None:
    assert not may(app)


def test_the_parameter_is_asked_first_and_then_the_header(app: Any) -> None:
    assert may(app, QUERY, HTTP_X_API_KEY="wrong")
    assert not may(app, "secret=wrong", HTTP_X_API_KEY=SECRET)
    assert not may(app, f"{QUERY}&secret=wrong")


@pytest.mark.parametrize("more", [{"query": "secret=wrong"}, {"HTTP_X_API_KEY": "wrong"}, {"query": "secret="}])
def test_a_wrong_or_empty_secret_refuses_whatever_the_cookie(app: Any, more: dict[str, str]) -> None:
    found = log_in(app)
    assert may(app, HTTP_COOKIE=found)
    assert not may(app, HTTP_COOKIE=found, **more)


def test_a_strange_bearer_does_not_refuse_a_cookie(app: Any) -> None:
    assert may(app, HTTP_COOKIE=log_in(app), HTTP_AUTHORIZATION="Bearer of-a-proxy")


@pytest.mark.parametrize("secret", ["gehéimnis", "密码密码密码", "a&b=c+d %", "x"])
def test_secrets_of_any_text(fake: Telemetry, secret: str) -> None:
    app = make(secret=secret)
    wire = secret.encode().decode("latin-1")
    assert may(app, urlencode({"secret": secret}))
    assert may(app, HTTP_X_API_KEY=wire)
    assert not may(app, HTTP_X_API_KEY=wire + "x")
    assert not may(app, HTTP_X_API_KEY=wire[:-1])


def test_a_client_that_sends_latin_1(fake: Telemetry) -> None:
    app = make(secret="gehéimnis")
    assert may(app, HTTP_X_API_KEY="gehéimnis")


# -- without a secret -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"HTTP_COOKIE": "C2C_SECRET=x"},
        {"HTTP_X_API_KEY": ""},
        {"HTTP_X_API_KEY": "None"},
        {"QUERY_STRING": "secret="},
    ],
)
def test_without_a_secret_nobody_is_anybody(fake: Telemetry, more: dict[str, str]) -> None:
    app = app_of_its_own(secret=None, log_view_enabled=1)
    assert get(app, "/who", **more).body == b"False 192.0.2.1 (nobody)"
    assert get(app, "/c2c/debug/headers", **more).status == 404
    assert get(app, "/c2c/logging/level", **more).status == 404
    assert get(app, "/c2c", **more).status == 200


# -- any bytes --------------------------------------------------------------------------------------------------------

latin = st.text(st.characters(max_codepoint=255), max_size=60)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    where=st.sampled_from(["HTTP_X_API_KEY", "HTTP_COOKIE", "HTTP_AUTHORIZATION", "QUERY_STRING", "body"]), text=latin
)
@example("QUERY_STRING", "secret=%ff")
@example("QUERY_STRING", "secret=\xff\x00&a=%")
@example("HTTP_COOKIE", 'C2C_SECRET="\\777"; C2C_SECRET=\x00')
@example("HTTP_X_API_KEY", "\x00")
@example("body", "secret=%ff")
@example("HTTP_AUTHORIZATION", "Bearer \xff")
@example("QUERY_STRING", "secret=" + "x" * 70_000)
@example("HTTP_X_API_KEY", "x" * 70_000)
@example("HTTP_COOKIE", "C2C_SECRET=" + "x" * 70_000)
def test_any_bytes_are_a_plain_refusal(app: Any, where: str, text: str) -> None:
    more: dict[str, Any] = {"REMOTE_ADDR": other_address()}
    if where == "body":
        answer = post(app, "/c2c/stats.json", b"reset=1&" + text.encode("latin-1"), **more)
    else:
        more[where] = text
        answer = get(app, "/c2c/debug/headers", **more)
    assert answer.status in (400, 403), answer.body


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\xff"]
)
def test_a_broken_form_is_refused(app: Any, kind: str) -> None:
    assert post(app, "/c2c/stats.json?reset=1", b"--x\r\nsecret", CONTENT_TYPE=kind).status in (400, 403)


def test_an_unreadable_query_is_a_400_for_who_is_let_in(app: Any) -> None:
    assert get(app, "/c2c/debug/headers?a=%ff", HTTP_X_API_KEY=SECRET).status == 400


def test_a_file_is_no_secret(app: Any) -> None:
    body = (
        b'--xyz\r\nContent-Disposition: form-data; name="secret"; filename="f"\r\n\r\n'
        + SECRET.encode()
        + b"\r\n--xyz--\r\n"
    )
    answer = post(app, "/c2c/stats.json?reset=1", body, CONTENT_TYPE="multipart/form-data; boundary=xyz")
    assert answer.status == 403


@given(st.text(max_size=40), st.text(max_size=40))
def test_is_right_is_equality(one: str, other: str) -> None:
    assert credentials.is_right(one, other.encode("utf-8", "surrogateescape")) == (one == other) or not one.isascii()
    assert credentials.is_right(one, one.encode("utf-8", "surrogateescape"))


# -- the cookie -------------------------------------------------------------------------------------------------------


def test_the_cookie(app: Any) -> None:
    answer = get(app, f"/c2c/debug/headers?{QUERY}")
    assert {item for item in attributes(answer) if not item.startswith("expires=")} == {
        "Max-Age=604800",
        "Path=/c2c",
        "HttpOnly",
        "SameSite=Lax",
    }
    value = cookie(answer) or ""
    assert may(app, HTTP_COOKIE=f"a=b; C2C_SECRET={value}; c=d")
    assert SECRET not in value and len(value) > 64


@pytest.mark.parametrize(("seconds", "lasts"), [("90.7", 90), ("1e300", 400 * 86_400)])
def test_how_long_it_lasts(fake: Telemetry, seconds: str, lasts: int) -> None:
    app = make(session_seconds=seconds)
    answer = get(app, f"/c2c/debug/headers?{QUERY}")
    assert f"Max-Age={lasts}" in attributes(answer)
    assert may(app, HTTP_COOKIE=f"C2C_SECRET={cookie(answer)}")


@pytest.mark.parametrize(
    ("more", "secure"),
    [
        ({"wsgi.url_scheme": "https"}, True),
        ({"HTTP_X_FORWARDED_PROTO": "https", "REMOTE_ADDR": "203.0.113.9"}, True),
        ({"HTTP_X_FORWARDED_PROTO": "https", "REMOTE_ADDR": "127.0.0.1"}, True),
        ({"HTTP_X_FORWARDED_PROTO": "http"}, False),
        ({}, False),
    ],
)
def test_secure_on_https(app: Any, more: dict[str, str], secure: bool) -> None:
    assert ("secure" in attributes(get(app, f"/c2c/debug/headers?{QUERY}", **more))) is secure


@pytest.mark.parametrize(
    ("base", "prefix", "script", "path", "expected"),
    [
        ("/c2c", None, "", "/c2c", "/c2c"),
        ("/admin/x", None, "/mounted", "/admin/x", "/mounted/admin/x"),
        ("/c2c", "/api/v1", "", "/api/v1/c2c", "/api/v1/c2c"),
        ("", None, "", "", "/"),
        ("", None, "/mounted", "", "/mounted"),
        ("/c2c", None, "/caf\xc3\xa9", "/c2c", "/caf%C3%A9/c2c"),
    ],
)
def test_the_path_of_the_cookie(
    fake: Telemetry, base: str, prefix: str | None, script: str, path: str, expected: str
) -> None:
    app = make(include_prefix=prefix, base_path=base)
    answer = get(app, f"{path}/debug/headers?{QUERY}", SCRIPT_NAME=script)
    assert answer.status == 200
    assert f"Path={expected}" in attributes(answer)


def test_a_header_gives_no_cookie(app: Any) -> None:
    for more in ({"HTTP_X_API_KEY": SECRET}, {"HTTP_AUTHORIZATION": f"Bearer {SECRET}"}):
        assert cookie(get(app, "/c2c/debug/headers", **more)) is None


def test_who_is_logged_in_stays_logged_in_as_before(app: Any) -> None:
    found = log_in(app)
    assert cookie(get(app, f"/c2c/debug/headers?{QUERY}", HTTP_COOKIE=found)) is None


def test_a_cookie_of_another_secret(fake: Telemetry) -> None:
    other = make(secret="quite another one")
    answer = get(other, "/c2c/debug/headers?" + urlencode({"secret": "quite another one"}))
    found = f"C2C_SECRET={cookie(answer)}"
    assert not may(make(), HTTP_COOKIE=found)


def test_the_predecessors_cookie_does_not_hide_ours_and_goes_at_the_next_login(app: Any) -> None:
    old = "C2C_SECRET=" + "0f" * 32
    assert not may(app, HTTP_COOKIE=old)
    assert may(app, HTTP_COOKIE=f"{log_in(app)}; {old}")
    assert may(app, HTTP_COOKIE=f"{old}; {log_in(app)}")
    answer = get(app, f"/c2c/debug/headers?{QUERY}", HTTP_COOKIE=old)
    paths = [value for value in answer.all("Set-Cookie") if "Path=/;" in value]
    assert len(answer.all("Set-Cookie")) == 2 and len(paths) == 1 and "Max-Age=0" in paths[0]


def test_logout_takes_the_cookie_and_ends_the_login(app: Any) -> None:
    found = log_in(app)
    answer = post(app, "/c2c/stats.json", {"secret": "", "reset": "1"}, HTTP_COOKIE=found)
    assert (answer.status, cookie(answer)) == (403, "")
    assert "Path=/c2c" in attributes(answer) and "Max-Age=0" in attributes(answer)
    assert not may(app, HTTP_COOKIE=found)


def test_logout_by_another_site_does_nothing(app: Any) -> None:
    found = log_in(app)
    answer = get(app, "/c2c/debug/headers?secret=", HTTP_COOKIE=found, HTTP_SEC_FETCH_SITE="cross-site")
    assert cookie(answer) is None
    assert may(app, HTTP_COOKIE=found)


# -- an application's own views ---------------------------------------------------------------------------------------


def test_an_application_asks_too(fake: Telemetry) -> None:
    app = app_of_its_own()
    assert get(app, "/who").body == b"False 192.0.2.1 (nobody)"
    assert get(app, f"/who?{QUERY}").body == b"True 192.0.2.1 (secret)"
    assert get(app, "/who", HTTP_X_API_KEY=SECRET).body == b"True 192.0.2.1 (X-API-Key)"
    assert get(app, "/who", HTTP_COOKIE=log_in(app)).body == b"True 192.0.2.1 (cookie)"
    assert get(app, "/only", HTTP_X_API_KEY=SECRET).body == b"in"
    assert get(app, "/only").status == 403


def test_an_application_has_authorization_for_itself(fake: Telemetry) -> None:
    app = app_of_its_own()
    for _ in range(20):
        assert get(app, "/only", HTTP_AUTHORIZATION="Bearer of-its-own").status == 403
    assert get(app, "/only", HTTP_X_API_KEY=SECRET).status == 200


def test_an_application_that_answers_everybody_the_same_gives_nobody_a_cookie(fake: Telemetry) -> None:
    """Its Response may be a constant."""
    app = app_of_its_own()
    assert cookie(get(app, f"/who?{QUERY}")) is None
    answer = get(app, f"/login?{QUERY}")
    assert cookie(answer) and "Path=/c2c" in attributes(answer)
    found = f"C2C_SECRET={cookie(answer)}"
    assert cookie(get(app, "/login?out", HTTP_COOKIE=found)) == ""
    assert get(app, "/who", HTTP_COOKIE=found).body.startswith(b"False")


def test_the_way_a_bearer_is_named(fake: Telemetry, caplog: Any) -> None:
    app = make()
    with caplog.at_level(logging.WARNING):
        answer = get(app, "/c2c/stats.json?reset=1", HTTP_AUTHORIZATION=f"Bearer {SECRET}", REMOTE_ADDR="2001:db8::7")
    assert answer.status == 200
    assert [record.getMessage() for record in caplog.records if record.name == "c2c_otel.stats"] == [
        "2001:db8::7 (Bearer) has reset the statistics: 0 keys before, 0 after"
    ]


# -- is_enabled -------------------------------------------------------------------------------------------------------


def test_is_enabled_of_ours() -> None:
    assert auth.is_enabled(Settings(secret="x"), True)
    assert not auth.is_enabled(Settings(secret="x"), False)
    assert not auth.is_enabled(Settings(), True)


@pytest.mark.parametrize(
    ("environ", "ini", "expected"),
    [
        ({"MY_VIEW": "1"}, {}, True),
        ({"MY_VIEW": "false"}, {"my.view": "1"}, False),
        ({}, {"my.view": "on"}, True),
        ({}, {"my.view": ""}, False),
        ({}, {}, False),
        ({"MY_VIEW": ""}, {"my.view": "yes"}, True),
    ],
)
@pytest.mark.parametrize("included", [False, True])
def test_is_enabled_of_an_application(
    fake: Telemetry, monkeypatch: Any, environ: dict[str, str], ini: dict[str, str], expected: bool, included: bool
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for secret in ({"c2c.secret": "x"}, {}):
        config = Configurator(settings={**ini, **secret})
        if included:
            application.of(config.registry).settings = Settings.load({}, config.registry.settings)
        assert auth.is_enabled(config, "MY_VIEW", "my.view") is (expected and bool(secret))


def test_is_enabled_with_a_value_that_is_no_flag(fake: Telemetry) -> None:
    config = Configurator(settings={"my.view": "maybe", "c2c.secret": "x"})
    with pytest.raises(ConfigurationError, match=r"my\.view is 'maybe'; expected one of"):
        auth.is_enabled(config, "MY_VIEW", "my.view")


def test_a_path_is_quoted_in_the_log(app: Any, caplog: Any) -> None:
    get(app, "/c2c/debug/headers", HTTP_X_API_KEY="Wr0ngOne", SCRIPT_NAME="/a\nb")
    (record,) = caplog.records
    assert record.getMessage() == "A wrong secret (X-API-Key) from 192.0.2.1: GET /a%0Ab/c2c/debug/headers"
    assert record.levelname == "WARNING"
