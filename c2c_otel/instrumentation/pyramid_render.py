"""The rendering of a request: a span for each renderer that is called, and their time without anything around it.

``RendererHelper.render`` is what view renderers, ``render()`` and ``render_to_response()`` all go through.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from pyramid.renderers import RendererHelper

from c2c_otel._sdk_private import attach, current
from c2c_otel.current_request import KEY
from c2c_otel.instrumentation.exchange import Exchange, error_type
from c2c_otel.pending import Given
from c2c_otel.tracing import Tracer as LeanTracer
from c2c_otel.tracing import start_current
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
        context = current()
        exchange: Any = context.get(KEY)
        if exchange.__class__ is not Exchange:
            return original(self, value, system_values, request)
        # What a renderer renders itself is a part of it, and not counted twice.
        outermost = not exchange.rendering
        try:
            given = _given.get(self.name or self.type) or _make_given(self.name or self.type)
            tracer = exchange.tracer
            if tracer.__class__ is LeanTracer:
                span = tracer.start_current(given.title, context, SpanKind.INTERNAL, given)
            else:
                span = start_current(tracer, given.title, context, SpanKind.INTERNAL, given)
            exchange.rendering = True
        except Exception:
            guard.failed("pyramid.render")
            return original(self, value, system_values, request)
        started = perf_counter_ns()
        try:
            result = original(self, value, system_values, request)
        except BaseException as error:
            _done(exchange, outermost, perf_counter_ns() - started, context, span, error)
            raise
        # as _done does
        elapsed = perf_counter_ns() - started
        try:
            attach(context)
            if outermost:
                exchange.rendering = False
                before = exchange.render_ns
                exchange.render_ns = elapsed if before < 0 else before + elapsed
            span.end()
        except Exception:
            guard.failed("pyramid.rendered")
        return result

    render._c2c_original = original  # type: ignore[attr-defined]  # how patch and unpatch know it
    return render


class _Given(Given):
    """What a span of that renderer begins with, and its name."""

    __slots__ = ("title",)

    title: str


_MOST = 1000
_given: dict[str, _Given] = {}


def _make_given(name: str) -> _Given:
    given = _Given({"pyramid.renderer.name": name})
    given.title = f"render {name}"
    if len(_given) < _MOST:
        _given[name] = given
    return given


def _done(
    exchange: Exchange, outermost: bool, elapsed: int, context: Context, span: Span, error: BaseException
) -> None:
    try:
        attach(context)
        if outermost:
            exchange.rendering = False
            exchange.render_ns = elapsed + max(exchange.render_ns, 0)
        try:
            if isinstance(error, Exception):
                span.set_attribute("error.type", error_type(error))
                span.set_status(Status(StatusCode.ERROR))
                span.record_exception(error)
        finally:
            span.end()
    except Exception:
        guard.failed("pyramid.rendered")
