"""How a database would run a SELECT, asked in a way that cannot harm whoever sent it.

SQLite is asked on the statement's own connection (one in memory has no other): ``EXPLAIN QUERY PLAN`` compiles and runs
nothing. PostgreSQL is asked from a connection that is made for this and closed again. On the statement's own one, an
``EXPLAIN`` that fails would break the transaction; and a pool may have no other to give. There, in a read-only
transaction with timeouts, it can neither write nor wait long for a lock, not even for one of the statement's own
transaction. What only the statement's session has (temporary tables, tables not committed yet, its search_path) it does
not see.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

from c2c_otel import sql_safety

__all__ = ["MAX_PLAN", "MAX_STATEMENT", "Asked", "NoPlan", "of_postgresql", "of_sqlite"]

MAX_STATEMENT = 100_000
"""Characters of a statement, and of its parameters, that is explained."""
MAX_PLAN = 20_000
"""Characters of a plan; the rest is cut."""
PLAN_SECONDS = 2.0
"""The statement_timeout of all but EXPLAIN ANALYZE."""
LOCK_SECONDS = 0.5
"""The lock_timeout."""

_SAFE_STATES = ("08", "25", "28", "42", "53", "55", "57")
"""Classes of SQLSTATE: connections, read-only transactions, privileges, names, resources, locks, timeouts."""

_IDLE = 0
"""``transaction_status`` of libpq's drivers."""


class NoPlan(Exception):  # noqa: N818 - an outcome, not an error of ours
    """Why there is none, for a person."""


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A statement as the driver had it. ``plain``: it goes without parameters, and has no escapes of their markers.
    ``connection_id``: ``id()`` of the driver's connection that it ran on."""

    engine: Any
    statement: str
    parameters: Any
    plain: bool
    connection_id: int = 0

    def execute(self, cursor: Any, prefix: str) -> list[Any]:
        """Run it as SQLAlchemy does, with something in front."""
        if self.plain:
            cursor.execute(prefix + self.statement)
        else:
            cursor.execute(prefix + self.statement, self.parameters)
        return list(cursor.fetchall())


def of_sqlite(asked: Asked, connection: Any) -> str:
    """On the statement's own (pooled) connection, in its own thread. Raises `NoPlan`."""
    cursor = connection.cursor()
    try:
        try:
            cursor.row_factory = None
        except AttributeError:  # an asynchronous driver's
            pass
        rows = asked.execute(cursor, "EXPLAIN QUERY PLAN ")
    except Exception as error:
        raise NoPlan(_said(error)) from error
    finally:
        cursor.close()
    depths: dict[Any, int] = {}
    lines = []
    for identity, parent, _, detail in rows:
        depths[identity] = depths.get(parent, -1) + 1
        lines.append(f"{'  ' * depths[identity]}{detail}")
    return _joined(lines)


def of_postgresql(asked: Asked, analyze: bool, analyze_seconds: float) -> str:
    """The plan, and with ``analyze`` what EXPLAIN ANALYZE found, or why it was not run. To be called on a thread that
    may wait: as long as the engine takes to connect, and the timeouts here. Raises `NoPlan`."""
    work = _Postgres(asked, analyze, analyze_seconds).plan
    try:
        if not asked.engine.dialect.is_async:
            return work()
        import asyncio

        from sqlalchemy.util import greenlet_spawn

        return asyncio.run(greenlet_spawn(work))
    except NoPlan:
        raise
    except Exception as error:
        raise NoPlan(_said(error)) from error


