"""A MetricReader that hands an exporter, each interval, both the SDK's instruments and what is in our store.

The SDK's periodic reader exports nothing where there is no instrument, and after a fork during an export it never
exports again. This one exports the series of this process alone: an OpenTelemetry backend adds up the instances.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator
from typing import TYPE_CHECKING, Any

from opentelemetry import context
from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricReader,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from c2c_otel_exporters import guard
from c2c_otel_exporters.model import Family, Kind, Metric
from c2c_otel_exporters.otel_points import Points

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource

__all__ = ["SHUTDOWN_SECONDS", "StoreExportingReader"]

SHUTDOWN_SECONDS = 2.0
"""Longest that `StoreExportingReader.shutdown` takes, whatever it is told: a worker has to end."""

_SUPPRESS_KEY = context._SUPPRESS_INSTRUMENTATION_KEY
"""What the SDK's own readers set, so that instrumentors leave the export alone."""


class StoreExportingReader(MetricReader):
    """Makes its thread at once, so it is made in the worker. Times are in seconds.

    ``families`` reads the store of this process. ``skip``: metrics there that came from the SDK, which tells them
    itself; those it has told by name are left out too.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        families: Callable[[], list[Family]],
        resource: Resource,
        *,
        scope: InstrumentationScope,
        skip: Container[Metric] = (),
        interval: float = 60.0,
        timeout: float = 30.0,
    ) -> None:
        preferred = exporter._preferred_temporality or {}
        super().__init__(preferred_temporality=preferred, preferred_aggregation=exporter._preferred_aggregation)
        self._exporter = exporter
        self._families = families
        self._resource = resource
        self._scope = scope
        self._skip = skip
        self._interval = interval
        self._timeout = timeout
        self._points = Points(_deltas(preferred))
        self._told_by_sdk: set[str] = set()
        self._received: MetricsData | None = None
        self._registered = False
        self._exporting = threading.Lock()
        self._stopping = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="c2c_otel_metric_export", daemon=True)
        self._thread.start()

    def _set_meter_provider(self, meter_provider: MeterProvider) -> None:
        super()._set_meter_provider(meter_provider)
        self._registered = True

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        self._received = metrics_data

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Export now."""
        self._export()
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Export a last time, for at most `SHUTDOWN_SECONDS`. Idempotent."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join(min(timeout_millis / 1000, SHUTDOWN_SECONDS))
        self._ended = True
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self._export()
        self._export()

    def _export(self) -> None:
        """Never raises: an exporter tells of its failures by its logger."""
        token = context.attach(context.set_value(_SUPPRESS_KEY, True))
        try:
            with self._exporting:
                if not self._ended:
                    data = self._collected()
                    if data is not None:
                        self._exporter.export(data, timeout_millis=self._timeout * 1000)
        except Exception:
            guard.failed("otlp.metrics")
        finally:
            context.detach(token)

    def _collected(self) -> MetricsData | None:
        scopes = self._from_sdk()
        self._told_by_sdk.update(metric.name for scope in scopes for metric in scope.metrics)
        own = self._points.metrics(self._own())
        if own:
            scopes.append(ScopeMetrics(self._scope, own, ""))
        return MetricsData([ResourceMetrics(self._resource, scopes, self._resource.schema_url)]) if scopes else None

    def _from_sdk(self) -> list[ScopeMetrics]:
        if self._registered:
            try:
                self.collect(timeout_millis=self._timeout * 1000)
            except Exception:
                guard.failed("otlp.collect")
        received, self._received = self._received, None
        return [scope for group in received.resource_metrics for scope in group.scope_metrics] if received else []

    def _own(self) -> Iterator[Family]:
        for family in self._families():
            if family.metric not in self._skip and family.metric.name not in self._told_by_sdk:
                yield family


def _deltas(preferred: dict[type, AggregationTemporality]) -> list[Kind]:
    delta = AggregationTemporality.DELTA
    kinds = [Kind.COUNTER] if preferred.get(Counter) is delta else []
    return [*kinds, Kind.HISTOGRAM, Kind.SUMMARY] if preferred.get(Histogram) is delta else kinds
