"""What a caller holds of one series: `add`, `observe` and `set` write it in place.

All are thread-safe, by the lock of their store. It is re-entrant, because a signal handler or a finaliser that
counts something may run between any two of these lines; that can lose one increment, a plain lock would hang.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from time import time
from typing import Any, NamedTuple, Self

from c2c_otel_exporters import guard
from c2c_otel_exporters.layout import EXEMPLAR_WORDS, exemplar_words
from c2c_otel_exporters.model import Exemplar, Kind, Metric

__all__ = ["Counter", "Gauge", "Histogram", "Instrument", "StatCounter", "StatGauge", "StatTimer", "Summary"]

_INF = float("inf")
_EXEMPLAR_SECONDS = 1.0


class Slot(NamedTuple):
    """Where a series lives. ``view``: doubles; ``at``: index of the first; ``own``: no other series writes here.

    ``epoch``: whose first element says which reset of stats.json this is. ``many``: one instrument for many
    series, which cannot know what each of them was last set to.
    """

    lock: Any  # an RLock, which has no type of its own before Python 3.13
    view: Any  # of doubles: a memoryview or an array
    at: int
    epoch: Any
    own: bool = True
    many: bool = False


class Instrument:
    """One series."""

    __slots__ = ("_at", "_epoch", "_lock", "_many", "_own", "_view", "metric")

    def __init__(self, metric: Metric, slot: Slot) -> None:
        self.metric = metric
        self._lock = slot.lock
        self._view = slot.view
        self._at = slot.at
        self._epoch = slot.epoch
        self._own = slot.own
        self._many = slot.many

    def sibling(self, many: bool) -> Self:
        """Another instrument on the same values."""
        return type(self)(self.metric, Slot(self._lock, self._view, self._at, self._epoch, False, many))

    def _refuses(self) -> bool:
        if self._many:
            guard.dropped("metrics.set", reason=f"{self.metric.name} has too many series to tell their totals apart")
        return self._many

    def detach(self, doubles: int, lock: Any) -> None:
        """From now on write where nobody reads. ``lock``: a new one, which no vanished thread can hold."""
        self._lock = lock
        self._view, self._at, self._epoch = array("d", bytes(8 * doubles)), 0, (0.0,)


class Counter(Instrument):
    """A total that only grows."""

    __slots__ = ("_last",)

    def __init__(self, metric: Metric, slot: Slot) -> None:
        super().__init__(metric, slot)
        self._last = 0.0

    def add(self, value: float = 1.0) -> None:
        """Count. What is negative or no number is refused and counted as dropped."""
        if 0 <= value < _INF:
            with self._lock:
                self._view[self._at] += value
        else:
            guard.dropped("metrics.counter", reason=f"{self.metric.name} cannot grow by {value}")

    def set(self, total: float) -> None:
        """Take over the total of a counter kept elsewhere; one that fell was reset, and starts anew on top."""
        if not 0 <= total < _INF:
            guard.dropped("metrics.counter", reason=f"{self.metric.name} cannot take over {total}")
            return
        if self._refuses():
            return
        with self._lock:
            last, self._last = self._last, total
        self.add(total - last if total >= last else total)


class Histogram(Instrument):
    """A distribution over the metric's buckets. ``place``: its doubles, the index of the first bucket, and that of the
    sum; all in one, for who writes them without the lock."""

    __slots__ = ("_buckets", "_exemplar_at", "_last", "_sum_at", "place")

    def __init__(self, metric: Metric, slot: Slot) -> None:
        super().__init__(metric, slot)
        self._buckets = metric.buckets
        self._sum_at = self._at + len(metric.buckets) + 1
        self._exemplar_at = self._sum_at + 1
        self.place = self._view, self._at, self._sum_at
        self._last: tuple[float, ...] = (0.0,) * (len(metric.buckets) + 2)

    def detach(self, doubles: int, lock: Any) -> None:
        super().detach(doubles + EXEMPLAR_WORDS, lock)
        self._sum_at = len(self._buckets) + 1
        self._exemplar_at = self._sum_at + 1
        self.place = self._view, self._at, self._sum_at

    def observe(self, value: float, exemplar: Exemplar | None = None) -> None:
        """Record one value. One exemplar a second is kept, and the latest of them shown."""
        if not -_INF < value < _INF:
            guard.dropped("metrics.histogram", reason=f"{self.metric.name} cannot record {value}")
            return
        bucket = bisect_left(self._buckets, value)
        with self._lock:
            view = self._view
            view[self._at + bucket] += 1.0
            view[self._sum_at] += value
            if exemplar is not None and exemplar.time - view[self._exemplar_at + 2] >= _EXEMPLAR_SECONDS:
                self._keep(exemplar)

    def _keep(self, exemplar: Exemplar) -> None:
        view, at = self._view, self._exemplar_at
        view[at] += 1.0  # odd: whoever reads it now, or after our death, leaves it alone
        for offset, word in enumerate(exemplar_words(exemplar), at + 1):
            view[offset] = word
        view[at] += 1.0

    def set(self, counts: Sequence[float], sum: float) -> None:  # noqa: A002  # the name Prometheus and OTLP give it
        """Take over a histogram kept elsewhere: counts per bucket, not cumulative, the last for +Inf.

        If any of them fell, it was reset, and starts anew on top. Raises ValueError for another number of buckets.
        """
        now = (*counts, sum)
        if len(now) != len(self._last):
            raise ValueError(f"{self.metric.name} has {len(self._last) - 1} buckets, not {len(now) - 1}")
        if not all(0 <= count < _INF for count in counts) or not -_INF < sum < _INF:
            guard.dropped("metrics.histogram", reason=f"{self.metric.name} cannot take over {now}")
            return
        if self._refuses():
            return
        with self._lock:
            last, self._last = self._last, now
            if any(new < old for new, old in zip(counts, last, strict=False)):
                last = (0.0,) * len(now)
            for offset, (new, old) in enumerate(zip(now, last, strict=True), self._at):
                self._view[offset] += new - old


class Summary(Instrument):
    """A count and a sum."""

    __slots__ = ("_last",)

    def __init__(self, metric: Metric, slot: Slot) -> None:
        super().__init__(metric, slot)
        self._last = (0.0, 0.0)

    def observe(self, value: float) -> None:
        """Record one value."""
        if not -_INF < value < _INF:
            guard.dropped("metrics.summary", reason=f"{self.metric.name} cannot record {value}")
            return
        with self._lock:
            self._view[self._at] += 1.0
            self._view[self._at + 1] += value

    def set(self, count: float, sum: float) -> None:  # noqa: A002  # the name Prometheus and OTLP give it
        """Take over a summary kept elsewhere; if its count fell, it was reset, and starts anew on top."""
        if not 0 <= count < _INF or not -_INF < sum < _INF:
            guard.dropped("metrics.summary", reason=f"{self.metric.name} cannot take over {count}, {sum}")
            return
        if self._refuses():
            return
        with self._lock:
            last, self._last = self._last, (count, sum)
            if count < last[0]:
                last = (0.0, 0.0)
            self._view[self._at] += count - last[0]
            self._view[self._at + 1] += sum - last[1]


class Gauge(Instrument):
    """A value as it is now. It may be infinite, or no number."""

    __slots__ = ("_last",)

    def __init__(self, metric: Metric, slot: Slot) -> None:
        super().__init__(metric, slot)
        self._last = 0.0

    def set(self, value: float) -> None:
        """Replace. In an overflow series of a sum, many have their part in the value: only ours is replaced."""
        if not self._own and self.metric.kind == Kind.GAUGE_SUM and self._refuses():
            return
        with self._lock:
            if self._own or self.metric.kind != Kind.GAUGE_SUM:
                self._view[self._at] = value
            else:
                last, self._last = self._last, value
                self._view[self._at] += value - last
            self._view[self._at + 1] = time()

    def add(self, value: float) -> None:
        """Change by so much."""
        with self._lock:
            self._view[self._at] += value
            self._view[self._at + 1] = time()

    def clear(self) -> None:
        """Not to be shown until it is written again."""
        with self._lock:
            if self._own:
                self._view[self._at + 1] = 0.0
                self._view[self._at] = 0.0


class _Stat(Instrument):
    """An entry of stats.json: its first double is the epoch that it belongs to."""

    __slots__ = ()

    def _renew(self, doubles: int) -> None:
        """Called with the lock held, where the epoch is another one."""
        view, at = self._view, self._at
        for offset in range(at + 1, at + doubles):
            view[offset] = 0.0
        view[at] = self._epoch[0]


class StatTimer(_Stat):
    """How often, how long in all, the shortest, the longest; seconds."""

    __slots__ = ()

    def observe(self, seconds: float) -> None:
        """Record one duration."""
        with self._lock:
            view, at = self._view, self._at
            if view[at] != self._epoch[0]:
                self._renew(5)
            if not view[at + 1] or seconds < view[at + 3]:
                view[at + 3] = seconds
            if seconds > view[at + 4] or not view[at + 1]:
                view[at + 4] = seconds
            view[at + 2] += seconds
            view[at + 1] += 1.0


class StatCounter(_Stat):
    """A sum; it may fall."""

    __slots__ = ()

    def add(self, value: float = 1.0) -> None:
        """Count."""
        with self._lock:
            if self._view[self._at] != self._epoch[0]:
                self._renew(2)
            self._view[self._at + 1] += value


class StatGauge(_Stat):
    """The latest value."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Replace."""
        with self._lock:
            if self._view[self._at] != self._epoch[0]:
                self._renew(3)
            self._view[self._at + 1] = value
            self._view[self._at + 2] = time()
