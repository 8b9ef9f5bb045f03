"""requests: a span and a measurement for each hop, the request id and the trace on their way, a timeout for all.

What is wrapped is the adapter's ``send``, as a redirect, an answer to a challenge and a call of
``response.connection.send`` each pass through it once; the contrib package sees one span for a whole chain, with the
first URL and the last status. ``HTTPAdapter`` is wrapped from the start; an adapter class with a ``send`` of its own
is wrapped when a session first uses it, and what it passes on to ``HTTPAdapter`` is the same hop. A hop ends with
the response's headers.

Spans carry the stable semantic conventions: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import context as otel_context
from opentelemetry import propagate
from opentelemetry.context.context import Context
from opentelemetry.instrumentation.requests import RequestsInstrumentor as _Contrib
from opentelemetry.instrumentation.utils import unwrap
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.http import (
    ExcludeList,
    detect_synthetic_user_agent,
    get_excluded_urls,
    normalize_user_agent,
    parse_excluded_urls,
)
from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest, Response
from requests.sessions import Session
from requests.structures import CaseInsensitiveDict
from wrapt import wrap_function_wrapper

from c2c_otel import request_id, telemetry
from c2c_otel.instrumentation import client, requests_timeout
from c2c_otel.instrumentation.client_headers import CapturedHeaders
from c2c_otel.instrumentation.wsgi_attributes import OTHER, known_method, redacted_query
from c2c_otel.tracing import attach_span, detach
from c2c_otel_exporters import guard, names

__all__ = ["RequestsInstrumentor"]

SCOPE = "c2c_otel.requests"

_HOP = otel_context.create_key("c2c-otel-requests-hop")
"""In the context while an adapter sends: the request it was given."""

_resend: ContextVar[int] = ContextVar("c2c_otel_requests_resend", default=0)
"""How many redirects led to the request that is sent."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_OURS = "_c2c_otel_request_id"
"""In the dictionary of a prepared request: the headers with a request id that `_inject` added, and their values."""

_Hook = Callable[..., Any] | None


class RequestsInstrumentor(_Contrib):
    """``instrument(tracer_provider=None, request_hook=None, response_hook=None, excluded_urls=None)``, the hooks as
    contrib's: ``(span, prepared_request)`` and ``(span, prepared_request, response)``."""

    _instance = None  # contrib keeps its singleton on the class, where a subclass would find it
    _hops: Hops | None = None

    def _instrument(self, **kwargs: Any) -> None:
        self._hops = hops = Hops(**kwargs)
        hops.wrap(HTTPAdapter)
        wrap_function_wrapper(Session, "get_adapter", hops.get_adapter)
        wrap_function_wrapper(Session, "resolve_redirects", _resolve_redirects)

    def _uninstrument(self, **kwargs: Any) -> None:
        unwrap(Session, "get_adapter")
        unwrap(Session, "resolve_redirects")
        if self._hops is not None:
            self._hops.unwrap()
            self._hops = None

    @staticmethod
    def uninstrument_session(session: Session) -> None:
        """This session's calls are passed through from now on."""
        session.get_adapter = functools.partial(_quiet_adapter, session)  # type: ignore[method-assign]  # as contrib


