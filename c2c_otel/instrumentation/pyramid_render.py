"""The rendering of a request: a span for each renderer that is called, and their time without anything around it.

``RendererHelper.render`` is what view renderers, ``render()`` and ``render_to_response()`` all go through.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, Status, StatusCode
from pyramid.renderers import RendererHelper

from c2c_otel import telemetry
from c2c_otel.current_request import KEY
from c2c_otel.instrumentation.exchange import TRACER, Exchange, error_type
from c2c_otel.tracing import attach_span
from c2c_otel_exporters import guard

__all__ = ["patch", "unpatch"]

Render = Callable[..., Any]


def patch() -> None:
    """Time what is rendered in traced requests. Idempotent."""
    if getattr(RendererHelper.render, "_c2c_original", None) is None:
        RendererHelper.render = _timed(RendererHelper.render)


def unpatch() -> None:
    """Undo `patch`, unless somebody else has wrapped it since: then ours stays, beneath theirs."""
    original = getattr(RendererHelper.render, "_c2c_original", None)
    if original is not None:
        RendererHelper.render = original


def _timed(original: Render) -> Render:
    @functools.wraps(original)
    def render(self: Any, value: Any, system_values: Any, request: Any = None) -> Any:
        context = otel_context.get_current()
        exchange = context.get(KEY)
        if exchange.__class__ is not Exchange:
            return original(self, value, system_values, request)
        try:
            rendering = _Rendering(exchange, context, self.name or self.type)
        except Exception:
            guard.failed("pyramid.render")
            return original(self, value, system_values, request)
        try:
            result = original(self, value, system_values, request)
        except BaseException as error:
            rendering.done(error)
            raise
        rendering.done(None)
        return result

    render._c2c_original = original  # type: ignore[attr-defined]  # how patch and unpatch know it
    return render


class _Rendering:
    """One call of a renderer. What a renderer renders itself is a part of it, and not counted twice."""

    __slots__ = ("_exchange", "_outermost", "_previous", "_span", "_started")

    def __init__(self, exchange: Exchange, context: otel_context.Context, name: str) -> None:
        span = telemetry.get().tracer(TRACER).start_span(f"render {name}", context)
        span.set_attribute("pyramid.renderer.name", name)
        self._exchange = exchange
        self._previous = context
        self._span: Span = span
        self._outermost = not exchange.rendering
        exchange.rendering = True
        attach_span(span, context)
        self._started = perf_counter_ns()

    def done(self, error: BaseException | None) -> None:
        elapsed = perf_counter_ns() - self._started
        try:
            otel_context.attach(self._previous)
            exchange = self._exchange
            if self._outermost:
                exchange.rendering = False
                exchange.render_ns = elapsed + max(exchange.render_ns, 0)
            try:
                if error is not None and isinstance(error, Exception):
                    self._failed(error)
            finally:
                self._span.end()
        except Exception:
            guard.failed("pyramid.rendered")

    def _failed(self, error: Exception) -> None:
        self._span.set_attribute("error.type", error_type(error))
        self._span.set_status(Status(StatusCode.ERROR))
        self._span.record_exception(error)
