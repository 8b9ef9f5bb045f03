"""Our own failures: counted, logged once for each place, and never the application's problem.

Under pytest (or after ``strict(True)``) the exception goes on instead, so that a test sees it.

    try:
        ...
    except Exception:
        guard.failed("statsd.send")
"""

from __future__ import annotations

import logging
import threading
from collections import Counter

__all__ = ["count", "dropped", "failed", "reset", "strict", "tally", "under_pytest", "warn_once"]

_MAX_PLACES = 500
"""Places that are told apart, and warnings that are remembered: names of the application's are in some of them."""

_OTHER = "other"

_logger = logging.getLogger("c2c_otel")
_lock = threading.RLock()  # a signal's handler may log, and so come here while its own thread is here
_strict: bool | None = None
_under_pytest = False
_warned: set[str] = set()

tally: Counter[str] = Counter()
"""What happened how often in this process, by place; shown as ``c2c_otel_internal_events_total{place}``. Written by
`count`."""


def strict(value: bool | None) -> None:
    """Re-raise what `failed` is told of (True), never (False), or only under pytest (None)."""
    global _strict
    _strict = value


def under_pytest(value: bool) -> None:
    """Called by our pytest plugin. That pytest can be imported says nothing: services that ship their tests do."""
    global _under_pytest
    _under_pytest = value


def count(place: str, increment: int = 1) -> int:
    """Count; returns how often it has happened now. Thread-safe."""
    with _lock:
        if place not in tally and len(tally) >= _MAX_PLACES:
            place = _OTHER
        tally[place] += increment
        return tally[place]


def failed(place: str) -> None:
    """Call in an ``except`` block: counts, logs the traceback the first time, re-raises under pytest."""
    count(f"failed.{place}")
    if _under_pytest if _strict is None else _strict:
        raise  # noqa: PLE0704 - the docstring says where this may be called
    if _first(f"failed.{place}"):
        _logger.exception(
            "c2c-otel failed at %s; the request goes on without it. Further failures there are only counted.",
            place,
        )


def dropped(what: str, count: int = 1, reason: str = "") -> None:
    """Count something that was not sent or kept, and say so the first time."""
    _count(f"dropped.{what}", count)
    if reason:
        warn_once(f"dropped.{what}", "c2c-otel dropped %s: %s", what, reason)


_count = count  # `dropped` has a parameter of that name


def warn_once(key: str, message: str, *args: object) -> None:
    """Log a warning the first time it is given with this key in this process."""
    if _first(key):
        _logger.warning(message, *args)


def _first(key: str) -> bool:
    """Whether this has not been said yet. When too much has been said, nothing more is."""
    with _lock:
        if key in _warned or len(_warned) >= _MAX_PLACES:
            return False
        _warned.add(key)
        return True


def reset() -> None:
    """Forget what was counted and said (tests, and a forked child, in which nobody holds the lock)."""
    global _lock
    _lock = threading.RLock()
    tally.clear()
    _warned.clear()
