"""The switch of the SQL profiler: the plans of slow SELECTs, while an operator has asked for them.

Switched on and off in all workers at once, as shared state, and off again by itself. Off, it costs a statement one look
at `active`; what it does while it is on is `c2c_otel.sql_profiling`'s.

    enable(min_seconds=0.5, seconds=300)
    disable()
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from c2c_otel import telemetry
from c2c_otel_exporters import guard

if TYPE_CHECKING:  # imported where it is needed: each process that sends SQL imports this module
    from opentelemetry.trace import Span

    from c2c_otel import shared
    from c2c_otel.instrumentation.sqlalchemy import Site
    from c2c_otel.sql_profiling import Profiler

__all__ = ["Mode", "disable", "enable", "init", "mode", "offer"]

_NAME = "profile"

_logger = logging.getLogger("c2c_otel")


class Mode(NamedTuple):
    """How the profiler is on. ``min_seconds``: of a statement that is looked at. ``until``: epoch seconds."""

    analyze: bool
    min_seconds: float
    until: float

    def __str__(self) -> str:
        how = "EXPLAIN ANALYZE" if self.analyze else "EXPLAIN"
        return f"on ({how} of SELECTs that take {self.min_seconds:g} s or more, for {self.seconds_left():g} s)"

    def seconds_left(self) -> float:
        """Until it is off."""
        return round(max(0.0, self.until - time.time()), 1)


active: Profiler | None = None
"""The profiler of this process while it is on. Looked at after each statement."""


def init() -> shared.Topic:
    """Follow what is stored, in this process and in those that it forks. Idempotent; without it, nothing that others
    switch reaches this process."""
    from c2c_otel import shared

    return shared.find("sql_profiler") or shared.Topic("sql_profiler", _apply)


def mode() -> Mode | None:
    """How the profiler is on in this process; None: it is off."""
    profiler = active
    return profiler.mode if profiler is not None and time.time() < profiler.mode.until else None


def enable(
    *, analyze: bool = False, min_seconds: float | None = None, seconds: float | None = None, who: str = ""
) -> shared.Change:
    """Switch it on in every worker, for ``seconds``, after which it is off; by default, as the settings say. ``who``:
    for the log line. Raises `c2c_otel.shared.Unavailable`."""
    settings = telemetry.get().settings
    seconds = settings.sql_profiler_seconds if seconds is None else seconds
    least = settings.sql_profiler_min_seconds if min_seconds is None else min_seconds
    new = Mode(bool(analyze), float(least), time.time() + seconds)
    return _said(init().set(_NAME, new._asdict(), seconds), who)


def disable(*, who: str = "") -> shared.Change:
    """Switch it off in every worker. Raises `c2c_otel.shared.Unavailable`."""
    return _said(init().delete(_NAME), who)


def _said(change: shared.Change, who: str) -> shared.Change:
    """Log it. In what comes back, ``before`` and ``after`` are a `Mode`, or None for off."""
    from c2c_otel import shared

    before, after = _decode(change.before), _decode(change.after)
    _logger.warning("%s", shared.Change(before or "off", after or "off", change.answers).told("SQL profiler", who))
    return shared.Change(before, after, change.answers)


def _decode(value: Any) -> Mode | None:
    """What is stored; None where it is nothing, or nothing that can be used."""
    if value is None:
        return None
    try:
        found = Mode(bool(value["analyze"]), float(value["min_seconds"]), float(value["until"]))
        if math.isfinite(found.min_seconds) and math.isfinite(found.until):
            return found
    except (KeyError, TypeError, ValueError):
        pass
    guard.warn_once("sql_profiler", "The stored state of the SQL profiler is not usable: %r", value)
    return None


def _apply(entries: Mapping[str, Any]) -> None:
    _switch(_decode(entries.get(_NAME)))


def _switch(wanted: Mode | None) -> None:
    global active
    old = active
    if (old.mode if old is not None else None) == wanted:
        return
    active = None
    if wanted is not None:
        from c2c_otel.sql_profiling import Profiler

        active = Profiler(wanted)
    if old is not None:
        old.stop()


def _at_exit() -> None:
    profiler = active
    if profiler is not None:
        profiler.stop(leaving=True)


def _after_fork() -> None:
    global active
    active = None  # what waits for its plan is the parent's


atexit.register(_at_exit)  # before telemetry's, which was registered earlier
os.register_at_fork(after_in_child=_after_fork)


# -- statements -------------------------------------------------------------------------------------------------------


def offer(site: Site, span: Span, context: Any, seconds: float) -> bool:
    """A statement that was executed in ``seconds``; ``context`` is SQLAlchemy's. True: its span is ended here, now or
    when the plan is there. For who has seen that `active` is not None."""
    profiler = active
    try:
        if profiler is None:
            return False
        if time.time() >= profiler.mode.until:  # and nobody has said so: the store may be away
            if active is profiler:
                _switch(None)
            return False
        return profiler.offer(site, span, context, seconds)
    except Exception:
        guard.failed("sql_profiler.offer")
        return False
