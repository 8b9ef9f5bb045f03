"""What a measurement is, apart from how it is named, stored or sent."""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["Exemplar", "Family", "Kind", "Labels", "Metric", "OVERFLOW", "Sample"]

Labels = tuple[tuple[str, str], ...]
"""OpenTelemetry attributes of a series: (name, value) sorted by name, names with dots, values as text."""

OVERFLOW: Labels = (("otel.metric.overflow", "true"),)
"""The series that takes what comes after a metric has reached its limit (name from the OpenTelemetry SDK)."""


class Kind(enum.IntEnum):
    """How values of one series from several processes become one.

    Counters, histograms and summaries are added over the living and the dead; gauges over living processes
    only. ``STAT_*`` are the entries of stats.json; they are not shown to Prometheus.

    "time of the write" is unix time in seconds; 0 means that nothing was written, and the series is not shown.
    """

    COUNTER = 1  # 1 value
    HISTOGRAM = 2  # len(buckets) + 1 counts, not cumulative, then the sum
    SUMMARY = 3  # count, sum
    GAUGE_SUM = 4  # value, time of the write: up-down counters
    GAUGE_LAST = 5  # value, time of the write: the latest write among the living wins
    GAUGE_MIN = 6  # value, time of the write
    GAUGE_MAX = 7  # value, time of the write
    STAT_TIMER = 8  # reset epoch, count, sum, min, max; seconds
    STAT_COUNTER = 9  # reset epoch, value
    STAT_GAUGE = 10  # reset epoch, value, time of the write


class Metric(NamedTuple):
    """One metric. ``name`` and ``unit`` are OpenTelemetry's (``http.server.request.duration``, ``s``);
    ``buckets`` are the upper bounds of a histogram without +Inf. ``exact`` names (from prometheus_client)
    are shown as they are; others get Prometheus' unit and ``_total`` suffixes."""

    name: str
    kind: Kind
    unit: str = ""
    help: str = ""
    buckets: tuple[float, ...] = ()
    exact: bool = False


class Exemplar(NamedTuple):
    """One observation that belongs to a trace; ``time`` is unix time in seconds."""

    value: float
    time: float
    trace_id: int
    span_id: int


class Sample(NamedTuple):
    """The merged state of one series: ``values`` as laid out by `Kind`."""

    values: tuple[float, ...]
    exemplar: Exemplar | None = None


class Family(NamedTuple):
    """One metric with all its series, merged over processes."""

    metric: Metric
    series: dict[Labels, Sample]
