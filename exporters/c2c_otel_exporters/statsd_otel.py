"""OpenTelemetry exporters that write statsd, for providers that are not set up by c2c-otel.

They are the entry points ``OTEL_TRACES_EXPORTER=c2c_statsd`` and ``OTEL_METRICS_EXPORTER=c2c_statsd``, which are
made without arguments and take what `configure` was told. Under c2c-otel they are not needed: its sink writes the
same lines, earlier and for less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from . import guard, names, sql
from .names import Series
from .statsd import Names, Sender, metric_lines, timer_value

__all__ = ["STATSD_TEMPORALITY", "StatsdMetricExporter", "StatsdSpanExporter", "configure", "series_of"]

Attributes = Mapping[str, Any]


class _Configuration(NamedTuple):
    address: tuple[str, int]
    prefix: str
    use_tags: bool
    tags: Mapping[str, str]


_configured: _Configuration | None = None


def configure(
    address: tuple[str, int] | None,
    *,
    prefix: str = "",
    use_tags: bool = False,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Where exporters that are made without an address send, and how they name. None takes it back."""
    global _configured
    _configured = None if address is None else _Configuration(address, prefix, use_tags, dict(tags or {}))


class _Statsd:
    """What both exporters have: names and a sender. Raises ValueError where no address is known."""

    def __init__(
        self, address: tuple[str, int] | None, prefix: str, use_tags: bool, tags: Mapping[str, str] | None
    ) -> None:
        chosen = _configured if address is None else _Configuration(address, prefix, use_tags, tags or {})
        if chosen is None:
            raise ValueError(
                "STATSD_ADDRESS is not set; the exporter c2c_statsd expected host:port there. "
                "Set it, or make the exporter with address=(host, port)."
            )
        self.names = Names(chosen.prefix, chosen.use_tags, chosen.tags)
        self.sender = Sender(*chosen.address)


