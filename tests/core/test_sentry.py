"""What an application in this process reports, to a Sentry that listens."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from pyramid.response import Response

from c2c_otel import sentry
from c2c_otel.sentry import client
from c2c_otel.settings import ConfigurationError
from c2c_otel_exporters import guard
from tests import pyramid_kit as kit
from tests.apps.sentry import PLANTED, Refused, plant
from tests.apps.sentry import VIEWS as VIEWS_OF_THE_APP
from tests.servers import Sentry

logger = logging.getLogger(__name__)


def again(request: Any) -> None:
    """One exception object, for each request."""
    raise _ALWAYS


_ALWAYS = RuntimeError("always the same")


def twice(request: Any) -> None:
    """Logged with its traceback, and raised; and another one logged between."""
    error = RuntimeError("twice")
    try:
        raise error
    except RuntimeError:
        logger.exception("first")
    try:
        raise LookupError("between")
    except LookupError:
        logger.exception("second")
    raise error


ROUTES = {view.__name__: view for view in (*VIEWS_OF_THE_APP, again, twice)}


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, sentry_server: Sentry) -> Iterator[Any]:
    """``start(SENTRY_TAG_A="b")``: the application, included with this environment."""
    fake = kit.install(monkeypatch)

    def start(configure: Any = None, ini: dict[str, str] | None = None, **environ: str) -> Any:
        for name, value in {"SENTRY_URL": sentry_server.dsn, **environ}.items():
            monkeypatch.setenv(name, value)

        def included(config: Any) -> None:
            config.include("c2c_otel")
            if configure is not None:
                configure(config)

        return kit.make(ROUTES, included, **(ini or {}))

    start.fake = fake  # type: ignore[attr-defined]
    monkeypatch.setattr(sentry, "_configured", False)
    yield start
    client.forget()
    kit.assert_left_nothing()
    assert sentry_server.errors == []


def call(app: Any, path: str, **more: Any) -> Any:
    try:
        return kit.get(app, path, **more)
    except Exception as error:
        return error


def sent(server: Sentry) -> list[dict[str, Any]]:
    """All events up to now."""
    sentry_sdk.flush(10)
    return server.events


def test_an_unhandled_exception(start: Any, sentry_server: Sentry) -> None:
    app = start(GIT_HASH="abc", SENTRY_TAG_COLOR="blue", SENTRY_CLIENT_ENVIRONMENT="test")
    error = call(app, "/fail?a=1", HTTP_X_REQUEST_ID="my-request")
    assert isinstance(error, ValueError)
    (event,) = sent(sentry_server)
    (exception,) = event["exception"]["values"]
    assert exception["type"] == "ValueError"
    assert exception["mechanism"] == {"type": "pyramid", "handled": False}
    span = start.fake.span("GET /fail")
    assert event["contexts"]["trace"] == {
        "trace_id": f"{span.context.trace_id:032x}",
        "span_id": f"{span.context.span_id:016x}",
    }
    assert event["tags"] == {"color": "blue", "request_id": "my-request", "http.route": "/fail"}
    assert event["transaction"] == "fail"
    assert (event["release"], event["environment"], event["level"]) == ("abc", "test", "error")
    assert event["request"]["url"] == "http://localhost:80/fail"
    assert event["request"]["query_string"] == "a=1"
    assert event["request"]["method"] == "GET"
    assert "user" not in event
    assert sentry_server.envelopes[0].headers.get("trace") is None


@pytest.mark.parametrize("handling", ["0", "1"])
def test_answers_are_no_failures(start: Any, sentry_server: Sentry, handling: str) -> None:
    app = start(C2C_ENABLE_EXCEPTION_HANDLING=handling)
    for path in ("/missing", "/unavailable", "/nowhere"):
        assert call(app, path).status in (404, 503)
    assert sent(sentry_server) == []


@pytest.mark.parametrize("handling", ["0", "1"])
def test_once_whoever_answers_and_logs(start: Any, sentry_server: Sentry, handling: str) -> None:
    app = start(C2C_ENABLE_EXCEPTION_HANDLING=handling, DEVELOPMENT="0")
    error = call(app, "/fail")
    if handling == "1":
        assert error.status == 500
    else:
        logging.getLogger("server").error("Error handling request", exc_info=error)  # as servers do
    (event,) = sent(sentry_server)
    assert event["transaction"] == "fail"
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    call(app, "/missing")
    call(app, "/refused")
    assert [found["transaction"] for found in sent(sentry_server)] == ["fail", "refused"]


def test_an_exception_view_of_the_application(start: Any, sentry_server: Sentry) -> None:
    def configure(config: Any) -> None:
        config.add_exception_view(lambda error, request: Response("no", int(str(error))), context=Refused)

    app = start(configure)
    for status in (400, 500, 404, 503):
        assert call(app, f"/refused?status={status}").status == status
    assert [event["exception"]["values"][0]["value"] for event in sent(sentry_server)] == ["500", "503"]
    assert sentry_server.events[0]["exception"]["values"][0]["mechanism"]["handled"] is True


def test_an_exception_is_one_event_for_each_request(start: Any, sentry_server: Sentry) -> None:
    app = start()
    for _ in range(2):
        call(app, "/twice")
        call(app, "/again")
    values = [event["exception"]["values"][-1]["value"] for event in sent(sentry_server)]
    assert sorted(values) == sorted(["twice", "between", "always the same"] * 2)


def test_log_records(start: Any, sentry_server: Sentry) -> None:
    app = start()
    call(app, "/logged")
    (event,) = sent(sentry_server)
    assert event["logentry"] == {"message": "event of %s", "formatted": "event of logging"}
    assert event["logger"] == "tests.apps.sentry"
    assert event["extra"]["answer"] == 42
    assert event["transaction"] == "logged"
    assert [crumb["message"] for crumb in event["breadcrumbs"]["values"]] == ["no event"]


def test_another_level(start: Any, sentry_server: Sentry) -> None:
    app = start(SENTRY_LEVEL="WARNING")
    call(app, "/logged")
    assert [event["level"] for event in sent(sentry_server)] == ["warning", "error"]


def test_loggers_that_are_left_out(start: Any, sentry_server: Sentry) -> None:
    app = start(SENTRY_EXCLUDES="left.out:out.*,other")
    call(app, "/excluded")
    assert [event["logger"] for event in sent(sentry_server)] == ["not.left"]


def test_exceptions_that_are_ignored(start: Any, sentry_server: Sentry) -> None:
    app = start(SENTRY_CLIENT_IGNORE_EXCEPTIONS="ValueError,tests.apps.sentry.Refused")
    call(app, "/fail")
    call(app, "/refused")
    call(app, "/again")
    assert [event["transaction"] for event in sent(sentry_server)] == ["again"]


def test_what_a_request_tells_stays_its_own(start: Any, sentry_server: Sentry, monkeypatch: pytest.MonkeyPatch) -> None:
    app = start()
    monkeypatch.setattr(logging.getLogger("tests.apps.sentry"), "level", logging.INFO)
    logging.getLogger("tests.apps.sentry").manager._clear_cache()  # type: ignore[attr-defined]  # as setLevel does
    sentry_sdk.get_global_scope().set_tag("service", "shop")
    try:
        assert call(app, "/user?id=1").status == 200
        call(app, "/user?id=2&fail=1")
        call(app, "/fail")
    finally:
        sentry_sdk.get_global_scope().clear()
    first, second = sent(sentry_server)
    assert first["user"] == {"id": "2"} and first["tags"]["mine"] == "2" and first["tags"]["service"] == "shop"
    assert "user" not in second and "mine" not in second["tags"]
    crumbs = [crumb["message"] for crumb in first["breadcrumbs"]["values"]]
    assert crumbs == ["breadcrumb of 2"]


def test_breadcrumbs_outside_of_the_tween_are_kept_apart(start: Any, sentry_server: Sentry) -> None:
    app = start()
    for _ in range(2):
        answer = kit.start(app, "/stream")
        with pytest.raises(RuntimeError) as raised:
            answer.read()
        logging.getLogger("server").error("Error handling request", exc_info=raised.value)
    first, second = sent(sentry_server)
    assert first["tags"]["request_id"] != second["tags"]["request_id"]
    assert first["transaction"] == second["transaction"] == "stream"
    assert {crumb["data"]["request_id"] for crumb in second["breadcrumbs"]["values"]} <= {second["tags"]["request_id"]}


def test_secrets_stay(start: Any, sentry_server: Sentry) -> None:
    sentry_server_key = Sentry.key.encode()
    app = start(
        ini={"my.secret": plant("ini")},
        C2C_SECRET=plant("secret"),
        C2C_REDIS_URL=f"redis://:{plant('redis')}@127.0.0.1:1/0",
        C2C_REDIS_OPTIONS=f"password={plant('options')}",
        SENTRY_CLIENT_HTTP_PROXY="",
        C2C_ENABLE_EXCEPTION_HANDLING="0",
        MY_DB_PASSWORD=plant("env"),
    )
    headers = {
        "HTTP_COOKIE": f"C2C_SECRET={plant('cookie')}; other={plant('cookie2')}",
        "HTTP_AUTHORIZATION": f"Basic {plant('auth')}",
        "HTTP_X_API_KEY": plant("key"),
        "HTTP_X_FORWARDED_FOR": "192.0.2.77",
        "HTTP_REFERER": f"http://h/?secret={plant('referer')}",
    }
    call(app, f"/fail?secret={plant('query')}&api_key={plant('query2')}&a=kept", **headers)
    call(app, "/logged", **headers)
    call(app, "/sql", **headers)
    for value in ("ini", "secret", "redis", "options", "env"):
        logger.error("said %s, in a text", plant(value), extra={"more": [plant(value)]})
    with sentry_sdk.isolation_scope() as scope:
        scope.set_extra("deep", {"a": [{"password": plant("extra")}]})
        scope.set_context("mine", {"token": plant("context")})
        scope.add_breadcrumb(message=f"GET http://h/?token={plant('crumb')}", data={"cookie": plant("crumb2")})
        sentry_sdk.capture_message(f"secret={plant('captured')}")
    events = sent(sentry_server)
    assert len(events) == 9
    assert b"kept" in sentry_server.raw and b"seen by who debugs" in sentry_server.raw
    around = sentry_server.raw.find(PLANTED.encode())
    assert around < 0, sentry_server.raw[max(0, around - 300) : around + 100]
    assert sentry_server_key not in sentry_server.raw
    assert [e["request"] for e in events if "192.0.2" in str(e.get("request"))] == []


def test_secrets_stay_in_what_is_no_event(start: Any, sentry_server: Sentry) -> None:
    """Spans, logs and metrics of sentry-sdk's own, where somebody turns them on."""
    start(SENTRY_CLIENT_TRACES_SAMPLE_RATE="1", SENTRY_CLIENT_ENABLE_LOGS="1")
    with sentry_sdk.start_transaction(name="job") as transaction:
        transaction.set_data("api_key", plant("transaction"))
        with sentry_sdk.start_span(op="x", name=f"GET http://h/?token={plant('span')}") as span:
            span.set_data("cookie", plant("data"))
    logger.warning("with token=%s", plant("log"), extra={"password": plant("attribute")})
    sentry_sdk.flush(10)
    kinds = {item.type for envelope in sentry_server.envelopes for item in envelope.items}
    assert {"transaction", "log"} <= kinds
    assert PLANTED.encode() not in sentry_server.raw


