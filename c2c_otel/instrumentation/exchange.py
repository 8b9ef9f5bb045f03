"""One WSGI request from its arrival to the closing of its body: its span, its measurements, its context.

Life of an `Exchange`: `begin` attaches its context to the thread; `start_response` is what the application calls;
`answered` or `raised` when the application is done; `finish` when the body is closed. Whatever happens, `finish`
ends the span, measures the route once and takes the context away, and only the first call counts.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from random import getrandbits
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.instrumentation.propagators import Setter, get_global_response_propagator
from opentelemetry.trace import SpanKind, Status, StatusCode
from pyramid.httpexceptions import HTTPException

from c2c_otel import request_id, telemetry
from c2c_otel._sdk_private import SPAN_KEY, attach, current
from c2c_otel.current_request import KEY, CurrentRequest
from c2c_otel.instrumentation import wsgi_attributes
from c2c_otel.instrumentation.endings import Ending, Place, place_of, route_of
from c2c_otel.instrumentation.wsgi_attributes import METHODS, Arrival
from c2c_otel.pyramid_logging import note_request
from c2c_otel.tracing import Span as LeanSpan
from c2c_otel.tracing import Tracer as LeanTracer
from c2c_otel.unstarted import UnstartedSink
from c2c_otel_exporters import guard, masking

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from c2c_otel.instrumentation.wsgi_attributes import CapturedHeaders

__all__ = ["ENVIRON_ID", "TRACER", "Exchange", "begin", "error_type", "route_of"]

TRACER = "c2c_otel.pyramid"
"""The instrumentation scope of the spans."""

ENVIRON_ID = "c2c_otel.request_id"
"""The WSGI environ's key for the request id, which outlives the context and travels with copies of a request."""

REQUEST_ID_KEY = request_id.REQUEST_ID_KEY

Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
Headers = list[tuple[str, str]]

_new = object.__new__
process = telemetry.get()


class _Setter(Setter):
    """For a response propagator: one more header."""

    def set(self, carrier: Headers, key: str, value: str) -> None:
        carrier.append((key, value))


_setter: Any = _Setter()


