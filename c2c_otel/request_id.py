"""The request id: accepted from a header or made from the trace id, and sent with every outgoing call.

Accepted is the first of the configured header (C2C_REQUEST_ID_HEADER), X-Request-ID, X-Correlation-ID, Request-ID,
X-Varnish and X-Amzn-Trace-Id whose value, stripped, has 1 to 128 printable ASCII characters (space, ``=`` and ``;``
among them); one that has not counts as absent. Without any, the id is the trace id in 8-4-4-4-12 hex, so that a log
line, a trace and a SQL session are found by one id. (It is not shaped into a version 4 UUID: ratio sampling reads
the trace id's bits.)

`RequestIdPropagator` is an OpenTelemetry propagator (entry point ``c2c_request_id``) and works with any SDK. A WSGI
server has the shorter ways: `from_environ` and `remote_context`, a few dictionary look-ups each.
"""

from __future__ import annotations

import logging
import string
import struct
from binascii import hexlify
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, cast

from opentelemetry import context as context_api
from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator, default_getter, default_setter
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.trace import get_current_span

from c2c_otel_exporters import guard

__all__ = [
    "ATTRIBUTE",
    "HEADER",
    "HEADERS",
    "NOBODY",
    "REQUEST_ID_KEY",
    "Headers",
    "RequestIdPropagator",
    "RequestIdSpanProcessor",
    "accepted",
    "brings_nothing",
    "configure",
    "from_environ",
    "from_trace_id",
    "get",
    "install",
    "remote_context",
    "sent",
    "set_in",
]

C = TypeVar("C")
_default_getter: Any = default_getter
_default_setter: Any = default_setter

REQUEST_ID_KEY = context_api.create_key("c2c-otel-request-id")
"""Of the request id in an OpenTelemetry context."""

ATTRIBUTE = "c2c.request_id"
"""Of every span that starts in a context with a request id."""

HEADER = "X-Request-ID"
"""The one that is sent."""

HEADERS = (HEADER, "X-Correlation-ID", "Request-ID", "X-Varnish", "X-Amzn-Trace-Id")
"""Those that are accepted, in this order."""

