"""What clients, logs and spans get of what an application raises."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from pyramid.config import Configurator
from pyramid.httpexceptions import (
    HTTPBadRequest,
    HTTPException,
    HTTPFound,
    HTTPInternalServerError,
    HTTPNoContent,
    HTTPNotFound,
    HTTPServiceUnavailable,
    HTTPUnauthorized,
)
from pyramid.response import Response

from c2c_otel import services
from c2c_otel_exporters import guard
from tests import pyramid_kit as kit

SECRET = "open sesame and so on"


class BotoError(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.response = {"ResponseMetadata": {"HTTPStatusCode": 404}}


BotoError.__module__, BotoError.__qualname__ = "botocore.exceptions", "ClientError"


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


def statement(sql: str) -> Any:
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT CHECK (v <> 'hidden'))")
        connection.exec_driver_sql("INSERT INTO t VALUES (1, 'a')")

    def view(request: Any) -> Response:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(sql), {"v": "private"})
        return Response()

    return view


def raising(error: Any) -> Any:
    def view(request: Any) -> Response:
        raise error

    return view


QUERY = "SELECT v FROM nowhere WHERE v = :v"


def wrapping(wrap: Callable[[Any], Exception]) -> Any:
    """What applications make of a database's error."""

    def view(request: Any) -> Response:
        try:
            found: Response = statement(QUERY)(request)
        except sqlalchemy.exc.DatabaseError as error:
            raise wrap(error) from None
        return found

    return view


OF_POSTGRESQL = 'relation "nowhere" does not exist\nLINE 1: SELECT v FROM nowhere\n                      ^'


class Broken:
    """Its resource cannot be committed."""

    def sortKey(self) -> str:
        raise ValueError("no")

    def abort(self, transaction: Any) -> None: ...

    tpc_abort = abort


def after_a_failed_commit(request: Any) -> Response:
    """What `transaction` raises then has the whole traceback of what had failed in its text."""
    request.tm.get().join(Broken())
    with contextlib.suppress(ValueError):
        request.tm.get().commit()
    request.tm.get().join(Broken())
    return Response()


ROUTES = {
    "text": wrapping(lambda error: RuntimeError(f"It failed: {error}")),
    "statement": wrapping(lambda error: RuntimeError(f"It failed: {error.statement}")),
    "detail": wrapping(lambda error: HTTPBadRequest(f"It failed: {error}")),
    "quoted": wrapping(lambda error: HTTPBadRequest(f"It failed: {error.statement}")),
    "line": raising(RuntimeError(OF_POSTGRESQL)),
    "repr": raising(RuntimeError(repr(ValueError(OF_POSTGRESQL)))),
    "problem": raising(HTTPBadRequest(OF_POSTGRESQL)),
    "traceback": raising(RuntimeError("Why: Traceback (most recent call last):\n  File")),
    "failed": after_a_failed_commit,
    "long": raising(HTTPBadRequest("a" * 5_000)),
    "missing": raising(HTTPNotFound("no such hello")),
    "login": raising(HTTPUnauthorized("who?", headers=[("WWW-Authenticate", 'Basic realm="x"')])),
    "closed": raising(HTTPServiceUnavailable("come again")),
    "broken": raising(HTTPInternalServerError("no idea")),
    "away": raising(HTTPFound("/elsewhere")),
    "empty": raising(HTTPNoContent()),
    "value": raising(ValueError("not a number")),
    "mute": raising(Mute()),
    "nothing": raising(RuntimeError()),
    "boto": raising(BotoError("An error occurred")),
    "reset": raising(ConnectionResetError("gone")),
    "integrity": statement("INSERT INTO t VALUES (1, :v)"),
    "syntax": statement(QUERY),
}


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(configure: Any = None, **settings: str) -> Any:
        def included(config: Any) -> None:
            config.include("c2c_otel")
            if configure:
                configure(config)

        given = {"c2c.enable_exception_handling": "1", "c2c.secret": SECRET}
        given |= {f"c2c.{name}": value for name, value in settings.items()}
        return kit.make(ROUTES, included, **given)

    make.fake = kit.install(monkeypatch)  # type: ignore[attr-defined]
    yield make
    kit.assert_left_nothing()


