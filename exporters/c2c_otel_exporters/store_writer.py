"""What one source publishes, written to the store: deltas, totals that only this process knows, gauges that go.

A source (the OpenTelemetry SDK, a prometheus_client collector, a provider) is read about once a second. It tells
either what was added since (the SDK), or totals since the process began (prometheus_client); and which gauges there
are now. The store takes additions, and gauges that stay until they are removed. In between stands a `StoreWriter`,
one for each source; one thread at a time uses it.
"""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from c2c_otel_exporters.model import Exemplar, Kind, Labels, Metric

if TYPE_CHECKING:
    from c2c_otel_exporters.store import Store

__all__ = ["StoreWriter"]

_Key = tuple[Metric, Labels]
_Distribution = tuple[Sequence[float], float]


class StoreWriter:
    """Between `begin` and `finish` stands one reading of the source; a gauge not told in it is removed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._totals: dict[_Key, float] = {}
        self._seen: dict[_Key, _Distribution] = {}
        self._written: dict[_Key, _Distribution] = {}
        self._before: set[_Key] = set()
        self._now: dict[_Key, float] = {}
        self._last: dict[_Key, float] = {}
        self.metrics: set[Metric] = set()
        """Every metric that this source has ever written."""

    # -- what is added up -------------------------------------------------------------------------------------

    def add(self, metric: Metric, labels: Labels, delta: float) -> None:
        """A counter went up by this much; 0 makes the series known."""
        self.metrics.add(metric)
        self._store.counter(metric, labels).add(delta)

    def total(self, metric: Metric, labels: Labels, total: float) -> None:
        """A counter of this process stands at this; when it has fallen, it began anew at 0."""
        key = (metric, labels)
        before = self._totals.get(key)
        if before != total:
            self._totals[key] = total
            self.add(metric, labels, total - before if before is not None and total >= before else total)

    def add_distribution(
        self,
        metric: Metric,
        labels: Labels,
        counts: Sequence[float],
        sum_: float,
        exemplar: Exemplar | None = None,
    ) -> None:
        """A histogram (counts not cumulative, one more than bounds) or a summary (one count) grew by this much.

        ``exemplar``: one of the observations that it grew by.
        """
        self.metrics.add(metric)
        if metric.kind is Kind.SUMMARY:
            counts, sum_ = self._running(metric, labels, counts, sum_)
            self._store.summary(metric, labels).set(counts[0], sum_)
            return
        histogram = self._store.histogram(metric, labels)
        if exemplar is not None and counts[bucket := bisect_left(metric.buckets, exemplar.value)] >= 1:
            histogram.observe(exemplar.value, exemplar)
            counts = [count - (at == bucket) for at, count in enumerate(counts)]
            sum_ -= exemplar.value
        histogram.set(*self._running(metric, labels, counts, sum_))

    def _running(self, metric: Metric, labels: Labels, counts: Sequence[float], sum_: float) -> _Distribution:
        written = self._written.get((metric, labels))
        if written is not None:
            counts, sum_ = list(map(operator.add, counts, written[0])), sum_ + written[1]
        self._written[metric, labels] = (counts, sum_)
        return counts, sum_

    def total_distribution(
        self,
        metric: Metric,
        labels: Labels,
        counts: Sequence[float],
        sum_: float,
        exemplar: Exemplar | None = None,
    ) -> None:
        """The same from what the process has observed altogether; when a count has fallen, it began anew at 0."""
        key = (metric, labels)
        seen = self._seen.get(key)
        if seen == (counts, sum_):
            return
        self._seen[key] = (counts, sum_)
        if seen is not None and all(map(operator.ge, counts, seen[0])):
            counts = list(map(operator.sub, counts, seen[0]))
            sum_ -= seen[1]
        self.add_distribution(metric, labels, counts, sum_, exemplar)

    def forget(self, metric: Metric, labels: Labels, total: float) -> None:
        """What a counter stands at before this process has counted anything: a fork has copied it."""
        self._totals[metric, labels] = total

    def forget_distribution(self, metric: Metric, labels: Labels, counts: Sequence[float], sum_: float) -> None:
        """The same for a histogram or a summary."""
        self._seen[metric, labels] = (counts, sum_)

    # -- gauges -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A reading starts."""
        self._now.clear()

    def gauge(self, metric: Metric, labels: Labels, value: float) -> None:
        """A gauge has this value now. For GAUGE_SUM, several of the same name and labels add up."""
        key = (metric, labels)
        if metric.kind is Kind.GAUGE_SUM and key in self._now:
            value += self._now[key]
        self._now[key] = value

    def gauge_written(self, metric: Metric, labels: Labels, value: float) -> None:
        """A gauge was set just now, by somebody who will not repeat it: it stays without being told again."""
        self.metrics.add(metric)
        self._store.gauge(metric, labels).set(value)

    def gauge_if_changed(self, metric: Metric, labels: Labels, value: float) -> None:
        """A gauge whose latest change among the processes counts; nothing tells when that was, so it is now.

        One that stands at 0 from the beginning has not been set here, and does not count.
        """
        key = (metric, labels)
        if self._last.get(key, 0.0) != value:
            self._last[key] = value
            self.gauge_written(metric, labels, value)

    def finish(self) -> None:
        """The reading is complete: gauges that were told are set, those that were not are removed."""
        for (metric, labels), value in self._now.items():
            self.gauge_written(metric, labels, value)
        for metric, labels in self._before.difference(self._now):
            self._store.remove_gauge(metric, labels)
        self._before = set(self._now)

    def clear(self) -> None:
        """The source is gone, and its gauges with it."""
        self.begin()
        self.finish()
