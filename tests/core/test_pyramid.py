from __future__ import annotations

import gc
import logging
import threading
import weakref
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation import propagators
from opentelemetry.trace import SpanKind, StatusCode
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPConflict, HTTPFound, HTTPNotFound, HTTPServiceUnavailable
from pyramid.renderers import render
from pyramid.request import Request
from pyramid.response import FileResponse, Response
from pyramid.router import Router

from c2c_otel import current_request
from c2c_otel.instrumentation.pyramid import PyramidInstrumentor, TracedRouter
from c2c_otel_exporters import guard
from tests import pyramid_kit as kit
from tests.pyramid_kit import FakeTelemetry, assert_left_nothing, get, make, start

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def fake(monkeypatch: Any) -> Any:
    yield kit.install(monkeypatch)
    assert_left_nothing()


def hello(request: Any) -> Response:
    return Response("hello")


def boom(request: Any) -> Response:
    raise ValueError("boom")


# -- the span and the measurement -----------------------------------------------------------------------------------


def test_a_request_is_one_span_and_one_measurement(fake: FakeTelemetry) -> None:
    app = make({"hello": hello})
    answer = get(app, "/hello?a=1&secret=x", HTTP_USER_AGENT="curl/8")
    assert (answer.status, answer.body) == (200, b"hello")
    (span,) = fake.spans
    assert (span.name, span.kind, span.parent) == ("GET /hello", SpanKind.SERVER, None)
    attributes = dict(span.attributes or {})
    identity = attributes.pop("c2c.request_id")
    assert str(identity).replace("-", "") == f"{span.context.trace_id:032x}"
    assert attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/hello",
        "url.query": "a=1&secret=REDACTED",
        "server.address": "localhost",
        "server.port": 80,
        "client.address": "192.0.2.1",
        "user_agent.original": "curl/8",
        "network.protocol.version": "1.1",
        "http.route": "/hello",
        "pyramid.route.name": "hello",
        "http.response.status_code": 200,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert fake.sink.routes == [("GET", "hello", "/hello", 200, "http", None)]
    assert fake.sink.renders == []


def test_the_router_stays_a_router(fake: FakeTelemetry) -> None:
    app = make({"hello": hello})
    assert isinstance(app, Router)
    assert app.registry.settings is not None
    assert app.invoke_subrequest(Request.blank("/hello")).text == "hello"
    assert fake.spans == []  # outside of a request there is nothing to belong to


def test_an_application_nobody_asked_for_is_pyramids_own(fake: FakeTelemetry) -> None:
    make({"hello": hello})  # puts our Router in place
    config = Configurator()
    config.add_route("other", "/other")
    config.add_view(hello, route_name="other")
    answer = get(config.make_wsgi_app(), "/other")
    assert answer.status == 200
    assert answer.header("Server-Timing") is None
    assert get(config.make_wsgi_app(), "/metrics").status == 404
    assert fake.spans == []


def test_instrument_is_for_every_application_and_can_be_undone(fake: FakeTelemetry) -> None:
    instrumentor = PyramidInstrumentor()
    assert isinstance(instrumentor, PyramidInstrumentor)
    instrumentor.instrument(skip_dep_check=True)
    try:
        config = Configurator()
        config.add_route("hello", "/hello")
        config.add_view(hello, route_name="hello")
        get(config.make_wsgi_app(), "/hello")
        assert fake.sink.routes == [("GET", "hello", "/hello", 200, "http", None)]
        assert fake.applications == 1
    finally:
        instrumentor.uninstrument()
    get(Configurator().make_wsgi_app(), "/hello")
    assert len(fake.sink.routes) == 1


def test_uninstrument_config(fake: FakeTelemetry) -> None:
    app = make({"hello": hello}, PyramidInstrumentor.instrument_config)
    assert isinstance(app, TracedRouter)
    config = Configurator()
    PyramidInstrumentor.instrument_config(config)
    PyramidInstrumentor.uninstrument_config(config)
    get(config.make_wsgi_app(), "/")
    assert fake.spans == []


