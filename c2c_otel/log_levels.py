"""The levels of loggers, changed while the service runs: in all workers, for a while or until it is taken back.

An override is kept as shared state. What a logger had before comes back with `reset` or when the time is over; where
the application has set a level of its own meanwhile, that is what comes back, and the override is put on top of it
within seconds.

    set("sqlalchemy.engine", "DEBUG", seconds=600)
    reset("sqlalchemy.engine")
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from c2c_otel import shared
from c2c_otel_exporters import guard

__all__ = ["Level", "get", "init", "overrides", "reset", "seconds_left", "set"]

EXPECTED = "DEBUG, INFO, WARNING, ERROR, CRITICAL, another name that logging knows, or an integer from 0 to 100"

_logger = logging.getLogger("c2c_otel")


class Level(NamedTuple):
    """The level that a logger itself has (``NOTSET``: its parents') and the one that counts."""

    level: str
    effective_level: str


class _Imposed(int):
    """A level that we have set. ``logger.level`` is this very object until somebody else sets another one."""


class _Held(NamedTuple):
    imposed: _Imposed
    original: int


_held: dict[str, _Held] = {}


def init() -> shared.Topic:
    """Follow what is stored, in this process and in those that it forks. Idempotent; without it, this process does not
    hear of changes that others make."""
    return shared.find("log_levels") or shared.Topic("log_levels", _apply, insist=True)


def get(name: str) -> Level:
    """Of this process. The root logger is ``root`` or "". A logger that does not exist is not made."""
    name = canonical(name)
    known = logging.Logger.manager.loggerDict
    logger = known.get(name) if name != "root" else logging.getLogger()
    if isinstance(logger, logging.Logger):
        return Level(_name(logger.level), _name(logger.getEffectiveLevel()))
    while "." in name:
        name = name.rpartition(".")[0]
        parent = known.get(name)
        if isinstance(parent, logging.Logger):
            return Level("NOTSET", _name(parent.getEffectiveLevel()))
    return Level("NOTSET", _name(logging.getLogger().getEffectiveLevel()))


def set(  # noqa: A001 - log_levels.set(...) is how it is read
    name: str, level: str | int, seconds: float | None = None, *, who: str = ""
) -> shared.Change:
    """Set the level of a logger in every worker, for ``seconds`` or until `reset`. ``who``: for the log line.

    ``before`` and ``after`` of what comes back: names of levels, None where it was not overridden.
    Raises ValueError (`c2c_otel.shared.Refused` among them) for what cannot be set, `c2c_otel.shared.Unavailable`.
    """
    name, number = canonical(name), decode(level)
    configured = get(name).level
    change = _named(init().set(name, {"level": number, "name": _name(number)}, seconds))
    for_while = "" if seconds is None else f" for {seconds:g} s"
    _log(name, change.before or configured, f"{change.after}{for_while}", who, change)
    return change


def reset(name: str, *, who: str = "") -> shared.Change:
    """Give a logger back the level that the application has set, in every worker. Raises as `set`."""
    name = canonical(name)
    change = _named(init().delete(name))
    _log(name, change.before or get(name).level, f"{get(name).level}, as configured", who, change)
    return change


def overrides() -> dict[str, str]:
    """Logger -> level, of all that are changed now. Raises `c2c_otel.shared.Unavailable`."""
    return {name: _value_name(value) for name, value in init().entries().items() if _is_value(value)}


def seconds_left() -> dict[str, float]:
    """Logger -> how long its override still lasts, where it ends by itself. Raises `c2c_otel.shared.Unavailable`."""
    return init().seconds_left()


def canonical(name: str) -> str:
    """A logger's name as it is stored. Raises ValueError where it cannot be one."""
    name = name.strip() or "root"
    if len(name) > shared.MAX_NAME or not name.isprintable():
        raise ValueError(f"{name[:100]!r} is no logger's name; expected up to {shared.MAX_NAME} printable characters")
    return name


def decode(level: str | int) -> int:
    """A level's number from its name, in any case, or from digits. Raises ValueError for what logging does not know."""
    known = logging.getLevelNamesMapping()
    text = str(level).strip()
    for name in (text, text.upper()):
        if name in known:
            return known[name]
    if text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= 100:
        return int(text)
    raise ValueError(f"{str(level)[:100]!r} is no level; expected {EXPECTED}")


def _name(number: int) -> str:
    """``DEBUG``; digits where logging has no name."""
    name = logging.getLevelName(int(number))
    return str(int(number)) if name == f"Level {int(number)}" else str(name)


def _is_value(value: Any) -> bool:
    return isinstance(value, dict) and type(value.get("level")) is int


def _value_name(value: Mapping[str, Any]) -> str:
    return str(value.get("name") or _name(value["level"]))


def _named(change: shared.Change) -> shared.Change:
    before, after = (_value_name(value) if _is_value(value) else None for value in (change.before, change.after))
    return shared.Change(before, after, change.answers)


def _log(name: str, before: str, after: str, who: str, change: shared.Change) -> None:
    change = shared.Change(before, after, change.answers)
    _logger.warning("%s", change.told(f"Level of the logger {name}", who))


# -- in each process --------------------------------------------------------------------------------------------------


def _apply(entries: Mapping[str, Any]) -> None:
    """Impose what is overridden, give back what no longer is. One entry that is not usable does not stop the others."""
    for name in [name for name in _held if name not in entries]:
        held = _held.pop(name)
        logger = logging.getLogger(name)
        if logger.level is held.imposed:
            logger.setLevel(held.original)
    for name, value in entries.items():
        if _is_value(value):
            _impose(name, value["level"])
        else:
            guard.warn_once(f"log_levels.{name}", "The stored level of the logger %s is not usable: %r", name, value)


def _impose(name: str, level: int) -> None:
    logger = logging.getLogger(name)
    held = _held.get(name)
    if held is not None and logger.level is held.imposed:
        if held.imposed == level:
            return
        original = held.original
    else:
        original = logger.level
    imposed = _Imposed(level)
    logger.setLevel(imposed)
    _held[name] = _Held(imposed, original)
