"""OpenTelemetry's own exporters: which are made, what arrives, and what an unreachable collector costs."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from c2c_otel import otlp
from c2c_otel.otel_logging import OtelLogHandler
from c2c_otel.pyramid_logging import note_request
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel_exporters import collector_trouble, guard
from c2c_otel_exporters.model import Exemplar, Kind, Metric
from c2c_otel_exporters.otel_points import Points
from c2c_otel_exporters.publish import Publisher
from c2c_otel_exporters.store import Store
from tests.servers import OtlpReceiver

DURATION = Metric("http.server.request.duration", Kind.HISTOGRAM, "s", "Duration", (0.1, 1.0))
FORKS = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
ROUTE = (("http.route", "/hello"),)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    guard.reset()
    yield
    guard.strict(None)
    guard.reset()


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store(None)
    yield made
    made.close()


def load(**environ: str) -> Settings:
    return Settings.load(environ)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- which exporters ----------------------------------------------------------------------------------------------


def test_nothing_leaves_the_process_by_default(store: Store) -> None:
    settings, before = load(), threading.active_count()
    resource = Resource.get_empty()
    assert otlp.span_processors(settings) == []
    assert otlp.metric_readers(settings, store, resource) == []
    assert otlp.logger_provider(settings, resource) is None
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("environ", "traces", "metrics", "logs"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "otlp_proto_http", "otlp_proto_http", "otlp_proto_http"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, "otlp_proto_http", "", ""),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/m"}, "", "otlp_proto_http", ""),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c:4318/l"}, "", "", "otlp_proto_http"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"},
            "",
            *["otlp_proto_http"] * 2,
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, "otlp_proto_http console", "", ""),
        ({"OTEL_METRICS_EXPORTER": "prometheus,c2c_statsd,otlp"}, "", "otlp_proto_http", ""),
        ({"OTEL_LOGS_EXPORTER": "c2c_json,c2c_cee"}, "", "", "c2c_json c2c_cee"),
        ({"OTEL_TRACES_EXPORTER": "c2c_statsd"}, "", "", ""),
    ],
)
def test_exporters_by_the_standard_variables(environ: dict[str, str], traces: str, metrics: str, logs: str) -> None:
    settings = load(**environ)
    found = [" ".join(otlp.exporter_names(settings, signal)) for signal in ("traces", "metrics", "logs")]
    assert found == [traces, metrics, logs]
    otlp.check(settings)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "jaeger"},
            "OTEL_TRACES_EXPORTER is 'jaeger'; expected one of c2c_statsd, console, none, otlp, otlp_proto_http.",
        ),
        (
            {"OTEL_METRICS_EXPORTER": "x"},
            "OTEL_METRICS_EXPORTER is 'x'; expected one of c2c_statsd, console, none, otlp, otlp_proto_http, prom",
        ),
        (
            {"OTEL_LOGS_EXPORTER": "x"},
            "OTEL_LOGS_EXPORTER is 'x'; expected one of c2c_cee, c2c_json, console, none, otlp, otlp_proto_http.",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"},
            "OTEL_EXPORTER_OTLP_ENDPOINT is 'collector:4318'; expected a URL that starts with http:// or https://. "
            "Write http://collector:4318, or set OTEL_EXPORTER_OTLP_PROTOCOL=grpc.",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_ENDPOINT is 'otlp_proto_grpc'; expected opentelemetry.exporter.otlp.proto.grpc to be "
            "installed. Run: pip install 'opentelemetry-exporter-otlp-proto-grpc'",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        otlp.check(load(**environ))
    assert str(raised.value).startswith(message)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "_is_importable", lambda package: False)
    with pytest.raises(ConfigurationError, match=r"Run: pip install 'c2c-otel\[otlp\]'"):
        otlp.span_processors(load(OTEL_TRACES_EXPORTER="otlp"))


def test_exporters_are_imported_when_they_are_used() -> None:
    code = """
