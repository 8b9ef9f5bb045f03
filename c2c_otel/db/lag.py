"""What PostgreSQL says of a replica: how far it is behind, and which server it is once it is none any more.

The lag is 0 where the replica has replayed all that it has received and is still receiving; so a primary without
writes makes no lag. Else it is the age of the last transaction that was replayed: an upper bound, which also grows
while the connection to the primary is cut.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import event

from c2c_otel_exporters import guard

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["LIBPQ", "State", "bound_connecting", "is_promoted", "look"]

LIBPQ: Final = frozenset({"psycopg", "psycopg2", "psycopg2cffi"})
"""Drivers that take libpq's connection parameters."""

_LAG = """\
SELECT pg_is_in_recovery(),
       CASE WHEN pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn()
                 AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
            ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END"""
"""pg_stat_wal_receiver shows to every user that there is a receiver, and to some more."""

_IDENTITY = """\
SELECT system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) FROM pg_control_system()"""
"""Of a server that is not in recovery: which cluster, and which timeline of it."""


Identity = tuple[int, str]
"""Of the cluster, which copies share; the timeline, which is a new one after a promotion."""


class State(NamedTuple):
    """``lag``: seconds; None where it is not known. ``identity``: of a server that is not in recovery."""

    lag: float | None = None
    identity: Identity | None = None


_asking: ContextVar[int | None] = ContextVar("c2c_otel_db_asking", default=None)


def look(dialect: Any, pool: Any) -> State:
    """Ask the replica, on a connection of ``pool``. Raises what the driver raises where it cannot be reached."""
    connection = pool.connect()
    try:
        if dialect.name != "postgresql":
            dialect.do_ping(connection.dbapi_connection)
            return State()
        try:
            in_recovery, lag = _ask(connection, _LAG)
            if in_recovery:
                return State(None if lag is None else float(lag))
            return State(identity=_ask(connection, _IDENTITY))
        except dialect.loaded_dbapi.Error as error:
            if dialect.is_disconnect(error, connection.dbapi_connection, None):
                raise
            guard.warn_once(
                f"db.replica.{type(error).__name__}", "The lag of the database replica is not known: %s", error
            )
            return State()
    except BaseException:
        connection.invalidate()
        raise
    finally:
        connection.close()


def is_promoted(identity: Identity, primary: Engine, timeout: int) -> bool:
    """Whether a server that was a copy of the primary has gone its own way. Another cluster (a logical replica) and
    the primary itself under another name may be read from; so may anything while the primary does not answer.
    ``timeout``: whole seconds for a connection to the primary."""
    pool = primary.pool.recreate()
    token = _asking.set(timeout)
    try:
        connection = pool.connect()
        try:
            system, timeline = _ask(connection, _IDENTITY)
        finally:
            connection.close()
    except Exception:
        return False
    finally:
        _asking.reset(token)
        pool.dispose()
    return bool(system == identity[0] and timeline != identity[1])


def bound_connecting(primary: Engine) -> None:
    """Let `is_promoted` connect within its time; others connect as the application has configured it."""
    if primary.dialect.name == "postgresql" and primary.dialect.driver in LIBPQ:
        event.listen(primary, "do_connect", _bound)


def _bound(dialect: Any, record: Any, args: Any, kwargs: dict[str, Any]) -> None:
    timeout = _asking.get()
    if timeout is not None:
        kwargs["connect_timeout"] = timeout


def _ask(connection: Any, statement: str) -> Any:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return cursor.fetchone()
    finally:
        cursor.close()
