"""The switch that makes the databases read-only for all workers, for as long as a maintenance takes.

What it does to a request is `c2c_otel.db`'s: this is the state, which survives restarts, and a hook for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from c2c_otel import shared
from c2c_otel_exporters import guard

__all__ = ["current", "init", "is_readonly", "on_change", "set_readonly"]

_NAME = "readonly"

_logger = logging.getLogger("c2c_otel")

_readonly = False
_callbacks: list[Callable[[bool], None]] = []


def init() -> shared.Topic:
    """Follow what is stored, in this process and in those that it forks. Idempotent; without it, `is_readonly` is
    False in this process."""
    return shared.find("db_maintenance") or shared.Topic("db_maintenance", _apply)


def is_readonly() -> bool:
    """Whether the databases are to be treated as read-only now. For each request: it reads a variable."""
    return _readonly


def current() -> bool | None:
    """What is stored; None where it was never set. Raises `c2c_otel.shared.Unavailable`."""
    stored = init().entries().get(_NAME)
    return stored if isinstance(stored, bool) else None


def set_readonly(value: bool, *, who: str = "") -> shared.Change:
    """Set it in every worker, until it is set again. ``who``: for the log line. Raises `c2c_otel.shared.Unavailable`
    where nothing was changed."""
    change = init().set(_NAME, bool(value))
    _logger.critical("%s", change.told("Databases read-only", who))
    return change


def on_change(callback: Callable[[bool], None]) -> None:
    """Call it in each process, on a thread of ours, after the process has taken another state."""
    _callbacks.append(callback)


def _apply(entries: Mapping[str, Any]) -> None:
    global _readonly
    found = entries.get(_NAME, False)
    if not isinstance(found, bool):
        guard.warn_once("db_maintenance", "The stored state of db/maintenance is not usable: %r", found)
        found = False
    if found == _readonly:
        return
    _readonly = found
    _logger.warning("This process treats the databases as %s.", "read-only" if found else "writable")
    for callback in _callbacks:
        try:
            callback(found)
        except Exception:
            guard.failed("db_maintenance.on_change")
