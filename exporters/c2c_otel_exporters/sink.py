"""The one place that measurements are written to: from here they reach statsd, the store and stats.json.

``sink.timer(names.route, "GET", "hello", "/hello", 200, "http", None).observe(0.012)`` is the whole hot path: a
look-up, a string appended to a deque, a few words written to shared memory. What is looked up knows its names
already; the naming functions run once for each distinct set of arguments.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Hashable
from itertools import pairwise
from time import time_ns
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from c2c_otel_exporters import guard
from c2c_otel_exporters.model import Exemplar, Kind
from c2c_otel_exporters.names import Series, stats_key
from c2c_otel_exporters.statsd import Sender
from c2c_otel_exporters.statsd_lines import MAX_PACKET, Line, gauge_line, number, timer_value

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from c2c_otel_exporters.instruments import Histogram
    from c2c_otel_exporters.statsd import Names
    from c2c_otel_exporters.store import Store

__all__ = ["Counter", "Gauge", "Sink", "SinkLike", "Timer"]

Namer = Callable[..., Series]
_Lines = tuple[Line, ...]

_REMEMBERED = 20_000
"""Distinct measurements that are looked up and not named anew: a bound on memory, far above the series limit."""

_KNOWN, _MOST_KNOWN = 32, 256
"""Durations, in half milliseconds, of which a timer remembers what is done with them: so many of its own, and at most
as long as its sink has room."""
_ROOM = 8_192
"""Durations past those that are each timer's own which a sink remembers: some 2 MiB."""

_EXEMPLAR_EVERY = 1_000_000_000
"""Nanoseconds: a series takes an exemplar at most this often: one trace to look at is enough."""
_AGAIN = 1_000_000
"""Nanoseconds until the next span is looked at when one was not sampled."""

_ATOMIC = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether ``view[at] += x`` is one step to other threads and to signal handlers. CPython lets go of the GIL, and calls
handlers, at the beginning of a function, after a call and at a jump backwards: none of these is in there, as to read
and to write an element of a memoryview or an array calls nothing that is written in Python."""


class _Room:
    """How many durations the timers of a sink may still remember, together."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


def _around(lines: _Lines) -> list[str]:
    if not lines:
        return [""]
    between = [f"{before.tail}\n{after.head}" for before, after in pairwise(lines)]
    return [lines[0].head, *between, lines[-1].tail]


