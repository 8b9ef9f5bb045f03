"""The clock of the Redis server: the one on which hosts agree whose own clocks differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

__all__ = ["Clock"]

_GOOD_TRIP = 0.5
"""Seconds that asking may take for the answer to be taken where an earlier one is known."""


class Clock:
    """Goes on by itself between two measurements, whatever becomes of this host's clock. Before the first, it is that.
    Thread-safe."""

    def __init__(self) -> None:
        self._known: tuple[float, float] | None = None

    def measure(self, ask: Callable[[], Sequence[bytes | int]]) -> None:
        """``ask()`` -> what Redis answers to TIME: seconds and microseconds. Right to half the time that it takes."""
        before = time.monotonic()
        seconds, microseconds = ask()
        after = time.monotonic()
        if self._known is None or after - before <= _GOOD_TRIP:
            self._known = int(seconds) + int(microseconds) / 1e6, (before + after) / 2

    def now(self) -> float:
        """Epoch seconds."""
        known = self._known
        if known is None:
            return time.time()
        at_redis, here = known
        return at_redis + time.monotonic() - here
