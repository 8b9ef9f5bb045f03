"""A sink that takes everything and keeps nothing."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from c2c_otel_exporters.sink import Counter, Gauge, Namer, Timer

__all__ = ["NULL_SINK", "NullSink"]


class _Nothing:
    """Stands for a timer, a counter and a gauge."""

    def observe(self, seconds: float, span: Any = None) -> None: ...

    def observe_ns(self, nanoseconds: int, span: Any, now: int) -> None: ...

    def add(self, increment: float = 1) -> None: ...

    def set(self, value: float) -> None: ...


_NOTHING = _Nothing()


class NullSink:
    """For a process that must not measure (the arbiter) or has ended."""

    def timer(self, namer: Namer, *args: Hashable) -> Timer:
        return cast("Timer", _NOTHING)

    def counter(self, namer: Namer, *args: Hashable) -> Counter:
        return cast("Counter", _NOTHING)

    def gauge(self, namer: Namer, *args: Hashable) -> Gauge:
        return cast("Gauge", _NOTHING)


NULL_SINK = NullSink()
