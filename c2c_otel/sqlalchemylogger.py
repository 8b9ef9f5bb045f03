"""Log records into a table, by a thread that never keeps the application waiting.

.. code-block:: ini

    [handler_sqlalchemy]
    class = c2c_otel.sqlalchemylogger.SQLAlchemyHandler
    args = ({'url': '%(SQLALCHEMY_URL)s', 'tablename': 'logs', 'tableargs': {'schema': 'audit'}}, '/health_check')

The table has ``id``, ``logger``, ``level`` (the name), ``trace`` (a traceback, or null), ``msg`` (formatted) and
``created_at`` (when the record was made). Where it cannot be written to, the database (of a PostgreSQL server), the
schema and the table are made. Records are written in transactions of at most `BATCH`, a second after the first of them
came at the latest. While the database is away up to `CAPACITY` of them wait; what comes after that is dropped, and
counted. A process that ends gives the database `EXIT_SECONDS`.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from typing import Any

from opentelemetry.instrumentation.utils import suppress_instrumentation

from c2c_otel import telemetry
from c2c_otel_exporters import guard

try:
    import sqlalchemy
    from sqlalchemy.schema import CreateSchema
except ImportError as error:
    raise ImportError(
        f"c2c_otel.sqlalchemylogger needs {error.name}. Run: pip install 'c2c-otel[postgresql]'", name=error.name
    ) from error

__all__ = ["BATCH", "CAPACITY", "SQLAlchemyHandler"]

BATCH = 100
CAPACITY = 10_000
EXIT_SECONDS = 2.0

_WAIT_SECONDS = 1.0
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0)
_FORMATTER = logging.Formatter()
_writing = threading.local()
_handlers: weakref.WeakSet[SQLAlchemyHandler] = weakref.WeakSet()


class SQLAlchemyHandler(logging.Handler):
    """``sqlalchemy_url``: ``{"url": ..., "tablename": "logs", "tableargs": {"schema": ...}}``, the last two optional.

    Records are left out whose message matches ``does_not_contain_expression`` and, where it is given, those that do not
    match ``contains_expression`` (regular expressions, found anywhere). Several handlers may write to one table.

    Raises ValueError for a dictionary without a URL, `re.error` for an expression that is none.
    """

    def __init__(
        self,
        sqlalchemy_url: Mapping[str, Any],
        does_not_contain_expression: str = "",
        contains_expression: str = "",
    ) -> None:
        super().__init__()
        if not isinstance(sqlalchemy_url, Mapping) or not sqlalchemy_url.get("url"):
            raise ValueError(
                f"SQLAlchemyHandler's first argument is of {type(sqlalchemy_url).__name__}; expected a dictionary with "
                "a \"url\". Write {'url': 'postgresql+psycopg://...', 'tablename': 'logs'}."
            )
        self._url = sqlalchemy.make_url(sqlalchemy_url["url"])
        self._table = _table(sqlalchemy_url.get("tablename") or "logs", dict(sqlalchemy_url.get("tableargs") or {}))
        self._without = re.compile(does_not_contain_expression) if does_not_contain_expression else None
        self._with = re.compile(contains_expression) if contains_expression else None
        self._renew()
        _handlers.add(self)

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """None: `emit` needs none, and `logging.shutdown` would hold it while it waits for the thread, whose own
        records (SQLAlchemy's at DEBUG) come here too."""
        self.lock = None

    def _renew(self) -> None:
        """Begin anew, with nothing waiting: what a parent has still to write stays the parent's."""
        self._waiting: deque[dict[str, Any]] = deque()
        self._wake = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._engine: sqlalchemy.Engine | None = None
        self._closing = self._flushing = False
        self._unwritten = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Format and keep it; nothing else happens on this thread."""
        if getattr(_writing, "now", False):  # what writing a record logs must not be written
            return
        try:
            message = record.getMessage()
            if self._without is not None and self._without.search(message):
                return
            if self._with is not None and not self._with.search(message):
                return
            row = _row(record, message)
            with self._wake:
                if self._unwritten >= CAPACITY:
                    guard.count("dropped.sqlalchemylogger")
                    return
                self._waiting.append(row)
                self._unwritten += 1
                if len(self._waiting) in (1, BATCH):
                    self._wake.notify_all()
            self._begin()
        except Exception:
            self.handleError(record)

    def _begin(self) -> None:
        """The thread, where this process may have one: gunicorn's arbiter writes when it ends."""
        if self._thread is not None or telemetry.get().held:
            return
        with self._wake:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="c2c_sqlalchemylogger", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        _writing.now = True
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                self._wake.wait_for(self._is_due, _WAIT_SECONDS)
                if not self._waiting:
                    return
            self._write_waiting()

    def _is_due(self) -> bool:
        return self._closing or self._flushing or len(self._waiting) >= BATCH

    def _write_waiting(self) -> None:
        """One batch, again and again until it is written or the process ends."""
        rows = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        for attempt in range(10**9):
            try:
                self._write(rows)
                break
            except (sqlalchemy.exc.DataError, sqlalchemy.exc.IntegrityError):
                self._write_singly(rows)
                break
            except Exception as error:
                self._say(error)
            with self._wake:
                if self._wake.wait_for(lambda: self._closing, _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)]):
                    guard.dropped("sqlalchemylogger", len(rows), "the process ends and its database is away")
                    break
        with self._wake:
            self._unwritten -= len(rows)
            self._wake.notify_all()

    def _write_singly(self, rows: list[dict[str, Any]]) -> None:
        """Some row is one that the table does not take: it alone is lost."""
        for row in rows:
            try:
                self._write([row])
            except Exception as error:
                guard.dropped("sqlalchemylogger", 1, f"the table does not take it: {type(error).__name__}")

    def _write(self, rows: list[dict[str, Any]]) -> None:
        with suppress_instrumentation():
            if self._engine is None:
                self._engine = sqlalchemy.create_engine(self._url, pool_size=1, max_overflow=0, pool_pre_ping=True)
            try:
                self._insert(rows)
            except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.ProgrammingError):
                _make(self._engine, self._table)
                self._insert(rows)

    def _insert(self, rows: list[dict[str, Any]]) -> None:
        assert self._engine is not None
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.insert(self._table), rows)

    def _say(self, error: Exception) -> None:
        guard.count("failed.sqlalchemylogger")
        where = self._url.render_as_string(hide_password=True)
        guard.warn_once(
            f"sqlalchemylogger.{where}",
            "Log records cannot be written to %s now (%s); up to %d wait, the next ones are dropped.",
            where,
            type(error).__name__,
            CAPACITY,
        )

    def flush(self) -> None:
        """Wait until what was logged before is written, `EXIT_SECONDS` at most."""
        if self._thread is not None and self._thread is not threading.current_thread():
            with self._wake:
                self._flushing = True
                self._wake.notify_all()
                self._wake.wait_for(lambda: not self._unwritten, EXIT_SECONDS)
                self._flushing = False

    def close(self) -> None:
        """Write what waits, `EXIT_SECONDS` at most, and end."""
        deadline = time.monotonic() + EXIT_SECONDS
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        thread = self._thread
        if thread is None and self._waiting:
            thread = threading.Thread(target=self._run, name="c2c_sqlalchemylogger", daemon=True)
            thread.start()
        if thread is not None and thread is not threading.current_thread():
            thread.join(deadline - time.monotonic())
        if self._engine is not None and not (thread and thread.is_alive()):
            self._engine.dispose()
        super().close()


