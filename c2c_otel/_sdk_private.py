"""The private names of the OpenTelemetry API and SDK that lean spans lean on.

Whatever can be called from outside is wrapped here; what a subclass overrides or reads of its own base (in
`c2c_otel.lean` and `c2c_otel.tracing`) is at least listed here. They were read in api and sdk 1.45.1, which is
pinned. `missing` looks at each of them when a tracer provider is made: with one gone or changed,
`c2c_otel.tracing` uses the SDK's own spans and says so once.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - see _FORK
import functools
from collections import deque
from collections.abc import Callable
from contextvars import Token
from typing import Any, NamedTuple

from opentelemetry import baggage
from opentelemetry import context as context_api
from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import sampling
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

__all__ = [
    "BAGGAGE_KEY",
    "SPAN_KEY",
    "ParentRules",
    "attach",
    "batch_queue",
    "counts_spans",
    "current",
    "detach",
    "environment_sampler",
    "missing",
    "new_span_context",
    "parent_rules",
    "propagators_of",
    "static_decision",
]

_FORK = """
The SDK's providers use concurrent.futures.thread in a forked child, from a handler that they register when they are
made. That module has a handler too, which gives its lock back; and handlers run in the order in which they were
registered. Imported after a provider was made, it would let every child wait for ever."""

SPAN_KEY: str = next(iter(trace_api.set_span_in_context(trace_api.INVALID_SPAN, Context())))
"""Under which the current span stands in a `Context`."""

BAGGAGE_KEY: str = next(iter(baggage.set_baggage("a", "b", Context())))
"""Under which the baggage does."""

_READABLE = {
    *("_name", "_context", "_kind", "_parent", "_start_time", "_end_time", "_attributes", "_events", "_links"),
    *("_status", "_resource", "_instrumentation_info", "_instrumentation_scope"),
}
"""Where `ReadableSpan` keeps what its properties read; a lean span has the same names."""

_TRACER = ("_tracer_metrics", "_span_limits", "_instrumentation_scope", "_tracer_config")
_PROVIDER = ("_active_span_processor", "_resource", "_tracers", "_tracers_lock")


def _context_variable() -> Any:
    """The ContextVar behind the default runtime context; None where another one is configured."""
    return getattr(getattr(context_api, "_RUNTIME_CONTEXT", None), "_current_context", None)


_variable = _context_variable()

current: Callable[[], Context] = context_api.get_current if _variable is None else _variable.get
"""The current context."""
attach: Callable[[Context], Token[Context]] = context_api.attach if _variable is None else _variable.set
"""Make a context current."""


def detach(token: Token[Context]) -> None:
    """Make the context current that was so before; never raises (the API logs a token of another context)."""
    try:
        if _variable is None:
            context_api.detach(token)
        else:
            _variable.reset(token)
    except Exception:
        context_api.detach(token)


_new_tuple: Any = tuple.__new__


def new_span_context(trace_id: int, span_id: int, flags: TraceFlags, state: TraceState) -> SpanContext:
    """A valid local span context, without the range checks: a third of the time."""
    return _new_tuple(SpanContext, (trace_id, span_id, False, flags, state, True))  # type: ignore[no-any-return] # tuple.__new__ gives the class it is told


def batch_queue(processor: Any) -> tuple[Any, int]:
    """The deque in which a `BatchSpanProcessor` keeps what it will export (new ones on the left), and how many it may
    hold before its thread must be told. 0 where that is not to be known: then the processor itself is to be called.
    """
    batch = processor._batch_processor
    queue = getattr(batch, "_queue", None)
    if type(queue) is not deque or type(batch._metrics).__name__ != "NoOpProcessorMetrics":
        return deque(), 0
    return queue, min(batch._max_export_batch_size, batch._max_queue_size) - 1


def propagators_of(textmap: TextMapPropagator) -> list[TextMapPropagator]:
    """Those that a composite propagator consists of, composites inside it too; any other one itself."""
    if type(textmap) is not CompositePropagator:
        return [textmap]
    return [one for part in getattr(textmap, "_propagators", ()) for one in propagators_of(part)]


def counts_spans(tracer: sdk.Tracer) -> bool:
    """Whether OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED asked this tracer to count its spans."""
    return type(tracer._tracer_metrics).__name__ != "NoOpTracerMetrics"


def environment_sampler() -> sampling.Sampler:
    """The sampler that OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG ask for."""
    read = getattr(sampling, "_get_from_env_or_default", None)
    return sampling.DEFAULT_ON if read is None else read()


def static_decision(sampler: sampling.Sampler) -> sampling.Decision | None:
    """What a `StaticSampler` always decides."""
    return getattr(sampler, "_decision", None)


class ParentRules(NamedTuple):
    """Whom a `ParentBased` sampler asks."""

    root: sampling.Sampler
    remote_off: sampling.Sampler
    remote_on: sampling.Sampler
    local_off: sampling.Sampler
    local_on: sampling.Sampler


def parent_rules(sampler: sampling.Sampler) -> ParentRules | None:
    """The delegates of a `ParentBased` sampler."""
    try:
        return ParentRules(
            sampler._root,  # type: ignore[attr-defined] # ParentBased's; the except is for any other
            sampler._remote_parent_not_sampled,  # type: ignore[attr-defined] # likewise
            sampler._remote_parent_sampled,  # type: ignore[attr-defined] # likewise
            sampler._local_parent_not_sampled,  # type: ignore[attr-defined] # likewise
            sampler._local_parent_sampled,  # type: ignore[attr-defined] # likewise
        )
    except AttributeError:
        return None


def missing() -> list[str]:
    """The names that are gone or mean something else now; empty with the pinned SDK."""
    found = [name for name, holds in _CHECKS if not _try(holds)]
    provider, tracer = _probe()
    found += [f"TracerProvider.{name}" for name in _PROVIDER if not hasattr(provider, name)]
    found += [f"Tracer.{name}" for name in _TRACER if not hasattr(tracer, name)]
    return found


def _try(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except Exception:
        return False


@functools.cache
def _probe() -> tuple[Any, Any]:
    # With an empty resource: the default one scans entry points.
    provider = sdk.TracerProvider(sampling.ALWAYS_ON, Resource.get_empty(), shutdown_on_exit=False)
    return provider, provider.get_tracer("c2c_otel.probe")


def _reads_back() -> bool:
    span = sdk.ReadableSpan("name", trace_api.INVALID_SPAN_CONTEXT, resource=Resource.get_empty())
    return vars(span).keys() >= _READABLE


def _span_context_layout() -> bool:
    flags, state = TraceFlags(3), TraceState([("a", "b")])
    made, quick = SpanContext(1, 2, False, flags, state), new_span_context(1, 2, flags, state)
    return tuple(made) == tuple(quick) and quick.is_valid and quick.trace_state is state


def _processors() -> Any:
    return sdk.SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call] # the SDK's has no annotations


def _span_is_found() -> bool:
    context = trace_api.set_span_in_context(trace_api.INVALID_SPAN, Context())
    return dict(context) == {SPAN_KEY: trace_api.INVALID_SPAN}


def _current_is_current() -> bool:
    token = attach(Context({"c2c-otel-probe": True}))
    try:
        return context_api.get_current() is current() and "c2c-otel-probe" in current()
    finally:
        detach(token)


_CHECKS: tuple[tuple[str, Callable[[], bool]], ...] = (
    ("trace.propagation._SPAN_KEY", _span_is_found),
    ("context._RUNTIME_CONTEXT", _current_is_current),
    ("SpanContext's layout", _span_context_layout),
    ("ReadableSpan's attributes", _reads_back),
    ("Span._new_links", lambda: callable(sdk.Span._new_links)),
    ("Span._add_event", lambda: callable(sdk.Span._add_event)),
    ("Span._add_link", lambda: callable(sdk.Span._add_link)),
    ("Span._readable_span", lambda: callable(sdk.Span._readable_span)),
    ("Tracer._set_resource", lambda: callable(sdk.Tracer._set_resource)),
    ("Tracer._is_enabled", lambda: callable(sdk.Tracer._is_enabled)),
    ("SpanProcessor._on_ending", lambda: callable(sdk.SpanProcessor._on_ending)),
    ("SynchronousMultiSpanProcessor._span_processors", lambda: _processors()._span_processors == ()),
    ("SynchronousMultiSpanProcessor._lock", lambda: hasattr(_processors()._lock, "acquire")),
    ("TracerConfig.is_enabled", lambda: _probe()[1]._tracer_config.is_enabled),
    ("sampling._get_from_env_or_default", lambda: callable(sampling._get_from_env_or_default)),
)