class _Postgres:
    def __init__(self, asked: Asked, analyze: bool, analyze_seconds: float) -> None:
        self._asked = asked
        self._analyze = analyze
        self._analyze_seconds = analyze_seconds

    def plan(self) -> str:
        connection = self._connect()
        try:
            with _Cursor(connection) as cursor:
                self._check(cursor)
                return self._explain(cursor)
        finally:
            self._end(connection)

    # -- a connection of our own ----------------------------------------------------------------------------------

    def _connect(self) -> Any:
        """One more, made as those of the engine's pool are, the application's ``connect`` listeners included."""
        pool = self._asked.engine.pool
        entry = SimpleNamespace(info={}, record_info={}, dbapi_connection=None, driver_connection=None, in_use=True)
        connection = pool._invoke_creator(entry)
        driver = getattr(connection, "driver_connection", connection)
        if id(driver) == self._asked.connection_id or _status(driver) != _IDLE:
            raise NoPlan("the engine gives no other connection")  # which is not ours to close
        entry.dbapi_connection, entry.driver_connection = connection, driver
        try:
            pool.dispatch.connect(connection, entry)
            self._begin(connection)
        except BaseException:
            self._close(connection)
            raise
        return connection

    def _begin(self, connection: Any) -> None:
        with _Cursor(connection) as cursor:
            if getattr(connection, "autocommit", False) is True:
                cursor.execute("BEGIN READ ONLY")
            self._limit(cursor, PLAN_SECONDS)

    def _limit(self, cursor: Any, seconds: float) -> None:
        """Until the end of the transaction. Raises `NoPlan` where the server does not do as it is told."""
        wanted = {
            "transaction_read_only": "on",
            "lock_timeout": f"{LOCK_SECONDS * 1000:.0f}",
            "idle_in_transaction_session_timeout": "10000",
            "statement_timeout": f"{max(1.0, seconds * 1000):.0f}",
        }
        calls = ", ".join(f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in wanted.items())
        cursor.execute(f"SELECT {calls}")
        cursor.fetchall()
        cursor.execute("SELECT pg_catalog.current_setting('transaction_read_only')")
        if [tuple(row) for row in cursor.fetchall()] != [("on",)]:
            raise NoPlan("the database gives no read-only transaction")

    def _end(self, connection: Any) -> None:
        try:
            if getattr(connection, "autocommit", False) is True:
                with _Cursor(connection) as cursor:
                    cursor.execute("ROLLBACK")
            else:
                connection.rollback()
        except Exception:
            pass  # it is closed anyway
        finally:
            self._close(connection)

    def _close(self, connection: Any) -> None:
        try:
            self._asked.engine.dialect.do_close(connection)
        except Exception:
            pass

    # -- what is asked ----------------------------------------------------------------------------------------------

    def _text(self, cursor: Any) -> str:
        """What the server gets to see: some drivers write the parameters into the statement."""
        asked = self._asked
        mogrify = None if asked.plain else getattr(cursor, "mogrify", None)
        if mogrify is None:
            return asked.statement
        text = mogrify(asked.statement, asked.parameters)
        return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)

    def _check(self, cursor: Any) -> None:
        try:
            reading = sql_safety.read(self._text(cursor))
        except ValueError as error:
            raise NoPlan(str(error)) from error
        if reading.changes:
            raise NoPlan("it changes data")

    def _explain(self, cursor: Any) -> str:
        plan = _rows(self._asked.execute(cursor, "EXPLAIN "))
        if not self._analyze:
            return plan
        try:
            why = sql_safety.side_effects(self._text(cursor), lambda text: _query(cursor, text))
            if why is None:
                self._limit(cursor, self._analyze_seconds)
                return _rows(self._asked.execute(cursor, "EXPLAIN (ANALYZE, BUFFERS) "))
        except Exception as error:
            why = _said(error)
        return f"{plan}\nnot analyzed: {why}"


class _Cursor:
    """``with`` a cursor. psycopg's own is a context manager, too; those of asynchronous dialects are not."""

    def __init__(self, connection: Any) -> None:
        self._cursor = connection.cursor()

    def __enter__(self) -> Any:
        return self._cursor

    def __exit__(self, *exc_info: object) -> None:
        try:
            self._cursor.close()
        except Exception:
            pass  # of a connection that broke


def _query(cursor: Any, text: str) -> list[Any]:
    cursor.execute(text)
    return [tuple(row) for row in cursor.fetchall()]


def _status(driver: Any) -> int:
    """Whether somebody else is in the middle of something on this connection."""
    info = getattr(driver, "info", None)
    return int(getattr(info, "transaction_status", _IDLE))


def _rows(rows: list[Any]) -> str:
    return _joined([str(row[0]) for row in rows])


def _joined(lines: list[str]) -> str:
    text = "\n".join(lines)
    return text if len(text) <= MAX_PLAN else f"{text[:MAX_PLAN]}\n[... {len(text) - MAX_PLAN} characters cut]"


def _said(error: BaseException) -> str:
    """The first line (the next ones show where in the statement), and only of what cannot have the statement's data in
    it, as errors about a value have."""
    name = type(error).__name__
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(state, str) and not state.startswith(_SAFE_STATES):
        return name
    line = str(error).strip().partition("\n")[0]
    return f"{name}: {line}"[:500]
