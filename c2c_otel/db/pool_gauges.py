"""Connection pools on /metrics: read when the metrics are, never by a request.

OpenTelemetry's observable up-down counters, so that the workers' pools add up, and every exporter has them:
https://opentelemetry.io/docs/specs/semconv/database/database-metrics/ (``db.client.connection.overflow`` is ours).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation
    from sqlalchemy import Engine

__all__ = ["add", "discard"]

_POOL = "db.client.connection.pool.name"
_STATE = "db.client.connection.state"

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_observing = False

Read = Callable[[Any], Iterable[tuple[dict[str, str], float]]]


def add(engine: Engine) -> None:
    """Show this engine's pool under its ``c2c_name``, for as long as it lives. Two of one name are added up."""
    global _observing
    _engines.add(engine)
    if _observing:
        return
    _observing = True
    meter = metrics.get_meter("c2c_otel.db")
    for name, unit, description, read in _INSTRUMENTS:
        meter.create_observable_up_down_counter(name, [_callback(read)], unit, description)


def discard(engine: Engine) -> None:
    """It is no longer used."""
    _engines.discard(engine)


def _callback(read: Read) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(options: CallbackOptions) -> Iterator[Observation]:
        sums: dict[tuple[tuple[str, str], ...], float] = {}
        for engine in list(_engines):
            name = str(getattr(engine, "c2c_name", ""))
            try:
                for attributes, value in read(engine.pool):
                    key = tuple({_POOL: name, **attributes}.items())
                    sums[key] = sums.get(key, 0) + value
            except AttributeError:  # another kind of pool, which has no such number
                continue
        for key, value in sums.items():
            yield metrics.Observation(value, dict(key))

    return observe


def _count(pool: Any) -> Iterable[tuple[dict[str, str], float]]:
    return (({_STATE: "used"}, pool.checkedout()), ({_STATE: "idle"}, pool.checkedin()))


def _max(pool: Any) -> Iterable[tuple[dict[str, str], float]]:
    return [({}, pool.size() + pool._max_overflow)] if pool._max_overflow >= 0 else []


def _overflow(pool: Any) -> Iterable[tuple[dict[str, str], float]]:
    return [({}, max(pool.overflow(), 0))]  # counts from minus the size


def _pending(pool: Any) -> Iterable[tuple[dict[str, str], float]]:
    return [({}, len(pool._pool.not_empty._waiters))]


_INSTRUMENTS: tuple[tuple[str, str, str, Read], ...] = (
    ("db.client.connection.count", "{connection}", "Connections of the pool.", _count),
    ("db.client.connection.max", "{connection}", "Connections that the pool may have.", _max),
    ("db.client.connection.overflow", "{connection}", "Connections above the pool's size.", _overflow),
    ("db.client.connection.pending_requests", "{request}", "Threads that wait for a connection.", _pending),
)