class Timer:
    """One timed thing. Thread-safe."""

    __slots__ = ("_between", "_bounds", "_due", "_histogram", "_known", "_lines", "_quick", "_room", "_sender", "_stat")

    def __init__(self, histogram: Histogram, lines: _Lines, sender: Sender | None, stat: Any, room: _Room) -> None:
        self._histogram = histogram
        self._lines = lines
        self._sender = sender
        self._stat = stat
        self._between = _around(lines)
        """What stands before, between and after the milliseconds of all lines."""
        bounds = histogram.metric.buckets
        self._bounds = [round(bound * 1000) for bound in bounds]
        whole = all(bound / 1000 == exact for bound, exact in zip(self._bounds, bounds, strict=True))
        self._quick = _ATOMIC and whole and (sender is None or (sender.__class__ is Sender and self._joined()))
        """Whether `_find` knows what to do."""
        self._known: dict[int, tuple[str, int]] = {}
        """What `_find` has found."""
        self._room = room
        self._due = 0
        """From when on an exemplar is wanted: ``time.time_ns()``."""

    def observe(self, seconds: float, span: Span | None = None) -> None:
        """Record one duration. ``span``: what was timed; its trace becomes the exemplar if it is sampled."""
        try:
            sender = self._sender
            if sender is not None:
                for entry in self._new(seconds):
                    sender.send(entry)
            exemplar = None
            if span is not None and (now := time_ns()) >= self._due:
                exemplar = self._exemplar(seconds, span, now)
            self._histogram.observe(seconds, exemplar)
            if self._stat is not None:
                self._stat.observe(seconds)
        except Exception:
            guard.failed("sink.timer")

    def observe_ns(self, nanoseconds: int, span: Span, now: int) -> None:
        """`observe`, for who has read clocks of nanoseconds: a third of the time. ``now``: by ``time.time_ns()``, of
        about now. In statsd's milliseconds an exact half is rounded down; one in a million is one."""
        try:
            halves = (nanoseconds + 499_999) // 500_000
            known = self._known.get(halves) or self._find(halves)
            if known is None or now >= self._due:
                self.observe(nanoseconds / 1e9, span)
                self._due = max(self._due, now + _AGAIN)
                return
            entry, bucket = known
            sender = self._sender
            if sender is not None:  # what Sender.send does
                queue = sender.queue
                queue.append(entry)
                if sender.waiting or len(queue) > sender.max_queue:
                    sender.attend()
            # what Histogram.observe does, without its lock: see _ATOMIC
            view, at, sum_at = self._histogram.place
            at += bucket
            view[at] += 1.0
            view[sum_at] += nanoseconds / 1e9
            if self._stat is not None:
                self._stat.observe(nanoseconds / 1e9)
        except Exception:
            guard.failed("sink.timer")

    def _find(self, halves: int) -> tuple[str, int] | None:
        """What is done with durations that are as many half milliseconds, rounded up: those have one bucket, where
        bounds are whole milliseconds, and one line. None where `observe` is to be used."""
        if not self._quick:
            return None
        found = str(halves // 2 or 1).join(self._between), bisect_left(self._bounds, (halves + 1) // 2)
        count = len(self._known)
        if count < _KNOWN:
            self._known[halves] = found
        elif count < _MOST_KNOWN and self._room.left > 0:
            self._room.left -= 1
            self._known[halves] = found
        return found

    def _joined(self) -> bool:
        """Whether all lines are sent as one entry; together they might not fit into one packet."""
        return len(self._lines) == 1 or sum(len(head) + len(tail) + 20 for head, tail in self._lines) < MAX_PACKET

    def _new(self, seconds: float) -> list[str]:
        """The entries to be sent."""
        text = timer_value(seconds)
        lines = [head + text + tail for head, tail in self._lines]
        return ["\n".join(lines)] if self._quick else lines

    def _exemplar(self, seconds: float, span: Span, now: int) -> Exemplar | None:
        context = span.get_span_context()
        if not context.trace_flags & 1:
            return None
        self._due = now + _EXEMPLAR_EVERY
        return Exemplar(seconds, now / 1e9, context.trace_id, context.span_id)


class Counter:
    """One counted thing. Thread-safe."""

    __slots__ = ("_lines", "_send", "_stat", "_total")

    def __init__(self, total: Any, lines: _Lines, sender: Sender | None, stat: Any) -> None:
        self._total = total
        self._lines = lines
        self._send = sender.send if sender is not None else None
        self._stat = stat

    def add(self, increment: float = 1) -> None:
        """Count. A negative increment reaches statsd and stats.json; Prometheus counters cannot fall. What is not
        a finite number is dropped and counted."""
        try:
            text = number(increment)
            if text is None:
                return
            if self._send is not None:
                for head, tail in self._lines:
                    self._send(head + text + tail)
            self._total.add(increment)
            if self._stat is not None:
                self._stat.add(increment)
        except Exception:
            guard.failed("sink.counter")


class Gauge:
    """One thing that has a value now. Thread-safe; the latest write among the workers counts."""

    __slots__ = ("_lines", "_send", "_stat", "_value")

    def __init__(self, value: Any, lines: _Lines, sender: Sender | None, stat: Any) -> None:
        self._value = value
        self._lines = lines
        self._send = sender.send if sender is not None else None
        self._stat = stat

    def set(self, value: float) -> None:
        """Set. What is not a finite number is dropped and counted."""
        try:
            if number(value) is None:
                return
            if self._send is not None:
                for line in self._lines:
                    text = gauge_line(line, value)
                    if text is not None:
                        self._send(text)
            self._value.set(value)
            if self._stat is not None:
                self._stat.set(value)
        except Exception:
            guard.failed("sink.gauge")


class SinkLike(Protocol):
    """What instrumentors write to."""

    def timer(self, namer: Namer, *args: Hashable) -> Timer: ...
    def counter(self, namer: Namer, *args: Hashable) -> Counter: ...
    def gauge(self, namer: Namer, *args: Hashable) -> Gauge: ...


_T = TypeVar("_T", Timer, Counter, Gauge)


class Sink:
    """Measurements of one process. ``stats``: keep the entries of stats.json too."""

    def __init__(
        self,
        store: Store,
        names: Names,
        sender: Sender | None = None,
        *,
        stats: bool = False,
    ) -> None:
        self._store = store
        self._sender = sender
        self._names = names
        self._stats = stats
        self._room = _Room(_ROOM)
        self._timers: dict[Hashable, Timer] = {}
        self._counters: dict[Hashable, Counter] = {}
        self._gauges: dict[Hashable, Gauge] = {}

    def timer(self, namer: Namer, *args: Hashable) -> Timer:
        """The timer that ``namer(*args)`` names."""
        return self._timers.get((namer, args)) or self._make(Timer, "ms", self._timers, namer, args, self._room)

    def counter(self, namer: Namer, *args: Hashable) -> Counter:
        """The counter that ``namer(*args)`` names."""
        return self._counters.get((namer, args)) or self._make(Counter, "c", self._counters, namer, args)

    def gauge(self, namer: Namer, *args: Hashable) -> Gauge:
        """The gauge that ``namer(*args)`` names."""
        return self._gauges.get((namer, args)) or self._make(Gauge, "g", self._gauges, namer, args)

    def _make(self, cls: type[_T], suffix: str, known: dict[Hashable, _T], namer: Namer, args: Any, *more: Any) -> _T:
        series = namer(*args)
        lines = self._names.lines(series, suffix) if self._sender is not None else ()
        stat = self._stat(cls, series) if self._stats else None
        made = cls(self._stored(series), lines, self._sender, stat, *more)
        if len(known) < _REMEMBERED:
            known[namer, args] = made
        return made

    def _stored(self, series: Series) -> Any:
        if series.metric.kind is Kind.HISTOGRAM:
            return self._store.histogram(series.metric, series.labels)
        if series.metric.kind is Kind.COUNTER:
            return self._store.counter(series.metric, series.labels)
        return self._store.gauge(series.metric, series.labels)

    def _stat(self, cls: type[_T], series: Series) -> Any:
        key = stats_key(series, use_tags=self._names.use_tags)
        if cls is Timer:
            return self._store.stat_timer(key)
        return self._store.stat_counter(key) if cls is Counter else self._store.stat_gauge(key)