def test_bodies_that_were_read(start: Any, sentry_server: Sentry) -> None:
    app = start()
    text = json.dumps({"name": "you", "password": plant("body"), "deep": [{"token": plant("body2")}]}).encode()
    more = {"wsgi.input": io.BytesIO(text), "CONTENT_LENGTH": str(len(text)), "CONTENT_TYPE": "application/json"}
    call(app, "/body", method="POST", **more)
    unread = io.BytesIO(b"name=you")
    call(
        app,
        "/again",
        method="POST",
        **{"wsgi.input": unread, "CONTENT_LENGTH": "8", "CONTENT_TYPE": "application/x-www-form-urlencoded"},
    )
    first, second = sent(sentry_server)
    assert first["request"]["data"] == {"name": "you", "password": "***", "deep": [{"token": "***"}]}
    assert "data" not in second["request"]
    assert unread.tell() == 0
    assert PLANTED.encode() not in sentry_server.raw


def test_an_application_that_is_not_traced(start: Any, sentry_server: Sentry) -> None:
    app = start(OTEL_SDK_DISABLED="true")
    call(app, "/fail?a=1", HTTP_X_REQUEST_ID="my-request")
    (event,) = sent(sentry_server)
    assert event["tags"]["request_id"] == "my-request"
    assert event["transaction"] == "fail"
    assert event["request"]["query_string"] == "a=1"
    assert "trace" not in event["contexts"]


