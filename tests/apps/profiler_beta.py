"""Where `tests.apps.profiler` spends some of its time."""

from __future__ import annotations

import time


class Beta:
    """With a method, whose name has its class in a profile."""

    def warm(self, seconds: float) -> None:
        """The warm one."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.step()

    def step(self) -> list[int]:
        """Some Python."""
        return sorted(-number for number in range(50))
