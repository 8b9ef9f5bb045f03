"""Lean spans behind the OpenTelemetry API.

`TracerProvider` is the SDK's, and so are its tracers and spans to whoever asks with `isinstance` or reads them; they
only cost a tenth (see `c2c_otel.lean`). What a sampled span exports is byte for byte what the SDK would export,
with two exceptions: what cannot be encoded is left out instead of spoiling the batch, and the stack trace of an
exception lacks the frames of the SDK's generator.

A span that starts where the context has a request id gets it as ``c2c.request_id``.

The SDK's own spans are used, with one warning, when a private name of the SDK is missing (`_sdk_private`), and
silently by a tracer that OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED asks to count its spans.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Sequence
from contextvars import Token
from time import time_ns
from types import TracebackType
from typing import Any, TypeVar, cast

from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.trace.span import DEFAULT_TRACE_STATE
from opentelemetry.util import types

from c2c_otel import _sdk_private, readable, sampling
from c2c_otel._sdk_private import SPAN_KEY, attach, current, detach, new_span_context
from c2c_otel.ids import FastIdGenerator, getrandbits
from c2c_otel.lean import PLAIN, TEXT, Processors, Shared, Span
from c2c_otel.pending import Pending
from c2c_otel.request_id import ATTRIBUTE, REQUEST_ID_KEY
from c2c_otel_exporters import guard

__all__ = [
    "CurrentSpan",
    "FastIdGenerator",
    "Span",
    "Tracer",
    "TracerProvider",
    "attach_span",
    "detach",
    "start_current",
]

F = TypeVar("F", bound=Callable[..., Any])

_FLAGS = tuple(TraceFlags(bits) for bits in range(4))
_RANDOM = TraceFlags.RANDOM_TRACE_ID
_RATIO_MASK = 2**64 - 1
_EMPTY = Context()
_new = object.__new__
_set_item = dict.__setitem__


def attach_span(span: trace_api.Span, context: Context | None = None) -> Token[Context]:
    """Make a span the current one (in `context`, or the current one); give the token to `detach`."""
    now = Context(current() if context is None else context)
    _set_item(now, SPAN_KEY, span)
    return attach(now)


def start_current(
    tracer: trace_api.Tracer,
    name: str,
    values: Context,
    kind: SpanKind,
    attributes: types.Attributes,
    inside: Context | None = None,
) -> trace_api.Span:
    """`Tracer.start_current`, by a tracer of any kind."""
    span = tracer.start_span(name, values, kind, attributes)
    if inside is None:
        inside = Context(values)
    _set_item(inside, SPAN_KEY, span)
    attach(inside)
    return span


def _make_ids() -> None:
    """A child that is forked while a span is current has it for a parent, too: under the same id."""
    span = current().get(SPAN_KEY)
    if span.__class__ is Span:
        span._context  # noqa: B018 - a property that makes it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_make_ids)


class CurrentSpan:
    """What `Tracer.start_as_current_span` returns: starts the span on entry, ends it on exit. As a decorator of a
    function or coroutine function, each call has a span of its own."""

    __slots__ = ("_arguments", "_end_on_exit", "_span", "_token", "_tracer")

    _token: Token[Context]
    _span: trace_api.Span | None

    def __init__(self, tracer: Tracer, arguments: tuple[Any, ...], end_on_exit: bool) -> None:
        self._tracer = tracer
        self._arguments = arguments
        self._end_on_exit = end_on_exit
        self._span = None

    def __enter__(self) -> trace_api.Span:
        if self._span is not None:
            raise RuntimeError("start_as_current_span() was entered twice; call it again for another span.")
        self._span = span = self._tracer.start_span(*self._arguments)
        now = Context(current())
        _set_item(now, SPAN_KEY, span)
        self._token = attach(now)
        return span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        detach(self._token)
        span = cast(trace_api.Span, self._span)
        try:
            # What is no Exception (GeneratorExit, KeyboardInterrupt) is no error of the span.
            if isinstance(error, Exception) and span.is_recording():
                self._note(span, error)
        finally:
            if self._end_on_exit:
                span.end()

    def _note(self, span: trace_api.Span, error: Exception) -> None:
        record, set_status = self._arguments[-2:]
        try:
            if record:
                span.record_exception(error)
            if set_status:
                span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        except Exception:
            guard.failed("tracing.record_exception")

    def _again(self) -> CurrentSpan:
        return CurrentSpan(self._tracer, self._arguments, self._end_on_exit)

    def __call__(self, function: F) -> F:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

            return cast(F, call_async)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return cast(F, call)


class Tracer(sdk.Tracer):
    """The SDK's tracer, but its spans are lean."""

    _shared: Shared
    _rules: sampling.Rules | None
    _rules_of: Sampler | None
    _quick: Shared | None
    """`_shared`, where a root is sampled and so is the child of a sampled span; None where that is to be found out."""

    @classmethod
    def of(cls, tracer: sdk.Tracer) -> Tracer:
        """The same tracer, made lean. What the SDK set up, and whoever holds it, stays."""
        lean = cast(Tracer, tracer)
        tracer.__class__ = cls
        lean._rules = lean._rules_of = None
        cls._share(lean)
        return lean

    def _share(self) -> None:
        self._shared = Shared(Processors.around(self.span_processor), self._span_limits, self)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name[:6] != "_rules":
            vars(self)["_quick"] = None

    def _may_be_quick(self) -> Shared | None:
        if type(self.id_generator) is not FastIdGenerator or not self._tracer_config.is_enabled:
            return None
        rules = sampling.rules(self.sampler)
        if rules is None or not rules.root == rules.local_on == sampling.SAMPLE or not self._shared.roomy:
            return None
        vars(self)["_quick"] = self._shared
        return self._shared

    def start_root(self, name: str, kind: SpanKind, attributes: Pending, start_time: int) -> trace_api.Span:
        """`start_span` in an empty context, for each request: what is left of its ids is made when somebody asks."""
        shared = self._quick or self._may_be_quick()
        if shared is None or not shared.processors.plain:
            return self.start_span(name, _EMPTY, kind, attributes, start_time=start_time)  # type: ignore[arg-type] # Pending is taken, too
        span: Span = _new(Span)
        span._name = name
        span._made = span._end_time = span._request_id = None
        span._above = getrandbits(128) or 1
        span._kind = kind
        span._shared = shared
        span._own = attributes
        span._start_time = start_time
        return span

    def start_current(
        self, name: str, values: Context, kind: SpanKind, attributes: Pending, inside: Context | None = None
    ) -> trace_api.Span:
        """A span below the current context, ``values``, that is itself current until `values` is attached again: for
        what is timed often; as `start_root`. ``inside``: a new context that is to be the current one."""
        above: Any = values.get(SPAN_KEY)
        if above.__class__ is Span:
            shared = self._quick or self._may_be_quick()
            made = above._made
            if shared is not None and shared.processors.plain and (made is None or made[3] & 1):
                span: Span = _new(Span)
                span._name = name
                span._made = span._end_time = None
                span._above = above
                span._kind = kind
                span._shared = shared
                span._own = attributes
                span._request_id = values.get(REQUEST_ID_KEY)
                span._start_time = time_ns()
                if inside is None:
                    inside = Context(values)
                _set_item(inside, SPAN_KEY, span)
                attach(inside)
                return span
        return start_current(self, name, values, kind, attributes, inside)  # type: ignore[arg-type] # Pending is taken, too

    def _set_resource(self, resource: Resource) -> None:
        super()._set_resource(resource)
        self._share()

    def start_as_current_span(  # type: ignore[override]
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: types.Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> CurrentSpan:
        return CurrentSpan(
            self,
            (name, context, kind, attributes, links, start_time, record_exception, set_status_on_exception),
            end_on_exit,
        )

    def start_span(  # noqa: PLR0912, PLR0915 - the API's signature; one function: a call costs as much as three of these branches
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: types.Attributes = None,
        links: Sequence[Link] | None = (),
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace_api.Span:
        if not self._tracer_config.is_enabled:
            return super().start_span(name, context, kind)
        values = current() if context is None else context
        above = values.get(SPAN_KEY)
        parent: SpanContext | None = None
        if above is not None:
            parent = above._context if type(above) is Span else _context_of(above)
            if parent is not None and not parent[5]:
                parent = None

        ids = self.id_generator
        if parent is None:
            if type(ids) is FastIdGenerator:
                trace_id = getrandbits(128) or ids.generate_trace_id()
                random_id = _RANDOM
            else:
                trace_id = ids.generate_trace_id()
                random_id = _RANDOM if ids.is_trace_id_random() else 0
        else:
            trace_id = parent[0]
            random_id = parent[3] & _RANDOM

        if self.sampler is not self._rules_of:
            self._rules, self._rules_of = sampling.rules(self.sampler), self.sampler
        rules = self._rules
        if rules is None:
            if isinstance(attributes, Pending):
                attributes = attributes.settled()
            decision, attributes, state = self._ask(context, trace_id, name, kind, attributes, links)
        else:
            state = DEFAULT_TRACE_STATE if parent is None else parent[4]
            decision = rules[0] if parent is None else rules[(1 if parent[2] else 3) + (parent[3] & 1)]
            if decision == 3:
                decision = 2 if trace_id & _RATIO_MASK < rules.bound else rules.otherwise

        span_id = (getrandbits(64) if type(ids) is FastIdGenerator else 0) or ids.generate_span_id()
        span_context = new_span_context(trace_id, span_id, _FLAGS[random_id | (decision == 2)], state)
        shared = self._shared
        processors = shared.processors
        if decision < 2 and (decision == 0 or not processors.watching_unsampled):
            return NonRecordingSpan(span_context)

        span: Span = _new(Span)
        span._name = name
        span._made = span_context
        span._above = parent
        span._kind = kind
        span._shared = shared
        span._end_time = span._request_id = None
        if not attributes:
            span._own = {}
        elif isinstance(attributes, Pending):
            if shared.roomy:
                span._own = attributes
            else:
                self._give(span, attributes.settled())
        else:
            self._give(span, attributes)
        if links:
            self._link(span, links)
        if not record_exception:
            span._record_exception = False
        if not set_status_on_exception:
            span._set_status_on_exception = False
        span._start_time = time_ns() if start_time is None else start_time
        if not processors.idle and (request_id := values.get(REQUEST_ID_KEY)) is not None:
            if span._own is attributes and type(request_id) is str:
                span._request_id = request_id
            else:
                span.set_attribute(ATTRIBUTE, cast(str, request_id))
        if processors.starting:
            processors.start(span, context)
        return span

    @staticmethod
    def _give(span: Span, attributes: Any) -> None:
        """Attributes given at the start: copied where they are plain and few, else the SDK's cleaning and limits."""
        shared = span._shared
        try:
            if (
                len(attributes) <= shared.max_attributes
                and PLAIN.issuperset(map(type, attributes.values()))
                and TEXT.issuperset(map(type, attributes))
                and "" not in attributes
                and (shared.limits.max_span_attribute_length is None)
            ):
                span._own = dict(attributes)
                return
        except Exception:
            pass  # no mapping: said below
        limits = shared.limits
        span._own = readable.bounded(attributes, limits.max_span_attributes, limits.max_span_attribute_length)

    @staticmethod
    def _link(span: Span, links: Sequence[Link]) -> None:
        try:
            span._links = span._new_links(links)
        except Exception:
            guard.dropped("span_link", 1, "links that cannot be cleaned")

    def _ask(
        self,
        context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind,
        attributes: types.Attributes,
        links: Sequence[Link] | None,
    ) -> tuple[int, Any, Any]:
        """What a sampler without rules decides; one that fails drops."""
        try:
            result = self.sampler.should_sample(context, trace_id, name, kind, attributes, links or ())
        except Exception:
            guard.failed("sampler.should_sample")
            return sampling.DROP, None, DEFAULT_TRACE_STATE
        decision = result.decision
        state = result.trace_state
        return (
            sampling.SAMPLE if decision is Decision.RECORD_AND_SAMPLE else int(decision is Decision.RECORD_ONLY),
            result.attributes,
            DEFAULT_TRACE_STATE if state is None else state,
        )


def _context_of(above: object) -> SpanContext | None:
    """The span context of what stands in the context, which need not be a span of ours, or a span."""
    if not isinstance(above, trace_api.Span):
        above = INVALID_SPAN
    found = above.get_span_context()
    if found is not None and not isinstance(found, SpanContext):
        raise TypeError("parent_span_context must be a SpanContext or None.")
    return found


class TracerProvider(sdk.TracerProvider):
    """The SDK's provider with lean spans, ids that a seeded `random` does not repeat, and `MeasureAll`."""

    def __init__(
        self,
        sampler: Sampler | None = None,
        resource: Resource | None = None,
        shutdown_on_exit: bool = True,
        active_span_processor: Any = None,
        id_generator: IdGenerator | None = None,
        span_limits: SpanLimits | None = None,
        *,
        meter_provider: MeterProvider | None = None,
        **private: Any,
    ) -> None:
        super().__init__(
            sampler or sampling.from_environment(),
            resource,
            shutdown_on_exit,
            active_span_processor or Processors(),
            id_generator or FastIdGenerator(),
            span_limits,
            meter_provider=meter_provider,
            **private,
        )
        self._renewed: tuple[SpanProcessor, ...] = ()
        gone = _sdk_private.missing()
        self._lean = not gone
        if gone:
            guard.warn_once(
                "tracing.lean", "Spans are the SDK's own, which cost more: this SDK has no %s", ", ".join(gone)
            )

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: types.Attributes = None,
    ) -> trace_api.Tracer:
        tracer = super().get_tracer(instrumenting_module_name, instrumenting_library_version, schema_url, attributes)
        if self._lean and type(tracer) is sdk.Tracer and not _sdk_private.counts_spans(tracer):
            return Tracer.of(tracer)
        return tracer

    def after_fork(self) -> None:
        """Free of the locks that other threads of the parent held. The SDK does so too, but later."""
        self._tracers_lock = threading.Lock()
        self._active_span_processor._lock = threading.Lock()

    def number(self, ids: IdGenerator) -> IdGenerator:
        """Let these ids be given from now on; returns who gave them before."""
        with self._tracers_lock:
            before: IdGenerator = self.id_generator
            self.id_generator = ids  # type: ignore[assignment] # the SDK infers the class of its default
            for tracer in self._tracers.values():
                tracer.id_generator = ids
        return before

    def renew(self, resource: Resource, processors: Sequence[SpanProcessor]) -> None:
        """Give this process its own resource and processors, in the place of those of an earlier call (which, after
        a fork, are the parent's and must not be shut down). Processors that others added stay."""
        new = tuple(processors)
        active = self._active_span_processor
        if isinstance(active, Processors):
            active.replace(self._renewed, new)
        else:
            for processor in new:
                active.add_span_processor(processor)
        self._renewed = new
        with self._tracers_lock:
            self._resource = resource
            for tracer in self._tracers.values():
                tracer._set_resource(resource)