class _Quiet:
    """An adapter for a session that was uninstrumented: what it sends makes no span."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        token = otel_context.attach(otel_context.set_value(_HOP, request))
        try:
            response: Response = self._adapter.send(request, *args, **kwargs)
            return response
        finally:
            otel_context.detach(token)


def _quiet_adapter(session: Session, url: str) -> Any:
    return _Quiet(type(session).get_adapter(session, url))


class _Hop:
    """One request on its way through an adapter. Its span is current until the headers are there."""

    __slots__ = ("host", "method", "port", "scheme", "span", "started", "token")

    host: str
    method: str
    port: int | None
    scheme: str
    span: Span
    started: float
    token: Token[Context]


class Hops:
    """The wrappers. Safe with any number of threads."""

    def __init__(
        self,
        tracer_provider: Any = None,
        request_hook: _Hook = None,
        response_hook: _Hook = None,
        excluded_urls: str | None = None,
        **_: Any,
    ) -> None:
        self._tracers = client.tracers(SCOPE, tracer_provider)
        self._request_hook = request_hook if callable(request_hook) else None
        self._response_hook = response_hook if callable(response_hook) else None
        self._excluded: ExcludeList = (
            get_excluded_urls("REQUESTS") if excluded_urls is None else parse_excluded_urls(excluded_urls)
        )
        self._headers = CapturedHeaders()
        self._lock = threading.Lock()
        self._wrapped: weakref.WeakSet[type] = weakref.WeakSet()
        self._active = True

    # -- which classes are wrapped ----------------------------------------------------------------------------

    def get_adapter(
        self, func: Callable[..., Any], session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Around ``Session.get_adapter(url)``: the one place that sees every adapter before it is used."""
        adapter = func(*args, **kwargs)
        try:
            if getattr(type(adapter).send, "c2c_otel_hops", None) is not self:
                self.wrap(type(adapter))
        except Exception:
            guard.failed("requests.adapter")
        return adapter

    def wrap(self, adapter_class: type) -> None:
        """Wrap ``send`` in the class of the MRO that defines it. A library for tests may have put its own there for
        a while (responses does): when it puts back what it found, that is our wrapper too."""
        owner: Any = next((c for c in adapter_class.__mro__ if "send" in c.__dict__), None)
        if owner is None:
            return
        with self._lock:
            original = owner.__dict__["send"]
            if getattr(original, "c2c_otel_hops", None) is self:
                return
            if not callable(original):  # a static or class method: not an adapter as requests knows them
                return
            owner.send = self._wrapper(original, owner is HTTPAdapter)
            self._wrapped.add(owner)

    def _wrapper(self, original: Callable[..., Any], reaches_network: bool) -> Callable[..., Any]:
        @functools.wraps(original)
        def send(adapter: Any, request: PreparedRequest, *args: Any, **kwargs: Any) -> Any:
            if not self._active:
                return original(adapter, request, *args, **kwargs)
            if reaches_network:
                args, kwargs = requests_timeout.apply(request, args, kwargs)
            hop = self._begin(request)
            if hop is None:
                return original(adapter, request, *args, **kwargs)
            try:
                response = original(adapter, request, *args, **kwargs)
            except BaseException as error:
                self._fail(hop, request, error)
                raise
            self._finish(hop, request, response)
            return response

        send.c2c_otel_hops = self  # type: ignore[attr-defined]  # how `wrap` and `unwrap` know their own
        return send

    def unwrap(self) -> None:
        """Put the original methods back; where somebody has wrapped ours, ours only passes through."""
        self._active = False
        for owner in list(self._wrapped):
            send = owner.__dict__.get("send")
            if getattr(send, "c2c_otel_hops", None) is self:
                owner.send = send.__wrapped__  # type: ignore[attr-defined, union-attr]  # functools.wraps set it
        self._wrapped.clear()

    # -- a hop ------------------------------------------------------------------------------------------------

    def _begin(self, request: PreparedRequest) -> _Hop | None:
        current = otel_context.get_current()
        outer: Any = current.get(_HOP)
        if outer is not None:
            if outer is request or (outer.url == request.url and outer.method == request.method):
                return None  # an adapter that passes on to another: the same hop
        elif client.is_suppressed_http(current):
            return None
        try:
            url = request.url or ""
            if self._excluded and self._excluded.url_disabled(url):
                return None
            hop = _Hop()
            attributes = self._attributes(hop, request, url)
            name = "HTTP" if hop.method == OTHER else hop.method
            hop.span = self._tracers().start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        except Exception:
            guard.failed("requests.begin")
            return None
        inside = otel_context.set_value(_HOP, request, client.suppressing_http(current))
        hop.token = attach_span(hop.span, inside)
        try:
            if self._request_hook is not None:
                client.call_hook(self._request_hook, hop.span, request)
            _inject(request)
        except Exception:
            guard.failed("requests.inject")
        hop.started = perf_counter()
        return hop

    def _attributes(self, hop: _Hop, request: PreparedRequest, url: str) -> dict[str, Any]:
        method = (request.method or "").strip()
        hop.method = known_method(method)
        redacted, hop.scheme, hop.host, hop.port = _parsed(url)
        found: dict[str, Any] = {"http.request.method": hop.method, "url.full": redacted}
        if hop.method == OTHER:
            found["http.request.method_original"] = method
        if hop.host:
            found["server.address"] = hop.host
        if hop.port is not None:
            found["server.port"] = hop.port
        if resend := _resend.get():
            found["http.request.resend_count"] = resend
        if request.headers:
            agent = normalize_user_agent(request.headers.get("User-Agent"))
            if agent:
                found["user_agent.original"] = agent
                if kind := _synthetic(agent):
                    found["user_agent.synthetic.type"] = kind
            if self._headers:
                found.update(self._headers.of_request(request.headers))
        return found

    def _finish(self, hop: _Hop, request: PreparedRequest, response: Any) -> None:
        seconds = perf_counter() - hop.started
        try:
            try:
                status = self._answered(hop.span, response)
                if self._response_hook is not None and isinstance(response, Response):
                    client.call_hook(self._response_hook, hop.span, request, response)
            finally:
                detach(hop.token)
            self._measure(hop, seconds, status or 0, None if status and status < 400 else str(status))
        except Exception:
            guard.failed("requests.finish")

    def _fail(self, hop: _Hop, request: PreparedRequest, error: BaseException) -> None:
        seconds = perf_counter() - hop.started
        try:
            try:
                response = getattr(error, "response", None)
                if isinstance(response, Response):
                    self._answered(hop.span, response)
                    if self._response_hook is not None:
                        client.call_hook(self._response_hook, hop.span, request, response)
            finally:
                detach(hop.token)
            kind = client.failed(hop.span, error)
            self._measure(hop, seconds, names.STATUS_EXCEPTION, kind)
        except Exception:
            guard.failed("requests.fail")

    def _answered(self, span: Span, response: Any) -> int | None:
        """Gives the status; None where it is none (an adapter may answer what it likes)."""
        status = getattr(response, "status_code", None)
        if not isinstance(status, int):
            return None
        if span.is_recording():
            span.set_attribute("http.response.status_code", status)
            version = getattr(getattr(response, "raw", None), "version", None)
            if version in _VERSIONS:
                span.set_attribute("network.protocol.version", _VERSIONS[version])
            if self._headers and (headers := getattr(response, "headers", None)):
                span.set_attributes(self._headers.of_response(headers))
            if not 100 <= status < 400:
                span.set_attribute("error.type", str(status))
                span.set_status(Status(StatusCode.ERROR))
        return status

    @staticmethod
    def _measure(hop: _Hop, seconds: float, status: int, error: str | None) -> None:
        telemetry.get().sink.timer(names.request, hop.scheme, hop.host, hop.port, hop.method, status, error).observe(
            seconds, hop.span
        )
        hop.span.end()


