"""What hostile and unusual applications do to the Pyramid side; each was a failure once, or is easily made one."""

from __future__ import annotations

import dataclasses
import datetime
import gc
import io
import json
import logging
import uuid
import weakref
import wsgiref.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyramid import testing
from pyramid.config import Configurator
from pyramid.interfaces import IResponse
from pyramid.renderers import render
from pyramid.request import Request
from pyramid.response import FileResponse, Response
from zope.interface import implementer

from c2c_otel.instrumentation import exchange, wsgi_body
from c2c_otel.instrumentation.pyramid import PyramidInstrumentor
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel_exporters import guard
from tests import pyramid_kit as kit
from tests.pyramid_kit import FakeTelemetry, assert_left_nothing, get, make, start


@pytest.fixture
def fake(monkeypatch: Any) -> Any:
    yield kit.install(monkeypatch)
    assert_left_nothing()


@pytest.fixture
def launched(fake: FakeTelemetry) -> Any:
    instrumentor = PyramidInstrumentor()
    instrumentor.instrument(skip_dep_check=True)
    yield fake
    instrumentor.uninstrument()


class Mute(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


# -- requests -------------------------------------------------------------------------------------------------------


def test_a_factory_that_sets_properties_does_not_fill_the_memory(fake: FakeTelemetry) -> None:
    """``set_property`` makes a class, so each request comes with one of its own."""

    def factory(environ: Any) -> Any:
        request = Request(environ)
        request.set_property(lambda _request: 1, "mine", reify=True)
        return request

    def configure(config: Any) -> None:
        config.set_request_factory(factory)
        config.add_request_method(lambda _request: 2, "ours", property=True)

    app = make({"sum": lambda request: Response(str(request.mine + request.ours))}, configure)
    classes: list[Any] = []
    for _ in range(60):
        with app.request_context(kit.environ("/sum")) as request:
            classes.append(weakref.ref(type(request)))
        assert get(app, "/sum").body == b"3"
    del request
    gc.collect()
    assert sum(cls() is not None for cls in classes) < 20


def test_a_subrequest_of_the_body_is_a_subrequest(fake: FakeTelemetry) -> None:
    """The request has been answered by then, and stays what is measured."""

    def outer(request: Any) -> Response:
        def body() -> Any:
            for _ in range(2):
                yield request.invoke_subrequest(Request.blank("/inner")).body

        return Response(app_iter=body())

    app = make({"outer": outer, "inner": lambda request: Response("in")})
    assert get(app, "/outer").body == b"inin"
    assert [route[1] for route in fake.sink.routes] == ["outer"]
    parent = fake.span("GET /outer")
    inner = [span for span in fake.spans if span.name == "GET /inner"]
    assert [span.parent and span.parent.span_id for span in inner] == [parent.context.span_id] * 2


def test_a_subrequest_to_a_path_that_is_no_text(fake: FakeTelemetry) -> None:
    def outer(request: Any) -> Response:
        with pytest.raises(UnicodeDecodeError):
            request.invoke_subrequest(Request(kit.environ("/\xff")))
        return Response("ok")

    get(make({"outer": outer}), "/outer")
    assert (fake.span("GET").attributes or {})["url.path"] == "/%FF"


@pytest.mark.parametrize("status", ["OK", "", "x00 what"])
def test_a_status_without_a_number_is_a_failure_of_the_application(fake: FakeTelemetry, status: str) -> None:
    @implementer(IResponse)
    class Odd:
        def __call__(self, environ: Any, start_response: Any) -> Any:
            start_response(status, [("X-Own", "1")])
            return [b"odd"]

    sent: list[Any] = []
    body = make({"odd": lambda request: Odd()})(kit.environ("/odd"), lambda *arguments: sent.append(arguments))
    assert b"".join(body) == b"odd"
    body.close()
    assert [(what, [name for name, _ in headers]) for what, headers in sent] == [
        (status, ["X-Own", "X-Request-ID", "Server-Timing"])
    ]
    assert [route[3] for route in fake.sink.routes] == [500]


# -- exceptions that cannot be shown ----------------------------------------------------------------------------------


def test_an_exception_that_cannot_be_shown(c2c_telemetry: Any) -> None:
    def mute(request: Any) -> Response:
        raise Mute()

    def outer(request: Any) -> Response:
        with pytest.raises(Mute):
            request.invoke_subrequest(Request.blank("/mute"))
        return Response("ok")

    class Renderer:
        def __init__(self, info: Any) -> None: ...

        def __call__(self, value: Any, system: Any) -> str:
            raise Mute()

    rendered = {"view": lambda request: {}, "renderer": "mute"}
    app = make(
        {"mute": mute, "outer": outer, "rendered": rendered}, lambda config: config.add_renderer("mute", Renderer)
    )
    for path in ("/mute", "/rendered"):
        with pytest.raises(Mute):
            get(app, path)
    get(app, "/outer")
    assert_left_nothing()
    assert c2c_telemetry.tree() == [
        ("GET /mute", []),
        ("GET /rendered", [("render mute", [])]),
        ("GET /outer", [("GET /mute", [])]),
    ]
    failed = [span for span in c2c_telemetry.spans if not span.status.is_ok]
    assert len(failed) == 4
    for span in failed:
        assert [event.attributes["exception.type"] for event in span.events] == [f"{Mute.__module__}.Mute"]
        assert span.attributes["error.type"].endswith(".Mute")


def test_spans_end_when_describing_them_fails(fake: FakeTelemetry, monkeypatch: Any) -> None:
    def inner(request: Any) -> Any:
        return 1 / 0

    def outer(request: Any) -> Response:
        with pytest.raises(ZeroDivisionError):
            request.invoke_subrequest(Request.blank("/inner"))
        return Response(render("json", {}, request))

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    app = make({"inner": inner, "outer": outer})
    monkeypatch.setattr("opentelemetry.sdk.trace.Span.record_exception", broken)
    guard.strict(False)
    try:
        get(app, "/outer")
    finally:
        guard.strict(None)
        guard.reset()
    assert sorted(span.name for span in fake.spans) == ["GET /inner", "GET /outer", "render json"]


@pytest.mark.parametrize(("at", "status"), [("begin", 500), ("answered", 500), ("wrap", 200)])
def test_an_exception_from_outside_does_not_blind_the_thread(
    fake: FakeTelemetry, monkeypatch: Any, caplog: Any, at: str, status: int
) -> None:
    """What a signal handler raises (a timeout) may come between any two of our lines."""

    def interrupted(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            function(*arguments)
            raise KeyboardInterrupt

        return call

    app = make({"hello": lambda request: Response("hello")})
    owner = {"begin": exchange, "answered": exchange.Exchange, "wrap": wsgi_body}[at]
    with monkeypatch.context() as patch:
        patch.setattr(owner, at, interrupted(getattr(owner, at)))
        with pytest.raises(KeyboardInterrupt):
            get(app, "/hello", HTTP_X_REQUEST_ID="interrupted")
    assert get(app, "/hello", HTTP_X_REQUEST_ID="next").header("X-Request-ID") == "next"
    assert [route[3] for route in fake.sink.routes] == [status, 200]
    assert caplog.messages == []
    assert [span.parent for span in fake.spans] == [None, None]


# -- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baggage", ["\xff=1," * 1600, "a," * 4000, "k=v;" + "p;" * 3000])
def test_a_client_cannot_fill_the_log(c2c_telemetry: Any, baggage: str) -> None:
    app = make({"hello": lambda request: Response("hello")})
    guard.reset()
    for _ in range(2):
        assert get(app, "/hello", HTTP_BAGGAGE=baggage).status == 200
    assert [line["logger_name"] for line in c2c_telemetry.logs] == ["c2c_otel"]
    assert guard.tally["dropped.baggage"] >= 2
    guard.reset()


@pytest.mark.parametrize("which", ["REQUEST", "RESPONSE"])
def test_header_patterns_that_are_none_fail_the_start(fake: FakeTelemetry, monkeypatch: Any, which: str) -> None:
    """They would otherwise fail with each request, which then had no span."""
    name = f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_{which}"
    monkeypatch.setenv(name, "x-ok, x-(")
    with pytest.raises(ConfigurationError, match=rf"{name} is 'x-\('; expected regular expressions"):
        make({})


TEXTS = st.text(st.characters(max_codepoint=255), max_size=40)
KEYS = (
    "PATH_INFO",
    "SCRIPT_NAME",
    "QUERY_STRING",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "REMOTE_ADDR",
    "HTTP_HOST",
    "HTTP_USER_AGENT",
    "HTTP_X_REQUEST_ID",
    "HTTP_X_AMZN_TRACE_ID",
    "HTTP_TRACEPARENT",
    "HTTP_TRACESTATE",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_ACCEPT",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_X_FORWARDED_PROTO",
    "wsgi.url_scheme",
    "REQUEST_METHOD",
)
"""Not baggage: its propagator warns, which a test above is about."""


def test_no_request_makes_our_code_fail(c2c_telemetry: Any, capsys: Any) -> None:
    """The guard raises in tests; what is raised here is the application's own, or Pyramid's."""
    config = Configurator()
    config.include("c2c_otel")
    config.add_route("name", "/n/{name}")
    config.add_view(lambda request: {"name": request.matchdict["name"]}, route_name="name", renderer="json")
    app = config.make_wsgi_app()
    logged = logging.getLogger("attack")

    @given(
        st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, TEXTS)),
        st.sampled_from([None, "/metrics", "/c2c", "/c2c/debug/time", "/n/x"]),
    )
    def attack(found: dict[str, str], path: str | None) -> None:
        c2c_telemetry.clear()
        environ = kit.environ() | found | ({} if path is None else {"PATH_INFO": path})
        answer = kit.Answer()
        try:
            answer.body_object = app(environ, answer.start_response)
            logged.warning("in the request")
            answer.read()
        except UnicodeDecodeError:  # Pyramid's, for a path that is no UTF-8
            assert max(environ["PATH_INFO"] + environ["SCRIPT_NAME"]) >= "\x80"
        else:
            for _, value in answer.headers:
                assert value.isprintable()
                value.encode("latin-1")
        routes = [line for line in c2c_telemetry.statsd if line.startswith("route.")]
        assert len(routes) == 1
        assert routes[0].isascii()
        assert routes[0].isprintable()
        assert sum(span.kind.name == "SERVER" for span in c2c_telemetry.spans) == 1
        assert_left_nothing()

    attack()