def test_contrib_s_singleton_is_not_ours() -> None:
    from opentelemetry.instrumentation.pyramid import PyramidInstrumentor as Contrib

    assert type(Contrib()) is Contrib
    assert type(PyramidInstrumentor()) is PyramidInstrumentor


def test_a_route_prefix_and_a_pattern_without_slash(fake: FakeTelemetry) -> None:
    config = Configurator(route_prefix="api")
    config.add_route("thing", "things/{id}")
    config.add_view(hello, route_name="thing")
    PyramidInstrumentor.instrument_config(config)
    get(config.make_wsgi_app(), "/api/things/7")
    assert fake.span("GET /api/things/{id}").attributes["http.route"] == "/api/things/{id}"


def test_unmatched_paths_share_a_name(fake: FakeTelemetry) -> None:
    app = make({"hello": hello})
    for path in ("/a", "/b"):
        assert get(app, path).status == 404
    assert [span.name for span in fake.spans] == ["GET", "GET"]
    assert fake.sink.routes == [("GET", None, None, 404, "http", None)] * 2
    assert all(span.status.status_code is StatusCode.UNSET and not span.events for span in fake.spans)
    assert "http.route" not in fake.spans[0].attributes


def test_an_unknown_method_is_other(fake: FakeTelemetry) -> None:
    get(make({"hello": hello}), "/hello", "BREW")
    span = fake.span("HTTP /hello")
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"
    assert fake.sink.routes == [("_OTHER", "hello", "/hello", 200, "http", None)]


def test_head_and_304(fake: FakeTelemetry) -> None:
    def tagged(request: Any) -> Response:
        return Response("hello", etag="x", conditional_response=True)

    app = make({"hello": tagged})
    head = get(app, "/hello", "HEAD")
    assert (head.status, head.body, head.header("Content-Length")) == (200, b"", "5")
    unmodified = get(app, "/hello", HTTP_IF_NONE_MATCH='"x"')
    assert (unmodified.status, unmodified.body) == (304, b"")
    assert [route[0] + str(route[3]) for route in fake.sink.routes] == ["HEAD200", "GET304"]
    assert [span.name for span in fake.spans] == ["HEAD /hello", "GET /hello"]
    assert unmodified.header("X-Request-ID")


def test_it_joins_the_caller_s_trace_unless_told_to_ignore_it(fake: FakeTelemetry, monkeypatch: Any) -> None:
    app = make({"hello": hello})
    get(app, "/hello", HTTP_TRACEPARENT=TRACEPARENT)
    (span,) = fake.spans
    assert f"{span.context.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert span.parent is not None and span.parent.is_remote

    from c2c_otel.settings import Settings

    edge = kit.install(monkeypatch, Settings(trace_context="ignore"))
    get(app, "/hello", HTTP_TRACEPARENT=TRACEPARENT)
    assert edge.spans[0].parent is None


def test_what_the_thread_had_is_no_parent_and_is_given_back(fake: FakeTelemetry) -> None:
    app = make({"hello": hello})
    with fake.tracer("test").start_as_current_span("around") as around:
        get(app, "/hello")
        assert trace.get_current_span() is around
    assert fake.span("GET /hello").parent is None


def test_excluded_urls(fake: FakeTelemetry, monkeypatch: Any) -> None:
    monkeypatch.setenv("OTEL_PYTHON_PYRAMID_EXCLUDED_URLS", "hello,local.*/none")
    app = make({"hello": hello, "other": hello})
    answer = get(app, "/hello")
    assert answer.header("X-Request-ID") is None
    get(app, "/other")
    assert [span.name for span in fake.spans] == ["GET /other"]
    assert len(fake.sink.routes) == 1


def test_headers_are_captured_when_asked_for(fake: FakeTelemetry, monkeypatch: Any) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST", "x-a,cookie")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE", "content-.*")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS", "cookie")
    get(make({"hello": hello}), "/hello", HTTP_X_A="1", HTTP_COOKIE="s=1", HTTP_X_B="2")
    attributes = fake.span("GET /hello").attributes or {}
    assert attributes["http.request.header.x_a"] == ("1",)
    assert attributes["http.request.header.cookie"] == ("[REDACTED]",)
    assert attributes["http.response.header.content_length"] == ("5",)
    assert "http.request.header.x_b" not in attributes


