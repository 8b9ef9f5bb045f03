"""A span that costs little, and the list of those who want to see it.

`Span` is the SDK's Span to whoever asks or reads, but it takes no lock, keeps its attributes in a plain dictionary
(or leaves them `Pending`) and is made into a `ReadableSpan` only after its end, once, and only when a processor looks
at it. What goes over a limit or needs cleaning is handed to the SDK's `BoundedAttributes` at once, so that warnings,
order and counts are the SDK's.

Threads: each call is safe under the GIL. The one thing a lock would add: of two attributes set at the same instant
by two threads on one span, one of which is invalid or over the limit, the other may be lost.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from operator import attrgetter
from time import time_ns
from types import MappingProxyType
from typing import Any, cast

from opentelemetry import trace as trace_api
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import EventBase, ReadableSpan, SpanLimits, SpanProcessor
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import DEFAULT_TRACE_STATE
from opentelemetry.util import types

from c2c_otel import readable
from c2c_otel._sdk_private import new_span_context
from c2c_otel.ids import new_span_id
from c2c_otel.pending import Pending
from c2c_otel.request_id import ATTRIBUTE
from c2c_otel_exporters import guard

__all__ = ["PLAIN", "TEXT", "Processors", "Shared", "Span"]

_logger = logging.getLogger(sdk.__name__)  # the SDK's own: whoever filters its warnings filters ours

PLAIN = frozenset((str, int, float, bool, bytes, type(None)))
"""Types of attribute values that the SDK keeps as they are."""
TEXT = frozenset((str,))

_ROOM = 64
"""Attributes that no instrumentor of ours gives to one span."""

SAMPLED_ROOT = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
"""Flags of a root whose trace id is random, as those of `c2c_otel.ids` are."""

_UNSET = Status(StatusCode.UNSET)
_new = object.__new__


class Processors(sdk.SynchronousMultiSpanProcessor):
    """The processors of a provider, and which of their hooks do anything.

    A failure of one is told to the guard and stops neither the application nor the others.
    """

    starting: tuple[SpanProcessor, ...] = ()
    """Those with an `on_start`."""
    ending: tuple[SpanProcessor, ...] = ()
    """Those with an `_on_ending`."""
    sampled: tuple[SpanProcessor, ...] = ()
    """Those with an `on_end`."""
    unsampled: tuple[SpanProcessor, ...] = ()
    """Those whose `on_end` does not pass over an unsampled span, as the SDK's batch and simple ones do."""
    watching_unsampled = False
    """Whether anybody would see something of an unsampled span."""
    idle = True
    """Whether nobody does anything at the end of any span."""
    plain = True
    """Whether nobody does anything at the start of a span."""
    batch: Any = None
    """The batch processor of ours (`c2c_otel.batch`) that takes ended spans as they are, if it is all there is."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # the SDK's has no annotations

    @classmethod
    def around(cls, processor: Any) -> Processors:
        """Itself if it is one of ours, else one with that processor alone (the SDK's concurrent one, say)."""
        if isinstance(processor, cls):
            return processor
        processors = cls()
        processors.add_span_processor(processor)
        return processors

    @property  # the base has an attribute: who assigns to it must reach the setter
    def _span_processors(self) -> tuple[SpanProcessor, ...]:
        return self._all

    @_span_processors.setter
    def _span_processors(self, processors: tuple[SpanProcessor, ...]) -> None:
        self._all = processors
        self.starting = tuple(p for p in processors if _acts(p, "on_start"))
        self.ending = tuple(p for p in processors if _acts(p, "_on_ending"))
        self.sampled = tuple(p for p in processors if _acts(p, "on_end"))
        self.unsampled = tuple(p for p in self.sampled if not _skips_unsampled(p))
        self.idle = not (self.ending or self.sampled)
        self.plain = not self.starting
        alone = self.sampled[0] if len(self.sampled) == 1 and not self.ending else None
        takes = alone is not None and hasattr(alone, "take") and _skips_unsampled(alone)
        self.batch = alone if takes else None
        self.watching_unsampled = bool(self.starting or self.ending or self.unsampled)

    def replace(self, old: tuple[SpanProcessor, ...], new: tuple[SpanProcessor, ...]) -> None:
        """Take some out (without shutting them down) and put others in, at the end."""
        with self._lock:
            self._span_processors = (*(p for p in self._all if p not in old), *new)

    def start(self, span: Span, parent_context: Context | None) -> None:
        for processor in self.starting:
            try:
                processor.on_start(span, parent_context=parent_context)
            except Exception:
                guard.failed("span_processor.on_start")

    def finish(self, span: Span) -> None:
        """Tell everybody who wants to know; `span` is made readable if there is one."""
        for processor in self.ending:
            try:
                processor._on_ending(span)
            except Exception:
                guard.failed("span_processor.on_ending")
        receivers = self.sampled if span.is_sampled() else self.unsampled
        if not receivers:
            return
        try:
            ended = span._readable_span()
        except Exception:
            guard.failed("span.readable")
            return
        for processor in receivers:
            try:
                processor.on_end(ended)
            except Exception:
                guard.failed("span_processor.on_end")


def _exporting_processors() -> tuple[type[SpanProcessor], ...]:
    # Not imported here: where nothing is exported, nothing has imported it.
    export = sys.modules.get("opentelemetry.sdk.trace.export")
    return (export.BatchSpanProcessor, export.SimpleSpanProcessor) if export else ()


def _method(processor: SpanProcessor, hook: str) -> object:
    """The function behind a hook; an object of its own where the instance has it, or is a stand-in."""
    bound = getattr(processor, hook, None)
    return getattr(bound, "__func__", bound)


def _acts(processor: SpanProcessor, hook: str) -> bool:
    idle = [getattr(SpanProcessor, hook)]
    if hook != "on_end":
        idle += [getattr(known, hook) for known in _exporting_processors()]
    found = _method(processor, hook)
    return found is not None and not any(found is one for one in idle)


def _skips_unsampled(processor: SpanProcessor) -> bool:
    found = _method(processor, "on_end")
    return any(found is getattr(known, "on_end") for known in _exporting_processors())  # noqa: B009 - a hook by its name, as in _acts


class Shared:
    """What all spans of a tracer have in common. Replaced when the resource changes, so that a span keeps its own."""

    __slots__ = (
        "info",
        "limits",
        "max_attributes",
        "max_length",
        "processors",
        "resource",
        "roomy",
        "sampler",
        "scope",
    )

    def __init__(self, processors: Processors, limits: SpanLimits, tracer: Any) -> None:
        self.processors = processors
        self.limits = limits
        self.resource: Resource = tracer.resource
        self.sampler = tracer.sampler
        self.scope = tracer._instrumentation_scope
        self.info = tracer.instrumentation_info
        limit = limits.max_span_attributes
        self.max_attributes = sys.maxsize if limit is None else limit
        length = limits.max_span_attribute_length
        self.max_length = sys.maxsize if length is None else length
        self.roomy = self.max_length == sys.maxsize and self.max_attributes >= _ROOM
        """Whether what our instrumentors give is within the limits, whatever it is."""


def _of(name: str) -> Any:
    return property(attrgetter(name))


def _ended(what: str) -> None:
    _logger.warning("Tried calling %s on an ended span.", what)


class Span(sdk.Span):
    """Made by `c2c_otel.tracing.Tracer` alone, which fills the slots itself."""

    __slots__ = (*("_above", "_end_time", "_kind", "_made", "_name", "_own", "_request_id", "_shared", "_start_time"),)

    _above: Any
    """The parent's context; None for a root. Where `_made` is still to be made: the parent, or a root's trace id."""
    _made: SpanContext | None
    """The span's own context; None until somebody asks for it, of a span that is sampled for sure."""
    _own: Any
    """Attributes: a dictionary, the SDK's `BoundedAttributes`, or `Pending`; read-only after the end."""
    _request_id: Any
    """One more attribute, as long as they are `Pending`, if it is text."""

    # In the instance dictionary, which is only made for a span that has one of these.
    _events: Any = ()
    _links: Any = ()
    _status: Status = _UNSET
    _record_exception: bool = True
    _set_status_on_exception: bool = True
    _readable: ReadableSpan | None = None
    _shared: Shared

    # Where the SDK's methods, and those who look behind them, expect them.
    _resource = _of("_shared.resource")
    _limits = _of("_shared.limits")
    _instrumentation_scope = _of("_shared.scope")
    _instrumentation_info = _of("_shared.info")
    _span_processor = _of("_shared.processors")
    _sampler = _of("_shared.sampler")
    _trace_config = None
    _record_end_metrics = None

    def __new__(cls, *args: object, **kwargs: object) -> Span:
        raise TypeError("Span must be instantiated via a tracer.")

    @property
    def _lock(self) -> Any:  # type: ignore[override] # nothing here takes it; for code that reaches into SDK spans
        return vars(self).setdefault("_own_lock", threading.Lock())

    # -- identity ---------------------------------------------------------------------------------------------

    @property
    def _context(self) -> SpanContext:  # type: ignore[override] # the SDK's is set once
        made = self._made
        if made is None:
            above = self._above
            if above.__class__ is int:
                made = new_span_context(above, new_span_id(), SAMPLED_ROOT, DEFAULT_TRACE_STATE)
            else:
                parent: SpanContext = above._context
                made = new_span_context(parent[0], new_span_id(), parent[3], parent[4])
            # No call stands between this look and the assignment: of two threads, both get the same.
            if self._made is None:
                self._made = made
            else:
                made = self._made
        return made

    @property
    def _parent(self) -> SpanContext | None:  # type: ignore[override] # likewise
        above = self._above
        if above.__class__ is Span:
            return above._context
        return None if above.__class__ is int else above

    # -- attributes -------------------------------------------------------------------------------------------

    @property
    def _attributes(self) -> Any:
        own = self._own
        return self._settle() if isinstance(own, Pending) else own

    @_attributes.setter
    def _attributes(self, attributes: Any) -> None:
        self._own = attributes

    def _settle(self) -> Any:
        """Put pending attributes together. Of two threads that do so at once, both get the same."""
        own = self._own
        if isinstance(own, Pending):
            try:
                made = own.settled()
            except Exception as error:  # whoever asks, it is not their fault: the application, or an exporter's thread
                guard.dropped("span_attribute", 1, f"attributes of a span that cannot be put together: {error!r}")
                made = {}
            if type(self._request_id) is str:
                made[ATTRIBUTE] = self._request_id
            settled = made if self._end_time is None else MappingProxyType(made)
            # No call stands between this look and the assignment.
            if self._own is own:
                self._own = settled
            own = self._own
        return own

    def set_attribute(self, key: str, value: types.AnyValue) -> None:
        if self._end_time is not None:
            _logger.warning("Setting attribute on ended span.")
            return
        attributes = self._own
        if isinstance(attributes, Pending):
            attributes = self._settle()
        kind = type(value)
        if (
            type(attributes) is dict
            and kind in PLAIN
            and type(key) is str
            and key
            and len(attributes) < self._shared.max_attributes
            and (kind is not str or len(value) <= self._shared.max_length)  # type: ignore[arg-type] # `kind` says it is text
        ):
            if key in attributes:  # the last one set is the last one exported
                attributes.pop(key, None)
            attributes[key] = value
        else:
            self._set_carefully(key, value)

    def _set_carefully(self, key: str, value: Any) -> None:
        """What needs cleaning, truncating, counting or dropping."""
        try:
            attributes = self._bounded_attributes()
            attributes[key] = value
        except Exception:
            guard.dropped("span_attribute", 1, f"{key!r} ({type(value).__name__}), which cannot be cleaned")

    def _bounded_attributes(self) -> BoundedAttributes:
        attributes = self._attributes
        if type(attributes) is dict:
            limits = self._shared.limits
            self._attributes = attributes = readable.bounded(
                attributes, limits.max_span_attributes, limits.max_span_attribute_length
            )
        return cast(BoundedAttributes, attributes)

    def set_attributes(self, attributes: Mapping[str, types.AnyValue]) -> None:
        if self._end_time is not None:
            _logger.warning("Setting attribute on ended span.")
            return
        try:
            simple = PLAIN.issuperset(map(type, attributes.values())) and TEXT.issuperset(map(type, attributes))
        except Exception:
            simple = False
        if simple:
            self._set_plain(dict(attributes))
            return
        self._bounded_attributes()
        try:
            super().set_attributes(attributes)
        except Exception:
            for key, value in readable.pairs(attributes):
                self._set_carefully(key, value)

    def _set_plain(self, new: dict[str, Any]) -> None:
        """Text for keys, and values of `PLAIN`: at once where nothing is there yet, counted or cut."""
        old = self._attributes
        shared = self._shared
        if (
            type(old) is dict
            and len(old) + len(new) <= shared.max_attributes
            and shared.max_length == sys.maxsize
            and old.keys().isdisjoint(new)
            and "" not in new
        ):
            old.update(new)
            return
        for key, value in new.items():
            self.set_attribute(key, value)

    # -- events, links, name, status --------------------------------------------------------------------------

    def add_event(self, name: str, attributes: types.Attributes = None, timestamp: int | None = None) -> None:
        try:
            super().add_event(name, attributes, timestamp)
        except Exception:
            super().add_event(name, readable.bounded(attributes, None, None), timestamp)

    def _add_event(self, event: EventBase) -> None:
        if self._end_time is not None:
            return _ended("_add_event")
        if not self._events:
            vars(self).setdefault("_events", BoundedList(self._shared.limits.max_events))
        self._events.append(event)
        return None

    def record_exception(
        self,
        exception: BaseException,
        attributes: types.Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """As the SDK's; of an exception that fails to say what it is, at least the type."""
        try:
            super().record_exception(exception, attributes, timestamp, escaped)
        except Exception:
            kind = type(exception)
            found = {"exception.type": f"{kind.__module__}.{kind.__qualname__}", "exception.escaped": str(escaped)}
            self.add_event("exception", found | dict(attributes or {}), timestamp)

    def add_link(self, context: trace_api.SpanContext, attributes: types.Attributes = None) -> None:
        try:
            super().add_link(context, attributes)
        except Exception:
            super().add_link(context, readable.bounded(attributes, None, None))

    def _add_link(self, link: Link) -> None:
        if self._end_time is not None:
            return _ended("_add_link")
        if not self._links:
            vars(self).setdefault("_links", BoundedList(self._shared.limits.max_links))
        self._links.append(link)
        return None

    def update_name(self, name: str) -> None:
        if self._end_time is not None:
            return _ended("update_name")
        self._name = name
        return None

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        if self._end_time is not None:
            return _ended("set_status")
        if isinstance(status, Status):
            code = status.status_code
        elif isinstance(status, StatusCode):
            code = status
        else:
            return None
        if self._status.status_code is StatusCode.OK or code is StatusCode.UNSET:
            return None  # OK is final, and nothing goes back to unset
        if code is status:
            self._status = Status(code, description)
            return None
        if description is not None:
            _logger.warning("Description %s ignored. Use either `Status` or `(StatusCode, Description)`", description)
        self._status = cast(Status, status)
        return None

    # -- life -------------------------------------------------------------------------------------------------

    def is_recording(self) -> bool:
        return self._end_time is None

    def is_sampled(self) -> bool:
        """Whether exporters will see it."""
        made = self._made
        return made is None or bool(made[3] & 1)

    def start(self, start_time: int | None = None, parent_context: Context | None = None) -> None:
        _logger.warning("Calling start() on a started span.")

    def end(self, end_time: int | None = None) -> None:
        # What it does is written once more where most spans end: `instrumentation.client.finish`.
        if end_time is None:
            end_time = time_ns()
        # No call stands between this look and the assignment, so no other thread gets in between.
        if self._end_time is not None:
            _logger.warning("Calling end() on an ended span.")
            return
        self._end_time = end_time
        processors = self._shared.processors
        batch = processors.batch
        if batch is not None:
            if self._made is None and len(batch.queue) < batch.few:
                batch.queue.appendleft(self)  # what `take` does
            else:
                batch.take(self)
        elif not processors.idle:
            processors.finish(self)

    def _readable_span(self) -> ReadableSpan:
        """What a processor gets: a snapshot of a living span, the one and only of an ended one."""
        made = self._readable
        if made is not None:
            return made
        own = self._own
        simple = type(own) is dict or isinstance(own, Pending)
        if self._end_time is None or not simple or self._events or self._links:
            made = _new(ReadableSpan)
            self._describe(made)
        else:
            if type(own) is dict:
                self._own = MappingProxyType(own)  # who reaches behind the API cannot change it either
            made = readable.Ended(self)
        if self._end_time is not None:
            self._readable = made
        return made

    def _describe(self, made: ReadableSpan) -> None:
        """Fill in what can be exported of this span."""
        shared = self._shared
        name = self._name
        status = self._status
        events, links = self._events, self._links
        attributes = self._attributes
        if type(attributes) is MappingProxyType:
            attributes = attributes.copy()  # in one step, whatever another thread still does
        ReadableSpan.__init__(
            made,
            name if type(name) is str and name.isascii() else readable.exportable_text(name),
            self._context,
            self._parent,
            shared.resource,
            readable.exportable_attributes(attributes),
            events and self._mended(events, readable.exportable_events(events)),
            links and self._mended(links, readable.exportable_links(links)),
            readable.exportable_kind(self._kind),
            shared.info,
            status if status is _UNSET else readable.exportable_status(status),
            readable.exportable_time(self._start_time),
            self._end_time if self._end_time is None else readable.exportable_time(self._end_time),
            shared.scope,
        )

    @staticmethod
    def _mended(before: Any, after: list[Any] | None) -> Any:
        if after is None:
            return before
        again = BoundedList.from_seq(None, after)
        again.dropped = getattr(before, "dropped", 0)
        return again
