"""One WSGI request from its arrival to the closing of its body: its span, its measurements, its context.

Life of an `Exchange`: `begin` attaches its context to the thread; `start_response` is what the application calls;
`answered` or `raised` when the application is done; `finish` when the body is closed. Whatever happens, `finish`
ends the span, measures the route once and takes the context away, and only the first call counts.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from random import getrandbits
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode
from pyramid.httpexceptions import HTTPException

from c2c_otel import request_id, telemetry
from c2c_otel._sdk_private import SPAN_KEY
from c2c_otel.current_request import KEY, CurrentRequest
from c2c_otel.instrumentation import wsgi_attributes
from c2c_otel.pyramid_logging import note_request
from c2c_otel_exporters import guard, masking, names

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from c2c_otel.instrumentation.wsgi_attributes import CapturedHeaders

__all__ = ["ENVIRON_ID", "TRACER", "Exchange", "begin", "error_type", "route_of"]

TRACER = "c2c_otel.pyramid"
"""The instrumentation scope of the spans."""

ENVIRON_ID = "c2c_otel.request_id"
"""The WSGI environ's key for the request id, which outlives the context and travels with copies of a request."""

Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
Headers = list[tuple[str, str]]

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")


class Exchange(CurrentRequest):
    """``running``: the application's code is being called. ``in_request``: Pyramid is handling the main request or has
    answered it, so that what it handles now is a subrequest. ``rendering``: a renderer is being called."""

    __slots__ = (
        "_base",
        "_begun",
        "_captured",
        "_context",
        "_finished",
        "_method",
        "_recorded",
        "_route",
        "_scheme",
        "_start_response",
        "in_request",
        "rendering",
        "running",
    )

    def __init__(
        self,
        environ: dict[str, Any],
        identity: str,
        span: Span,
        clocks: tuple[int, int],
        *,
        start_response: StartResponse,
        captured: CapturedHeaders | None,
        method: str,
        scheme: str,
    ) -> None:
        started, self._begun = clocks
        self._route: tuple[str, str] | None = None
        super().__init__(environ, identity, span, started)
        self._method = method
        self._scheme = scheme
        self._finished = False
        self._recorded: BaseException | None = None
        self._captured = captured
        self._start_response = start_response
        self.in_request = False
        self.rendering = False
        self.running = False

    # -- what others read ---------------------------------------------------------------------------------------

    @property
    def route_name(self) -> str | None:
        """Of the matched route; known from the match on, and nothing has to be told."""
        route = self._route or route_of(self.request)
        return route[0] if route else None

    @route_name.setter
    def route_name(self, value: str | None) -> None:
        if value is not None:
            self._route = (value, self.route_pattern or "")

    @property
    def route_pattern(self) -> str | None:
        """Of the matched route, with its leading slash."""
        route = self._route or route_of(self.request)
        return route[1] if route else None

    @route_pattern.setter
    def route_pattern(self, value: str | None) -> None:
        if value is not None:
            self._route = (self.route_name or "", value)

    # -- the context ----------------------------------------------------------------------------------------------

    def _attach(self, context: Context, base: Context) -> None:
        self._context: Context | None = context  # refers to this object: a cycle, until the end
        self._base = base
        otel_context.attach(context)

    def _leave(self) -> None:
        """Take our context from this thread, if it is there: another thread's is taken by that thread."""
        if otel_context.get_current().get(KEY) is self:
            otel_context.attach(self._base)

    def resume(self) -> Context | None:
        """Application code is called again (a step of the body). Returns what to give to `pause`."""
        current = otel_context.get_current()
        if current.get(KEY) is self:
            self.running = True
            return None
        context = self._context
        if context is None:
            return None
        self.running = True
        otel_context.attach(context)
        return current

    def pause(self, previous: Context | None) -> None:
        """The step is over: the thread gets back what it had."""
        self.running = False
        if previous is not None:
            otel_context.attach(previous)

    # -- the answer -----------------------------------------------------------------------------------------------

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:
        """The application's start_response: adds our headers and passes on to the server's."""
        before = self.status
        try:
            headers = self._answer(status, headers)
        except Exception:
            guard.failed("pyramid.start_response")
        if exc_info is None:
            return self._start_response(status, headers)
        try:
            return self._start_response(status, headers, exc_info)
        except BaseException:
            self.status = before  # the headers are out already: the client has seen the first status
            raise

    def _answer(self, status: str, headers: Headers) -> Headers:
        try:
            self.status = int(status[:3])
        except ValueError:  # what the server makes of such a status is not known
            self.status = None
        sent = list(headers)  # the application may give the same list with every response
        for name, _ in headers:
            if len(name) == 12 and name.lower() == "x-request-id":
                break
        else:
            sent.append(("X-Request-ID", self.request_id))
        sent.append(("Server-Timing", self._server_timing()))
        if self._captured:
            self.span.set_attributes(self._captured.of_response(headers))
        return sent

    def _server_timing(self) -> str:
        """``route;desc=NAME, route;dur=MS, render;dur=MS``: whole milliseconds up to now."""
        milliseconds = (perf_counter_ns() - self._begun + 500_000) // 1_000_000
        text = f"route;dur={milliseconds}"
        if name := self.route_name:
            text = f"route;desc={_token(name)}, {text}"
        if self.render_ns >= 0:
            text += f", render;dur={(self.render_ns + 500_000) // 1_000_000}"
        return text

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
        if self._finished or error is self._recorded or (isinstance(error, HTTPException) and error.status_int < 500):
            return
        self._recorded = error
        self.span.record_exception(error, _without_secret(self.environ, error))

    # -- the end ----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """End the span, measure, leave. Only the first call does anything."""
        if self._finished:
            return
        self._finished = True
        self.running = False
        try:
            self._end(perf_counter_ns() - self._begun)
        except Exception:
            guard.failed("pyramid.finish")
        finally:
            self._leave()
            self._context = None
            self._recorded = self.error = None  # whose traceback refers to frames that refer to this object

    def _end(self, elapsed: int) -> None:
        status = self.status = 500 if self.status is None else self.status
        route = self._route = self._route or route_of(self.request)
        name, pattern = route or (None, None)
        span = self.span
        error = self._error_type(status)
        try:
            if span.is_recording():
                _describe(span, self._method, status, route, error)
        finally:
            seconds = elapsed / 1e9
            timer = telemetry.get().sink.timer
            timer(names.route, self._method, name, pattern, status, self._scheme, error).observe(seconds, span)
            if self.render_ns >= 0:
                timer(names.render, self._method, name, pattern, status).observe(self.render_ns / 1e9, span)
            span.end()

    def _error_type(self, status: int) -> str | None:
        """``error.type``: the exception behind a server error or a broken body, else the status itself."""
        recorded = self._recorded
        if recorded is not None and (status >= 500 or recorded is self.error):
            return error_type(recorded)
        return str(status) if status >= 500 else None