# -- headers of the response ----------------------------------------------------------------------------------------


def test_request_id_comes_from_the_header_and_goes_back(fake: FakeTelemetry) -> None:
    seen = []
    app = make({"hello": lambda request: seen.append(request.c2c_request_id) or Response("")})
    answer = get(app, "/hello", HTTP_X_REQUEST_ID="mine; a=b")
    assert seen == ["mine; a=b"] == [answer.header("X-Request-ID")]
    assert fake.span("GET /hello").parent is None


def test_the_application_s_own_request_id_header_stays(fake: FakeTelemetry) -> None:
    app = make({"hello": lambda request: Response(b"", headerlist=[("x-request-id", "theirs")])})
    assert get(app, "/hello").header("X-Request-ID") == "theirs"


def test_server_timing(fake: FakeTelemetry) -> None:
    import re

    app = make({"hello": hello, "json": {"view": lambda request: {}, "renderer": "json"}})
    assert re.fullmatch(r"route;desc=hello, route;dur=\d+", get(app, "/hello").header("Server-Timing") or "")
    timing = get(app, "/json").header("Server-Timing") or ""
    assert re.fullmatch(r"route;desc=json, route;dur=\d+, render;dur=\d+", timing)
    assert re.fullmatch(r"route;dur=\d+", get(app, "/nowhere").header("Server-Timing") or "")


def test_server_timing_of_a_name_that_is_no_token(fake: FakeTelemetry) -> None:
    app = make({'a "b"\né': hello}, lambda config: None)
    (value,) = get(app, '/a "b"\n' + "é".encode().decode("latin-1")).all("Server-Timing")
    assert value.startswith('route;desc="a _b___", route;dur=')


def test_a_shared_response_does_not_gather_headers(fake: FakeTelemetry) -> None:
    shared = Response(b"x", headerlist=[("Server-Timing", "db;dur=1")])
    app = make({"hello": lambda request: shared})
    for _ in range(3):
        answer = get(app, "/hello")
        assert len(answer.all("Server-Timing")) == 2
        assert len(answer.all("X-Request-ID")) == 1
    assert "X-Request-ID" not in shared.headers
    assert len({span.context.trace_id for span in fake.spans}) == 3


# -- request.c2c_request_id -----------------------------------------------------------------------------------------


def test_request_id_outside_of_a_traced_request(fake: FakeTelemetry) -> None:
    from pyramid.testing import DummyRequest

    make({})
    request = DummyRequest()
    assert len(request.c2c_request_id) == 36
    assert request.c2c_request_id == request.c2c_request_id
    blank = Request.blank("/", headers={"X-Request-ID": "given"})
    assert blank.c2c_request_id == "given"
    assert Request.c2c_request_id is not None
    blank.c2c_request_id = "set"
    assert blank.c2c_request_id == "set"


def test_a_subrequest_has_the_id_of_its_request(fake: FakeTelemetry) -> None:
    seen = []

    def outer(request: Any) -> Response:
        seen.append(request.c2c_request_id)
        return request.invoke_subrequest(Request.blank("/inner"))

    def inner(request: Any) -> Response:
        seen.append(request.c2c_request_id)
        return Response("")

    get(make({"outer": outer, "inner": inner}), "/outer")
    assert len(set(seen)) == 1 and len(seen) == 2


# -- exceptions -----------------------------------------------------------------------------------------------------


def test_an_exception_nobody_handles(fake: FakeTelemetry) -> None:
    app = make({"boom": boom})
    with pytest.raises(ValueError, match="boom"):
        get(app, "/boom")
    assert_left_nothing()
    span = fake.span("GET /boom")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["http.response.status_code"] == 500
    assert span.attributes["error.type"] == "ValueError"
    assert [event.name for event in span.events] == ["exception"]
    assert fake.sink.routes == [("GET", "boom", "/boom", 500, "http", "ValueError")]


