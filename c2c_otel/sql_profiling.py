"""From a slow SELECT to its plan: on the statement's span, and in the log.

The same statement (by its simplified text and its database) is explained at most once a minute. PostgreSQL is asked by
a thread of ours, so that nobody waits; until it has answered, the statement's span is held open, and then ended with
the time at which the statement was over. The log line has the statement, its parameters and the plan as they are; in
the span, the plan is without values.
"""

from __future__ import annotations

import logging
import re
import reprlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation

from c2c_otel import sql_plans, telemetry
from c2c_otel_exporters import background, guard

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from c2c_otel.instrumentation.sqlalchemy import Site
    from c2c_otel.sql_profiler import Mode

__all__ = ["ATTRIBUTE", "Profiler", "without_values"]

ATTRIBUTE = "db.query.plan"
MAX_ATTRIBUTE = 8_000
"""Characters of the span's attribute."""
MAX_WAITING = 20
"""Statements that wait for their plan; each holds a span, its statement and its parameters."""
MAX_SEEN = 1_000
"""Statements of which it is known when they were explained."""
AGAIN_SECONDS = 60.0
"""The same statement is not explained again before."""

_MAX_SHOWN = 10_000  # characters of a statement in the log
_MAX_PARAMETERS = 1_000

_logger = logging.getLogger("c2c_otel.sql_profiler")


class _Job:
    """A statement, from its end to its plan."""

    def __init__(self, span: Span, context: Any, seconds: float, analyze: bool) -> None:
        self._ended = time_ns()
        self._span = span
        self._seconds = seconds
        self._analyze = analyze
        self._context = trace.set_span_in_context(span)
        self._open = threading.Lock()  # taken by who ends it: a job may be given up while it is being done
        parameters = context.parameters[0] if context.parameters else ()
        connection = context.root_connection
        self.pooled = connection.connection
        self.asked = sql_plans.Asked(
            engine=connection.engine,
            statement=context.statement,
            parameters=parameters,
            plain=not parameters and context.no_parameters,
            connection_id=id(getattr(self.pooled, "driver_connection", None)),
        )

    def is_too_long(self) -> bool:
        return len(self.asked.statement) + _length(self.asked.parameters) > sql_plans.MAX_STATEMENT

    def explain_here(self) -> None:
        """On the statement's own thread and connection."""
        with suppress_instrumentation():
            self._done(lambda: sql_plans.of_sqlite(self.asked, self.pooled))

    def explain(self) -> None:
        """On a thread that may wait."""
        longest = telemetry.get().settings.sql_profiler_timeout_seconds
        with suppress_instrumentation():
            self._done(lambda: sql_plans.of_postgresql(self.asked, self._analyze, longest))

    def _done(self, plan: Callable[[], str]) -> None:
        try:
            found = plan()
        except sql_plans.NoPlan as why:
            found = f"no plan: {why}"
        self.end(found)

    def end(self, plan: str) -> None:
        """Tell, and end the span. What comes second has no effect."""
        if not self._open.acquire(blocking=False):
            return
        token = otel_context.attach(self._context)
        try:
            self._span.set_attribute(ATTRIBUTE, without_values(plan)[:MAX_ATTRIBUTE])
            if _logger.isEnabledFor(logging.INFO):
                asked = self.asked
                _logger.info(
                    "%.3f s\n%s\nparameters: %s\n%s",
                    self._seconds,
                    _cut(asked.statement, _MAX_SHOWN),
                    _cut(_shown(asked.parameters), _MAX_PARAMETERS),
                    plan,
                )
        finally:
            otel_context.detach(token)
            self._span.end(self._ended)


