"""Where `c2c_otel.table_statistics` go: statsd, a Pushgateway, OpenTelemetry, or standard output.

| target | name of a value | names it by |
|---|---|---|
| statsd | ``{kind}.{path}``; with tags ``{kind}`` | ``STATSD_TAG_*``, and its tags |
| Pushgateway, job ``db_counts`` | ``database_table_{kind}`` | labels: the same |
| OpenTelemetry | ``database.table.{kind}`` | attributes: its tags, ``db.namespace``, ``server.address`` |

A failure is the counter ``error.{path}`` in statsd. All values are sent, 0 too.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from c2c_otel.prometheus import PushgatewayGroupPublisher
from c2c_otel.settings import Address, Settings
from c2c_otel.table_statistics import Value
from c2c_otel_exporters.model import Family, Kind, Labels, Metric, Sample
from c2c_otel_exporters.names import Series
from c2c_otel_exporters.statsd import Names, Sender, gauge_line

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.resources import Resource

__all__ = ["JOB", "OtlpTarget", "PrintTarget", "PushTarget", "StatsdTarget", "Target"]

JOB = "db_counts"
"""The Pushgateway's job."""

_FLUSH_SECONDS = 10.0

_UNITS = {"count": "{row}", "size": "By", "index_size": "By", "index_usage": "1"}
_HELP = {
    "count": "Rows of a table, or what a query says.",
    "size": "Size of a table.",
    "index_size": "Size of an index.",
    "index_usage": "How often an index was used.",
}


class Target(Protocol):
    """Both of ``add`` and ``failed`` never raise."""

    def add(self, value: Value) -> None: ...

    def failed(self, path: Sequence[str]) -> None:
        """One thing could not be measured."""

    def commit(self, found: bool) -> None:
        """Once, at the end. Where it was not ``found`` out what there is, nothing takes the place of what was told
        before. Raises OSError for what did not arrive."""


def _metric(kind: str) -> Metric:
    return Metric(f"database.table.{kind}", Kind.GAUGE_LAST, _UNITS[kind], _HELP[kind])


class StatsdTarget:
    """Gauges and counters, sent while the others are still measured."""

    def __init__(self, address: Address, prefix: str, settings: Settings) -> None:
        self._address = address
        self._names = Names(prefix, settings.statsd_use_tags, settings.statsd_tags)
        self._sender = Sender(*address)

    def add(self, value: Value) -> None:
        tags = tuple(sorted(value.tags))
        series = Series((value.kind, *value.path), (value.kind,), tags, (), (), _metric(value.kind), ())
        for line in self._names.lines(series, "g"):
            if entry := gauge_line(line, value.value):
                self._sender.send(entry)

    def failed(self, path: Sequence[str]) -> None:
        head, tail = self._names.line(("error", *path), (), "c")
        self._sender.send(f"{head}1{tail}")

    def commit(self, found: bool) -> None:
        sent = self._sender.flush(_FLUSH_SECONDS)
        self._sender.close()
        if not sent:
            raise OSError(f"statsd at {self._address} did not take what was measured")


class PushTarget:
    """One group, replaced as a whole: tables that are gone, or failed, are not in it any more."""

    def __init__(self, url: str, instance: str | None, tags: Mapping[str, str]) -> None:
        labels = {_label(name): value for name, value in tags.items()}
        self._publisher = PushgatewayGroupPublisher(url, JOB, instance, labels, timeout=30.0)

    def add(self, value: Value) -> None:
        self._publisher.add(f"database_table_{value.kind}", value.value, labels=dict(value.tags))

    def failed(self, path: Sequence[str]) -> None:
        """A group has gauges: what failed is not there."""

    def commit(self, found: bool) -> None:
        if found:
            self._publisher.commit()


def _label(name: str) -> str:
    """The name of a tag as that of a label."""
    cleaned = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"tag_{cleaned}" if not cleaned or cleaned[0].isdigit() or cleaned.startswith("__") else cleaned


class PrintTarget:
    """Where nobody else is told: Prometheus' text format on standard output."""

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._publisher = PushgatewayGroupPublisher("http://localhost", JOB)
        self._write = write or sys.stdout.write

    def add(self, value: Value) -> None:
        self._publisher.add(f"database_table_{value.kind}", value.value, labels=dict(value.tags))

    def failed(self, path: Sequence[str]) -> None:
        """It has been said on stderr."""

    def commit(self, found: bool) -> None:
        self._write(str(self._publisher))


class OtlpTarget:
    """One export by one metrics exporter. ``attributes`` are on every value."""

    def __init__(self, exporter: MetricExporter, resource: Resource, attributes: Labels) -> None:
        self._exporter = exporter
        self._resource = resource
        self._attributes = attributes
        self._series: dict[str, dict[Labels, Sample]] = {}

    def add(self, value: Value) -> None:
        labels = tuple(sorted((*value.tags, *self._attributes)))
        self._series.setdefault(value.kind, {})[labels] = Sample((float(value.value), time.time()))

    def failed(self, path: Sequence[str]) -> None:
        """What failed is not there."""

    def commit(self, found: bool) -> None:
        from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, ResourceMetrics, ScopeMetrics
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        from c2c_otel import __version__
        from c2c_otel_exporters.otel_points import Points

        families = [Family(_metric(kind), series) for kind, series in self._series.items()]
        scope = ScopeMetrics(InstrumentationScope("c2c_otel", __version__), Points().metrics(families), "")
        data = MetricsData([ResourceMetrics(self._resource, [scope], self._resource.schema_url)])
        try:
            result = self._exporter.export(data)
        finally:
            self._exporter.shutdown()
        if result is not MetricExportResult.SUCCESS:
            raise OSError("the OpenTelemetry collector did not take what was measured")