@pytest.mark.parametrize(("status", "error", "code"), [(500, "ValueError", "ERROR"), (400, None, "UNSET")])
def test_an_exception_view_leaves_an_event(fake: FakeTelemetry, status: int, error: Any, code: str) -> None:
    def handled(exc: Any, request: Any) -> Response:
        return Response("handled", status)

    app = make({"boom": boom}, lambda config: config.add_exception_view(handled, context=ValueError))
    assert get(app, "/boom").status == status
    span = fake.span("GET /boom")
    assert [event.name for event in span.events] == ["exception"]
    assert span.attributes.get("error.type") == error
    assert span.status.status_code.name == code
    assert fake.sink.routes == [("GET", "boom", "/boom", status, "http", error)]


@pytest.mark.parametrize(
    ("exception", "events", "error"),
    [(HTTPFound("/x"), 0, None), (HTTPConflict(), 0, None), (HTTPServiceUnavailable(), 1, "503")],
)
def test_http_exceptions_are_answers(fake: FakeTelemetry, exception: Any, events: int, error: Any) -> None:
    def view(request: Any) -> Response:
        raise exception

    app = make({"hello": view})
    assert get(app, "/hello").status == exception.status_int
    span = fake.span("GET /hello")
    assert len(span.events) == events
    assert fake.sink.routes == [("GET", "hello", "/hello", exception.status_int, "http", error)]


def test_an_http_exception_that_escapes_keeps_its_status(fake: FakeTelemetry) -> None:
    app = make({"hello": hello}, **{"pyramid.tweens": "tests.pyramid_kit_tweens.passing"})
    with pytest.raises(HTTPNotFound):
        get(app, "/nowhere")
    assert fake.sink.routes == [("GET", None, None, 404, "http", None)]


def test_a_returned_500_is_an_error_by_its_status(fake: FakeTelemetry) -> None:
    get(make({"hello": lambda request: Response(status=500)}), "/hello")
    assert fake.span("GET /hello").attributes["error.type"] == "500"
    assert fake.sink.routes == [("GET", "hello", "/hello", 500, "http", "500")]


@pytest.mark.parametrize("explicit", [True, False])
def test_tweens_that_answer_and_that_raise(fake: FakeTelemetry, explicit: bool) -> None:
    name = "tests.pyramid_kit_tweens.short"
    settings = {"pyramid.tweens": f"{name}\npyramid.tweens.excview_tween_factory"} if explicit else {}

    def configure(config: Any) -> None:
        if not explicit:
            config.add_tween(name)

    app = make({"hello": hello}, configure, **settings)
    assert get(app, "/hello", HTTP_X_TWEEN="answer").status == 418
    with pytest.raises(KeyError):
        get(app, "/hello", HTTP_X_TWEEN="raise")
    assert get(app, "/hello").status == 200
    assert [(route[1], route[3], route[5]) for route in fake.sink.routes] == [
        (None, 418, None),
        (None, 500, "KeyError"),
        ("hello", 200, None),
    ]
    assert [span.name for span in fake.spans] == ["GET", "GET", "GET /hello"]
    assert app.registry.settings.get("pyramid.tweens") == settings.get("pyramid.tweens")


def test_a_failing_response_callback_is_in_the_span(fake: FakeTelemetry) -> None:
    def view(request: Any) -> Response:
        request.add_response_callback(lambda request, response: 1 / 0)
        return Response("")

    with pytest.raises(ZeroDivisionError):
        get(make({"hello": view}), "/hello")
    assert fake.sink.routes == [("GET", "hello", "/hello", 500, "http", "ZeroDivisionError")]


def test_our_own_failure_does_not_fail_the_request(fake: FakeTelemetry, monkeypatch: Any) -> None:
    calls = []
    app = make({"hello": lambda request: calls.append(1) or Response("hello")})
    guard.strict(False)
    try:
        monkeypatch.setattr(fake, "tracer", lambda name: 1 / 0)
        assert get(app, "/hello").body == b"hello"
        monkeypatch.undo()
        kit.install(monkeypatch)
        monkeypatch.setattr("c2c_otel.instrumentation.endings._token", lambda name: 1 / 0)
        monkeypatch.setattr("c2c_otel.instrumentation.exchange._describe", lambda *a: 1 / 0)
        answer = get(app, "/hello")
        assert (answer.status, answer.body) == (200, b"hello")
        assert len(calls) == 2
        assert guard.tally["failed.pyramid.begin"] == 1
        assert guard.tally["failed.pyramid.start_response"] == 1
        assert guard.tally["failed.pyramid.finish"] == 1
    finally:
        guard.strict(None)
        guard.reset()


