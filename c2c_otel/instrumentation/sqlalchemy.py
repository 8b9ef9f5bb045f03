"""SQLAlchemy: a span and a measurement for each statement and each commit, a span for each rollback.

The methods of ``Connection`` that talk to the driver are wrapped, where the contrib package listens to the events
of each engine: engines that existed before, that come from ``engine_from_config``, from a ``create_engine``
imported earlier or that are asynchronous are all covered, and a statement costs a tenth. The time of a statement is
its execution; rows that are fetched later from a server-side cursor are not in it.

Spans carry the stable semantic conventions: https://opentelemetry.io/docs/specs/semconv/database/database-spans/
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextvars import Token
from time import perf_counter
from typing import Any

import sqlalchemy
from opentelemetry import context as otel_context
from opentelemetry.context.context import Context
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor as _Contrib
from opentelemetry.instrumentation.utils import unwrap
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from sqlalchemy.engine import Connection
from wrapt import wrap_function_wrapper

from c2c_otel import sql_profiler, sql_request_id, telemetry
from c2c_otel.instrumentation import client, sql_events
from c2c_otel.instrumentation.sql_target import ROUTE, Target, target_of
from c2c_otel.tracing import attach_span, detach
from c2c_otel_exporters import guard, names, sql

__all__ = ["SQLAlchemyInstrumentor"]

SCOPE = "c2c_otel.sqlalchemy"

_STATEMENTS = ("_exec_single_context", "_exec_insertmany_context")
_COMMITS = ("_commit_impl", "_commit_twophase_impl")
_ENDS = {
    "_rollback_impl": "ROLLBACK",
    "_rollback_twophase_impl": "ROLLBACK",
    "_prepare_twophase_impl": "PREPARE TRANSACTION",
}

_Method = Callable[..., Any]


class SQLAlchemyInstrumentor(_Contrib):
    """``instrument(tracer_provider=None, engine=None, engines=None, enable_commenter=False,
    commenter_options=None, enable_attribute_commenter=False)``. ``engine`` and ``engines`` are accepted and
    change nothing, as every engine is covered."""

    _instance = None  # contrib keeps its singleton on the class, where a subclass would find it

    def instrumentation_dependencies(self) -> Collection[str]:
        return ("sqlalchemy >= 2.0",)

    def _instrument(self, **kwargs: Any) -> None:
        calls = Calls(client.tracers(SCOPE, kwargs.get("tracer_provider")), sql_events.commenter(**kwargs))
        if all(hasattr(Connection, name) for name in _STATEMENTS):
            for name in _STATEMENTS:
                wrap_function_wrapper(Connection, name, calls.statement)
        else:
            guard.warn_once(
                "sqlalchemy.events",
                "SQLAlchemy %s has other internals than those c2c-otel knows; it is instrumented by its events, "
                "which takes longer.",
                sqlalchemy.__version__,
            )
            sql_events.listen(calls)
        for name in _COMMITS:
            if hasattr(Connection, name):
                wrap_function_wrapper(Connection, name, calls.commit)
        for name, span_name in _ENDS.items():
            if hasattr(Connection, name):
                wrap_function_wrapper(Connection, name, calls.end(span_name))
        sql_request_id.install()

    def _uninstrument(self, **kwargs: Any) -> None:
        sql_request_id.uninstall()
        for name in (*_STATEMENTS, *_COMMITS, *_ENDS):
            unwrap(Connection, name)
        sql_events.remove()


class Call:
    """One statement on its way: its span is current until `Calls.finish`."""

    __slots__ = ("operation", "span", "started", "statement", "summary", "target", "token")

    span: Span
    started: float
    token: Token[Context]

    def __init__(self, target: Target, statement: sql.Statement, operation: str, summary: str) -> None:
        self.target = target
        self.statement = statement
        self.operation = operation
        self.summary = summary


class Calls:
    """The wrappers around `Connection`'s methods. Stateless, so safe with any number of threads."""

    def __init__(self, tracers: client.Tracers, commenter: sql_events.Commenter | None = None) -> None:
        self._tracers = tracers
        self._commenter = commenter

    # -- statements -------------------------------------------------------------------------------------------

    def statement(self, func: _Method, connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Around ``_exec_single_context(dialect, context, ...)`` and ``_exec_insertmany_context``."""
        context = args[1] if len(args) > 1 else kwargs["context"]
        call = self.begin(connection, context)
        if call is None:
            return func(*args, **kwargs)
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            self.finish(call, error)
            raise
        self.finish(call, None, context)
        return result

    def begin(self, connection: Any, context: Any) -> Call | None:
        """``context``: SQLAlchemy's execution context. None where instrumentation is suppressed."""
        current = otel_context.get_current()
        if client.is_suppressed(current):
            return None
        try:
            text = context.statement
            statement = sql.describe(text)
            operation, summary = statement.operation, statement.summary
            batch = len(context.parameters) if context.executemany else 0
            if batch > 1:  # one round trip for several: the conventions set these apart
                operation, summary = f"BATCH {operation}", f"BATCH {summary}"
            target = target_of(connection)
            call = Call(target, statement, operation, summary)
            attributes = target.attributes.copy()
            if ROUTE in (options := connection.get_execution_options()):
                attributes.update(options[ROUTE])
            attributes["db.query.text"] = statement.text
            if summary:
                attributes["db.query.summary"] = summary
            if operation:
                attributes["db.operation.name"] = operation
            if batch > 1:
                attributes["db.operation.batch.size"] = batch
            call.span = span = self._tracers().start_span(
                summary or operation or target.system, kind=SpanKind.CLIENT, attributes=attributes
            )
            call.token = attach_span(span, current)
            call.started = perf_counter()
        except Exception:
            guard.failed("sqlalchemy.begin")
            return None
        if self._commenter is not None:
            self._commenter(connection, context, span)
            call.started = perf_counter()
        return call

    def finish(self, call: Call, error: BaseException | None, context: Any = None) -> None:
        """The statement has been executed, by this context of SQLAlchemy's, or has failed; both are measured."""
        seconds = perf_counter() - call.started
        try:
            detach(call.token)
            kind = None if error is None else _failed(call.span, error)
            target, statement = call.target, call.statement
            telemetry.get().sink.timer(
                names.sql,
                target.system,
                target.namespace,
                target.host,
                target.port,
                statement.query,
                call.operation,
                call.summary,
                kind,
            ).observe(seconds, call.span)
            if sql_profiler.active is None or context is None or not sql_profiler.offer(call, context, seconds):
                call.span.end()
        except Exception:
            guard.failed("sqlalchemy.finish")

    # -- ends of transactions ---------------------------------------------------------------------------------

    def commit(self, func: _Method, connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Around ``_commit_impl()`` and ``_commit_twophase_impl(xid, is_prepared)``."""
        return self._around("COMMIT", names.sql_commit, connection, lambda: func(*args, **kwargs))

    def end(self, name: str) -> _Method:
        """Around the other ends of a transaction: a span called ``name``, no measurement (none is documented)."""

        def around(func: _Method, connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self._around(name, None, connection, lambda: func(*args, **kwargs))

        return around

    def _around(
        self, name: str, namer: Callable[..., names.Series] | None, connection: Any, run: Callable[[], Any]
    ) -> Any:
        current = otel_context.get_current()
        if client.is_suppressed(current) or not _reaches_the_server(connection):
            return run()
        try:
            target = target_of(connection)
            attributes = {**target.attributes, "db.operation.name": name, "db.query.summary": name}
            attributes.update(connection.get_execution_options().get(ROUTE, ()))
            span = self._tracers().start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
            token = attach_span(span, current)
        except Exception:
            guard.failed("sqlalchemy.end.begin")
            return run()
        failure: BaseException | None = None
        started = perf_counter()
        try:
            return run()
        except BaseException as error:
            failure = error
            raise
        finally:
            seconds = perf_counter() - started
            try:
                detach(token)
                kind = None if failure is None else _failed(span, failure)
                if namer is not None:
                    telemetry.get().sink.timer(
                        namer, target.system, target.namespace, target.host, target.port, kind
                    ).observe(seconds, span)
                span.end()
            except Exception:
                guard.failed("sqlalchemy.end")


def _reaches_the_server(connection: Any) -> bool:
    """Whether the end of the transaction is sent: not in autocommit mode, not on a connection that is gone."""
    try:
        return connection._still_open_and_dbapi_connection_is_valid and not connection._is_autocommit_isolation()
    except AttributeError:  # another SQLAlchemy: rather a span too many
        return True


def _failed(span: Span, error: BaseException) -> str:
    """What the driver raised, not SQLAlchemy's wrapper, whose text has the statement and its parameters."""
    original = getattr(error, "orig", None)
    cause = original if isinstance(original, BaseException) else error
    kind = client.error_type(cause)
    if not span.is_recording():
        return kind
    span.set_attribute("error.type", kind)
    code = _status_code(cause)
    if code:
        span.set_attribute("db.response.status_code", code)
    span.record_exception(cause)
    # The first line only: the next ones of a PostgreSQL error show the row's values.
    span.set_status(Status(StatusCode.ERROR, str(cause).partition("\n")[0]))
    return kind


def _status_code(error: BaseException) -> str | None:
    """The SQLSTATE of PostgreSQL's drivers, SQLite's error name, MySQL's number."""
    for name in ("sqlstate", "pgcode", "sqlite_errorname"):
        code = getattr(error, name, None)
        if isinstance(code, str):
            return code
    first = error.args[0] if error.args else None
    return str(first) if isinstance(first, int) else None
