"""Checks of databases: each on a session of its own, on the engine that is checked, rolled back in the end."""

from __future__ import annotations

import enum
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation

from c2c_otel.health_check import measures
from c2c_otel.settings import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["EngineType", "at_least_one", "check", "engines", "limit", "name_of"]


class EngineType(enum.Enum):
    """Which engines of a session are checked. The replica is the primary where there is none."""

    READ_ONLY = 1
    WRITE_ONLY = 2
    READ_AND_WRITE = 3


def engines(session: Any, engine_type: EngineType) -> list[Engine]:
    """Those of a session that `c2c_otel.db` has made, or the one of a session, a sessionmaker, a scoped session or an
    engine. Raises `ConfigurationError`."""
    primary = getattr(session, "c2c_rw_bind", None)
    if primary is None:
        return [_bind(session)]
    replica = getattr(session, "c2c_ro_bind", None) or primary
    found = {
        EngineType.READ_ONLY: [replica],
        EngineType.WRITE_ONLY: [primary],
        EngineType.READ_AND_WRITE: [primary, replica],
    }[engine_type]
    return found if len(found) == 1 or found[0] is not found[1] else found[:1]


def _bind(session: Any) -> Engine:
    """Without making a session: a scoped one would stay with this thread."""
    from sqlalchemy import Connection, Engine

    factory = getattr(session, "session_factory", session)  # a scoped_session's
    bind = factory
    if not isinstance(bind, (Engine, Connection)):
        options = getattr(factory, "kw", None)  # a sessionmaker's
        bind = options.get("bind") if isinstance(options, dict) else getattr(factory, "bind", None)
    engine = getattr(bind, "engine", None)
    if not isinstance(engine, Engine):
        raise ConfigurationError(
            "session", type(session).__name__, "an engine, or a session or a sessionmaker with a bind"
        )
    return engine


def name_of(engine: Engine) -> str:
    """What a check calls it, without host, path or credentials."""
    return str(getattr(engine, "c2c_name", None) or engine.url.get_backend_name())


def check(engine: Engine, query: Callable[[Any], object] | None, seconds: float) -> Callable[[Any], None]:
    """``query(session)`` is called, or, where it is None, a trivial statement executed."""
    import sqlalchemy
    from sqlalchemy import orm

    con = name_of(engine)

    def run(request: Any) -> None:
        with orm.Session(bind=engine) as session:  # closed, so rolled back, whatever happens
            limit(session.connection(), seconds)
            started = perf_counter()
            if query is None:
                session.execute(sqlalchemy.text("SELECT 1"))
            else:
                query(session)
            measures.database_timed(con, perf_counter() - started, trace.get_current_span())

    return run


def limit(connection: Connection, seconds: float) -> None:
    """Let PostgreSQL end a statement that nobody waits for any more: it has a connection of the application's pool."""
    if connection.dialect.name == "postgresql":
        with suppress_instrumentation():
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}")


def at_least_one(model: Any) -> Callable[[Any], None]:
    """A query that fails where a table is empty."""
    import sqlalchemy

    def query(session: Any) -> None:
        if session.execute(sqlalchemy.select(model).limit(1)).first() is None:
            raise LookupError(f"{getattr(model, '__name__', model)} record not found")

    return query
