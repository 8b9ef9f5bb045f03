"""What the instrumentors of outgoing calls (SQLAlchemy, redis, requests) share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace

# Private names, but they are what opentelemetry.instrumentation.utils sets and every contrib package reads.
from opentelemetry.context import _SUPPRESS_HTTP_INSTRUMENTATION_KEY, _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.context.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer, TracerProvider

from c2c_otel import __version__, telemetry
from c2c_otel_exporters import guard

__all__ = ["Tracers", "call_hook", "error_type", "failed", "is_suppressed", "is_suppressed_http"]

_SUPPRESS_PLAIN = "suppress_instrumentation"
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


def is_suppressed(context: Context) -> bool:
    """Whether ``opentelemetry.instrumentation.utils.suppress_instrumentation`` is in force."""
    return bool(context.get(_SUPPRESS_INSTRUMENTATION_KEY) or context.get(_SUPPRESS_PLAIN))


def is_suppressed_http(context: Context) -> bool:
    """The same, or ``suppress_http_instrumentation``."""
    return bool(context.get(_SUPPRESS_HTTP_INSTRUMENTATION_KEY)) or is_suppressed(context)


def suppressing_http(context: Context) -> Context:
    """A context in which HTTP instrumentations of lower layers (urllib3) make no span of their own."""
    return otel_context.set_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY, True, context)


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
