"""What goes along with an outgoing call, where the global propagator is the usual one: without calling it.

The usual one is W3C trace context, W3C baggage and the request id (what OTEL_PROPAGATORS names by default, and
`request_id.install` adds), in any order and nesting. It then takes two headers, and ``propagate.inject`` ten times as
long as to write them.

https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

from opentelemetry import propagate
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from c2c_otel._sdk_private import BAGGAGE_KEY, propagators_of
from c2c_otel.request_id import RequestIdPropagator

__all__ = ["is_usual", "traceparent"]

_USUAL = {TraceContextTextMapPropagator, W3CBaggagePropagator, RequestIdPropagator}

_known: tuple[TextMapPropagator | None, bool] = (None, False)


def is_usual(context: Context) -> bool:
    """Whether of this context the usual headers are all that is sent; with baggage it is more."""
    global _known
    textmap = propagate.get_global_textmap()
    found, usual = _known
    if found is not textmap:
        usual = set(map(type, propagators_of(textmap))) == _USUAL
        _known = textmap, usual
    return usual and BAGGAGE_KEY not in context


def traceparent(span_context: SpanContext) -> str:
    """The header of a valid span context."""
    return "00-%032x-%016x-%02x" % (span_context[0], span_context[1], span_context[3])  # noqa: UP031 - half the time of an f-string