# -- bodies ---------------------------------------------------------------------------------------------------------


def test_the_span_ends_with_the_body_and_the_context_lasts_until_then(fake: FakeTelemetry) -> None:
    app = make({"hello": hello})
    answer = start(app, "/hello")
    current = current_request.get()
    assert current is not None and current.route_name == "hello" and current.route_pattern == "/hello"
    assert fake.spans == []
    assert b"".join(answer.body_object) == b"hello"
    assert fake.spans == []
    answer.close()
    assert len(fake.spans) == len(fake.sink.routes) == 1
    assert_left_nothing()
    answer.close()
    assert len(fake.spans) == len(fake.sink.routes) == 1


def test_a_list_body_has_a_length(fake: FakeTelemetry) -> None:
    app = make({"hello": lambda request: Response(app_iter=[b"hello"])})
    answer = start(app, "/hello")
    assert len(answer.body_object) == 1
    answer.read()
    generated = start(make({"hello": lambda request: Response(app_iter=iter([b"x"]))}), "/hello")
    assert not hasattr(generated.body_object, "__len__")
    generated.read()


def test_streaming_runs_in_the_context_of_its_request(fake: FakeTelemetry) -> None:
    ids = []

    def stream(request: Any) -> Response:
        def body() -> Any:
            for _ in range(3):
                with fake.tracer("test").start_as_current_span("step"):
                    ids.append(current_request.get().request_id)  # type: ignore[union-attr]
                yield b"x"

        return Response(app_iter=body())

    answer = get(make({"stream": stream}), "/stream")
    assert answer.body == b"xxx"
    route = fake.span("GET /stream")
    steps = [span for span in fake.spans if span.name == "step"]
    assert [step.parent.span_id for step in steps] == [route.context.span_id] * 3
    assert set(ids) == {answer.header("X-Request-ID")}
    assert (route.end_time or 0) >= max(step.end_time or 0 for step in steps)


def test_a_body_sent_by_another_thread(fake: FakeTelemetry) -> None:
    seen: list[Any] = []

    class Body:
        def __iter__(self) -> Any:
            seen.append(current_request.get())
            return iter([b"x"])

        def close(self) -> None:
            seen.append(current_request.get())

    answer = start(make({"hello": lambda request: Response(app_iter=Body())}), "/hello")
    current = current_request.get()

    def send() -> None:
        answer.read()
        assert_left_nothing()

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()
    assert answer.body == b"x"
    assert seen == [current, current]
    assert len(fake.spans) == 1
    get(make({}), "/")  # what the other thread could not take away here, the next request does
    assert len(fake.spans) == 2


def test_a_body_that_fails_half_way(fake: FakeTelemetry) -> None:
    def body() -> Any:
        yield b"x"
        raise OSError("gone")

    app = make({"hello": lambda request: Response(app_iter=body())})
    with pytest.raises(OSError, match="gone"):
        get(app, "/hello")
    span = fake.span("GET /hello")
    assert [event.name for event in span.events] == ["exception"]
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes["http.response.status_code"], span.attributes["error.type"]) == (200, "OSError")
    assert fake.sink.routes == [("GET", "hello", "/hello", 200, "http", "OSError")]


def test_a_client_that_goes_away(fake: FakeTelemetry) -> None:
    closed = []

    def body() -> Any:
        try:
            while True:
                yield b"x"
        finally:
            closed.append(current_request.get())

    answer = start(make({"hello": lambda request: Response(app_iter=body())}), "/hello")
    next(iter(answer.body_object))
    answer.close()
    assert closed[0] is not None
    assert len(fake.spans) == len(fake.sink.routes) == 1
    assert fake.spans[0].status.status_code is StatusCode.UNSET


