"""How long something that looks at a whole process may take, and how it lets the others work meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Budget"]

_WORK = 0.002
"""Seconds of work after which the thread sleeps: a thread that serves a request gets the interpreter then, and not only
after the five milliseconds for which CPython lets a busy one go on."""

_PAUSE = 0.001


class Budget:
    """``seconds`` from now on. Used by one thread; ask it every few hundred steps."""

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        now = clock()
        self._end = now + seconds
        self._pause_at = now + _WORK

    def spent(self) -> bool:
        """Whether the time is over. Sleeps for a moment where it is due."""
        now = self._clock()
        if now >= self._pause_at:
            self._sleep(_PAUSE)
            now = self._clock()
            self._pause_at = now + _WORK
        return now >= self._end

    def part(self, share: float) -> Budget:
        """A share (0 to 1) of what is left."""
        return Budget(max(0.0, self._end - self._clock()) * share, self._clock, self._sleep)
