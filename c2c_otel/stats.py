"""Timers, counters and gauges of the application's own.

Each timer is a span too. What is recorded reaches statsd, Prometheus and stats.json: docs/metrics.md has the names.

>>> with timer_context(["import", "parse"], {"format": "gpx"}):
...     pass
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from c2c_otel import telemetry
from c2c_otel_exporters import guard, names

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["Timer", "increment_counter", "outcome_timer_context", "set_gauge", "timer", "timer_context"]

Key = Sequence[Any]
Tags = Mapping[str, Any] | None

_SCOPE = "c2c_otel.stats"


class Timer:
    """A running timer; `stop` records it. Made by `timer`. Its span is not the current one: use `timer_context`
    where spans that start meanwhile should be its children."""

    def __init__(self, key: Key | None, tags: Tags) -> None:
        self._key = key
        self._tags = tags
        self._span: Span = telemetry.get().tracer(_SCOPE).start_span(_span_name(key))
        self._start = perf_counter()

    def stop(self, key_final: Key | None = None, tags_final: Tags = None) -> float:
        """Record under ``key_final`` and ``tags_final`` where given, else under what the timer was made with.

        Returns the seconds since the timer was made. Raises ValueError where there is no key at all.
        """
        seconds = perf_counter() - self._start
        key = self._key if key_final is None else key_final
        tags = self._tags if tags_final is None else tags_final
        if key is None:
            raise ValueError("Timer.stop() has no key; give one to timer(key) or to stop(key_final)")
        _record(self._span, key, tags, seconds)
        self._span.end()
        return seconds


def timer(key: Key | None = None, tags: Tags = None) -> Timer:
    """Start a timer. The key may be left for ``stop`` to give."""
    _check(key)
    return Timer(key, tags)


@contextmanager
def timer_context(key: Key, tags: Tags = None) -> Generator[None, None, None]:
    """Time the body. Nothing is recorded, but for the span, where it raises."""
    _check(key)
    with _timed(key) as (span, start):
        yield
        _record(span, key, tags, perf_counter() - start)


@contextmanager
def outcome_timer_context(key: Key, tags: Tags = None) -> Generator[None, None, None]:
    """Time the body and its outcome: ``success`` or ``failure`` is added to the key, or, where
    ``STATSD_USE_TAGS`` is on, a tag ``success`` of 1 or 0."""
    _check(key)
    with _timed(key) as (span, start):
        try:
            yield
        except Exception:
            _record(span, *_outcome(key, tags, success=False), perf_counter() - start)
            raise
        _record(span, *_outcome(key, tags, success=True), perf_counter() - start)


def increment_counter(key: Key, increment: float = 1, tags: Tags = None) -> None:
    """Count. Prometheus counters cannot fall: a negative increment reaches statsd and stats.json alone."""
    _check(key)
    try:
        telemetry.get().sink.counter(names.counter, _parts(key), _pairs(tags)).add(increment)
    except Exception:
        guard.failed("stats.counter")


def set_gauge(key: Key, value: float, tags: Tags = None) -> None:
    """Say what the value is now. Of several workers, the latest counts."""
    _check(key)
    try:
        telemetry.get().sink.gauge(names.gauge, _parts(key), _pairs(tags)).set(value)
    except Exception:
        guard.failed("stats.gauge")


@contextmanager
def _timed(key: Key) -> Generator[tuple[Span, float], None, None]:
    span = telemetry.get().tracer(_SCOPE).start_span(_span_name(key))
    with trace.use_span(span, end_on_exit=True):
        yield span, perf_counter()


def _record(span: Span, key: Key, tags: Tags, seconds: float) -> None:
    try:
        span.update_name(_span_name(key))
        for name, value in _pairs(tags):
            span.set_attribute(name, value)
        telemetry.get().sink.timer(names.timer, _parts(key), _pairs(tags)).observe(seconds, span)
    except Exception:
        guard.failed("stats.timer")


def _outcome(key: Key, tags: Tags, *, success: bool) -> tuple[Key, Tags]:
    if telemetry.get().settings.statsd_use_tags:
        return key, {**(tags or {}), "success": int(success)}
    return [*key, "success" if success else "failure"], tags


def _check(key: Key | None) -> None:
    if isinstance(key, str):
        raise TypeError(f"key is {key!r}; expected a list of parts such as [{key!r}]")


def _parts(key: Key) -> tuple[str, ...]:
    return tuple(map(str, key))


def _pairs(tags: Tags) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(name), str(value)) for name, value in tags.items())) if tags else ()


def _span_name(key: Key | None) -> str:
    return ".".join(map(str, key)) if key else "timer"
