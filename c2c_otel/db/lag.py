"""What PostgreSQL says of a replica: how far it is behind, and whether it still is one.

The lag is 0 where the replica has replayed all that it has received and is still receiving; so a primary without
writes makes no lag. Else it is the age of the last transaction that was replayed: an upper bound, which also grows
while the connection to the primary is cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from c2c_otel_exporters import guard

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["State", "look"]

_LAG = """\
SELECT pg_is_in_recovery(),
       CASE WHEN pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn()
                 AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
            ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END"""
"""pg_stat_wal_receiver shows to every user that there is a receiver, and to some more."""

_IDENTITY = """\
SELECT system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) FROM pg_control_system()"""
"""Of a server that is not in recovery: which cluster, and which timeline of it."""


class State(NamedTuple):
    """``lag``: seconds; None where it is not known."""

    lag: float | None = None
    promoted: bool = False


def look(dialect: Any, pool: Any, primary: Engine) -> State:
    """Ask it, on a connection of ``pool``. Raises what the driver raises where it cannot be reached."""
    connection = pool.connect()
    try:
        if dialect.name != "postgresql":
            dialect.do_ping(connection.dbapi_connection)
            return State()
        try:
            in_recovery, lag = _ask(connection, _LAG)
            if in_recovery:
                return State(None if lag is None else float(lag))
            return State(promoted=_is_other(_ask(connection, _IDENTITY), primary))
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


def _is_other(identity: Any, primary: Engine) -> bool:
    """Whether a server that was a copy of the primary has gone its own way. Another cluster (a logical replica) and
    the primary itself under another name may be read from; so may anything while the primary cannot be asked."""
    try:
        connection = primary.raw_connection()
    except Exception:
        return False
    try:
        system, timeline = _ask(connection, _IDENTITY)
    except Exception:
        return False
    finally:
        connection.close()
    return bool(system == identity[0] and timeline != identity[1])


def _ask(connection: Any, statement: str) -> Any:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return cursor.fetchone()
    finally:
        cursor.close()