def test_a_body_whose_close_fails(fake: FakeTelemetry) -> None:
    class Body(list[bytes]):
        def close(self) -> None:
            raise OSError("close")

    answer = start(make({"hello": lambda request: Response(app_iter=Body([b"x"]))}), "/hello")
    with pytest.raises(OSError, match="close"):
        answer.read()
    assert fake.sink.routes == [("GET", "hello", "/hello", 200, "http", "OSError")]


@pytest.mark.parametrize("collected", [True, False])
def test_a_body_that_is_never_closed(fake: FakeTelemetry, collected: bool) -> None:
    app = make({"hello": hello, "other": hello})
    answer = start(app, "/hello")
    if collected:
        answer.body_object = None
        gc.collect()
        assert [span.name for span in fake.spans] == ["GET /hello"]
        assert_left_nothing()
    get(app, "/other")
    assert [span.name for span in fake.spans] == ["GET /hello", "GET /other"]
    assert fake.spans[1].parent is None
    assert_left_nothing()
    answer.close()
    assert len(fake.spans) == len(fake.sink.routes) == 2


class FileWrapper:
    """As gunicorn's: no close() of its own class."""

    def __init__(self, filelike: Any, blksize: int = 8192) -> None:
        self.filelike = filelike
        self.close = filelike.close

    def __iter__(self) -> Any:
        return iter(lambda: self.filelike.read(8192), b"")


def test_a_file_stays_the_server_s_file(fake: FakeTelemetry, tmp_path: Any) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"content")
    app = make({"file": lambda request: FileResponse(str(path), request)})
    answer = start(app, "/file", **{"wsgi.file_wrapper": FileWrapper})
    assert type(answer.body_object) is FileWrapper
    assert fake.spans == []
    filelike = answer.body_object.filelike
    answer.read()
    assert answer.body == b"content" and filelike.closed
    assert len(fake.spans) == len(fake.sink.routes) == 1


def test_a_file_wrapper_that_takes_no_attributes(fake: FakeTelemetry, tmp_path: Any) -> None:
    class Slotted:
        __slots__ = ("file",)

        def __init__(self, file: Any, size: int) -> None:
            self.file = file

        def __iter__(self) -> Any:
            return iter([self.file.read()])

        def close(self) -> None:
            self.file.close()

    path = tmp_path / "file.txt"
    path.write_bytes(b"content")
    app = make({"file": lambda request: FileResponse(str(path), request)})
    assert get(app, "/file", **{"wsgi.file_wrapper": Slotted}).body == b"content"
    assert len(fake.spans) == 1


def test_write_and_exc_info_are_passed_through(fake: FakeTelemetry) -> None:
    import sys

    def application(environ: Any, start_response: Any) -> Any:
        try:
            raise RuntimeError
        except RuntimeError:
            write = start_response("503 Away", [], sys.exc_info())
        write(b"written")
        return [b"rest"]

    class Raw:
        def __call__(self, environ: Any, start_response: Any) -> Any:
            return application(environ, start_response)

    from pyramid.interfaces import IResponse
    from zope.interface import directlyProvides

    raw = Raw()
    directlyProvides(raw, IResponse)
    answer = get(make({"raw": lambda request: raw}), "/raw")
    assert (answer.status, answer.written, answer.body) == (503, [b"written"], b"rest")
    assert answer.exc_info[0] is RuntimeError
    assert fake.sink.routes == [("GET", "raw", "/raw", 503, "http", "503")]


# -- rendering ------------------------------------------------------------------------------------------------------


def test_rendering_is_a_span_and_a_measurement(fake: FakeTelemetry) -> None:
    app = make({"json": {"view": lambda request: {"a": 1}, "renderer": "json"}})
    assert get(app, "/json").body == b'{"a": 1}'
    rendered, route = fake.span("render json"), fake.span("GET /json")
    assert rendered.kind is SpanKind.INTERNAL
    assert rendered.parent.span_id == route.context.span_id
    assert fake.sink.renders == [("GET", "json", "/json", 200)]