# -- bodies -----------------------------------------------------------------------------------------------------------


def test_a_file_leaves_no_garbage_and_is_as_it_was(fake: FakeTelemetry, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("text")
    app = make({"file": lambda request: FileResponse(str(path), request=request)})

    class OfTheClass(wsgiref.util.FileWrapper):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            vars(self).pop("close", None)

        def close(self) -> None:
            self.filelike.close()

    for wrapper in (wsgiref.util.FileWrapper, OfTheClass):
        more: dict[str, Any] = {"wsgi.file_wrapper": wrapper}
        answer = start(app, "/file", "GET", **more)
        own = "close" in vars(wrapper(io.BytesIO()))
        assert type(answer.body_object) is wrapper
        answer.read()
        assert ("close" in vars(answer.body_object)) is own
        answer.close()  # twice is once
        assert answer.body_object.filelike.closed
        gone = weakref.ref(answer.body_object)
        gc.disable()
        try:
            del answer
            assert gone() is None
        finally:
            gc.enable()
    assert len(fake.sink.routes) == 2


# -- the views --------------------------------------------------------------------------------------------------------


def test_a_view_that_fails_below_a_mount_point_that_is_no_text(fake: FakeTelemetry) -> None:
    config = Configurator()
    config.include("c2c_otel")
    app = config.make_wsgi_app()
    assert get(app, "/c2c", "POST", SCRIPT_NAME="/\xff").status == 405
    guard.strict(False)
    try:
        assert get(app, "/c2c", SCRIPT_NAME="/\xff").status == 500
        assert list(guard.tally) == ["failed.view /c2c"]
    finally:
        guard.strict(None)
        guard.reset()


def test_a_base_path_that_would_be_another_host() -> None:
    with pytest.raises(ConfigurationError, match=r"'//x'; expected a path that starts with one '/'"):
        Settings.load({"C2C_BASE_PATH": "//x"})


def test_the_debug_toolbar_is_no_application_of_its_own(launched: FakeTelemetry, caplog: Any) -> None:
    """Its application is made while the application's is being configured."""
    with caplog.at_level(logging.WARNING, "c2c_otel"):
        config = Configurator(settings={"debugtoolbar.hosts": "0.0.0.0/0", "c2c.base_path": "/own"})
        config.include("pyramid_debugtoolbar")
        config.commit()
        assert launched.applications == 0
        config.include("c2c_otel")
        app = config.make_wsgi_app()
    assert caplog.messages == []
    assert launched.applications == 1
    assert get(app, "/own/debug/time").status == 200
    assert get(app, "/_debug_toolbar/metrics").header("Content-Type") != "text/plain"
    assert len(launched.sink.routes) == 2


# -- fast_json --------------------------------------------------------------------------------------------------------


@pytest.fixture
def fast_json() -> Any:
    with testing.testConfig() as config:
        config.include("c2c_otel.renderers")
        yield lambda value: render("fast_json", value)


@dataclasses.dataclass
class User:
    name: str
    password: str

    def __json__(self, request: Any) -> Any:
        return {"name": self.name}


@dataclasses.dataclass
class Point:
    x: int
    when: datetime.date
    _cached: int = 0


def test_fast_json_asks_a_dataclass_that_adapts_itself(fast_json: Any) -> None:
    assert json.loads(fast_json([User("me", "secret"), {"u": User("you", "secret")}])) == [
        {"name": "me"},
        {"u": {"name": "you"}},
    ]
    assert json.loads(fast_json(Point(1, datetime.date(2020, 1, 2)))) == {"x": 1, "when": "2020-01-02"}


def test_fast_json_is_text_as_json_is(fast_json: Any) -> None:
    """A template that shows ``render("fast_json", ...)`` shows no ``b'...'``."""
    assert fast_json({"é": 1}) == '{\n  "é": 1\n}'


def test_fast_json_of_what_orjson_cannot_write(fast_json: Any) -> None:
    value = {
        "big": 2**70,
        "when": datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.UTC),
        "id": uuid.UUID(int=5),
        "user": User("me", "secret"),
        "point": Point(2**65, datetime.date(2020, 1, 2)),
    }
    assert json.loads(fast_json(value)) == {
        "big": 2**70,
        "when": "2020-01-02T03:00:00+00:00",
        "id": "00000000-0000-0000-0000-000000000005",
        "user": {"name": "me"},
        "point": {"x": 2**65, "when": "2020-01-02"},
    }
    assert fast_json(["\ud800", "é"]) == '[\n  "\\ud800",\n  "\\u00e9"\n]'
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        fast_json(circle)
    with pytest.raises(TypeError, match="not JSON serializable"):
        fast_json({"big": 2**70, "set": {1}})