_VERSIONS = {9: "0.9", 10: "1.0", 11: "1.1", 20: "2", 30: "3"}
"""urllib3's numbers for the versions of HTTP."""

_synthetic = functools.lru_cache(maxsize=64)(detect_synthetic_user_agent)


@functools.lru_cache(maxsize=256)
def _parsed(url: str) -> tuple[str, str, str, int | None]:
    """The URL without credentials and secrets, and its scheme, host and port (the scheme's where it has none)."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    scheme = parts.scheme.lower()
    netloc = parts.netloc
    if "@" in netloc:
        netloc = "REDACTED:REDACTED@" + netloc.rpartition("@")[2]
    query = redacted_query(parts.query) if parts.query else ""
    redacted = parts._replace(netloc=netloc, query=query).geturl()
    return redacted, scheme, parts.hostname or "", port if port is not None else _DEFAULT_PORTS.get(scheme)


def _inject(request: PreparedRequest) -> None:
    """Trace and request id as headers; an id that the caller has put there stays. A prepared request that is sent
    once more gets the id of the request that is then being served, not what it was given the first time."""
    headers = request.headers
    if headers is None:
        headers = request.headers = CaseInsensitiveDict()
    for name, value in request.__dict__.get(_OURS, ()):
        if headers.get(name) == value:
            del headers[name]
    custom = telemetry.get().settings.request_id_header
    names_of_id = (request_id.HEADER,) if custom is None else (request_id.HEADER, custom)
    absent = [name for name in names_of_id if name not in headers]
    propagate.inject(headers)
    request.__dict__[_OURS] = [(name, headers[name]) for name in absent if name in headers]


def _resolve_redirects(
    func: Callable[..., Iterator[Any]], _: Session, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[Any]:
    """Around ``Session.resolve_redirects``, a generator that sends one request for each item."""
    responses = func(*args, **kwargs)
    for count in range(1, 1_000_000):
        token = _resend.set(count)
        try:
            response = next(responses)
        except StopIteration:
            return
        finally:
            _resend.reset(token)
        yield response
