"""The switch of the profiler, for all workers: shared state that ends by itself.

Off, it costs a request one look at `active`.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from c2c_otel import telemetry
from c2c_otel_exporters import guard

if TYPE_CHECKING:  # imported where they are needed: each process that serves a request imports this module
    from c2c_otel import shared
    from c2c_otel.profiler.recording import Recorder

__all__ = ["Mode", "disable", "enable", "init", "missing", "mode"]

_NAME = "profile"

_logger = logging.getLogger("c2c_otel")


class Mode(NamedTuple):
    """How the profiler is on. ``interval``: seconds between two samples. ``min_seconds``: of a request that is kept.
    ``path``: what the path of such a request begins with. ``until``: epoch seconds."""

    interval: float
    min_seconds: float
    path: str
    until: float

    def __str__(self) -> str:
        what = f" of paths that begin with {self.path!r}" if self.path else ""
        least = f" that take {self.min_seconds:g} s or more" if self.min_seconds else ""
        return f"on (requests{what}{least}, every {self.interval * 1000:g} ms, for {self.seconds_left():g} s)"

    def seconds_left(self) -> float:
        """Until it is off."""
        return round(max(0.0, self.until - time.time()), 1)


active: Recorder | None = None
"""What follows the requests of this process while the profiler is on."""


def missing() -> str:
    """What to do where pyinstrument is not installed; "" where it is."""
    if importlib.util.find_spec("pyinstrument") is not None:
        return ""
    return 'The profiler needs pyinstrument: pip install "c2c-otel[profiler]"'


def init() -> shared.Topic:
    """Follow what is stored, and answer who asks for sessions, in this process and in those that it forks.
    Idempotent."""
    from c2c_otel import shared
    from c2c_otel.profiler import everybody

    everybody.subscribe()
    return shared.find("profiler") or shared.Topic("profiler", _apply)


def mode() -> Mode | None:
    """How the profiler is on in this process; None: it is off."""
    recorder = active
    return recorder.mode if recorder is not None and time.time() < recorder.mode.until else None


def enable(
    *,
    seconds: float | None = None,
    interval: float | None = None,
    min_seconds: float = 0.0,
    path: str = "",
    who: str = "",
) -> shared.Change:
    """Switch it on in every worker, for ``seconds``, with a sample each ``interval`` seconds; by default, as the
    settings say. ``who``: for the log line. Raises `c2c_otel.shared.Unavailable`, and ImportError without
    pyinstrument."""
    if found := missing():
        raise ImportError(found)
    settings = telemetry.get().settings
    seconds = settings.profiler_seconds if seconds is None else seconds
    interval = settings.profiler_interval_seconds if interval is None else interval
    new = Mode(float(interval), float(min_seconds), path, time.time() + seconds)
    return _said(init().set(_NAME, new._asdict(), seconds), who)


def disable(*, who: str = "") -> shared.Change:
    """Switch it off in every worker; the sessions stay. Raises `c2c_otel.shared.Unavailable`."""
    return _said(init().delete(_NAME), who)


def _said(change: shared.Change, who: str) -> shared.Change:
    """Log it. In what comes back, ``before`` and ``after`` are a `Mode`, or None for off."""
    from c2c_otel import shared

    before, after = _decode(change.before), _decode(change.after)
    _logger.warning("%s", shared.Change(before or "off", after or "off", change.answers).told("Profiler", who))
    return shared.Change(before, after, change.answers)


def _decode(value: Any) -> Mode | None:
    """What is stored; None where it is nothing, or nothing that can be used."""
    if value is None:
        return None
    try:
        numbers = [float(value[name]) for name in ("interval", "min_seconds", "until")]
        if all(map(math.isfinite, numbers)) and numbers[0] > 0 and isinstance(value["path"], str):
            return Mode(numbers[0], numbers[1], value["path"], numbers[2])
    except (KeyError, TypeError, ValueError):
        pass
    guard.warn_once("profiler", "The stored state of the profiler is not usable: %r", value)
    return None


def _apply(entries: Mapping[str, Any]) -> None:
    global active
    wanted = _decode(entries.get(_NAME))
    if (active.mode if active is not None else None) == wanted:
        return
    active = None
    if wanted is None:
        return
    if found := missing():
        guard.warn_once("profiler.missing", "The profiler is on, but not in this process. %s", found)
        return
    from c2c_otel.profiler.recording import Recorder

    active = Recorder(wanted)


def expired(recorder: Recorder) -> None:
    """Its time is over and nobody has said so: the store may be away."""
    global active
    if active is recorder:
        active = None


def _after_fork() -> None:
    global active
    active = None  # the child learns it when it joins


os.register_at_fork(after_in_child=_after_fork)
