"""The one place that measurements are written to: from here they reach statsd, the store and stats.json.

``sink.timer(names.route, "GET", "hello", "/hello", 200, "http", None).observe(0.012)`` is the whole hot path: a
look-up, a string appended to a deque, a few words written to shared memory. What is looked up knows its names
already; the naming functions run once for each distinct set of arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from c2c_otel_exporters import guard
from c2c_otel_exporters.model import Exemplar, Kind
from c2c_otel_exporters.names import Series, stats_key
from c2c_otel_exporters.statsd_lines import Line, gauge_line, number, timer_value

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from c2c_otel_exporters.statsd import Names, Sender
    from c2c_otel_exporters.store import Store

__all__ = ["Counter", "Gauge", "Sink", "SinkLike", "Timer"]

Namer = Callable[..., Series]
_Lines = tuple[Line, ...]

_REMEMBERED = 20_000
"""Distinct measurements that are looked up and not named anew: a bound on memory, far above the series limit."""

_EXEMPLAR_SECONDS = 1.0
"""A series takes an exemplar at most this often: one trace to look at is enough, and it costs two microseconds."""


class Timer:
    """One timed thing. Thread-safe."""

    __slots__ = ("_exemplar_due", "_histogram", "_lines", "_send", "_stat")

    def __init__(self, histogram: Any, lines: _Lines, send: Callable[[str], None] | None, stat: Any) -> None:
        self._histogram = histogram
        self._lines = lines
        self._send = send
        self._stat = stat
        self._exemplar_due = 0.0

    def observe(self, seconds: float, span: Span | None = None) -> None:
        """Record one duration. ``span``: what was timed; its trace becomes the exemplar if it is sampled."""
        try:
            if self._send is not None:
                text = timer_value(seconds)
                for head, tail in self._lines:
                    self._send(head + text + tail)
            if span is None:
                self._histogram.observe(seconds)
            else:
                self._histogram.observe(seconds, self._exemplar(seconds, span))
            if self._stat is not None:
                self._stat.observe(seconds)
        except Exception:
            guard.failed("sink.timer")

    def _exemplar(self, seconds: float, span: Span) -> Exemplar | None:
        now = time()
        if now < self._exemplar_due:
            return None
        context = span.get_span_context()
        if not context.trace_flags & 1:
            return None
        self._exemplar_due = now + _EXEMPLAR_SECONDS
        return Exemplar(seconds, now, context.trace_id, context.span_id)


class Counter:
    """One counted thing. Thread-safe."""

    __slots__ = ("_lines", "_send", "_stat", "_total")

    def __init__(self, total: Any, lines: _Lines, send: Callable[[str], None] | None, stat: Any) -> None:
        self._total = total
        self._lines = lines
        self._send = send
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

    def __init__(self, value: Any, lines: _Lines, send: Callable[[str], None] | None, stat: Any) -> None:
        self._value = value
        self._lines = lines
        self._send = send
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
        self._timers: dict[Hashable, Timer] = {}
        self._counters: dict[Hashable, Counter] = {}
        self._gauges: dict[Hashable, Gauge] = {}

    def timer(self, namer: Namer, *args: Hashable) -> Timer:
        """The timer that ``namer(*args)`` names."""
        return self._timers.get((namer, args)) or self._make(Timer, "ms", self._timers, namer, args)

    def counter(self, namer: Namer, *args: Hashable) -> Counter:
        """The counter that ``namer(*args)`` names."""
        return self._counters.get((namer, args)) or self._make(Counter, "c", self._counters, namer, args)

    def gauge(self, namer: Namer, *args: Hashable) -> Gauge:
        """The gauge that ``namer(*args)`` names."""
        return self._gauges.get((namer, args)) or self._make(Gauge, "g", self._gauges, namer, args)

    def _make(self, cls: type[_T], suffix: str, known: dict[Hashable, _T], namer: Namer, args: Any) -> _T:
        series = namer(*args)
        lines: _Lines = ()
        send = None
        if self._sender is not None:
            lines, send = self._names.lines(series, suffix), self._sender.send
        made = cls(self._stored(series), lines, send, self._stat(cls, series) if self._stats else None)
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