def test_a_filter_around_any_application(start: Any, sentry_server: Sentry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTRY_URL", sentry_server.dsn)

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/raise":
            raise ValueError("raised")
        start_response("200 OK", [])

        def body() -> Iterator[bytes]:
            yield b"one"
            if environ["PATH_INFO"] == "/body":
                raise LookupError("in the body")

        return body()

    filtered = sentry.filter_wsgi_app(app)
    assert kit.get(filtered, "/fine").body == b"one"
    assert isinstance(call(filtered, "/raise?b=2"), ValueError)
    assert isinstance(call(filtered, "/body"), LookupError)
    first, second = sent(sentry_server)
    assert first["request"]["query_string"] == "b=2"
    assert first["exception"]["values"][0]["mechanism"] == {"type": "wsgi", "handled": False}
    assert second["request"]["url"] == "http://localhost:80/body"


def test_a_filter_around_ours_reports_once(start: Any, sentry_server: Sentry) -> None:
    app = sentry.filter_wsgi_app(start())
    assert isinstance(call(app, "/fail"), ValueError)
    assert len(sent(sentry_server)) == 1


def test_threads_and_blocks(start: Any, sentry_server: Sentry) -> None:
    app = start()
    before, client_hook = threading.excepthook, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", client._reporting(client_hook.append))
        assert call(app, "/thread").status == 200
    assert threading.excepthook is before
    assert call(app, "/job").body == b"went on"
    assert [event["exception"]["values"][0]["type"] for event in sent(sentry_server)] == [
        "LookupError",
        "ArithmeticError",
    ]
    assert len(client_hook) == 1  # what was there before is called, too


def test_off(monkeypatch: pytest.MonkeyPatch) -> None:
    kit.install(monkeypatch)
    monkeypatch.delenv("SENTRY_URL", raising=False)
    monkeypatch.setattr(sentry, "_configured", False)
    app = kit.make(ROUTES, lambda config: config.include("c2c_otel"))
    sentry.init()
    assert sentry.filter_wsgi_app(app) is app
    with pytest.raises(KeyError), sentry.capture_exceptions():
        raise KeyError
    assert not client.started()


def test_off_imports_nothing_of_the_sdk(run: Any) -> None:
    run(
        "from pyramid.config import Configurator\n"
        "config = Configurator(settings={})\n"
        "config.include('c2c_otel')\n"
        "config.make_wsgi_app()\n"
        "from c2c_otel import sentry, setup_process\n"
        "setup_process.init()\n"
        "assert 'sentry_sdk' not in sys.modules, 'imported'\n"
    )


def test_a_setting_that_cannot_be_used_ends_the_start(start: Any) -> None:
    with pytest.raises(ConfigurationError, match="SENTRY_CLIENT_SAMPLE_RATE is 'all'; expected a number from 0 to 1"):
        start(SENTRY_CLIENT_SAMPLE_RATE="all")


def test_sentry_is_away(start: Any, sentry_server: Sentry, caplog: pytest.LogCaptureFixture) -> None:
    """No request waits, it is said once, and reports arrive again as soon as somebody listens."""
    guard.reset()
    app = start()
    sentry_server.stop()
    for _ in range(5):
        assert isinstance(call(app, "/again"), RuntimeError)
    sent(sentry_server)
    said = [record.getMessage() for record in caplog.records if "entry" in record.getMessage()]
    assert said == ["c2c-otel dropped sentry.network: Sentry cannot be reached, or takes no more for now"]
    assert guard.tally["dropped.sentry.network"] >= 5
    assert "Retrying" not in caplog.text
    sentry_server.start()
    call(app, "/fail")
    assert [event["transaction"] for event in sent(sentry_server)] == ["fail"]


@pytest.mark.parametrize("status", [0, 413, 429, 500])
def test_sentry_refuses(start: Any, sentry_server: Sentry, status: int) -> None:
    guard.reset()
    app = start()
    sentry_server.fail_next(4, status, Retry_After="1")
    assert isinstance(call(app, "/again"), RuntimeError)
    sent(sentry_server)
    assert sum(count for place, count in guard.tally.items() if place.startswith("dropped.sentry")) >= 1


def test_sentry_is_slow(start: Any, sentry_server: Sentry) -> None:
    """While one report is being sent, no request waits, and what waits to be sent is bounded."""
    guard.reset()
    app = start(SENTRY_CLIENT_TRANSPORT_QUEUE_SIZE="3", SENTRY_CLIENT_SHUTDOWN_TIMEOUT="0.3")
    sentry_server.gate.clear()
    for _ in range(10):
        assert isinstance(call(app, "/again"), RuntimeError)
    assert guard.tally["dropped.sentry.full_queue"] >= 6  # one is being sent, three wait
    assert sentry_server.requests == 0
    client.close()  # comes back, though nothing was sent
    assert sentry_server.requests == 0
    sentry_server.gate.set()


def test_a_forked_child_has_its_own(start: Any, sentry_server: Sentry) -> None:
    """What waits in the parent is sent by the parent alone, once; the child sends its own."""
    start()
    sentry_server.gate.clear()
    sentry_sdk.capture_message("of the parent, being sent")
    sentry_sdk.capture_message("of the parent, waiting")
    pid = os.fork()
    if pid == 0:
        try:
            assert not any(thread.name.startswith("sentry") for thread in threading.enumerate())
            sentry_sdk.capture_message("of the child")
            client.close()
        finally:
            os._exit(0)
    sentry_server.gate.set()
    assert os.waitpid(pid, 0)[1] == 0
    messages = sorted(event["message"] for event in sent(sentry_server))
    assert messages == ["of the child", "of the parent, being sent", "of the parent, waiting"]


def test_an_arbiter_has_none(start: Any, sentry_server: Sentry, monkeypatch: pytest.MonkeyPatch) -> None:
    start.fake.held = True
    app = start()
    assert not client.started()
    pid = os.fork()
    if pid == 0:
        start.fake.held = False
        assert client.started()
        call(app, "/fail")
        client.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert [event["transaction"] for event in sentry_server.events] == ["fail"]
    assert not client.started()
    start.fake.held = False  # it serves after all
    call(app, "/again")
    assert [event["transaction"] for event in sent(sentry_server)] == ["fail", "again"]


def test_a_script_reports_what_ends_it(run: Any, sentry_server: Sentry) -> None:
    done = run(
        "from c2c_otel import setup_process\nsetup_process.init()\nraise RuntimeError('the end')",
        ok=False,
        SENTRY_URL=sentry_server.dsn,
    )
    assert done.returncode == 1
    (event,) = sentry_server.events
    assert event["exception"]["values"][0]["value"] == "the end"


def test_processes_of_multiprocessing(run: Any, sentry_server: Sentry) -> None:
    run(
        "from c2c_otel import setup_process\n"
        "setup_process.init()\n"
        "def child():\n"
        "    logging.error('of the child')\n"
        "fork(child)\n"
        "logging.error('of the parent')\n",
        SENTRY_URL=sentry_server.dsn,
    )
    assert sorted(event["logentry"]["formatted"] for event in sentry_server.events) == ["of the child", "of the parent"]
