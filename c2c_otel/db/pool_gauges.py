"""Connection pools on /metrics: read when the metrics are, never by a request, and added up over the workers.

Names of https://opentelemetry.io/docs/specs/semconv/database/database-metrics/; ``db.client.connection.overflow`` is
ours. They are not sent to statsd, where the last of several workers would win.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from c2c_otel import metrics
from c2c_otel_exporters.model import Kind, Metric

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["add", "discard"]

_POOL: Final = "db.client.connection.pool.name"
_STATE: Final = "db.client.connection.state"

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()

Read = Callable[[Any], Iterable[tuple[dict[str, str], float]]]


def add(engine: Engine) -> None:
    """Show this engine's pool under its ``c2c_name``, for as long as it lives. Two of one name are added up."""
    _engines.add(engine)
    if _PROVIDERS[0] not in metrics.providers:
        for provider in _PROVIDERS:
            metrics.add_provider(provider)


def discard(engine: Engine) -> None:
    """It is no longer used."""
    _engines.discard(engine)


class _PoolProvider(metrics.Provider):
    """``metric``: as the publisher writes it."""

    def __init__(self, name: str, unit: str, help_: str, read: Read) -> None:
        super().__init__(name, help_, extend=False)
        self.metric = Metric(name, Kind.GAUGE_SUM, unit, help_)
        self._read = read

    def get_data(self) -> Iterator[tuple[dict[str, str], float]]:
        for engine in list(_engines):
            name = str(getattr(engine, "c2c_name", ""))
            try:
                for labels, value in self._read(engine.pool):
                    yield {_POOL: name, **labels}, value
            except AttributeError:  # another kind of pool, which has no such number
                continue


def _count(pool: Any) -> Iterable[tuple[dict[str, str], float]]:
    return (({_STATE: "used"}, pool.checkedout()), ({_STATE: "idle"}, pool.checkedin()))


def _max(pool: Any) -> Iterable[tuple[dict[str, str], float]]:
    return [({}, pool.size() + pool._max_overflow)] if pool._max_overflow >= 0 else []


def _overflow(pool: Any) -> Iterable[tuple[dict[str, str], float]]:
    return [({}, max(pool.overflow(), 0))]  # counts from minus the size


def _pending(pool: Any) -> Iterable[tuple[dict[str, str], float]]:
    return [({}, len(pool._pool.not_empty._waiters))]


_PROVIDERS: Final = (
    _PoolProvider("db.client.connection.count", "{connection}", "Connections of the pool.", _count),
    _PoolProvider("db.client.connection.max", "{connection}", "Connections that the pool may have.", _max),
    _PoolProvider("db.client.connection.overflow", "{connection}", "Connections above the pool's size.", _overflow),
    _PoolProvider("db.client.connection.pending_requests", "{request}", "Threads that wait for one.", _pending),
)
