"""What a write becomes while the databases are read-only: 503, whoever handles exceptions.

PostgreSQL is asked for a read-only transaction (``BEGIN READ ONLY``, no round trip), SQLite by ``PRAGMA query_only``
until the connection goes back to its pool. What the driver then raises for a write is replaced where SQLAlchemy
raises it, so views, exception views and pyramid_tm see an HTTP exception.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from pyramid.httpexceptions import HTTPServiceUnavailable
from sqlalchemy import event

from c2c_otel.db.routing import REASON, ROLE
from c2c_otel.instrumentation.sql_target import ROUTE
from c2c_otel_exporters import guard

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["RETRY_AFTER_SECONDS", "ReadOnlyError", "install", "refuses_writes", "restrict"]

RETRY_AFTER_SECONDS: Final = 30

_RESTRICTED = "c2c_otel_read_only"


class ReadOnlyError(HTTPServiceUnavailable):  # type: ignore[misc]  # Pyramid has no types
    """A write was attempted while the databases are read-only. As a response: 503 with Retry-After."""

    def __init__(self) -> None:
        super().__init__(
            "The database is read-only for the time being: nothing was changed. Try again later.",
            headers=[("Retry-After", str(RETRY_AFTER_SECONDS))],
        )


def restrict(connection: Connection) -> None:
    """After the connection of a read-only route has begun its transaction, before its first statement."""
    dialect, info = connection.dialect.name, connection.info
    if dialect == "postgresql":
        info[_RESTRICTED] = True
    elif dialect == "sqlite" and not info.get(_RESTRICTED):
        info[_RESTRICTED] = True
        connection.connection.cursor().execute("PRAGMA query_only = ON")
    elif dialect != "sqlite":
        guard.warn_once(
            f"db.readonly.{dialect}",
            "The databases are read-only, but c2c-otel cannot keep %s from being written to.",
            dialect,
        )


def install(engine: Engine) -> None:
    """Recognise refused writes of this engine."""
    event.listen(engine, "handle_error", _on_error)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "checkin", _on_checkin_sqlite)
    elif engine.dialect.name == "postgresql":
        event.listen(engine, "checkin", _on_checkin_postgresql)


def refuses_writes(error: BaseException | None) -> bool:
    """Whether a driver raised it because nothing may be written here (PostgreSQL's SQLSTATE 25006, SQLITE_READONLY)."""
    if isinstance(error, sqlite3.Error):
        return str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_READONLY")
    return (getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)) == "25006"


def _on_error(failure: Any) -> BaseException | None:
    if not refuses_writes(failure.original_exception) or failure.connection is None:
        return None
    route = failure.connection.get_execution_options().get(ROUTE)
    if route is None:
        return None
    if route[REASON] == "read_only":
        return ReadOnlyError()
    if route[ROLE] == "replica" and failure.sqlalchemy_exception is not None:
        failure.sqlalchemy_exception.add_note(
            f"c2c_otel.db sent this request to the replica ({route['c2c.db.reason']}). "
            "If it must write, name it in force_master or call c2c_otel.db.use_primary(request)."
        )
    return None


def _on_checkin_sqlite(dbapi_connection: Any, record: Any) -> None:
    if dbapi_connection is not None and record.info.pop(_RESTRICTED, None):
        dbapi_connection.execute("PRAGMA query_only = OFF")


def _on_checkin_postgresql(dbapi_connection: Any, record: Any) -> None:
    """SQLAlchemy has left the driver at False, which is ``BEGIN READ WRITE`` from then on: a replica refuses that."""
    if not record.info.pop(_RESTRICTED, None) or dbapi_connection is None:
        return
    for attribute in ("read_only", "readonly"):  # psycopg's, psycopg2's; None is the server's default
        if getattr(dbapi_connection, attribute, None) is False:
            setattr(dbapi_connection, attribute, None)
