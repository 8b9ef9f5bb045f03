"""Our own failures: counted, logged once for each place, and never the application's problem.

Under pytest (or after ``strict(True)``) the exception goes on instead, so that a test sees it.

    try:
        ...
    except Exception:
        guard.failed("statsd.send")
"""

from __future__ import annotations

import logging
import sys
from collections import Counter

__all__ = ["dropped", "failed", "strict", "tally", "warn_once"]

_logger = logging.getLogger("c2c_otel")
_strict: bool | None = None
_warned: set[str] = set()

tally: Counter[str] = Counter()
"""What happened how often in this process, by place; shown as ``c2c_otel_internal_events_total{place}``."""


def strict(value: bool | None) -> None:
    """Re-raise what `failed` is told of (True), never (False), or only where pytest is loaded (None)."""
    global _strict
    _strict = value


def _is_strict() -> bool:
    return "pytest" in sys.modules if _strict is None else _strict


def failed(place: str) -> None:
    """Call in an ``except`` block: counts, logs the traceback the first time, re-raises under pytest."""
    tally[f"failed.{place}"] += 1
    if _is_strict():
        raise  # noqa: PLE0704 - the docstring says where this may be called
    key = f"failed.{place}"
    if key not in _warned:
        _warned.add(key)
        _logger.exception(
            "c2c-otel failed at %s; the request goes on without it. Further failures there are only counted.",
            place,
        )


def dropped(what: str, count: int = 1, reason: str = "") -> None:
    """Count something that was not sent or kept, and say so the first time."""
    tally[f"dropped.{what}"] += count
    if reason:
        warn_once(f"dropped.{what}", "c2c-otel dropped %s: %s", what, reason)


def warn_once(key: str, message: str, *args: object) -> None:
    """Log a warning the first time it is given with this key in this process."""
    if key not in _warned:
        _warned.add(key)
        _logger.warning(message, *args)


def reset() -> None:
    """Forget what was counted and said (tests, and a forked child)."""
    tally.clear()
    _warned.clear()
