"""SQLAlchemy: a span and a measurement for each statement and each commit, a span for each rollback.

The methods of ``Connection`` that talk to the driver are wrapped, where the contrib package listens to the events
of each engine: engines that existed before, that come from ``engine_from_config``, from a ``create_engine``
imported earlier or that are asynchronous are all covered, and a statement costs a tenth. The time of a statement is
its execution; rows that are fetched later from a server-side cursor are not in it.

Spans carry the stable semantic conventions: https://opentelemetry.io/docs/specs/semconv/database/database-spans/
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import perf_counter_ns
from typing import Any

import sqlalchemy
from opentelemetry.context import Context
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor as _Contrib
from opentelemetry.trace import Span, Status, StatusCode
from sqlalchemy.engine import Connection

from c2c_otel import sql_profiler, sql_request_id
from c2c_otel._sdk_private import current
from c2c_otel.instrumentation import client, sql_events
from c2c_otel.instrumentation.client import ALSO_SUPPRESSED, SUPPRESSED
from c2c_otel.instrumentation.sql_target import ROUTE, TARGET, Target, target_of
from c2c_otel.patches import Patches
from c2c_otel.pending import Given
from c2c_otel_exporters import guard, names, sql

__all__ = ["SQLAlchemyInstrumentor"]

SCOPE = "c2c_otel.sqlalchemy"

_MOST_REMEMBERED = 2_000
"""Characters of a statement that is remembered with its server."""

_STATEMENTS = ("_exec_single_context", "_exec_insertmany_context")
_ENDS: dict[str, tuple[str, Callable[..., names.Series] | None]] = {
    "_commit_impl": ("COMMIT", names.sql_commit),
    "_commit_twophase_impl": ("COMMIT", names.sql_commit),
    "_rollback_impl": ("ROLLBACK", None),
    "_rollback_twophase_impl": ("ROLLBACK", None),
    "_prepare_twophase_impl": ("PREPARE TRANSACTION", None),
}
"""Method -> the name of its span, and how it is measured: no measurement is documented but that of commits."""

_Method = Callable[..., Any]


class SQLAlchemyInstrumentor(_Contrib):
    """``instrument(tracer_provider=None, engine=None, engines=None, enable_commenter=False,
    commenter_options=None, enable_attribute_commenter=False)``. ``engine`` and ``engines`` are accepted and
    change nothing, as every engine is covered."""

    _instance = None  # contrib keeps its singleton on the class, where a subclass would find it

    def instrumentation_dependencies(self) -> Collection[str]:
        return ("sqlalchemy >= 2.0",)

    _patches: Patches | None = None

    def _instrument(self, **kwargs: Any) -> None:
        calls = Calls(client.tracers(SCOPE, kwargs.get("tracer_provider")), sql_events.commenter(**kwargs))
        self._patches = patches = calls.patches
        if all(hasattr(Connection, name) for name in _STATEMENTS):
            patches.replace(Connection, _STATEMENTS[0], calls.statements)
            patches.replace(Connection, _STATEMENTS[1], calls.insertions)
        else:
            guard.warn_once(
                "sqlalchemy.events",
                "SQLAlchemy %s has other internals than those c2c-otel knows; it is instrumented by its events, "
                "which takes longer.",
                sqlalchemy.__version__,
            )
            sql_events.listen(calls)
        for name, (span_name, namer) in _ENDS.items():
            if hasattr(Connection, name):
                patches.replace(Connection, name, calls.ends(span_name, namer))
        sql_request_id.install()

    def _uninstrument(self, **kwargs: Any) -> None:
        sql_request_id.uninstall()
        if self._patches is not None:
            self._patches.undo()
            self._patches = None
        sql_events.remove()


class Site(client.Site):
    """A statement on one server. ``statement``: what is known of it; ``target``: the server; ``operation``: SELECT."""

    __slots__ = ("operation", "statement", "target")

    def __init__(self, target: Target, statement: sql.Statement, batch: int) -> None:
        operation, summary = statement.operation, statement.summary
        if batch > 1:  # one round trip for several: the conventions set these apart
            operation, summary = f"BATCH {operation}", f"BATCH {summary}"
        self.statement, self.target, self.operation = statement, target, operation
        attributes = target.attributes | {"db.query.text": statement.text}
        if summary:
            attributes["db.query.summary"] = summary
        if operation:
            attributes["db.operation.name"] = operation
        if batch > 1:
            attributes["db.operation.batch.size"] = batch

        def series(error: str | None) -> tuple[Any, ...]:
            return (names.sql, *target.server, statement.query, operation, summary, error)

        super().__init__(summary or operation or target.system, Given(attributes), series)

    @classmethod
    def of(cls, target: Target, text: str, batch: int) -> Site:
        """``batch``: how many at once; for 0 and 1 it is a single one."""
        key = (text, batch) if batch else text
        known: Site | None = target.sites.get(key)
        if known is None:
            known = cls(target, sql.describe(text), batch)
            if len(target.sites) >= client.MOST_SITES:
                target.sites.clear()
            if len(text) <= _MOST_REMEMBERED:
                target.sites[key] = known
        return known


class Call:
    """One statement on its way: its span is current until `Calls.finish`. ``before``: what was current before."""

    __slots__ = ("before", "site", "span", "started")

    def __init__(self, site: Site, span: Span, before: Context) -> None:
        self.site = site
        self.span = span
        self.before = before
        self.started = perf_counter_ns()


class Calls:
    """What stands for `Connection`'s methods. Safe with any number of threads."""

    def __init__(self, tracers: client.Tracers, commenter: sql_events.Commenter | None = None) -> None:
        self.tracers = tracers
        self._commenter = commenter
        self.patches = Patches()

    # -- statements -------------------------------------------------------------------------------------------

    def statements(self, original: _Method) -> _Method:
        """What stands for ``_exec_single_context(dialect, context, statement, parameters)``."""
        patches, tracers, commenter, process = self.patches, self.tracers, self._commenter, client.process

        def execute(connection: Any, dialect: Any, context: Any, statement: Any = None, parameters: Any = None) -> Any:
            now = current()
            if not patches.active or ((SUPPRESSED in now or ALSO_SUPPRESSED in now) and client.is_suppressed(now)):
                return original(connection, dialect, context, statement, parameters)
            try:
                target = getattr(connection.engine, TARGET, None) or target_of(connection)
                if context.executemany:
                    site = Site.of(target, context.statement, len(context.parameters))
                else:
                    site = target.sites.get(context.statement) or Site.of(target, context.statement, 0)
                route = connection.get_execution_options().get(ROUTE)
                given = site.given if route is None else Given(site.given | route)
                bound = site.bound
                if bound[0] is not process.sink or bound[3] is not tracers:
                    bound = site.bind(process.sink, tracers)
                span = bound[2](site.title, now, client.CLIENT, given)
            except Exception:
                guard.failed("sqlalchemy.begin")
                return original(connection, dialect, context, statement, parameters)
            if commenter is not None:
                commenter(connection, context, span)
            started = perf_counter_ns()
            try:
                result = original(connection, dialect, context, statement, parameters)
            except BaseException as error:
                client.fail(site, span, perf_counter_ns() - started, now, error, _failed)
                raise
            elapsed = perf_counter_ns() - started
            if sql_profiler.active is None:
                client.finish(site, span, elapsed, now)
            else:
                client.finish(site, span, elapsed, now, _offer(site, span, context, elapsed))
            return result

        return execute

    def insertions(self, original: _Method) -> _Method:
        """What stands for ``_exec_insertmany_context(dialect, context)``."""
        return self.statements(lambda connection, dialect, context, *_: original(connection, dialect, context))

    def begin(self, connection: Any, context: Any) -> Call | None:
        """For who listens to events. ``context``: SQLAlchemy's execution context. None where instrumentation is
        suppressed."""
        now = current()
        if client.is_suppressed(now):
            return None
        try:
            batch = len(context.parameters) if context.executemany else 0
            site = Site.of(target_of(connection), context.statement, batch)
            route = connection.get_execution_options().get(ROUTE)
            span = client.begin(site, self.tracers, now, None if route is None else Given(site.given | route))
        except Exception:
            guard.failed("sqlalchemy.begin")
            return None
        if self._commenter is not None:
            self._commenter(connection, context, span)
        return Call(site, span, now)

    def finish(self, call: Call, error: BaseException | None, context: Any = None) -> None:
        """The statement has been executed, by this context of SQLAlchemy's, or has failed; both are measured."""
        elapsed = perf_counter_ns() - call.started
        site, span = call.site, call.span
        if error is not None:
            client.fail(site, span, elapsed, call.before, error, _failed)
        else:
            keep = _offer(site, span, context, elapsed) if context is not None else None
            client.finish(site, span, elapsed, call.before, keep)

    # -- ends of transactions ---------------------------------------------------------------------------------

    def ends(self, name: str, namer: Callable[..., names.Series] | None) -> Callable[[_Method], _Method]:
        """What stands for the methods that end a transaction: a span called ``name``, measured by ``namer``."""
        patches, tracers = self.patches, self.tracers

        def make(original: _Method) -> _Method:
            def end(connection: Any, *args: Any) -> Any:
                now = current()
                suppressed = (SUPPRESSED in now or ALSO_SUPPRESSED in now) and client.is_suppressed(now)
                if suppressed or not patches.active or not _reaches_the_server(connection):
                    return original(connection, *args)
                try:
                    target = getattr(connection.engine, TARGET, None) or target_of(connection)
                    site = target.ends.get(name) or _end_site(target, name, namer)
                    route = connection.get_execution_options().get(ROUTE)
                    span = client.begin(site, tracers, now, None if route is None else Given(site.given | route))
                except Exception:
                    guard.failed("sqlalchemy.end.begin")
                    return original(connection, *args)
                started = perf_counter_ns()
                try:
                    result = original(connection, *args) if args else original(connection)
                except BaseException as error:
                    client.fail(site, span, perf_counter_ns() - started, now, error, _failed)
                    raise
                client.finish(site, span, perf_counter_ns() - started, now)
                return result

            return end

        return make


def _offer(site: Site, span: Span, context: Any, elapsed: int) -> Callable[[], bool]:
    return lambda: sql_profiler.active is not None and sql_profiler.offer(site, span, context, elapsed / 1e9)


def _end_site(target: Target, name: str, namer: Callable[..., names.Series] | None) -> client.Site:
    def series(error: str | None) -> tuple[Any, ...]:
        return (namer, *target.server, error)

    attributes = target.attributes | {"db.operation.name": name, "db.query.summary": name}
    site = target.ends[name] = client.Site(name, Given(attributes), None if namer is None else series)
    return site


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