def test_several_renderings_are_measured_together(fake: FakeTelemetry) -> None:
    class Nested:
        def __call__(self, info: Any) -> Any:
            return lambda value, system: render("json", value, system["request"])

    def view(request: Any) -> Any:
        return {"a": render("string", 1, request)}

    app = make({"nested": {"view": view, "renderer": "nested"}}, lambda config: config.add_renderer("nested", Nested()))
    get(app, "/nested")
    nested = fake.span("render nested")
    assert fake.span("render json").parent.span_id == nested.context.span_id
    assert fake.span("render string").parent.span_id == fake.span("GET /nested").context.span_id
    assert fake.sink.renders == [("GET", "nested", "/nested", 200)]


def test_a_renderer_that_fails(fake: FakeTelemetry) -> None:
    app = make({"json": {"view": lambda request: {"a": object()}, "renderer": "json"}})
    with pytest.raises(TypeError):
        get(app, "/json")
    rendered = fake.span("render json")
    assert rendered.status.status_code is StatusCode.ERROR
    assert rendered.attributes["error.type"] == "TypeError"
    assert fake.sink.renders == [("GET", "json", "/json", 500)]


def test_rendering_outside_of_a_request_is_nobody_s(fake: FakeTelemetry) -> None:
    app = make({})
    from pyramid.scripting import prepare

    with prepare(registry=app.registry) as env:
        assert render("json", [1], env["request"]) == "[1]"
    assert fake.spans == []


# -- subrequests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("use_tweens", [True, False])
def test_subrequests_are_children(fake: FakeTelemetry, copy: bool, use_tweens: bool) -> None:
    def outer(request: Any) -> Response:
        if copy:
            inner = request.copy()
            inner.path_info = "/inner"
        else:
            inner = Request.blank("/inner")
        response = request.invoke_subrequest(inner, use_tweens=use_tweens)
        with fake.tracer("test").start_as_current_span("after"):
            return response

    app = make({"outer": outer, "inner": {"view": lambda request: {}, "renderer": "json"}})
    assert get(app, "/outer").body == b"{}"
    route, inner = fake.span("GET /outer"), fake.span("GET /inner")
    assert inner.kind is SpanKind.INTERNAL
    assert inner.parent.span_id == route.context.span_id
    assert fake.span("render json").parent.span_id == inner.context.span_id
    assert fake.span("after").parent.span_id == route.context.span_id
    assert inner.attributes["pyramid.route.name"] == "inner"
    assert inner.attributes["http.response.status_code"] == 200
    assert fake.sink.routes == [("GET", "outer", "/outer", 200, "http", None)]
    assert fake.sink.renders == [("GET", "outer", "/outer", 200)]


def test_a_subrequest_that_fails(fake: FakeTelemetry) -> None:
    def outer(request: Any) -> Response:
        span = trace.get_current_span()
        for path in ("/boom", "/nowhere"):
            with pytest.raises((ValueError, HTTPNotFound)):
                request.invoke_subrequest(Request.blank(path))
            assert trace.get_current_span() is span
        return Response("fine")

    get(make({"outer": outer, "boom": boom}), "/outer")
    inner = fake.span("GET /boom")
    assert inner.status.status_code is StatusCode.ERROR
    assert [event.name for event in inner.events] == ["exception"]
    assert fake.span("GET").attributes["http.response.status_code"] == 404
    assert fake.span("GET").status.status_code is StatusCode.UNSET
    assert fake.span("GET /outer").status.status_code is StatusCode.UNSET
    assert len(fake.sink.routes) == 1


def test_an_application_inside_another_is_a_part_of_its_request(fake: FakeTelemetry) -> None:
    inner = make({"inner": hello})

    def outer(request: Any) -> Response:
        copy = request.copy()
        copy.path_info = "/inner"
        return copy.get_response(inner)

    answer = get(make({"outer": outer}), "/outer")
    assert answer.body == b"hello"
    assert len(answer.all("Server-Timing")) == 1
    assert fake.span("GET /inner").parent.span_id == fake.span("GET /outer").context.span_id
    assert len(fake.sink.routes) == 1


