"""The measurements of one process, in one mmap file where others can read them, or in its own memory.

The file is made with the first series. Where it cannot be made or grows no more (no directory, no space, no
permission), series live in this process's memory instead, `shared` turns False and `reason` says why: they are
then shown by this process alone. What was in the file before stays there and stays shared.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from c2c_otel_exporters import guard
from c2c_otel_exporters.epoch import Epoch
from c2c_otel_exporters.instruments import (
    Counter,
    Gauge,
    Histogram,
    Instrument,
    Slot,
    StatCounter,
    StatGauge,
    StatTimer,
    Summary,
)
from c2c_otel_exporters.layout import EXEMPLAR_WORDS, MAX_KEY_BYTES, encode_key, width
from c2c_otel_exporters.mapped import CAPACITY, LocalSource, Source, Writer
from c2c_otel_exporters.model import OVERFLOW, Family, Kind, Labels, Metric
from c2c_otel_exporters.series import Keys, Layout, Totals

__all__ = ["STAT_COUNTERS", "STAT_GAUGES", "STAT_TIMERS", "Store"]

STAT_TIMERS = Metric("stats.timers", Kind.STAT_TIMER)
STAT_COUNTERS = Metric("stats.counters", Kind.STAT_COUNTER)
STAT_GAUGES = Metric("stats.gauges", Kind.STAT_GAUGE)
"""The metrics of stats.json; each of its entries is a series with the one label ``key``."""

_GAUGES = frozenset({Kind.GAUGE_SUM, Kind.GAUGE_LAST, Kind.GAUGE_MIN, Kind.GAUGE_MAX})
_ATTEMPTS = 3
_OVERFLOWED = 10
"""Series above the limit that are still told apart, for `set`, as a multiple of the limit."""

_I = TypeVar("_I", bound=Instrument)


class Store:
    """``directory``: shared by the processes of a service; None: in memory only, and ``reason`` says why."""

    def __init__(
        self,
        directory: Path | None,
        max_series: int = 2000,
        *,
        reason: str = "there is no directory to share them in",
        capacity: int = CAPACITY,
    ) -> None:
        self.directory = directory
        self.max_series = max_series
        self.shared = directory is not None
        self.reason = "" if self.shared else reason
        self._capacity = capacity
        self._lock = threading.RLock()
        self._file: Writer | None = None
        self._epoch: Epoch | None = None
        self._local = LocalSource()
        self._instruments: dict[tuple[Metric, Labels], Any] = {}
        self._overflowed: dict[tuple[Metric, Labels], Any] = {}
        self._counts: dict[Metric, int] = {}
        self._closed = False

    def counter(self, metric: Metric, labels: Labels) -> Counter:
        """The series, made if it is new; keep it where it is used often. Raises ValueError for another kind."""
        return self._get(Counter, metric, labels, (Kind.COUNTER,))

    def histogram(self, metric: Metric, labels: Labels) -> Histogram:
        """As `counter`."""
        return self._get(Histogram, metric, labels, (Kind.HISTOGRAM,))

    def summary(self, metric: Metric, labels: Labels) -> Summary:
        """As `counter`."""
        return self._get(Summary, metric, labels, (Kind.SUMMARY,))

    def gauge(self, metric: Metric, labels: Labels) -> Gauge:
        """As `counter`; the metric's kind says how values of several processes become one."""
        return self._get(Gauge, metric, labels, _GAUGES)

    def stat_timer(self, key: str) -> StatTimer:
        """An entry of stats.json."""
        return self._get(StatTimer, STAT_TIMERS, (("key", key),), (Kind.STAT_TIMER,))

    def stat_counter(self, key: str) -> StatCounter:
        """An entry of stats.json."""
        return self._get(StatCounter, STAT_COUNTERS, (("key", key),), (Kind.STAT_COUNTER,))

    def stat_gauge(self, key: str) -> StatGauge:
        """An entry of stats.json."""
        return self._get(StatGauge, STAT_GAUGES, (("key", key),), (Kind.STAT_GAUGE,))

    def remove_gauge(self, metric: Metric, labels: Labels) -> None:
        """The thing is gone: show its gauge no more, and make room for another."""
        with self._lock:
            gauge = self._instruments.pop((metric, labels), None)
            if gauge is not None:
                gauge.clear()
                self._counts[metric] -= 1

    def local(self) -> Source:
        """A reader of the series that are in no file."""
        return self._local.reader()

    def epoch(self) -> float:
        """Which reset of stats.json this is."""
        return float(self._epoch.word[0]) if self._epoch is not None else 0.0

    def reset_stats(self) -> None:
        """Begin stats.json anew, for all processes that share the directory. Raises OSError."""
        with self._lock:
            if self._epoch is None:
                self._epoch = Epoch(self.directory if self.shared else None)
            self._epoch.bump()

    def families(self) -> list[Family]:
        """What this process alone has measured."""
        totals = Totals(self.epoch())
        with self._lock:
            sources: list[Source] = [self._local.reader()]
            if self._file is not None:
                sources.append(self._file.source())
            keys = Keys()
            for source in sources:
                totals.add(Layout(keys, source), alive=True)
            return totals.families(self.max_series)

    def close(self) -> None:
        """The end: what was written stays to be merged, what is written from now on is lost."""
        with self._lock:
            if not self._closed:
                self._let_go(Writer.close)

    def abandon(self) -> None:
        """For a forked child: let go of the parent's file without a trace. Takes no lock: who held it is gone."""
        if not self._closed:
            self._lock = threading.RLock()
            self._let_go(Writer.abandon)

    def _let_go(self, how: Any) -> None:
        self._closed = True
        for instrument in (*self._instruments.values(), *self._overflowed.values()):
            instrument.detach(width(instrument.metric), self._lock)
        file, self._file = self._file, None
        epoch, self._epoch = self._epoch, None
        try:
            if file is not None:
                how(file)
            if epoch is not None:
                epoch.close()
        except BufferError:  # a thread that is no more was reading; its mapping holds no lock
            pass

    def _get(self, cls: type[_I], metric: Metric, labels: Labels, kinds: Iterable[Kind]) -> _I:
        found = self._instruments.get((metric, labels))
        if found is None:
            if metric.kind not in kinds:
                raise ValueError(f"{metric.name} is a {metric.kind.name}, which {cls.__name__} cannot write")
            with self._lock:
                found = self._make(cls, metric, labels)
        if not isinstance(found, cls):
            raise ValueError(f"{metric.name} is a {metric.kind.name}, which {cls.__name__} cannot write")
        return found

    def _make(self, cls: type[_I], metric: Metric, labels: Labels) -> _I:
        key = metric, labels
        found: _I | None = self._instruments.get(key)
        if found is None and labels != OVERFLOW:
            found = self._overflowed.get(key)
        if found is not None:
            return found
        if labels != OVERFLOW and self._counts.get(metric, 0) >= self.max_series:
            guard.warn_once(
                f"series.{metric.name}",
                "%s has %d series, which is the limit (C2C_METRICS_MAX_SERIES); further ones are counted in the "
                "series %s",
                metric.name,
                self.max_series,
                OVERFLOW[0][0],
            )
            return self._overflow(cls, metric, labels)
        encoded = encode_key(metric, labels)
        if len(encoded) > MAX_KEY_BYTES:
            guard.dropped("metrics.series", reason=f"the labels of {metric.name} take {len(encoded)} bytes")
            return self._overflow(cls, metric, labels)
        if labels != OVERFLOW:
            self._counts[metric] = self._counts.get(metric, 0) + 1
        found = self._instruments[key] = cls(metric, self._slot(metric, encoded))
        return found

    def _overflow(self, cls: type[_I], metric: Metric, labels: Labels) -> _I:
        """The overflow series, through an instrument of its own that remembers what it was last set to."""
        shared = self._make(cls, metric, OVERFLOW)
        many = len(self._overflowed) >= _OVERFLOWED * self.max_series
        key = metric, OVERFLOW if many else labels
        made: _I | None = self._overflowed.get(key)
        if made is None:
            made = self._overflowed[key] = shared.sibling(many)
        return made

    def _slot(self, metric: Metric, encoded: bytes) -> Slot:
        doubles = width(metric) + (EXEMPLAR_WORDS if metric.kind is Kind.HISTOGRAM else 0)
        if self.shared and not self._closed:
            try:
                file = self._opened()
                return Slot(self._lock, file.values, file.append(encoded, doubles), self._word())
            except OSError as error:
                self._fall_back(error)
        return Slot(self._lock, self._local.data, self._local.append(encoded, doubles), self._word())

    def _opened(self) -> Writer:
        assert self.directory is not None
        if self._epoch is None:
            self._epoch = Epoch(self.directory)
        attempt = 1
        while self._file is None:
            try:
                self._file = Writer(self.directory, self._capacity)
            except FileNotFoundError:  # a cleaner was quicker than the lock; or the directory is gone
                if attempt == _ATTEMPTS:
                    raise
                attempt += 1
        return self._file

    def _word(self) -> Any:
        if self._closed:
            return (0.0,)
        if self._epoch is None:
            self._epoch = Epoch()
        return self._epoch.word

    def _fall_back(self, error: OSError) -> None:
        self.shared = False
        self.reason = os.strerror(error.errno) if error.errno else str(error)
        guard.warn_once(
            "store.local",
            "Metrics cannot be kept in %s (%s): each process shows its own only. Make room or set C2C_RUNTIME_DIR.",
            self.directory,
            self.reason,
        )