import sys
from c2c_otel import otlp
from c2c_otel.settings import Settings
settings = Settings.load({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
otlp.check(settings), otlp.resource(settings), otlp.logger_provider(Settings.load({}), None)
print([name for name in sys.modules if "otlp.proto.http." in name or name in ("requests", "prometheus_client")])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# -- what arrives -------------------------------------------------------------------------------------------------


def test_spans_arrive() -> None:
    with OtlpReceiver() as receiver:
        settings = load(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_SERVICE_NAME="shop")
        provider = TracerProvider(resource=otlp.resource(settings), shutdown_on_exit=False)
        for processor in otlp.span_processors(settings):
            provider.add_span_processor(processor)
        provider.get_tracer("t").start_span("work", attributes={"a": 1}).end()
        provider.shutdown()
        (span,) = receiver.spans
        assert (span["name"], span["attributes"], span["scope"]) == ("work", {"a": 1}, "t")
        assert span["resource"]["service.name"] == "shop"
        assert [request.path for request in receiver.requests] == ["/v1/traces"]


def test_an_endpoint_for_one_signal_is_taken_as_it_is() -> None:
    with OtlpReceiver() as receiver:
        settings = load(
            OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{receiver.url}/v1/traces",
        )
        (processor,) = otlp.span_processors(settings)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor)
        provider.get_tracer("t").start_span("work").end()
        processor.force_flush()
        assert len(receiver.spans) == 1
        provider.shutdown()


def metrics_of(receiver: OtlpReceiver, name: str) -> list[dict[str, Any]]:
    return [point for point in receiver.metrics if point["name"] == name]


def test_metrics_of_the_store_and_of_the_sdk_arrive_once_each(store: Store) -> None:
    with OtlpReceiver() as receiver:
        settings = load(OTEL_METRICS_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        resource = otlp.resource(settings)
        publisher = Publisher(store)
        (reader,) = otlp.metric_readers(settings, store, resource, skip=publisher.sdk_metrics)
        provider = MeterProvider([publisher.reader, reader], resource=resource, shutdown_on_exit=False)
        provider.get_meter("app").create_counter("jobs", "{job}").add(2)
        store.histogram(DURATION, ROUTE).observe(0.5, Exemplar(0.5, time.time(), 0xABC, 0xDEF))
        store.counter(Metric("shop_orders_total", Kind.COUNTER, exact=True), ()).add(3)
        store.gauge(Metric("active", Kind.GAUGE_SUM), ()).set(4)
        store.gauge(Metric("limit", Kind.GAUGE_LAST), ()).set(5)
        store.summary(Metric("wait", Kind.SUMMARY), ()).observe(6)
        store.stat_timer("not/shown").observe(1)
        publisher.publish()
        reader.force_flush()
        assert sorted(point["name"] for point in receiver.metrics) == [
            "active",
            "http.server.request.duration",
            "jobs",
            "limit",
            "shop_orders_total",
            "wait",
        ]
        (duration,) = metrics_of(receiver, "http.server.request.duration")
        assert (duration["kind"], duration["temporality"], duration["unit"]) == ("histogram", "CUMULATIVE", "s")
        assert (duration["buckets"], duration["bounds"], duration["sum"]) == ([0, 1, 0], [0.1, 1.0], 0.5)
        assert (duration["attributes"], duration["scope"]) == (dict(ROUTE), "c2c_otel")
        (jobs,) = metrics_of(receiver, "jobs")
        assert (jobs["value"], jobs["scope"], jobs["unit"]) == (2, "app", "{job}")
        (orders,) = metrics_of(receiver, "shop_orders_total")
        assert (orders["value"], orders["kind"], orders["monotonic"]) == (3, "sum", True)
        (active,), (limit,) = metrics_of(receiver, "active"), metrics_of(receiver, "limit")
        assert (active["kind"], active["monotonic"], active["value"]) == ("sum", False, 4)
        assert (limit["kind"], limit["value"]) == ("gauge", 5)
        (wait,) = metrics_of(receiver, "wait")
        assert (wait["count"], wait["sum"], wait["bounds"]) == (1, 6, [])
        assert len({point["resource"]["service.instance.id"] for point in receiver.metrics}) == 1

        receiver.clear()
        store.histogram(DURATION, ROUTE).observe(5)
        provider.shutdown()
        publisher.stop()
        (duration,) = metrics_of(receiver, "http.server.request.duration")
        assert duration["buckets"] == [0, 1, 1]
        assert duration["start"] < duration["time"]


def test_store_is_exported_without_any_instrument_and_each_interval(store: Store) -> None:
    with OtlpReceiver() as receiver:
        settings = load(
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{receiver.url}/v1/metrics", OTEL_METRIC_EXPORT_INTERVAL="20"
        )
        store.histogram(DURATION, ROUTE).observe(0.5)
        (reader,) = otlp.metric_readers(settings, store, otlp.resource(settings))
        receiver.wait_for(lambda: len(receiver.requests) >= 3)
        reader.shutdown()
        reader.shutdown()
        assert {point["count"] for point in receiver.metrics} == {1}
        assert receiver.errors == []


def test_deltas_where_they_are_preferred(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    with OtlpReceiver() as receiver:
        settings = load(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
        (reader,) = otlp.metric_readers(settings, store, otlp.resource(settings))
        for count in (2, 1, 0):
            for _ in range(count):
                store.histogram(DURATION, ROUTE).observe(0.5)
                store.gauge(Metric("active", Kind.GAUGE_SUM), ()).add(1)
            reader.force_flush()
        reader.shutdown()
        points = metrics_of(receiver, "http.server.request.duration")
        assert [(point["count"], point["sum"], point["temporality"]) for point in points] == [
            (2, 1.0, "DELTA"),
            (1, 0.5, "DELTA"),
        ]
        assert points[0]["time"] == points[1]["start"]
        assert [point["value"] for point in metrics_of(receiver, "active")] == [2, 3, 3, 3]


def test_exemplars_are_told(store: Store) -> None:
    store.histogram(DURATION, ROUTE).observe(0.5, Exemplar(0.5, 1234.5, 0xABC, 0xDEF))
    (metric,) = Points().metrics(store.families())
    (exemplar,) = metric.data.data_points[0].exemplars
    assert (exemplar.value, exemplar.time_unix_nano, exemplar.trace_id, exemplar.span_id) == (
        0.5,
        1_234_500_000_000,
        0xABC,
        0xDEF,
    )


def test_attributes_as_the_conventions_and_the_encoder_want_them(store: Store) -> None:
    labels = (("http.response.status_code", "200"), ("key", "7"), ("server.port", "5432"))
    store.histogram(DURATION, labels).observe(0.5)
    store.histogram(DURATION, (("server.port", "none"),)).observe(0.5)
    store.histogram(DURATION, (("lone", "\ud800"),)).observe(0.5)
    (metric,) = Points().metrics(store.families())
    assert [dict(point.attributes or {}) for point in metric.data.data_points] == [
        {"http.response.status_code": 200, "key": "7", "server.port": 5432},
        {"server.port": "none"},
        {"lone": "\\ud800"},
    ]


def test_logs_arrive() -> None:
    with OtlpReceiver() as receiver:
        settings = load(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_TRACES_EXPORTER="none")
        provider = otlp.logger_provider(settings, otlp.resource(settings))
        assert provider is not None
        logger = logging.Logger("shop")
        logger.addHandler(OtelLogHandler(provider))
        logger.warning("%d orders", 3)
        error = RuntimeError()
        token = context.attach(set_span_in_context(NonRecordingSpan(SpanContext(0xABC, 0xDEF, False))))
        note_request(error)
        context.detach(token)
        logger.error("a request has failed", exc_info=error)
        provider.shutdown()
        record, failed = receiver.logs
        assert (record["body"], record["severity_text"]) == ("3 orders", "WARN")
        assert (record["trace_id"], failed["trace_id"], failed["span_id"]) == ("", f"{0xABC:032x}", f"{0xDEF:016x}")


def test_console() -> None:
    code = """
from c2c_otel import otlp
from c2c_otel.settings import Settings
from c2c_otel_exporters.model import Kind, Metric
from c2c_otel_exporters.store import Store
store = Store(None)
store.counter(Metric("jobs", Kind.COUNTER), ()).add(3)
settings = Settings.load({"OTEL_METRICS_EXPORTER": "console"})
(reader,) = otlp.metric_readers(settings, store, otlp.resource(settings))
reader.shutdown()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (group,) = json.loads(run.stdout)["resource_metrics"]
    assert group["scope_metrics"][0]["metrics"][0]["name"] == "jobs"


# -- trouble ------------------------------------------------------------------------------------------------------


def span_through(settings: Settings) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    for processor in otlp.span_processors(settings):
        provider.add_span_processor(processor)
    provider.get_tracer("t").start_span("work").end()
    return provider


def test_unreachable_collector_is_one_warning_and_tried_again(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    settings = load(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    store.histogram(DURATION, ROUTE).observe(0.5)
    provider = span_through(settings)
    resource = otlp.resource(settings)
    (reader,) = otlp.metric_readers(settings, store, resource)
    logs = otlp.logger_provider(settings, resource)
    assert logs is not None
    for _ in range(2):
        provider.get_tracer("t").start_span("work").end()
        provider.force_flush()
        reader.force_flush()
    otlp.shutdown([provider, reader, logs])
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "Telemetry does not reach the OpenTelemetry collector"
    ]
    assert guard.tally["failed.otlp.export"] >= 4


def test_a_collector_that_comes_back_gets_what_is_there() -> None:
    with OtlpReceiver() as receiver:
        receiver.fail_next(1, 503, retry_after=0.01)
        provider = span_through(load(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url))
        provider.force_flush()
        assert [request.status for request in receiver.requests] == [503, 200]
        assert len(receiver.spans) == 1
        provider.shutdown()


def test_a_collector_that_never_answers_does_not_hold_a_worker_at_its_end(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        settings = load(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
        store.histogram(DURATION, ROUTE).observe(0.5)
        provider = span_through(settings)
        resource = otlp.resource(settings)
        (reader,) = otlp.metric_readers(settings, store, resource)
        logs = otlp.logger_provider(settings, resource)
        assert logs is not None
        handler = OtelLogHandler(logs)
        handler.emit(logging.makeLogRecord({"name": "shop", "msg": "said", "levelno": logging.INFO}))
        started = time.monotonic()
        otlp.shutdown([provider, reader, logs], timeout=0.3)
        took = time.monotonic() - started
        assert took < 5, "the default timeout of the exporters is 10 seconds, and there are three"
        waiting = [thread for thread in threading.enumerate() if thread.name == "c2c_otel_shutdown"]
        assert len(waiting) == 3 and all(thread.daemon for thread in waiting)
        for thread in waiting:
            thread.join(10)
            assert not thread.is_alive(), "each has its own bound"


def test_queue_that_runs_over_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    collector_trouble.hush()
    collector_trouble.hush()
    logger = logging.getLogger("opentelemetry.sdk._shared_internal")
    for _ in range(3):
        logger.warning("Queue full, dropping %s.", "Span")
    assert guard.tally["dropped.otlp.queue"] == 3
    assert [record.getMessage().startswith("c2c-otel dropped") for record in caplog.records].count(True) == 1


# -- resource -----------------------------------------------------------------------------------------------------


def test_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.name=from-attributes")
    attributes = otlp.resource(load()).attributes
    assert attributes["service.name"] == "from-attributes"
    assert attributes["deployment.environment.name"] == "prod"
    assert attributes["process.pid"] == os.getpid()
    assert (attributes["telemetry.sdk.language"], attributes["telemetry.distro.name"]) == ("python", "c2c-otel")
    assert otlp.resource(load(OTEL_SERVICE_NAME="shop")).attributes["service.name"] == "shop"
    assert otlp.resource(load()).attributes == attributes, "the same each time"


def test_resource_without_a_name() -> None:
    assert str(otlp.resource(load()).attributes["service.name"]).startswith("unknown_service:python")


def test_resource_detectors_are_run_where_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process")
    found = otlp.resource(load(OTEL_EXPERIMENTAL_RESOURCE_DETECTORS="process", OTEL_SERVICE_NAME="shop")).attributes
    assert "process.runtime.name" in found
    assert (found["service.name"], found["process.pid"]) == ("shop", os.getpid())


@FORKS
@pytest.mark.parametrize("chosen", [None, "mine"])
def test_each_process_is_an_instance_of_its_own(monkeypatch: pytest.MonkeyPatch, chosen: str | None) -> None:
    if chosen:
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"service.instance.id={chosen}")
    own = otlp.resource(load()).attributes["service.instance.id"]
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, str(otlp.resource(load()).attributes["service.instance.id"]).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    childs = os.read(read, 1000).decode()
    os.close(read)
    os.close(write)
    assert childs and childs != own
    if chosen:
        assert (own, childs) == (f"mine-{os.getpid()}", f"mine-{pid}")