class StatsdSpanExporter(SpanExporter):
    """Timers from ended spans; `series_of` says which. Without ``address``, all is as `configure` was told."""

    def __init__(
        self,
        address: tuple[str, int] | None = None,
        *,
        prefix: str = "",
        use_tags: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._statsd = _Statsd(address, prefix, use_tags, tags)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            try:
                self._export(span)
            except Exception:
                guard.failed("statsd.span")
        return SpanExportResult.SUCCESS

    def _export(self, span: ReadableSpan) -> None:
        series = series_of(span)
        if series is None or span.start_time is None or span.end_time is None:
            return
        value = timer_value((span.end_time - span.start_time) / 1e9)
        for head, tail in self._statsd.names.lines(series, "ms"):
            self._statsd.sender.send(head + value + tail)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._statsd.sender.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        self._statsd.sender.close()


STATSD_TEMPORALITY: dict[type, AggregationTemporality] = {
    sdk.Counter: AggregationTemporality.DELTA,
    sdk.ObservableCounter: AggregationTemporality.DELTA,
    sdk.Histogram: AggregationTemporality.DELTA,
    sdk.UpDownCounter: AggregationTemporality.CUMULATIVE,
    sdk.ObservableUpDownCounter: AggregationTemporality.CUMULATIVE,
    sdk.ObservableGauge: AggregationTemporality.CUMULATIVE,
}


class StatsdMetricExporter(MetricExporter):
    """Counters, gauges and histograms as `metric_lines` writes them, from a PeriodicExportingMetricReader.
    Without ``address``, all is as `configure` was told."""

    def __init__(
        self,
        address: tuple[str, int] | None = None,
        *,
        prefix: str = "",
        use_tags: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(preferred_temporality=STATSD_TEMPORALITY)
        self._statsd = _Statsd(address, prefix, use_tags, tags)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        try:
            for line in metric_lines(self._statsd.names, metrics_data):
                self._statsd.sender.send(line)
        except Exception:
            guard.failed("statsd.metrics")
            return MetricExportResult.FAILURE
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._statsd.sender.flush(timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._statsd.sender.close(min(timeout_millis / 1000, 5.0))


# -- spans -> series ---------------------------------------------------------------------------------------------------

_NOT_SQL = frozenset(
    {
        "aws.dynamodb",
        "couchdb",
        "dynamodb",
        "elasticsearch",
        "memcached",
        "mongodb",
        "neo4j",
        "opensearch",
    }
)


def series_of(span: ReadableSpan) -> Series | None:
    """The series of an ended span, from its attributes by the semantic conventions, stable or older; None for a
    span that is no request, SQL statement, commit, Redis command or outgoing request.

    Without Pyramid's route name (``pyramid.route.name``) the route is named by its pattern.
    """
    attributes: Attributes = span.attributes or {}
    if span.kind is SpanKind.SERVER:
        return _route(span, attributes)
    if span.kind is not SpanKind.CLIENT:
        return None
    system = _first(attributes, "db.system.name", "db.system")
    if system == "redis":
        return _redis(span, attributes)
    if system is not None:
        return None if system in _NOT_SQL else _sql(str(system), attributes)
    return _request(attributes)


def _first(attributes: Attributes, *keys: str) -> Any:
    return next((attributes[key] for key in keys if attributes.get(key) is not None), None)


def _int(value: Any) -> int | None:
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):
        return None


def _method(attributes: Attributes) -> str | None:
    method: str | None = _first(attributes, "http.request.method", "http.method")
    return method if method != "_OTHER" else str(attributes.get("http.request.method_original", method))


def _status(attributes: Attributes) -> int | None:
    return _int(_first(attributes, "http.response.status_code", "http.status_code"))


def _database(attributes: Attributes) -> tuple[str | None, str | None, int | None]:
    namespace = _first(attributes, "db.namespace", "db.name", "db.redis.database_index")
    host = _first(attributes, "server.address", "net.peer.name")
    return namespace, host, _int(_first(attributes, "server.port", "net.peer.port"))


def _route(span: ReadableSpan, attributes: Attributes) -> Series | None:
    method = _method(attributes)
    if method is None:
        return None
    pattern = attributes.get("http.route")
    scheme = _first(attributes, "url.scheme", "http.scheme") or "http"
    status = _status(attributes)
    if status is None:  # no answer was begun
        status = 500 if span.status.status_code is StatusCode.ERROR else 200
    name = attributes.get("pyramid.route.name", pattern)
    return names.route(method, name, pattern, status, scheme, attributes.get("error.type"))


def _redis(span: ReadableSpan, attributes: Attributes) -> Series:
    namespace, host, port = _database(attributes)
    command = _first(attributes, "db.operation.name", "db.operation")
    if command is None and attributes.get("db.redis.pipeline_length") is not None:
        command = "PIPELINE"
    if command is None:
        words = str(_first(attributes, "db.query.text", "db.statement") or span.name).split(maxsplit=1)
        command = words[0] if words else "_"
    success = span.status.status_code is not StatusCode.ERROR
    return names.redis(str(command), success, namespace, host, port, attributes.get("error.type"))


def _sql(system: str, attributes: Attributes) -> Series | None:
    where = _database(attributes)
    error = attributes.get("error.type")
    text = _first(attributes, "db.query.text", "db.statement")
    if text is None:
        operation = _first(attributes, "db.operation.name", "db.operation")
        return names.sql_commit(system, *where, error) if operation == "COMMIT" else None
    known = sql.describe(str(text))
    if known.operation == "COMMIT":
        return names.sql_commit(system, *where, error)
    return names.sql(system, *where, known.query, known.operation, known.summary, error)


def _request(attributes: Attributes) -> Series | None:
    method = _method(attributes)
    if method is None:
        return None
    scheme, host, port = "http", None, None
    try:
        url = urlsplit(str(_first(attributes, "url.full", "http.url") or ""))
        scheme, host, port = url.scheme or "http", url.hostname, url.port
    except ValueError:  # not a URL
        pass
    scheme = _first(attributes, "url.scheme", "http.scheme") or scheme
    host = _first(attributes, "server.address", "net.peer.name") or host or "_"
    known_port = _int(_first(attributes, "server.port", "net.peer.port"))
    status = _status(attributes)
    return names.request(
        scheme,
        host,
        port if known_port is None else known_port,
        method,
        names.STATUS_EXCEPTION if status is None else status,
        attributes.get("error.type"),
    )
