"""The application's own prometheus_client metrics -> the store, so that they are added up over the workers.

| prometheus_client | store |
|---|---|
| Counter, Histogram, Summary | added up over the living and the dead; quantiles left out |
| Gauge ``all``, ``liveall`` (the default) | each worker's own, with a label ``pid`` |
| Gauge ``sum``, ``min``, ``max`` (and ``live…``) | over the living |
| Gauge ``mostrecent`` | the latest change among the living |
| Info | a gauge of 1 |
| Enum | a gauge for each state: 1 if some worker is in it |
| what a collector of the application's own yields | counters and histograms added up; gauges: the latest reading |

Names stay as prometheus_client has them. ``_created`` is left out, as are prometheus_client's collectors for the
process, the platform and the garbage collector: they speak of one worker, and would be added up.

A worker forked from a process that had counted already inherits what was counted; four of them would count it four
times. So what an instrument made before the fork stands at when the publisher starts is not counted.
"""

from __future__ import annotations

import os
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from c2c_otel_exporters import guard
from c2c_otel_exporters.model import Exemplar, Kind, Labels, Metric
from c2c_otel_exporters.store_writer import StoreWriter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric as PrometheusMetric
    from prometheus_client.registry import Collector
    from prometheus_client.samples import Exemplar as PrometheusExemplar
    from prometheus_client.samples import Sample

    from c2c_otel_exporters.store import Store

__all__ = ["PrometheusClientSource"]

_GAUGE_KINDS = {
    "sum": Kind.GAUGE_SUM,
    "min": Kind.GAUGE_MIN,
    "max": Kind.GAUGE_MAX,
    "mostrecent": Kind.GAUGE_LAST,
    "all": Kind.GAUGE_LAST,
}
_ADDED_UP = frozenset({"counter", "histogram", "summary"})


class PrometheusClientSource:
    """One registry. ``registry``: None is prometheus_client's default one, once somebody has imported it."""

    def __init__(self, store: Store, registry: CollectorRegistry | None = None) -> None:
        self._store = store
        self._registry = registry
        self._writers: dict[Collector, StoreWriter] = {}
        self._pid = str(os.getpid())
        self._began = _process_began()
        try:
            self._forget_inherited()
        except Exception:
            guard.failed("publish.prometheus_client")

    def parts(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """A name and what to call for each collector of the registry, which may have changed since."""
        collectors = self._collectors()
        for gone in self._writers.keys() - set(collectors):
            self._writers.pop(gone).clear()
        for collector in collectors:
            yield _name_of(collector), lambda collector=collector: self._publish(collector)  # type: ignore[misc] # mypy cannot infer a lambda with a default

    def _collectors(self) -> list[Collector]:
        registry = self._registry
        if registry is None:
            module = sys.modules.get("prometheus_client")
            registry = getattr(module, "REGISTRY", None)
            if registry is None:
                return []
        with registry._lock:
            known = list(registry._collector_to_names)
        return [collector for collector in known if not _is_builtin(collector)]

    def _writer(self, collector: Collector) -> StoreWriter:
        writer = self._writers.get(collector)
        if writer is None:
            writer = self._writers[collector] = StoreWriter(self._store)
        return writer

    def _publish(self, collector: Collector) -> None:
        writer = self._writer(collector)
        writer.begin()
        for metric in collector.collect():
            if metric.type == "counter":
                for labels, sample in _counted(metric):
                    writer.total(_metric(metric, Kind.COUNTER), labels, sample.value)
            elif metric.type in ("histogram", "summary"):
                for kind, labels, seen in _distributions(metric):
                    named = _metric(metric, kind, seen.bounds)
                    writer.total_distribution(named, labels, seen.counts, seen.sum, seen.exemplar)
            else:
                self._publish_gauge(writer, metric, getattr(collector, "_multiprocess_mode", ""))
        writer.finish()

    def _publish_gauge(self, writer: StoreWriter, metric: PrometheusMetric, mode: str) -> None:
        mode = mode.removeprefix("live")
        if metric.type in ("info", "stateset"):
            mode = "max"
        kind = _GAUGE_KINDS.get(mode, Kind.GAUGE_LAST)
        for sample in metric.samples:
            if sample.name.endswith("_created"):
                continue
            named = Metric(sample.name, kind, "", metric.documentation, exact=True)
            labels = _labels(sample.labels)
            if mode == "mostrecent":
                writer.gauge_if_changed(named, labels, sample.value)
            elif mode == "all":
                writer.gauge(named, _labels({**sample.labels, "pid": self._pid}), sample.value)
            else:
                writer.gauge(named, labels, sample.value)

    # -- what a fork has copied -------------------------------------------------------------------------------

    def _forget_inherited(self) -> None:
        if not self._collectors():
            return
        from prometheus_client.metrics import MetricWrapperBase

        for collector in self._collectors():
            if isinstance(collector, MetricWrapperBase) and collector._type in _ADDED_UP:
                inherited = {labels for labels, created in _created(collector) if created < self._began}
                if inherited:
                    self._forget(self._writer(collector), collector, inherited)

    @staticmethod
    def _forget(writer: StoreWriter, collector: Collector, inherited: set[Labels]) -> None:
        for metric in collector.collect():
            if metric.type == "counter":
                for labels, sample in _counted(metric):
                    if labels in inherited:
                        writer.forget(_metric(metric, Kind.COUNTER), labels, sample.value)
            else:
                for kind, labels, seen in _distributions(metric):
                    if labels in inherited:
                        writer.forget_distribution(_metric(metric, kind, seen.bounds), labels, seen.counts, seen.sum)


def _process_began() -> float:
    """When this process was made, by fork or otherwise, in unix time; infinity where that cannot be known.

    Field 22 of proc(5) stat, in ticks since boot, so up to a tick late: what was made within it counts as inherited.
    """
    tick = 1.0 / os.sysconf("SC_CLK_TCK")
    try:
        since_boot = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) * tick
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot
    except (OSError, ValueError, IndexError, AttributeError):
        return float("inf")
    return time.time() - age + tick if age >= 0 else float("inf")