def _row(record: logging.LogRecord, message: str) -> dict[str, Any]:
    trace = None
    if record.exc_info and record.exc_info[0] is not None:
        trace = _FORMATTER.formatException(record.exc_info)
    elif record.exc_text:
        trace = record.exc_text
    return {
        "logger": record.name,
        "level": record.levelname,
        "trace": None if trace is None else _storable(trace),
        "msg": _storable(message),
        "created_at": datetime.datetime.fromtimestamp(record.created, datetime.UTC),
    }


def _storable(text: str) -> str:
    """Without what no database takes in a text: NUL and halves of characters."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _table(name: str, arguments: dict[str, Any]) -> sqlalchemy.Table:
    return sqlalchemy.Table(
        name,
        sqlalchemy.MetaData(),
        sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
        sqlalchemy.Column("logger", sqlalchemy.Text),
        sqlalchemy.Column("level", sqlalchemy.Text),
        sqlalchemy.Column("trace", sqlalchemy.Text),
        sqlalchemy.Column("msg", sqlalchemy.Text),
        sqlalchemy.Column("created_at", sqlalchemy.DateTime(timezone=True)),
        **arguments,
    )


def _make(engine: sqlalchemy.Engine, table: sqlalchemy.Table) -> None:
    """The database, the schema and the table, as far as they are missing. Raises what the database says."""
    try:
        _make_table(engine, table)
    except sqlalchemy.exc.OperationalError as error:
        if engine.dialect.name != "postgresql" or "does not exist" not in str(error.orig):
            raise
        _make_database(engine.url)
        _make_table(engine, table)


def _make_table(engine: sqlalchemy.Engine, table: sqlalchemy.Table) -> None:
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # two that come here at once: IF NOT EXISTS fails for the second
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(hashtext('c2c_otel.sqlalchemylogger'))"))
            if table.schema:
                connection.execute(CreateSchema(table.schema, if_not_exists=True))
        table.create(connection, checkfirst=True)


def _make_database(url: sqlalchemy.URL) -> None:
    server = sqlalchemy.create_engine(
        url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    )
    with server.connect() as connection:
        name = connection.dialect.identifier_preparer.quote_identifier(url.database or "")
        try:
            connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
        except sqlalchemy.exc.DBAPIError as error:  # another worker has made it
            if "already exists" not in str(error.orig):
                raise


def _after_fork() -> None:
    for handler in _handlers:
        engine = handler._engine
        if engine is not None:
            engine.dispose(close=False)
        handler._renew()


os.register_at_fork(after_in_child=_after_fork)