class Exchange(CurrentRequest):
    """``running``: the application's code is being called. ``in_request``: Pyramid is handling the main request or has
    answered it, so that what it handles now is a subrequest. ``rendering``: a renderer is being called."""

    __slots__ = (
        "_base",
        "_begun",
        "_captured",
        "_context",
        "_method",
        "_place",
        "_recorded",
        "_scheme",
        "_start_response",
        "finished",
        "in_request",
        "rendering",
        "running",
        "tracer",
    )

    finished: bool
    in_request: bool
    rendering: bool
    running: bool
    tracer: Any
    """Whose spans the request's own are."""

    _base: Context
    _begun: int
    _captured: CapturedHeaders | None
    _context: Context | None
    """It refers to this object: a cycle, until the end."""
    _method: str
    _place: Place | None
    """Of the route, from the start of the answer on."""
    _recorded: BaseException | None
    _scheme: str
    _start_response: StartResponse

    # -- what others read ---------------------------------------------------------------------------------------

    @property
    def route_name(self) -> str | None:
        """Of the matched route; known from the match on, and nothing has to be told."""
        return (self._place or place_of(self.request)).name

    @route_name.setter
    def route_name(self, value: str | None) -> None:
        if value is not None:
            self._place = Place(value, self.route_pattern or "")

    @property
    def route_pattern(self) -> str | None:
        """Of the matched route, with its leading slash."""
        return (self._place or place_of(self.request)).pattern

    @route_pattern.setter
    def route_pattern(self, value: str | None) -> None:
        if value is not None:
            self._place = Place(self.route_name or "", value)

    # -- the context ----------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Take our context from this thread, if it is there: another thread's is taken by that thread."""
        if current().get(KEY) is self:
            attach(self._base)

    def resume(self) -> Context | None:
        """Application code is called again (a step of the body). Returns what to give to `pause`."""
        now = current()
        if now.get(KEY) is self:
            self.running = True
            return None
        context = self._context
        if context is None:
            return None
        self.running = True
        attach(context)
        return now

    def pause(self, previous: Context | None) -> None:
        """The step is over: the thread gets back what it had."""
        self.running = False
        if previous is not None:
            attach(previous)

    # -- the answer -----------------------------------------------------------------------------------------------

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:
        """The application's start_response: adds our headers and passes on to the server's."""
        before = self.status
        try:
            try:
                self.status = int(status[:3])
            except ValueError:  # what the server makes of such a status is not known
                self.status = None
            for name, _ in headers:
                if len(name) == 12 and name.lower() == "x-request-id":
                    sent = headers.copy()  # the application may give the same list with every response
                    break
            else:
                sent = [*headers, ("X-Request-ID", self.request_id)]
            # Server-Timing: route;desc=NAME, route;dur=MS, render;dur=MS: whole milliseconds up to now
            place = self._place
            if place is None:
                place = self._place = place_of(self.request)
            timing = f"{place.timing}{(perf_counter_ns() - self._begun + 500_000) // 1_000_000}"
            if self.render_ns >= 0:
                timing += f", render;dur={(self.render_ns + 500_000) // 1_000_000}"
            sent.append(("Server-Timing", timing))
            said, headers = headers, sent
            propagator = get_global_response_propagator()  # type: ignore[no-untyped-call] # OpenTelemetry gives it no types
            if propagator is not None:
                propagator.inject(sent, setter=_setter)
            if self._captured:
                self.span.set_attributes(self._captured.of_response(said))
        except Exception:
            guard.failed("pyramid.start_response")
        if exc_info is None:
            return self._start_response(status, headers)
        try:
            return self._start_response(status, headers, exc_info)
        except BaseException:
            self.status = before  # the headers are out already: the client has seen the first status
            raise

    def answered(self) -> None:
        """The application has returned its body."""
        self.running = False
        self.in_request = True
        try:
            handled = getattr(self.request, "exception", None)
            if handled is not None:
                self._record(handled)
        except Exception:
            guard.failed("pyramid.answered")

    def raised(self, error: BaseException) -> None:
        """The application has raised: the server will answer, and there is no body that could be closed."""
        self.running = False
        self.status = error.status_int if isinstance(error, HTTPException) else 500
        self.broken(error)
        self.finish()

    def broken(self, error: BaseException) -> None:
        """An exception went to the server. The status stays what was sent."""
        self.running = False
        self.error = error
        try:
            self._record(error)
            note_request(error)
        except Exception:
            guard.failed("pyramid.broken")

    def _record(self, error: BaseException) -> None:
        """Leave an event on the span, once; not for an HTTPException below 500: that is an answer."""
        if self.finished or error is self._recorded or (isinstance(error, HTTPException) and error.status_int < 500):
            return
        self._recorded = error
        self.span.record_exception(error, _without_secret(self.environ, error))

    # -- the end ----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """End the span, measure, leave. Only the first call does anything."""
        if self.finished:
            return
        self.finished = True
        self.running = False
        try:
            self._end(perf_counter_ns() - self._begun)
        except Exception:
            guard.failed("pyramid.finish")
        finally:
            now = current()
            if now is self._context or now.get(KEY) is self:
                attach(self._base)
            self._context = None
            self._recorded = self.error = None  # whose traceback refers to frames that refer to this object

    def _end(self, elapsed: int) -> None:
        status = self.status
        if status is None:
            status = self.status = 500
        place = self._place
        if place is None:
            place = self._place = place_of(self.request)
        error = None
        if self._recorded is not None or status >= 500:
            error = self._error_type(status)
        key = (self._method, status, self._scheme, error)
        ending = place.endings.get(key) or place.ending(key)
        span: Any = self.span
        try:
            arrival = span._own if span.__class__ is LeanSpan and span._end_time is None and error is None else None
            if arrival.__class__ is Arrival:
                arrival.end = ending.attributes
                if ending.name is not None:
                    span._name = ending.name
                if span._own is not arrival:  # another thread has put them together meanwhile
                    _describe(span, ending, None)
            elif span.is_recording():
                _describe(span, ending, None if error is None else self._failure())
        finally:
            sink = process.sink
            bound = ending.bound
            if bound[0] is not sink:
                bound = ending.timers(sink)
            ended = self.started + elapsed
            bound[1].observe_ns(elapsed, span, ended)
            if self.render_ns >= 0:
                (bound[2] or ending.render_timer(sink)).observe_ns(self.render_ns, span, ended)
            span.end(ended)

    def _failure(self) -> Status:
        """Of the span: what the application has raised, in its words, as in contrib's spans."""
        error = self._recorded
        if error is None:
            return Status(StatusCode.ERROR)
        try:
            masked = _without_secret(self.environ, error)
            return Status(StatusCode.ERROR, str(error) if masked is None else masked["exception.message"])
        except Exception:  # of one that has no words
            return Status(StatusCode.ERROR)

    def _error_type(self, status: int) -> str | None:
        """``error.type``: the exception behind a server error or a broken body, else the status itself."""
        recorded = self._recorded
        if recorded is not None and (status >= 500 or recorded is self.error):
            return error_type(recorded)
        return str(status) if status >= 500 else None


