"""What the instrumentors of outgoing calls (SQLAlchemy, redis, requests) share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import time_ns
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry import trace

# Private names, but they are what opentelemetry.instrumentation.utils sets and every contrib package reads.
from opentelemetry.context import _SUPPRESS_HTTP_INSTRUMENTATION_KEY, _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.context.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

from c2c_otel import __version__, telemetry
from c2c_otel._sdk_private import attach
from c2c_otel.tracing import Span as LeanSpan
from c2c_otel.tracing import Tracer as LeanTracer
from c2c_otel.tracing import start_current
from c2c_otel_exporters import guard

if TYPE_CHECKING:
    from c2c_otel.pending import Given
    from c2c_otel_exporters.sink import SinkLike

__all__ = [
    "ALSO_SUPPRESSED",
    "CLIENT",
    "MOST_SITES",
    "SUPPRESSED",
    "Site",
    "Tracers",
    "begin",
    "call_hook",
    "error_type",
    "fail",
    "failed",
    "finish",
    "is_suppressed",
    "is_suppressed_http",
    "process",
]

SUPPRESSED, ALSO_SUPPRESSED = _SUPPRESS_INSTRUMENTATION_KEY, "suppress_instrumentation"
"""One of them is in a context for which `is_suppressed` is to be asked; the second is the older one."""
CLIENT = SpanKind.CLIENT
process = telemetry.get()

Series = Callable[[str | None], tuple[Any, ...]]
_logger = logging.getLogger("c2c_otel.instrumentation")


class Tracers(Protocol):
    """Gives the tracer of one call: looked up anew each time, since a fork renews the provider's parts."""

    def __call__(self) -> Tracer: ...


def tracers(scope: str, provider: TracerProvider | None) -> Tracers:
    """The tracers of an instrumentor; ``provider`` is what ``instrument(tracer_provider=...)`` was given."""
    if provider is None:
        return lambda: telemetry.get().tracer(scope)
    tracer = trace.get_tracer(scope, __version__, provider)
    return lambda: tracer


class Site:
    """One kind of call to one server, made again and again: what its spans begin with, and where it is measured.

    ``title``: the span's name. ``given``: its attributes. ``series``: the naming function and its arguments, of a call
    that has ended with this ``error.type``; None where nothing is measured.
    """

    __slots__ = ("bound", "given", "series", "title")

    def __init__(self, title: str, given: Given, series: Series | None) -> None:
        self.title = title
        self.given = given
        self.series = series
        self.bound: tuple[Any, Any, Any, Any] = (None, None, None, None)

    def bind(self, sink: SinkLike, tracers: Callable[[], Tracer | None]) -> tuple[Any, Any, Any, Any]:
        """That sink, its timer of calls that succeed, what starts a span (None: there is no tracer) that is then the
        current one, and ``tracers``. Remembered as ``bound`` until the sink is another one, as it is in a forked
        child, or the tracers are, as after a new ``instrument()``."""
        timer = sink.timer(*self.series(None)) if self.series is not None else None
        bound = self.bound = (sink, timer, _start(tracers()), tracers)
        return bound


MOST_SITES = 2000
"""Sites that are remembered of one server."""


def begin(site: Site, tracers: Callable[[], Tracer | None], now: Context, given: Given | None = None) -> Any:
    """A span that is current until `finish` or `fail`; None where there is no tracer. ``now``: the current context."""
    # What it does is written once more where most calls are made: in redis.py and sqlalchemy.py.
    bound = site.bound
    if bound[0] is not process.sink or bound[3] is not tracers:
        bound = site.bind(process.sink, tracers)
    return bound[2](site.title, now, CLIENT, given or site.given)


def _start(tracer: Tracer | None) -> Callable[[str, Context, SpanKind, Given], Any]:
    """`Tracer.start_current`, of whatever tracer."""
    if tracer.__class__ is LeanTracer:
        return tracer.start_current
    return (lambda *_: None) if tracer is None else partial(start_current, tracer)


def finish(site: Site, span: Any, elapsed: int, now: Context, keep: Callable[[], bool] | None = None) -> None:
    """The call has succeeded, in so many nanoseconds. ``now``: what was current before `begin`. ``keep``: whether
    somebody else will end the span."""
    attach(now)
    try:
        timer = site.bound[1]
        if span.__class__ is not LeanSpan or span._end_time is not None:
            ended: Any = time_ns()
            if timer is not None:
                timer.observe_ns(elapsed, span, ended)
            if keep is None or not keep():
                span.end(ended)
            return
        started: Any = span._start_time
        ended = started + elapsed
        if timer is not None:
            timer.observe_ns(elapsed, span, ended)
        batch = span._shared.processors.batch
        if batch is None or keep is not None or span._made is not None or len(batch.queue) >= batch.few:
            if keep is None or not keep():
                span.end(ended)
        else:  # what Span.end does
            span._end_time = ended
            batch.queue.appendleft(span)
    except Exception:
        guard.failed("instrumentation.finish")


def fail(
    site: Site, span: Any, elapsed: int, now: Context, error: BaseException, describe: Callable[[Span, Any], str]
) -> None:
    """The call has raised. ``describe``: tells the span, and gives ``error.type``."""
    attach(now)
    try:
        kind = describe(span, error)
        if site.series is not None:
            telemetry.get().sink.timer(*site.series(kind)).observe(elapsed / 1e9, span)
        span.end()
    except Exception:
        guard.failed("instrumentation.fail")


def is_suppressed(context: Context) -> bool:
    """Whether ``opentelemetry.instrumentation.utils.suppress_instrumentation`` is in force."""
    return bool(context.get(_SUPPRESS_INSTRUMENTATION_KEY) or context.get(ALSO_SUPPRESSED))


def is_suppressed_http(context: Context) -> bool:
    """The same, or ``suppress_http_instrumentation``."""
    return bool(context.get(_SUPPRESS_HTTP_INSTRUMENTATION_KEY)) or is_suppressed(context)


def error_type(error: BaseException) -> str:
    """The value of ``error.type``: the exception's class, without its module as in the contrib packages."""
    return type(error).__qualname__


def failed(span: Span, error: BaseException) -> str:
    """Mark a span as failed: attribute, status and an exception event. Gives ``error.type``."""
    kind = error_type(error)
    if span.is_recording():
        span.set_attribute("error.type", kind)
        span.record_exception(error)
        first_line = str(error).partition("\n")[0]
        span.set_status(Status(StatusCode.ERROR, f"{kind}: {first_line}"))
    return kind


def call_hook(hook: Callable[..., Any], *args: Any) -> None:
    """A user's hook: its failure is said in the log, and is not the call's."""
    try:
        hook(*args)
    except Exception:
        try:
            _logger.warning("The hook %r raised an exception", hook, exc_info=True)
        except Exception:  # of a log handler
            guard.failed("hook")