def begin(
    environ: dict[str, Any],
    start_response: StartResponse,
    captured: CapturedHeaders | None = None,
) -> Exchange | None:
    """A request arrives: its span begins and its context is attached to this thread.

    None where an application that is being traced calls this one: then this is a part of that request. What an
    earlier request left on the thread (its body was never closed) is ended first, and never a parent.
    """
    clocks = time_ns(), perf_counter_ns()
    base = otel_context.get_current()
    if base:
        left = base.get(KEY)
        while left.__class__ is Exchange:
            assert isinstance(left, Exchange)
            if left.running:
                return None
            left.finish()
            left._leave()
            base = otel_context.get_current()
            left = base.get(KEY)
    process = telemetry.get()
    if not process.started and process.held:
        process.release()
    parent = request_id.remote_context(environ, process.settings.trace_context)
    method = wsgi_attributes.known_method(environ["REQUEST_METHOD"])
    attributes = wsgi_attributes.attributes(environ, method)
    if captured:
        attributes.update(captured.of_request(environ))
    span = process.tracer(TRACER).start_span(
        "HTTP" if method == wsgi_attributes.OTHER else method,
        parent,
        SpanKind.SERVER,
        attributes,
        start_time=clocks[0],
    )
    identity = parent.get(request_id.REQUEST_ID_KEY)
    if not isinstance(identity, str):
        identity = request_id.from_trace_id(span.get_span_context().trace_id or getrandbits(128))
        span.set_attribute(request_id.ATTRIBUTE, identity)
    exchange = Exchange(
        environ,
        identity,
        span,
        clocks,
        start_response=start_response,
        captured=captured,
        method=method,
        scheme=attributes["url.scheme"],
    )
    environ[ENVIRON_ID] = identity
    values: dict[str, object] = dict(parent)
    values[SPAN_KEY] = span
    values[KEY] = exchange
    values[request_id.REQUEST_ID_KEY] = identity
    exchange._attach(Context(values), base)
    return exchange


def route_of(request: Any) -> tuple[str, str] | None:
    """Name and pattern (with its leading slash, as ``http.route`` has it) of the route a request has matched."""
    route = getattr(request, "matched_route", None)
    if route is None:
        return None
    pattern = route.pattern
    return route.name, pattern if pattern[:1] == "/" else f"/{pattern}"


def error_type(error: BaseException) -> str:
    """The value of ``error.type``: the class with its module, builtins without; an HTTPException's status."""
    if isinstance(error, HTTPException):
        return str(error.status_int)
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _describe(span: Span, method: str, status: int, route: tuple[str, str] | None, error: str | None) -> None:
    found: dict[str, Any] = {"http.response.status_code": status}
    if route is not None:
        name, pattern = route
        found["http.route"] = pattern
        found["pyramid.route.name"] = name
        span.update_name(f"{'HTTP' if method == wsgi_attributes.OTHER else method} {pattern}")
    if error is not None:
        found["error.type"] = error
        span.set_status(Status(StatusCode.ERROR))
    span.set_attributes(found)


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


def _token(name: str) -> str:
    """A Server-Timing description: as it is where the header's grammar allows it, else quoted."""
    return name if _TOKEN.match(name) else f'"{_UNQUOTABLE.sub("_", name)}"'