def _created(collector: Any) -> Iterator[tuple[Labels, float]]:
    """When each series of an instrument was made."""
    if not collector._labelnames:
        yield (), collector._created
        return
    with collector._lock:
        children = list(collector._metrics.items())
    for values, child in children:
        yield _labels(dict(zip(collector._labelnames, values, strict=True))), child._created


def _is_builtin(collector: Collector) -> bool:
    return type(collector).__module__ in (
        "prometheus_client.process_collector",
        "prometheus_client.platform_collector",
        "prometheus_client.gc_collector",
    )


def _name_of(collector: Any) -> str:
    return f"prometheus_client.{getattr(collector, '_name', type(collector).__name__)}"


def _labels(labels: dict[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def _metric(metric: PrometheusMetric, kind: Kind, bounds: tuple[float, ...] = ()) -> Metric:
    name = f"{metric.name}_total" if kind is Kind.COUNTER else metric.name
    return Metric(name, kind, "", metric.documentation, bounds, exact=True)


def _counted(metric: PrometheusMetric) -> Iterator[tuple[Labels, Sample]]:
    for sample in metric.samples:
        if not sample.name.endswith("_created"):
            yield _labels(sample.labels), sample


class _Distribution(NamedTuple):
    bounds: tuple[float, ...]
    counts: list[float]
    sum: float
    exemplar: Exemplar | None = None


def _distributions(metric: PrometheusMetric) -> Iterator[tuple[Kind, Labels, _Distribution]]:
    """The histograms and summaries of a family; its samples are one for each bucket (cumulative), count and sum."""
    buckets: dict[Labels, list[tuple[float, float]]] = {}
    count: dict[Labels, float] = {}
    total: dict[Labels, float] = {}
    exemplars: dict[Labels, Exemplar] = {}
    for sample in metric.samples:
        suffix = sample.name[len(metric.name) :]
        if suffix == "_bucket":
            labels = _labels({name: value for name, value in sample.labels.items() if name != "le"})
            buckets.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
            exemplar = _exemplar(sample.exemplar)
            if exemplar is not None and (labels not in exemplars or exemplars[labels].time < exemplar.time):
                exemplars[labels] = exemplar
        elif suffix == "_count":
            count[_labels(sample.labels)] = sample.value
        elif suffix == "_sum":
            total[_labels(sample.labels)] = sample.value
    if metric.type == "summary":
        for labels, value in count.items():
            yield Kind.SUMMARY, labels, _Distribution((), [value], total.get(labels, 0.0))
        return
    for labels, cumulative in buckets.items():
        bounds, counts = _separate(sorted(cumulative), count.get(labels))
        yield Kind.HISTOGRAM, labels, _Distribution(bounds, counts, total.get(labels, 0.0), exemplars.get(labels))


def _separate(cumulative: list[tuple[float, float]], count: float | None) -> tuple[tuple[float, ...], list[float]]:
    """Cumulative counts by upper bound -> finite bounds, and counts of each bucket with that above them."""
    finite = cumulative[: bisect_left(cumulative, (float("inf"),))]
    above = cumulative[-1][1] if count is None else count
    totals = [value for _, value in finite] + [above]
    counts = [value - before for value, before in zip(totals, [0.0, *totals], strict=False)]
    return tuple(bound for bound, _ in finite), counts


def _exemplar(found: PrometheusExemplar | None) -> Exemplar | None:
    """An exemplar that names a trace; by convention in the labels trace_id (or TraceID) and span_id, in hexadecimal."""
    if found is None:
        return None
    labels = {name.lower().replace("_", ""): value for name, value in found.labels.items()}
    try:
        trace_id, span_id = int(labels["traceid"], 16), int(labels.get("spanid", "0"), 16)
    except (KeyError, ValueError):
        return None
    return Exemplar(found.value, float(found.timestamp or time.time()), trace_id, span_id)