def test_an_execution_policy_that_tries_again(fake: FakeTelemetry) -> None:
    calls = []

    def policy(environ: Any, router: Any) -> Any:
        for _ in range(3):
            with router.request_context(environ) as request:
                try:
                    return router.invoke_request(request)
                except ValueError:
                    continue
        raise AssertionError

    def view(request: Any) -> Response:
        calls.append(1)
        if len(calls) < 3:
            raise ValueError
        return Response("third")

    app = make({"hello": view}, lambda config: config.set_execution_policy(policy))
    assert get(app, "/hello").body == b"third"
    (span,) = fake.spans
    assert span.kind is SpanKind.SERVER and span.status.status_code is StatusCode.UNSET
    assert fake.sink.routes == [("GET", "hello", "/hello", 200, "http", None)]


# -- what is left alone ---------------------------------------------------------------------------------------------


def test_nothing_is_subscribed_and_no_tween_is_added(fake: FakeTelemetry) -> None:
    plain = Configurator()
    plain.commit()
    app = make({})
    from pyramid.interfaces import ITweens

    assert app.registry.has_listeners == plain.registry.has_listeners
    assert app.registry.getUtility(ITweens).implicit() == plain.registry.getUtility(ITweens).implicit()


def test_lines_logged_until_the_end_know_their_request(fake: FakeTelemetry) -> None:
    seen: list[Any] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            current = current_request.get()
            seen.append((current.request_id, current.route_name) if current else None)

    logger = logging.getLogger("test_pyramid")
    handler = Handler()
    logger.addHandler(handler)
    try:
        app = make({"hello": lambda request: logger.warning("in the view") or Response("")})
        answer = start(app, "/hello", HTTP_X_REQUEST_ID="me")
        logger.warning("the access log of the server")
        answer.read()
        logger.warning("after")
    finally:
        logger.removeHandler(handler)
    assert seen == [("me", "hello"), ("me", "hello"), None]


@pytest.mark.parametrize("path", ["/hello", "/json", "/stream"])
def test_a_request_leaves_no_garbage(fake: FakeTelemetry, path: str) -> None:
    class Watched:
        """Kept by the environ, and so by whatever keeps that."""

    views = {
        "hello": hello,
        "json": {"view": lambda request: {}, "renderer": "json"},
        "stream": lambda request: Response(app_iter=iter([b"x"])),
    }
    app = make(views)
    watched = kit.environ(path, watched=Watched())
    gone = weakref.ref(watched["watched"])
    gc.disable()
    try:
        answer = kit.Answer()
        answer.body_object = app(watched, answer.start_response)
        answer.read()
        answer.body_object = None
        del watched, answer
        fake.clear()
        assert gone() is None
    finally:
        gc.enable()


def test_a_client_of_webob_s_closes_the_body(fake: FakeTelemetry) -> None:
    """It closes everything but lists: the body that it is given must be none."""
    app = make({"hello": lambda request: Response("hi")})
    response = Request.blank("/hello").get_response(app)
    assert response.body == b"hi"
    assert len(fake.sink.routes) == 1


def test_the_response_propagator_is_asked(fake: FakeTelemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(propagators, "_RESPONSE_PROPAGATOR", propagators.TraceResponsePropagator())
    app = make({"hello": lambda request: Response("hi")})
    headers = Request.blank("/hello").get_response(app).headers
    context = fake.span("GET /hello").context
    assert headers["traceresponse"] == f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert headers["Access-Control-Expose-Headers"] == "traceresponse"


def test_what_is_raised_is_the_description_of_the_status(fake: FakeTelemetry) -> None:
    def boom(request: Request) -> Response:
        raise ValueError(f"not at {request.path_qs}")

    app = make({"boom": boom})
    for address in ("/boom", "/boom?secret=s3cret-of-ours"):
        with pytest.raises(ValueError, match="not at "):
            Request.blank(address).get_response(app)
    first, second = (span.status for span in fake.spans)
    assert (first.status_code, first.description) == (StatusCode.ERROR, "not at /boom")
    assert (second.status_code, second.description) == (StatusCode.ERROR, "not at /boom?secret=***")
