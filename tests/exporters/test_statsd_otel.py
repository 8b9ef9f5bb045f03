"""OpenTelemetry's metrics and spans as statsd lines."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from c2c_otel_exporters import guard
from c2c_otel_exporters.statsd import Names, metric_lines
from c2c_otel_exporters.statsd_otel import StatsdMetricExporter, StatsdSpanExporter, configure, series_of
from tests.servers.udp import UdpSink

DELTA = dict.fromkeys((sdk.Counter, sdk.Histogram, sdk.ObservableCounter), AggregationTemporality.DELTA)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    guard.reset()
    configure(None)
    yield
    guard.reset()
    configure(None)


@pytest.fixture
def sink() -> Iterator[UdpSink]:
    with UdpSink() as started:
        yield started


class Instruments:
    """A meter, and the statsd lines of what it has recorded since."""

    def __init__(self, temporality: dict[type, AggregationTemporality], views: list[View]) -> None:
        self._reader = InMemoryMetricReader(preferred_temporality=temporality)
        self._provider = MeterProvider([self._reader], views=views, shutdown_on_exit=False)
        self.meter = self._provider.get_meter("test")

    def lines(self) -> list[str]:
        data: MetricsData | None = self._reader.get_metrics_data()
        return sorted(metric_lines(Names("pre", False, {"g": "t"}), data))


def instruments(
    temporality: dict[Any, AggregationTemporality] | None = None, views: list[View] | None = None
) -> Instruments:
    return Instruments(DELTA if temporality is None else temporality, views or [])


def test_counters_are_sent_as_what_was_added() -> None:
    there = instruments()
    counter = there.meter.create_counter("shop.orders")
    counter.add(2, {"kind": "a,b", "big": True, "list": ["x", "y"]})
    counter.add(3, {"kind": "a,b", "big": True, "list": ["x", "y"]})
    assert there.lines() == ["pre.shop.orders:5|c|#big:true,g:t,kind:a_b,list:x_y"]
    counter.add(1)
    assert there.lines() == ["pre.shop.orders:1|c|#g:t"]
    assert there.lines() == []


def test_gauges_and_up_down_counters_are_sent_as_they_are() -> None:
    there = instruments()
    there.meter.create_gauge("temperature").set(-3)
    depth = there.meter.create_up_down_counter("queue.depth")
    depth.add(5)
    depth.add(-1)

    def observe(options: CallbackOptions) -> list[Observation]:
        return [Observation(7.5)]

    there.meter.create_observable_gauge("seen", [observe])
    assert there.lines() == [
        "pre.queue.depth:4|g|#g:t",
        "pre.seen:7.5|g|#g:t",
        "pre.temperature:0|g|#g:t\npre.temperature:-3|g|#g:t",
    ]


def test_up_down_counters_in_deltas_are_sent_as_changes() -> None:
    there = instruments({sdk.UpDownCounter: AggregationTemporality.DELTA})
    depth = there.meter.create_up_down_counter("depth")
    depth.add(5)
    assert there.lines() == ["pre.depth:+5|g|#g:t"]
    depth.add(-7)
    assert there.lines() == ["pre.depth:-7|g|#g:t"]


@pytest.mark.parametrize(
    "views", [[], [View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation())]]
)
def test_histograms_are_sent_as_count_and_sum(views: list[View]) -> None:
    there = instruments(views=views)
    histogram = there.meter.create_histogram("size")
    histogram.record(1.5)
    histogram.record(2)
    assert there.lines() == ["pre.size.count:2|c|#g:t", "pre.size.sum:3.5|c|#g:t"]
    assert there.lines() == []


def test_totals_are_not_sent_as_increments() -> None:
    there = instruments({})
    there.meter.create_counter("n").add(1)
    assert there.lines() == []
    assert guard.tally["dropped.statsd.totals"] == 1


def test_no_data_no_lines() -> None:
    assert list(metric_lines(Names("", False, {}), None)) == []
    assert list(metric_lines(Names("", False, {}), MetricsData([]))) == []


def test_the_metric_exporter_sends_deltas(sink: UdpSink) -> None:
    exporter = StatsdMetricExporter((sink.host, sink.port), prefix="app")
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)], shutdown_on_exit=False)
    counter = provider.get_meter("test").create_counter("n")
    for _ in range(2):
        counter.add(3)
        assert provider.force_flush()
    assert sink.wait_for(2) == ["app.n:3|c", "app.n:3|c"]
    provider.shutdown()


# -- spans -----------------------------------------------------------------------------------------------------------

ROUTE = ("route", "GET", "hello", "200")


@pytest.mark.parametrize(
    ("kind", "name", "attributes", "parts"),
    [
        (
            SpanKind.SERVER,
            "GET /hello",
            {
                "http.request.method": "GET",
                "pyramid.route.name": "hello",
                "http.route": "/h",
                "http.response.status_code": 200,
            },
            ROUTE,
        ),
        (SpanKind.SERVER, "x", {"http.method": "GET", "http.route": "hello", "http.status_code": "200"}, ROUTE),
        (
            SpanKind.SERVER,
            "x",
            {"http.request.method": "_OTHER", "http.request.method_original": "BREW", "http.response.status_code": 404},
            ("route", "BREW", "_not_found", "404"),
        ),
        (SpanKind.SERVER, "a queue", {"messaging.system": "x"}, None),
        (SpanKind.INTERNAL, "x", {"http.method": "GET"}, None),
        (
            SpanKind.CLIENT,
            "SELECT hello",
            {"db.system.name": "postgresql", "db.query.text": "SELECT a FROM hello WHERE b = 'c'"},
            ("sql", "SELECT FROM hello WHERE b = ?"),
        ),
        (SpanKind.CLIENT, "x", {"db.system": "sqlite", "db.statement": "select a from b"}, ("sql", "select from b")),
        (SpanKind.CLIENT, "COMMIT", {"db.system.name": "sqlite", "db.operation.name": "COMMIT"}, ("sql", "commit")),
        (SpanKind.CLIENT, "x", {"db.system": "sqlite", "db.statement": "COMMIT"}, ("sql", "commit")),
        (SpanKind.CLIENT, "connect", {"db.system": "postgresql"}, None),
        (SpanKind.CLIENT, "find", {"db.system": "mongodb", "db.statement": "{}"}, None),
        (SpanKind.CLIENT, "GET", {"db.system": "redis", "db.statement": "GET ?"}, ("redis", "GET", "success")),
        (SpanKind.CLIENT, "x", {"db.system.name": "redis", "db.operation.name": "SET"}, ("redis", "SET", "success")),
        (
            SpanKind.CLIENT,
            "GET SET",
            {"db.system": "redis", "db.statement": "GET ?\nSET ? ?", "db.redis.pipeline_length": 2},
            ("redis", "PIPELINE", "success"),
        ),
        (
            SpanKind.CLIENT,
            "GET",
            {"http.request.method": "GET", "url.full": "https://api.example.com/x?y", "http.response.status_code": 200},
            ("requests", "https", "api.example.com", "443", "GET", "200"),
        ),
        (
            SpanKind.CLIENT,
            "HTTP GET",
            {"http.method": "GET", "http.url": "http://h:8080/"},
            ("requests", "http", "h", "8080", "GET", "999"),
        ),
        (
            SpanKind.CLIENT,
            "GET",
            {"http.request.method": "GET", "url.full": "http://[bad", "server.address": "h", "server.port": 81},
            ("requests", "http", "h", "81", "GET", "999"),
        ),
    ],
)
def test_spans_have_the_documented_names(
    kind: SpanKind, name: str, attributes: dict[str, Any], parts: tuple[str, ...] | None
) -> None:
    span = TracerProvider().get_tracer("test").start_span(name, kind=kind, attributes=attributes)
    series = series_of(span)  # type: ignore[arg-type] # the SDK's spans are readable
    assert (series.parts if series else None) == parts


def test_an_error_is_a_failure_and_a_500() -> None:
    tracer = TracerProvider().get_tracer("test")
    redis = tracer.start_span("GET", kind=SpanKind.CLIENT, attributes={"db.system": "redis", "db.operation": "GET"})
    server = tracer.start_span("x", kind=SpanKind.SERVER, attributes={"http.request.method": "GET"})
    for span, parts in ((redis, ("redis", "GET", "failure")), (server, ("route", "GET", "_not_found", "500"))):
        span.set_status(StatusCode.ERROR)
        series = series_of(span)  # type: ignore[arg-type] # the SDK's spans are readable
        assert series is not None
        assert series.parts == parts


def test_the_span_exporter_sends_timers(sink: UdpSink) -> None:
    configure((sink.host, sink.port), prefix="app", use_tags=True, tags={"env": "test"})
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(StatsdSpanExporter()))
    tracer = provider.get_tracer("test")
    attributes = {"http.request.method": "GET", "http.route": "hello", "http.response.status_code": 200}
    tracer.start_span("GET hello", kind=SpanKind.SERVER, attributes=attributes, start_time=0).end(2_500_000)
    tracer.start_span("internal").end()
    provider.shutdown()
    assert sink.wait_for(1) == ["app.route:2|ms|#env:test,group:2,method:GET,route:hello,status:200"]


@pytest.mark.parametrize("exporter", [StatsdSpanExporter, StatsdMetricExporter])
def test_without_an_address_the_error_says_what_to_set(exporter: type) -> None:
    with pytest.raises(ValueError, match="STATSD_ADDRESS is not set"):
        exporter()


@pytest.mark.parametrize(
    ("group", "exporter"),
    [
        ("opentelemetry_traces_exporter", StatsdSpanExporter),
        ("opentelemetry_metrics_exporter", StatsdMetricExporter),
    ],
)
def test_they_are_entry_points_that_need_no_arguments(group: str, exporter: type) -> None:
    # As declared, not as installed: an editable installation may be older.
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    found = EntryPoint("c2c_statsd", project["entry-points"][group]["c2c_statsd"], group).load()
    assert found is exporter
    configure(("127.0.0.1", 8125))
    found().shutdown()
