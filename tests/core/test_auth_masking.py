"""What must not be written: the secret by its name and by its value, in texts, JSON, gunicorn's records, spans."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
import pytest
from gunicorn.glogging import Logger, SafeAtoms
from hypothesis import assume, example, given
from hypothesis import strategies as st

from c2c_otel import server_logs
from c2c_otel.instrumentation import wsgi_attributes
from c2c_otel.pyramid_logging import JsonLogHandler
from c2c_otel_exporters import masking
from tests.auth_kit import SECRET, Telemetry, fake, make
from tests.pyramid_kit import get

__all__ = ["fake"]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    masking._forget()


def spelled(word: str, choices: list[int]) -> str:
    """Some letters percent-encoded."""
    return "".join(f"%{ord(c):02x}" if flag else c for c, flag in zip(word, choices, strict=False))


# -- by name ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 1), min_size=6, max_size=6), st.sampled_from(["=", "%3D", "%3d"]))
def test_the_parameter_in_any_spelling(choices: list[int], equals: str) -> None:
    text = f"GET /c2c?a=1&{spelled('secret', choices)}{equals}Tr0ub4dor HTTP/1.1"
    assert masking.mask(text) == text.replace("Tr0ub4dor", "***")
    assert masking.mask_json(orjson.dumps({"msg": text})) == orjson.dumps({"msg": text.replace("Tr0ub4dor", "***")})


@pytest.mark.parametrize(
    "text",
    [
        "X-API-Key: Tr0ub4dor",
        "{'X-Api-Key': 'Tr0ub4dor', 'Host': 'h'}",
        '{"X-API-Key": "Tr0ub4dor"}',
        "[('X-API-Key', 'Tr0ub4dor')]",
        "HTTP_X_API_KEY='Tr0ub4dor'",
        "Cookie: a=b; C2C_SECRET=Tr0ub4dor; c=d",
        "next=%2Fc2c%3Fsecret%3DTr0ub4dor",
        "client_secret=Tr0ub4dor",
    ],
)
def test_names_in_texts(text: str) -> None:
    assert "Tr0ub4dor" not in masking.mask(text)
    assert "Tr0ub4dor" not in masking.mask_json(orjson.dumps({"msg": text})).decode()
    assert "Tr0ub4dor" not in masking.mask_json(orjson.dumps({"headers": {"X-Api-Key": "Tr0ub4dor"}})).decode()


@pytest.mark.parametrize("name", ["X-API-Key", "x-api-key", "X-Api-Key", "X-API-key", "HTTP_X_API_KEY", "x_api_key"])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Tr0ub4dor", "***"),
        ("Tr0ub4dor and more", "***"),
        (8765432187, "***"),
        (["Tr0ub4dor"], "***"),
        ({"now": "Tr0ub4dor"}, "***"),
        (None, None),
        (True, True),
        ("", ""),
    ],
)
def test_the_header_in_json_hides_a_value_of_any_shape(name: str, value: object, shown: object) -> None:
    fields = {"headers": {name: value, "pid": 1}, "pairs": [[name, value], ["a", 2]], "msg": f"{name}: Tr0ub4dor, b"}
    assert json.loads(masking.mask_json(orjson.dumps(fields))) == {
        "headers": {name: shown, "pid": 1},
        "pairs": [[name, shown], ["a", 2]],
        "msg": f"{name}: ***, b",
    }
    assert masking.mask(f"{name}: Tr0ub4dor, b") == f"{name}: ***, b"


def test_a_message_that_ends_with_the_header_hides_nothing_of_the_next_field() -> None:
    line = orjson.dumps({"msg": "there is no X-API-Key", "pid": 1, "names": ["a", "X-API-Key"], "X-API-Keys": 2})
    assert masking.mask_json(line) == line


def test_a_backslash_does_not_end_a_key() -> None:
    text = r"X-API-Key: Tr0\ub4dor, {\"X-API-Key\": \"Tr0ub4dor\"}"
    shown = r"X-API-Key: ***, {\"X-API-Key\": \"***\"}"
    assert masking.mask(text) == shown
    assert json.loads(masking.mask_json(orjson.dumps({"msg": text}))) == {"msg": shown}


@pytest.mark.parametrize(
    "text",
    [
        "Missing or invalid secret (parameter, X-API-Key header or cookie)",
        "100% = all",
        "a secret is no parameter",
        "%73ecre",
        "X-API-Key",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masking.mask(text) == text
    assert masking.mask_json(orjson.dumps({"msg": text})) == orjson.dumps({"msg": text})


# -- by value ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [SECRET, "p@ss/w&rd=1%", "gehéimnis", 'with "quotes" and \\', "line\nbreaks"])
def test_the_value_wherever_it_stands(secret: str) -> None:
    masking.protect([secret])
    forms = [secret, quote(secret), quote(secret, safe=""), quote_plus(secret), secret.encode().decode("latin-1")]
    for form in forms:
        assert masking.mask(f"Bearer {form}, and {form}") == "Bearer ***, and ***"
        fields = {"msg": f"x{form}y", form: [form, 1]}
        assert json.loads(masking.mask_json(orjson.dumps(fields))) == {"msg": "x***y", "***": ["***", 1]}


@given(st.text(min_size=8, max_size=20), st.text(max_size=30), st.text(max_size=30))
@example("nfoo12345", "a\n", "")
@example("nfoo1234", "a\\", "b")
@example("\\u0000aaaa", "\x00", "")
@example('"}]abcdefg', "", "")
def test_json_stays_json(secret: str, before: str, after: str) -> None:
    masking._forget()
    masking.protect([secret])
    line = orjson.dumps({"timestamp": 1700000000.25, "level": 6, "msg": f"{before}{secret}{after}", "n": None})
    fields = json.loads(masking.mask_json(line))
    assume("\x00" not in secret)
    assert fields["timestamp"] == 1700000000.25
    assert secret not in fields["msg"] or secret in "***" or masking._BARE.match(secret)


@pytest.mark.parametrize("secret", ["short", "12345678", "1e+10.-5", "", "x"])
def test_values_that_would_mask_too_much_are_left_alone(secret: str) -> None:
    masking.protect([secret])
    assert masking.protected() == ()
    text = orjson.dumps({"timestamp": 1712345678.5, "msg": "shortly x"})
    assert masking.mask_json(text) == text


def test_protecting_twice() -> None:
    masking.protect([SECRET])
    masking.protect([SECRET, "another one"])
    found = masking.protected()
    assert len(set(found)) == len(found) and SECRET in found and "another%20one" in found
    assert [len(value) for value in found] == sorted(map(len, found), reverse=True)


def test_a_log_line(fake: Telemetry) -> None:
    make()
    stream = io.StringIO()
    logger = logging.Logger("x")
    logger.addHandler(JsonLogHandler(stream))
    logger.error("headers are %s", {"Authorization": f"Bearer {SECRET}"}, extra={"given": [SECRET], SECRET: 1})
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("raised")
    assert SECRET not in stream.getvalue() and stream.getvalue().count("***") == 4


# -- gunicorn ---------------------------------------------------------------------------------------------------------


class Config:
    """What gunicorn's logger asks for."""

    accesslog = "-"
    access_log_format = "%(r)s %(q)s %(f)s %({x-api-key}i)s %({cookie}i)s %({raw_uri}e)s %({location}o)s %(U)s %(s)s"
    errorlog = "-"
    loglevel = "info"
    logconfig = logconfig_dict = logconfig_json = syslog = capture_output = False
    user = group = 0