class Profiler:
    """One period in which the profiler is on. Any number of threads offer statements to it."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self._changed = threading.Condition()
        self._seen: OrderedDict[Any, float] = OrderedDict()
        self._waiting: deque[_Job] = deque()
        self._working: _Job | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    def offer(self, site: Site, span: Span, context: Any, seconds: float) -> bool:
        """See `c2c_otel.sql_profiler.offer`."""
        if seconds < self.mode.min_seconds or site.operation != "SELECT":
            return False
        key = site.target.server, site.statement.query
        if not _is_the_applications(context) or not self._is_due(key):
            return False
        job = _Job(span, context, seconds, self.mode.analyze)
        system = site.target.system
        if system not in ("postgresql", "sqlite"):
            job.end(f"no plan: the profiler does not know {system}")
        elif job.is_too_long():
            job.end("no plan: it is too long")
        elif system == "sqlite":
            job.explain_here()
        elif not self._put(job):
            with self._changed:
                self._seen.pop(key, None)  # its next time may be better
            return False
        return True

    def _is_due(self, key: Any) -> bool:
        now = time.monotonic()
        with self._changed:
            last = self._seen.get(key)
            if last is not None and now - last < AGAIN_SECONDS:
                return False
            self._seen[key] = now
            self._seen.move_to_end(key)
            if len(self._seen) > MAX_SEEN:
                self._seen.popitem(last=False)
            return True

    def _put(self, job: _Job) -> bool:
        with self._changed:
            if self._stopped:
                return False
            if len(self._waiting) >= MAX_WAITING:
                guard.dropped("sql_profiler.plan", reason=f"{MAX_WAITING} statements wait for theirs already")
                return False
            if self._thread is None:
                self._thread = background.run(self._work, "c2c-otel-sql-profiler")
                if self._thread is None:
                    return False
            self._waiting.append(job)
            return True

    def _work(self) -> None:
        """Of the thread, which ends when nothing waits."""
        while (job := self._next()) is not None:
            try:
                job.explain()
            except Exception:
                guard.failed("sql_profiler.explain")
            finally:
                job.end("no plan")

    def _next(self) -> _Job | None:
        with self._changed:
            self._working = self._waiting.popleft() if self._waiting else None
            if self._working is None:
                self._thread = None
                self._changed.notify_all()
            return self._working

    def stop(self, *, leaving: bool = False) -> None:
        """End the spans that wait for a plan; with ``leaving`` (the process ends), the one whose plan is being made,
        too."""
        with self._changed:
            self._stopped = True
            jobs = [*self._waiting]
            self._waiting.clear()
            if leaving and self._working is not None:
                jobs.append(self._working)
        for job in jobs:
            job.end("no plan: the profiler was switched off")

    def wait(self, seconds: float) -> bool:
        """Until no statement waits for its plan; whether that was so in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, seconds)


def _is_the_applications(context: Any) -> bool:
    """Not what a dialect asks its first connection, which has not come to the pool yet."""
    try:
        return context.root_connection.connection.info is not None
    except (AttributeError, NotImplementedError):
        return False


# -- what is shown ----------------------------------------------------------------------------------------------------

_TEXT = re.compile(r"'(?:[^']++|'')*+(?:'|\Z)")
_EXPRESSION = re.compile(
    r"^ *+(?!Rows Removed)[\w -]*(?:Cond|Filter|Key|Output|Call|Order By|Sampling|Condition): .*", re.MULTILINE
)
_NUMBER = re.compile(r"(?<![\w$.])(?<!Plan )\d++(?:\.\d++)?+")


def without_values(plan: str) -> str:
    """The plan with ``?`` for the values of the statement and its parameters.

    >>> without_values("Seq Scan on t  (cost=0.00..8.1 rows=1)\\n  Filter: ((id = 42) AND (name = 'me'::text))")
    'Seq Scan on t  (cost=0.00..8.1 rows=1)\\n  Filter: ((id = ?) AND (name = ?::text))'
    """
    return _EXPRESSION.sub(lambda line: _NUMBER.sub("?", line[0]), _TEXT.sub("?", plan))


def _length(value: Any) -> int:
    """About how many characters it has."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_length, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return sum(map(_length, value)) + len(value)
    return 1


class _Repr(reprlib.Repr):
    def repr_bytes(self, value: bytes, level: int) -> str:
        return repr(value[: self.maxother])


_repr = _Repr()
_repr.maxdict = _repr.maxlist = _repr.maxtuple = _repr.maxset = 50
_repr.maxstring = _repr.maxother = 200


def _shown(parameters: Any) -> str:
    try:
        return _repr.repr(parameters)
    except Exception:  # of an object of the application's
        return f"<{type(parameters).__name__}>"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}[... {len(text) - longest} characters cut]"
