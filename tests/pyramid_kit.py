"""For tests of the Pyramid side: a telemetry that remembers, and WSGI calls as a server makes them."""

from __future__ import annotations

import io
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pyramid.config import Configurator

from c2c_otel import current_request, telemetry
from c2c_otel.instrumentation import exchange
from c2c_otel.instrumentation.pyramid import PyramidInstrumentor
from c2c_otel.settings import Settings


class Observed:
    def __init__(self, sink: FakeSink, key: tuple[Any, ...]) -> None:
        self.sink, self.key = sink, key

    def observe(self, seconds: float, span: Any = None) -> None:
        assert seconds >= 0
        self.sink.seen.append(self.key)

    def observe_ns(self, nanoseconds: int, span: Any, now: int) -> None:
        self.observe(nanoseconds / 1e9, span)


class FakeSink:
    """``seen``: (name of the naming function, its arguments ...) of each measurement, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def timer(self, namer: Any, *args: Any) -> Observed:
        return Observed(self, (namer.__name__, *args))

    @property
    def routes(self) -> list[tuple[Any, ...]]:
        return [key[1:] for key in self.seen if key[0] == "route"]

    @property
    def renders(self) -> list[tuple[Any, ...]]:
        return [key[1:] for key in self.seen if key[0] == "render"]


class FakeTelemetry:
    started = True
    held = False

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.sink = FakeSink()
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.applications = 0

    def install(self) -> None: ...

    def configure(self, settings: Settings) -> None:
        self.settings = settings

    def tracer(self, name: str) -> Any:
        return self.provider.get_tracer(name)

    def application_ready(self) -> None:
        self.applications += 1

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, [span.name for span in self.spans]
        return found[0]

    def clear(self) -> None:
        self.exporter.clear()
        self.sink.seen.clear()

    def put_in_place(self, monkeypatch: Any) -> None:
        """It stands for the process's own: where that is asked for, and where it is remembered."""
        monkeypatch.setattr(telemetry, "get", lambda: self)
        monkeypatch.setattr(exchange, "process", self)


def install(monkeypatch: Any, settings: Settings | None = None) -> FakeTelemetry:
    fake = FakeTelemetry(settings)
    fake.put_in_place(monkeypatch)
    return fake


def make(routes: dict[str, Any], configure: Any = None, **settings: Any) -> Any:
    """An instrumented application; each route is named and found as its key, its value is a view."""
    config = Configurator(settings=settings)
    for name, view in routes.items():
        options = view if isinstance(view, dict) else {"view": view}
        config.add_route(name, f"/{name}")
        config.add_view(route_name=name, **options)
    if configure is not None:
        configure(config)
    PyramidInstrumentor.instrument_config(config)
    return config.make_wsgi_app()


def environ(path: str = "/", method: str = "GET", **more: Any) -> dict[str, Any]:
    """As a server makes it; headers as ``HTTP_X="..."``."""
    path, _, query = path.partition("?")
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost:80",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(b""),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **more,
    }


class Answer:
    """``chunks`` is None until it is read."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.exc_info: Any = None
        self.starts = 0
        self.written: list[bytes] = []
        self.body_object: Any = None
        self.body = b""

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        assert type(headers) is list
        self.status, self.headers, self.exc_info = int(status[:3]), headers, exc_info
        self.starts += 1
        return self.written.append

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) < 2, found
        return found[0] if found else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def read(self) -> Answer:
        """Iterate and close, as servers do."""
        try:
            self.body = b"".join(self.body_object)
        finally:
            self.close()
        return self

    def close(self) -> None:
        if hasattr(self.body_object, "close"):
            self.body_object.close()


def start(app: Any, path: str = "/", method: str = "GET", **more: Any) -> Answer:
    """Call the application; its body is in ``body_object``, untouched."""
    answer = Answer()
    answer.body_object = app(environ(path, method, **more), answer.start_response)
    return answer


def get(app: Any, path: str = "/", method: str = "GET", **more: Any) -> Answer:
    """A whole request."""
    return start(app, path, method, **more).read()


def assert_left_nothing() -> None:
    """No request is current on this thread."""
    assert current_request.get() is None
    assert otel_context.get_current() == {}