def logged(environ: dict[str, Any], headers: list[tuple[str, str]], response: list[tuple[str, str]] = []) -> str:  # noqa: B006 - it is only read
    """gunicorn's own access line."""
    stream = io.StringIO()
    logger = logging.getLogger("gunicorn.access")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        made = Logger.__new__(Logger)
        made.cfg = Config
        full = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "PATH_INFO": "/c2c", **environ}
        status = type("Response", (), {"status": "200 OK", "headers": response, "sent": 3})
        atoms = SafeAtoms(made.atoms(status, type("Request", (), {"headers": headers}), full, Elapsed))
        before = dict(full)
        logger.info(Config.access_log_format, atoms)
        assert full == before
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


class Elapsed:
    seconds, microseconds = 1, 5


@pytest.mark.parametrize("secret", ["Tr0ub4dor", SECRET])
def test_gunicorns_access_log(secret: str) -> None:
    masking.protect([secret])
    server_logs.install()
    server_logs.install()
    query = f"a=1&s%65cret={quote_plus(secret)}&b=2"
    line = logged(
        {"QUERY_STRING": query, "RAW_URI": f"/c2c?{query}", "HTTP_REFERER": f"http://h/c2c?{query}"},
        [("X-API-KEY", secret), ("COOKIE", "C2C_SECRET=abc; d=e"), ("REFERER", f"http://h/c2c?{query}")],
        [("Location", f"/c2c?{query}")],
    )
    shown = "a=1&s%65cret=***&b=2"
    assert line.strip() == (
        f"GET /c2c?{shown} HTTP/1.1 {shown} http://h/c2c?{shown} *** "
        f"C2C_SECRET=*** d=e /c2c?{shown} /c2c?{shown} /c2c 200"
    )