_MAX_LENGTH = 128
_MAX_HEADER_LENGTH = 8192
_TOKEN = frozenset(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~")  # RFC 9110, section 5.6.2


def accepted(value: object) -> str | None:
    """The request id a header's value stands for, or None if it stands for none."""
    if type(value) is not str:
        return None
    value = value.strip(" \t")
    if 0 < len(value) <= _MAX_LENGTH and value.isascii() and value.isprintable():
        return value
    return None


def _environ_key(header: str) -> str:
    return "HTTP_" + header.upper().replace("-", "_")


class Headers:
    """Which headers bring an id, and which take it along: one object per configuration."""

    __slots__ = ("environ_keys", "received", "sent", "sent_lower")

    def __init__(self, header: str | None = None) -> None:
        """`header`: the one more, tried first and also sent. ValueError for what is no header name."""
        if header is not None and (not header or not _TOKEN.issuperset(header)):
            raise ValueError(f"{header!r} is no HTTP header name")
        known = header is None or header.lower() == HEADER.lower()
        self.sent = (HEADER,) if known else (HEADER, cast(str, header))
        self.sent_lower = tuple((name, name.lower()) for name in self.sent)
        first = () if header is None else (header,)
        others = (name for name in HEADERS if header is None or name.lower() != header.lower())
        self.received = (*first, *others)
        self.environ_keys = tuple(map(_environ_key, self.received))


_headers = Headers()


class _OneWarning(logging.Filter):
    """For the baggage propagator, which has a warning for each entry that it does not take: more than a thousand
    lines for one header, as often as a client likes. Counted, and the first is said."""

    def filter(self, record: logging.LogRecord) -> bool:
        guard.dropped("baggage", 1, f"entries of a caller's baggage: {record.getMessage()}")
        return False


_one_warning = _OneWarning()


def configure(header: str | None = None) -> None:
    """Accept and send one more header from now on; without one, none (the reset)."""
    global _headers
    _headers = Headers(header)


def sent() -> tuple[tuple[str, str], ...]:
    """The headers that take the id along, each with its name in lower case."""
    return _headers.sent_lower


def install(header: str | None = None) -> None:
    """`configure`, and let the request id travel with the global propagator. Idempotent."""
    configure(header)
    logging.getLogger("opentelemetry.baggage.propagation").addFilter(_one_warning)
    textmap = propagate.get_global_textmap()
    if HEADER not in textmap.fields:
        propagate.set_global_textmap(CompositePropagator([textmap, RequestIdPropagator()]))


_groups = struct.Struct("8s4s4s4s12s").unpack
_dashed = b"-".join


def from_trace_id(trace_id: int) -> str:
    """The trace id as 8-4-4-4-12 hex digits.

    >>> from_trace_id(0x4BF92F3577B34DA6A3CE929D0E0E4736)
    '4bf92f35-77b3-4da6-a3ce-929d0e0e4736'
    """
    return _dashed(_groups(hexlify(trace_id.to_bytes(16, "big")))).decode()


def get(context: Context | None = None) -> str | None:
    """The request id of a context (the current one), else that of its span's trace, else None."""
    values = context_api.get_current() if context is None else context
    found = values.get(REQUEST_ID_KEY)
    if found is not None:
        return cast(str, found)
    span_context = get_current_span(values).get_span_context()
    return from_trace_id(span_context.trace_id) if span_context.is_valid else None


def set_in(context: Context, request_id: str) -> Context:
    """A new context with that request id."""
    return context_api.set_value(REQUEST_ID_KEY, request_id, context)


def from_environ(environ: Mapping[str, Any]) -> str | None:
    """The request id that a WSGI request brings, or None."""
    for key in _headers.environ_keys:
        if key in environ and (found := accepted(environ[key])) is not None:
            return found
    return None


class RequestIdPropagator(TextMapPropagator):
    """Takes the request id from a carrier's headers into the context, and from there to outgoing calls.

    Without `header`, that of `configure` counts, so that the entry point needs no arguments.
    """

    def __init__(self, header: str | None = None) -> None:
        self._own = None if header is None else Headers(header)

    @property
    def _configured(self) -> Headers:
        return self._own or _headers

    def extract(self, carrier: C, context: Context | None = None, getter: Getter[C] = _default_getter) -> Context:
        """`context` (the empty one, if none is given) with the request id, if the carrier has a valid one."""
        context = Context() if context is None else context
        for name in self._configured.received:
            # The default getter takes a dictionary at its word; servers that lower names are common.
            for value in getter.get(carrier, name) or getter.get(carrier, name.lower()) or ():
                found = accepted(value)
                if found is not None:
                    return set_in(context, found)
        return context

    def inject(self, carrier: C, context: Context | None = None, setter: Setter[C] = _default_setter) -> None:
        """Put the request id (or that of the current trace) into the headers the carrier has not already."""
        request_id = get(context)
        if request_id is None:
            return
        present = _lower_names(carrier)
        for name in self._configured.sent:
            if name.lower() not in present:
                setter.set(carrier, name, request_id)

    @property
    def fields(self) -> set[str]:
        return set(self._configured.sent)


def _lower_names(carrier: object) -> set[str]:
    names = carrier if isinstance(carrier, Mapping) else ()
    return {name.lower() for name in names if isinstance(name, str)}


class RequestIdSpanProcessor(SpanProcessor):
    """Gives each span the request id of its context, with any SDK's provider; `c2c_otel.tracing` does so itself."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        values = context_api.get_current() if parent_context is None else parent_context
        found = values.get(REQUEST_ID_KEY)
        if found is not None:
            span.set_attribute(ATTRIBUTE, cast(str, found))


class _EnvironGetter(Getter[Mapping[str, Any]]):
    """Headers by their names in a WSGI environ."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(_environ_key(key))
        return None if value is None else [value]

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        return [key[5:].lower().replace("_", "-") for key in carrier if key.startswith("HTTP_")]


_getter = _EnvironGetter()


class _Inbound(NamedTuple):
    """The environ keys of which one must be present for the global propagator to find anything, and those with the
    ones of the request id."""

    textmap: TextMapPropagator | None
    keys: tuple[str, ...]
    headers: Headers
    every: frozenset[str]

    @classmethod
    def of(cls, textmap: TextMapPropagator) -> _Inbound:
        own = set(map(_environ_key, (HEADER, *_headers.sent)))
        fields: Iterable[str] = textmap.fields
        keys = tuple(sorted(set(map(_environ_key, fields)) - own))
        return cls(textmap, keys, _headers, frozenset((*keys, *_headers.environ_keys)))


_inbound = _Inbound(None, (), _headers, frozenset())
NOBODY = Context()
"""Of a request that brings nothing."""


def brings_nothing(environ: Mapping[str, Any]) -> bool:
    """Whether a WSGI request has none of the headers that `remote_context` reads."""
    global _inbound
    inbound = _inbound
    textmap = propagate.get_global_textmap()
    if textmap is not inbound.textmap or _headers is not inbound.headers:
        inbound = _inbound = _Inbound.of(textmap)
    return environ.keys().isdisjoint(inbound.every)


def remote_context(environ: Mapping[str, Any], trace_context: Literal["accept", "ignore"] | str) -> Context:
    """The context in which a WSGI request starts: what its headers say, and nothing of what the thread had before.

    It has the trace and the baggage of the caller, as the global propagator reads them (with "ignore": neither, for
    a public edge), and under `REQUEST_ID_KEY` the accepted request id, if there is one. A malformed header, or one
    of the propagator's that is longer than 8 KiB, makes a fresh trace; nothing is raised.
    """
    if brings_nothing(environ):
        return NOBODY
    context = NOBODY
    keys = _inbound.keys
    if trace_context != "ignore" and not environ.keys().isdisjoint(keys):
        context = _extracted(propagate.get_global_textmap(), environ, keys)
    request_id = from_environ(environ)
    return context if request_id is None else set_in(context, request_id)


def _extracted(textmap: TextMapPropagator, environ: Mapping[str, Any], keys: tuple[str, ...]) -> Context:
    try:
        if any(len(environ.get(key, "")) > _MAX_HEADER_LENGTH for key in keys):
            guard.dropped("trace_context", 1, f"trace headers of a request, longer than {_MAX_HEADER_LENGTH} bytes")
            return Context()
        return textmap.extract(environ, Context(), getter=_getter)
    except Exception as error:  # whatever a header made a propagator do is the caller's fault, not ours
        guard.dropped("trace_context", 1, f"trace headers of a request, which are malformed: {error!r}")
        return Context()