def begin(  # noqa: PLR0912, PLR0915 - for each request: one more call costs as much as ten of its lines
    environ: dict[str, Any],
    start_response: StartResponse,
    captured: CapturedHeaders | None = None,
) -> Exchange | None:
    """A request arrives: its span begins and its context is attached to this thread.

    None where an application that is being traced calls this one: then this is a part of that request. What an
    earlier request left on the thread (its body was never closed) is ended first, and never a parent.
    """
    started, begun = time_ns(), perf_counter_ns()
    base = current()
    if base and KEY in base:
        if _is_served(base):
            return None
        base = current()
    if process.sink.__class__ is UnstartedSink and process.held:
        process.release()
    parent = request_id.NOBODY
    if not request_id.brings_nothing(environ):
        parent = request_id.remote_context(environ, process.settings.trace_context)
    name = method = environ["REQUEST_METHOD"]
    if method not in METHODS:
        name, method = "HTTP", wsgi_attributes.OTHER
    tracer: Any = process.tracer(TRACER)
    attributes: Any
    if tracer.__class__ is not LeanTracer or captured:
        attributes = wsgi_attributes.attributes(environ, method)
        if captured:
            attributes.update(captured.of_request(environ))
        span = tracer.start_span(name, parent, SpanKind.SERVER, attributes, (), started)
    elif parent:
        attributes = Arrival(environ, method)
        span = tracer.start_span(name, parent, SpanKind.SERVER, attributes, (), started)
    else:
        attributes = Arrival(environ, method)
        span = tracer.start_root(name, SpanKind.SERVER, attributes, started)
    identity = parent.get(REQUEST_ID_KEY) if parent else None
    if not isinstance(identity, str):
        if span.__class__ is LeanSpan and span._own is attributes:
            above = span._above
            trace_id = above if above.__class__ is int else span._context[0]
            span._request_id = identity = request_id.from_trace_id(trace_id)
        else:
            identity = request_id.from_trace_id(span.get_span_context().trace_id or getrandbits(128))
            span.set_attribute(request_id.ATTRIBUTE, identity)
    environ[ENVIRON_ID] = identity
    exchange: Exchange = _new(Exchange)
    exchange.environ = environ
    exchange.request_id = identity
    exchange.span = span
    exchange.tracer = tracer
    exchange.started = started
    exchange.request = exchange.status = exchange.error = None
    exchange.render_ns = -1
    exchange._begun = begun
    exchange._place = exchange._recorded = None
    exchange._method = method
    exchange._scheme = environ.get("wsgi.url_scheme", "http")
    exchange._captured = captured
    exchange._start_response = start_response
    exchange.finished = exchange.in_request = exchange.rendering = exchange.running = False
    exchange._base = base
    values: dict[str, Any]
    if parent:
        values = {**parent, SPAN_KEY: span, KEY: exchange, REQUEST_ID_KEY: identity}
    else:
        values = {SPAN_KEY: span, KEY: exchange, REQUEST_ID_KEY: identity}
    context = exchange._context = Context(values)
    attach(context)
    return exchange


def _is_served(base: Context) -> bool:
    """Whether a request is being served in that context, the current one; those that are not any more are ended."""
    left = base.get(KEY)
    while isinstance(left, Exchange):
        if left.running:
            return True
        left.finish()
        left.leave()
        left = current().get(KEY)
    return False


def error_type(error: BaseException) -> str:
    """The value of ``error.type``: the class with its module, builtins without; an HTTPException's status."""
    if isinstance(error, HTTPException):
        return str(error.status_int)
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _describe(span: Span, ending: Ending, failure: Status | None) -> None:
    if ending.name is not None:
        span.update_name(ending.name)
    if failure is not None:
        span.set_status(failure)
    span.set_attributes(ending.attributes)


def _without_secret(environ: Mapping[str, Any], error: BaseException) -> dict[str, str] | None:
    """The texts of an exception, where a secret is in them: the address, say. None where they may stay as they are, as
    those of a request that has brought none."""
    if not ("HTTP_X_API_KEY" in environ or "HTTP_AUTHORIZATION" in environ or environ.get("QUERY_STRING")):
        return None
    text = "".join(traceback.format_exception(error))
    masked = masking.mask(text)
    if masked == text:
        return None
    return {"exception.message": masking.mask(str(error)), "exception.stacktrace": masked}