def body(answer: kit.Answer) -> Any:
    assert answer.header("Content-Type") in ("application/json; charset=utf-8", "application/json")
    assert answer.header("Access-Control-Allow-Origin") == "*"
    assert "no-store" in (answer.header("Cache-Control") or "")
    found = json.loads(answer.body)
    assert found.pop("request_id") == answer.header("X-Request-ID")
    return found


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/missing", 404, "no such hello"),
        ("/value", 500, "not a number"),
        ("/nothing", 500, "RuntimeError"),
        ("/boto", 404, "An error occurred"),
        ("/reset", 500, "gone"),
        ("/integrity", 400, "UNIQUE constraint failed: t.id"),
        ("/syntax", 500, "OperationalError"),
        ("/nowhere", 404, "/nowhere"),
        ("/text", 500, "RuntimeError"),
        ("/statement", 500, "RuntimeError"),
        ("/detail", 400, "Bad Request"),
        ("/quoted", 400, "Bad Request"),
        ("/line", 500, 'relation "nowhere" does not exist'),
        ("/repr", 500, 'ValueError(\'relation "nowhere" does not exist'),
        ("/problem", 400, 'relation "nowhere" does not exist'),
        ("/failed", 500, "An operation previously failed, with traceback:"),
        ("/traceback", 500, "Why:"),
        ("/long", 400, "a" * 5_000),
    ],
)
def test_what_an_anonymous_client_gets(make: Any, path: str, status: int, message: str) -> None:
    answer = kit.get(make(), path)
    assert (answer.status, body(answer)) == (status, {"message": message, "status": status})
    assert b"File" not in answer.body
    assert b"private" not in answer.body and b"SELECT" not in answer.body and b"INSERT" not in answer.body


def test_an_exception_that_cannot_be_shown(make: Any) -> None:
    guard.strict(False)  # OpenTelemetry cannot record it either
    try:
        assert body(kit.get(make(), "/mute")) == {"message": "Mute", "status": 500}
    finally:
        guard.strict(None)


