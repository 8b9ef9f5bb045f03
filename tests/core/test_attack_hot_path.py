"""What somebody found who had not written the quick ways of spans and measurements."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind
from pyramid.request import Request
from pyramid.response import Response
from requests.adapters import BaseAdapter

from c2c_otel.batch import BatchSpanProcessor
from c2c_otel.instrumentation import exchange
from c2c_otel.instrumentation.requests import RequestsInstrumentor
from c2c_otel.pending import Given, Pending
from c2c_otel.testing import Captured, capture
from c2c_otel.tracing import TracerProvider
from c2c_otel_exporters import guard, names
from c2c_otel_exporters.sink import Sink
from c2c_otel_exporters.statsd import Names, Sender
from c2c_otel_exporters.store import Store
from tests import pyramid_kit as kit


@pytest.fixture
def captured() -> Iterator[Captured]:
    with capture() as found:
        yield found


class Everything(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[Any] = []

    def export(self, spans: Any) -> SpanExportResult:
        self.spans.extend((span.name, dict(span.attributes)) for span in spans)
        return SpanExportResult.SUCCESS


class Broken(Pending):
    def settled(self) -> dict[str, Any]:
        raise RuntimeError("cannot be put together")


def test_attributes_that_cannot_be_put_together_cost_nobody_else_anything() -> None:
    exporter, provider = Everything(), TracerProvider(shutdown_on_exit=False)
    processor = BatchSpanProcessor(exporter)
    provider.add_span_processor(processor)
    tracer: Any = provider.get_tracer("test")
    broken = tracer.start_root("broken", SpanKind.SERVER, Broken(), 1)
    broken.set_attribute("mine", 1)
    broken.end()
    tracer.start_root("broken too", SpanKind.SERVER, Broken(), 1).end()
    tracer.start_root("sound", SpanKind.SERVER, Given({"a": 1}), 1).end()
    processor.force_flush()
    processor.shutdown()
    assert exporter.spans == [("broken", {"mine": 1}), ("broken too", {}), ("sound", {"a": 1})]


def test_an_environ_of_the_wrong_type_is_served(captured: Captured) -> None:
    def view(request: Any) -> Response:
        trace.get_current_span().set_attribute("mine", 1)
        return Response("hi")

    app = kit.make({"hello": view})
    environ = Request.blank("/hello").environ | {"SERVER_PORT": 80}
    del environ["HTTP_HOST"]
    answer: Any = app(environ, lambda status, headers, exc_info=None: None)
    assert b"".join(answer) == b"hi"
    answer.close()
    (span,) = (span for span in captured.spans if span.kind is SpanKind.SERVER)
    assert span.attributes["mine"] == 1
    assert span.attributes["http.response.status_code"] == 200


def _child(pipe: Any) -> None:
    pipe.send(trace.get_current_span().get_span_context().span_id)


def test_a_forked_child_has_the_parent_that_is_exported(captured: Captured) -> None:
    seen = []

    def view(request: Any) -> Response:
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=_child, args=(theirs,))
        child.start()
        seen.append(ours.recv())
        child.join()
        return Response("hi")

    Request.blank("/hello").get_response(kit.make({"hello": view}))
    (span,) = (span for span in captured.spans if span.kind is SpanKind.SERVER)
    assert seen == [span.context.span_id]


class Answering(BaseAdapter):
    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response.headers["X-Foo"] = "2"
        return response

    def close(self) -> None: ...


@pytest.fixture
def session() -> Iterator[requests.Session]:
    RequestsInstrumentor().instrument()
    with requests.Session() as made:
        made.mount("http://", Answering())
        yield made
    RequestsInstrumentor().uninstrument()


@pytest.mark.parametrize("side", ["REQUEST", "RESPONSE"])
def test_captured_headers_and_the_request_id(
    captured: Captured, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, side: str
) -> None:
    monkeypatch.setenv(f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_{side}", "x-foo")
    session: requests.Session = request.getfixturevalue("session")

    def view(_: Any) -> Response:
        session.get("http://remote.example/", headers={"X-Foo": "1"}, timeout=5)
        return Response("hi")

    Request.blank("/hello").get_response(kit.make({"hello": view}))
    client = next(span for span in captured.spans if span.kind is SpanKind.CLIENT)
    server = next(span for span in captured.spans if span.kind is SpanKind.SERVER)
    assert client.attributes["c2c.request_id"] == server.attributes["c2c.request_id"]
    assert client.attributes[f"http.{side.lower()}.header.x_foo"] in (("1",), ("2",))


def test_redirects_are_resolved_by_keyword(session: requests.Session) -> None:
    response = session.get("http://remote.example/", timeout=5)
    assert list(session.resolve_redirects(resp=response, req=response.request)) == []


def test_a_slow_request_can_be_the_exemplar() -> None:
    timer = Sink(store := Store(None), Names("", False, {})).timer(names.timer, ("t",), ())
    with capture() as captured:
        span = trace.get_tracer("test").start_span("slow")
        now = time.time_ns()
        timer.observe_ns(1_000_000, span, now)
        timer._due = now + 500_000_000  # what a quick one has left
        timer.observe_ns(2_000_000_000, span, now - 1_000_000_000 + 2_000_000_000)  # began before that, ends after it
        span.end()
        assert captured.spans
    assert timer._due > now + 1_000_000_000
    assert store.families()


def test_a_response_propagator_that_fails_takes_no_header_away(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def inject(self, carrier: Any, **kwargs: Any) -> None:
            raise RuntimeError("no")

    monkeypatch.setattr(exchange, "get_global_response_propagator", Failing)
    guard.strict(False)
    try:
        response = Request.blank("/hello").get_response(kit.make({"hello": lambda request: Response("hi")}))
    finally:
        guard.strict(None)
        guard.reset()
    assert {"X-Request-ID", "Server-Timing"} <= set(response.headers)


def test_a_span_that_the_application_has_ended_stays_as_it_is(captured: Captured) -> None:
    def view(request: Any) -> Response:
        trace.get_current_span().end()
        return Response("hi")

    Request.blank("/hello").get_response(kit.make({"hello": view}))
    (span,) = (span for span in captured.spans if span.kind is SpanKind.SERVER)
    assert span.name == "GET"
    assert "http.response.status_code" not in span.attributes


def test_dropped_entries_count_their_lines() -> None:
    guard.reset()
    sender = Sender("127.0.0.1", 9, max_queue=1)
    sender.waiting = False
    for _ in range(3):
        sender.send("a:1|ms\nb:1|ms")
    assert guard.tally["dropped.statsd.lines"] == 4
    guard.reset()


def test_the_request_id_is_on_each_span(captured: Captured) -> None:
    def view(request: Any) -> Response:
        with trace.get_tracer("mine").start_as_current_span("mine"):
            assert trace.get_current_span().get_span_context().is_valid
        return Response("hi")

    response = Request.blank("/hello").get_response(kit.make({"hello": view}))
    assert {span.attributes["c2c.request_id"] for span in captured.spans} == {response.headers["X-Request-ID"]}