def test_a_line_without_secrets_is_as_it_was() -> None:
    server_logs.install()
    line = logged({"QUERY_STRING": "a=%20", "RAW_URI": "/x?a=%20"}, [])
    assert line.strip() == "GET /x?a=%20 HTTP/1.1 a=%20 - - - /x?a=%20 - /c2c 200"


def test_gunicorns_line_of_a_request_that_failed(capsys: Any) -> None:
    masking.protect([SECRET])
    server_logs.install()
    stream = io.StringIO()
    logger = logging.getLogger("gunicorn.error")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        raise ValueError(f"no such page: /x?secret={SECRET}")
    except ValueError:
        logger.exception("Error handling request %s %s", "GET", "/x?secret=Wr0ng&a=b")
        logger.error("Error handling /x?secret=Wr0ng")
    finally:
        logger.removeHandler(handler)
    lines = stream.getvalue()
    assert "Error handling request GET /x?secret=***&a=b\n" in lines
    assert lines.endswith("Error handling /x?secret=***\n")
    assert "ValueError: no such page: /x?secret=***" in lines and "Traceback" in lines
    assert "Wr0ng" not in lines and SECRET not in lines


# -- spans ------------------------------------------------------------------------------------------------------------


def test_captured_headers(monkeypatch: Any) -> None:
    masking.protect([SECRET])
    for kind in ("REQUEST", "RESPONSE"):
        monkeypatch.setenv(f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_{kind}", ".*")
    captured = wsgi_attributes.CapturedHeaders()
    found = captured.of_request(
        {
            "HTTP_X_API_KEY": "Wr0ng",
            "HTTP_AUTHORIZATION": "Bearer Wr0ng",
            "HTTP_COOKIE": "a=b; C2C_SECRET=Wr0ng",
            "HTTP_REFERER": f"http://h/?secret=Wr0ng&x={quote(SECRET)}",
            "HTTP_X_THING": SECRET,
            "HTTP_ACCEPT": "text/html",
        }
    )
    assert found == {
        "http.request.header.x_api_key": ["***"],
        "http.request.header.authorization": ["***"],
        "http.request.header.cookie": ["a=b; C2C_SECRET=***"],
        "http.request.header.referer": ["http://h/?secret=***&x=***"],
        "http.request.header.x_thing": ["***"],
        "http.request.header.accept": ["text/html"],
    }
    found = captured.of_response([("Set-Cookie", "C2C_SECRET=Wr0ng; Path=/"), ("Set-Cookie", "a=b"), ("X", "y")])
    assert found == {
        "http.response.header.set_cookie": ["C2C_SECRET=*** Path=/", "a=b"],
        "http.response.header.x": ["y"],
    }


def test_the_span_of_a_request(fake: Telemetry) -> None:
    def fails(request: Any) -> Any:
        raise ValueError(f"{request.url} {request.headers.get('X-API-Key')}")

    def configure(config: Any) -> None:
        config.add_route("fails", "/fails")
        config.add_view(fails, route_name="fails")

    app = make(configure)
    with pytest.raises(ValueError, match="secret="):
        get(app, f"/fails?secret={quote(SECRET)}", HTTP_X_API_KEY=SECRET)
    (span,) = fake.spans
    text = span.to_json()
    assert SECRET not in text and quote(SECRET) not in text
    (event,) = span.events
    said = dict(event.attributes or {})
    assert said["exception.message"] == "http://localhost/fails?secret=*** ***"
    assert said["exception.type"] == "ValueError"
    assert "Traceback" in str(said["exception.stacktrace"])
    assert dict(span.attributes or {})["url.query"] == "secret=REDACTED"