@pytest.mark.parametrize("path", ["/\xff", "/value/\xff\xfe"])
def test_a_path_that_is_not_utf_8(make: Any, path: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = kit.get(make(), path)
    assert (answer.status, body(answer)) == (400, {"message": "The path is not UTF-8.", "status": 400})
    (record,) = [record for record in caplog.records if record.name == "c2c_otel.errors"]
    assert record.levelname == "WARNING" and path in record.getMessage()


def test_headers_of_an_http_error_stay(make: Any) -> None:
    answer = kit.get(make(), "/login")
    assert answer.status == 401
    assert answer.header("WWW-Authenticate") == 'Basic realm="x"'
    assert len([name for name, _ in answer.headers if name == "Content-Length"]) == 1


def test_what_is_no_error_goes_through(make: Any) -> None:
    answer = kit.get(make(), "/away")
    assert (answer.status, answer.header("Location")) == (302, "http://localhost/elsewhere")
    assert answer.header("Access-Control-Allow-Origin") == "*"
    assert "json" not in (answer.header("Content-Type") or "")
    assert kit.get(make(), "/empty").status == 204


def test_options_is_answered(make: Any) -> None:
    answer = kit.get(make(), "/missing", "OPTIONS", HTTP_ACCESS_CONTROL_REQUEST_METHOD="PUT")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("Access-Control-Allow-Methods") == "PUT, OPTIONS, HEAD"
    assert answer.header("Access-Control-Max-Age") == "86400"


@pytest.mark.parametrize("how", ["development", "header", "parameter"])
def test_who_may_see_details_sees_all(make: Any, how: str) -> None:
    app = make(development="1") if how == "development" else make()
    headers = {"HTTP_X_API_KEY": SECRET} if how == "header" else {}
    query = {"QUERY_STRING": f"secret={SECRET.replace(' ', '+')}"} if how == "parameter" else {}
    found = body(kit.get(app, "/syntax", **headers, **query))
    assert "SELECT v FROM nowhere" in found["message"]
    assert found["stacktrace"].startswith("Traceback") and "no such table" in found["stacktrace"]
    assert "stacktrace" not in body(kit.get(app, "/missing", **headers, **query))


def test_a_wrong_secret_shows_nothing(make: Any) -> None:
    found = body(kit.get(make(), "/syntax", HTTP_X_API_KEY="wrong"))
    assert found == {"message": "OperationalError", "status": 500}
    assert "stacktrace" not in body(kit.get(make(development="false"), "/value"))


def test_problem_json_for_who_asks_for_it(make: Any) -> None:
    answer = kit.get(make(), "/missing", HTTP_ACCEPT="application/problem+json, application/json;q=0.5")
    assert answer.header("Content-Type") == "application/problem+json"
    found = json.loads(answer.body)
    assert found.pop("request_id") == answer.header("X-Request-ID")
    assert found == {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "no such hello"}
    for accept in ("*/*", "application/json", "application/problem+json;q=0", "nonsense;;"):
        assert "problem" not in (kit.get(make(), "/missing", HTTP_ACCEPT=accept).header("Content-Type") or "")


def test_head_has_no_body(make: Any) -> None:
    answer = kit.get(make(), "/value", "HEAD")
    assert (answer.status, answer.body) == (500, b"")


def test_what_is_logged(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "c2c_otel.errors")
    app = make()
    for path in ("/login", "/missing", "/closed", "/broken", "/value", "/reset"):
        kit.get(app, path, QUERY_STRING="secret=hush&a=1", HTTP_REFERER="https://from.example/")
    seen = [(r.levelname, r.getMessage(), bool(r.exc_info)) for r in caplog.records if r.name == "c2c_otel.errors"]
    assert seen == [
        ("DEBUG", "GET /login?secret=REDACTED&a=1 is 401: who?", False),
        ("WARNING", "GET /missing?secret=REDACTED&a=1 is 404: no such hello", False),
        ("WARNING", "GET /closed?secret=REDACTED&a=1 is 503: come again", False),
        ("ERROR", "GET /broken?secret=REDACTED&a=1 is 500: no idea", False),
        ("ERROR", "GET /value?secret=REDACTED&a=1 is 500: ValueError", True),
        ("INFO", "GET /reset?secret=REDACTED&a=1 is 500: gone", False),
    ]
    assert {getattr(record, "referer", None) for record in caplog.records if record.name == "c2c_otel.errors"} == {
        "https://from.example/"
    }


def test_the_span_has_the_exception_and_the_measurement_the_status(make: Any) -> None:
    app = make()
    kit.get(app, "/value")
    span = make.fake.spans[-1]
    assert span.status.status_code.name == "ERROR"
    assert span.attributes["http.response.status_code"] == 500
    assert [event.name for event in span.events] == ["exception"]
    assert span.attributes["error.type"] == "ValueError"


def test_an_exception_view_of_the_applications_own_goes_first(make: Any) -> None:
    def configure(config: Any) -> None:
        config.add_exception_view(lambda error, request: Response("mine", 418), context=ValueError)

    assert kit.get(make(configure), "/value").body == b"mine"
    assert kit.get(make(configure), "/nothing").status == 500

    def everything(config: Any) -> None:
        config.add_exception_view(lambda error, request: Response("all", 418), context=HTTPException)

    assert kit.get(make(everything), "/missing").body == b"all"


def test_the_rules_of_a_cornice_service_hold_for_its_errors(make: Any) -> None:
    service = services.create("kept", "/kept", cors_origins=("https://a.example",), cors_credentials=True)
    service.add_view("GET", raising(ValueError("no")))
    app = make(lambda config: config.add_cornice_service(service))
    answer = kit.get(app, "/kept", HTTP_ORIGIN="https://a.example")
    assert answer.status == 500
    assert answer.header("Access-Control-Allow-Origin") == "https://a.example"
    assert answer.header("Access-Control-Allow-Credentials") == "true"
    assert "Origin" in (answer.header("Vary") or "")
    assert kit.get(app, "/kept", HTTP_ORIGIN="https://b.example").header("Access-Control-Allow-Origin") is None


def test_off_it_changes_nothing(make: Any) -> None:
    app = make(enable_exception_handling="0")
    assert b"message" not in kit.get(app, "/missing").body
    with pytest.raises(ValueError, match="not a number"):
        kit.get(app, "/value")


def test_the_debug_toolbar_shows_what_is_raised(make: Any) -> None:
    """With the settings of the documentation, as an ini file has them."""
    text = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    ini = re.search(r"```ini\n(.*?)```", text, re.S)
    assert ini
    given = dict(line.split(" = ", 1) for line in ini[1].strip().splitlines())
    config = Configurator(settings=given)
    config.include("c2c_otel")
    config.add_route("value", "/value")
    config.add_view(ROUTES["value"], route_name="value")
    app = config.make_wsgi_app()
    answer = kit.get(app, "/value", REMOTE_ADDR="127.0.0.1")
    assert answer.status == 500
    assert b"not a number" in answer.body and b"<html" in answer.body and b"debugtoolbar" in answer.body.lower()
