"""Where `tests.apps.profiler` spends most of its time."""

from __future__ import annotations

import time
from collections.abc import Callable


def spin(seconds: float, step: Callable[[], object]) -> None:
    """Call ``step`` until so much time has gone."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        step()


def work() -> int:
    """Some Python, some C."""
    return sum(number * number for number in range(100))


def hot(seconds: float) -> None:
    """The hot one."""
    spin(seconds, work)
