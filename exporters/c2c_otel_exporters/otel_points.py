"""Families -> OpenTelemetry metrics, as an OpenTelemetry exporter takes them.

Cumulative since the reader was made, or deltas where the exporter prefers them. A summary (count and sum) becomes a
histogram without bounds, the nearest thing that OpenTelemetry's metrics have. Entries of stats.json are left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from opentelemetry.sdk.metrics import Exemplar as SdkExemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as SdkMetric

from c2c_otel_exporters.model import Exemplar, Family, Kind, Labels, Metric, Sample
from c2c_otel_exporters.plain import valid

__all__ = ["Points"]

_ADDED_UP = frozenset({Kind.COUNTER, Kind.HISTOGRAM, Kind.SUMMARY})
_STAT = frozenset({Kind.STAT_TIMER, Kind.STAT_COUNTER, Kind.STAT_GAUGE})
_INTEGERS = frozenset({"http.response.status_code", "server.port"})
"""Attributes that are numbers in the semantic conventions; a label is always text."""


class Points:
    """Turns what a store holds into points. ``deltas``: kinds whose points tell what was added since the last call."""

    def __init__(self, deltas: Iterable[Kind] = ()) -> None:
        self._deltas = frozenset(deltas)
        self._start = time.time_ns()
        self._before: dict[tuple[Metric, Labels], Sequence[float]] = {}
        self._since = self._start

    def metrics(self, families: Iterable[Family]) -> list[SdkMetric]:
        """One metric for each family that has points to tell."""
        now = time.time_ns()
        made = [self._metric(family, now) for family in families if family.metric.kind not in _STAT]
        self._since = now
        return [metric for metric in made if metric.data.data_points]

    def _metric(self, family: Family, now: int) -> SdkMetric:
        metric = family.metric
        delta = metric.kind in self._deltas
        start = self._since if delta else self._start
        temporality = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
        samples = list(self._changed(family) if delta else family.series.items())
        data: Sum | Gauge | Histogram
        if metric.kind in (Kind.HISTOGRAM, Kind.SUMMARY):
            points = [_distribution(metric, labels, sample, start, now) for labels, sample in samples]
            data = Histogram(points, temporality)
        else:
            numbers = [_number(labels, sample, start, now) for labels, sample in samples]
            if metric.kind in (Kind.COUNTER, Kind.GAUGE_SUM):
                data = Sum(numbers, temporality, is_monotonic=metric.kind is Kind.COUNTER)
            else:
                data = Gauge(numbers)
        return SdkMetric(metric.name, metric.help, metric.unit, data)

    def _changed(self, family: Family) -> Iterable[tuple[Labels, Sample]]:
        for labels, sample in family.series.items():
            before = self._before.get((family.metric, labels))
            if before == sample.values:
                continue
            self._before[family.metric, labels] = sample.values
            values = sample.values
            if before is not None:
                values = tuple(new - old for new, old in zip(values, before, strict=True))
            yield labels, sample._replace(values=values)


def _attributes(labels: Labels) -> dict[str, str | int]:
    """What UTF-8 cannot say is mended: an encoder would log a traceback for it with each export."""
    return {valid(name): int(text) if name in _INTEGERS and text.isdecimal() else valid(text) for name, text in labels}


def _number(labels: Labels, sample: Sample, start: int, now: int) -> NumberDataPoint:
    return NumberDataPoint(_attributes(labels), start, now, sample.values[0], _exemplars(sample.exemplar))


def _distribution(metric: Metric, labels: Labels, sample: Sample, start: int, now: int) -> HistogramDataPoint:
    counts = [round(count) for count in sample.values[:-1]]
    return HistogramDataPoint(
        attributes=_attributes(labels),
        start_time_unix_nano=start,
        time_unix_nano=now,
        count=sum(counts),
        sum=sample.values[-1],
        bucket_counts=counts,
        explicit_bounds=metric.buckets,
        min=None,  # type: ignore[arg-type] # optional in OTLP, and so the encoder takes it; the store does not keep it
        max=None,  # type: ignore[arg-type] # likewise
        exemplars=_exemplars(sample.exemplar),
    )


def _exemplars(exemplar: Exemplar | None) -> list[SdkExemplar]:
    if exemplar is None:
        return []
    return [
        SdkExemplar({}, exemplar.value, int(exemplar.time * 1e9), exemplar.span_id or None, exemplar.trace_id or None)
    ]
