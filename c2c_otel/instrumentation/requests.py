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
from contextvars import ContextVar
from operator import attrgetter
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry import context as otel_context
from opentelemetry import propagate
from opentelemetry.context import _SUPPRESS_HTTP_INSTRUMENTATION_KEY as _SUPPRESS_HTTP
from opentelemetry.context import Context
from opentelemetry.instrumentation.requests import RequestsInstrumentor as _Contrib
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.http import (
    detect_synthetic_user_agent,
    get_excluded_urls,
    normalize_user_agent,
    parse_excluded_urls,
)
from requests.adapters import HTTPAdapter
from requests.models import REDIRECT_STATI, PreparedRequest, Response
from requests.sessions import Session
from requests.structures import CaseInsensitiveDict

from c2c_otel import outbound, request_id, telemetry
from c2c_otel._sdk_private import attach, current
from c2c_otel.instrumentation import client, requests_timeout
from c2c_otel.instrumentation.client import ALSO_SUPPRESSED, SUPPRESSED
from c2c_otel.instrumentation.client_headers import CapturedHeaders
from c2c_otel.instrumentation.wsgi_attributes import OTHER, known_method, redacted_query
from c2c_otel.patches import Patches
from c2c_otel.pending import Given
from c2c_otel.tracing import Span as LeanSpan
from c2c_otel.tracing import Tracer as LeanTracer
from c2c_otel.tracing import start_current
from c2c_otel_exporters import guard, names

if TYPE_CHECKING:
    from c2c_otel_exporters.sink import SinkLike, Timer

__all__ = ["RequestsInstrumentor"]

SCOPE = "c2c_otel.requests"

_HOP = otel_context.create_key("c2c-otel-requests-hop")
"""In the context while an adapter sends: the request it was given."""

_resend: ContextVar[int] = ContextVar("c2c_otel_requests_resend", default=0)
"""How many redirects led to the request that is sent."""

_set_item = dict.__setitem__
_new = object.__new__
_NOTHING = ("", None)

_DEFAULT_PORTS = {"http": 80, "https": 443}
_OURS = "_c2c_otel_request_id"
"""An attribute of a prepared request: the headers with a request id that `_inject` added, and their values."""

_Hook = Callable[..., Any] | None


class RequestsInstrumentor(_Contrib):
    """``instrument(tracer_provider=None, request_hook=None, response_hook=None, excluded_urls=None)``, the hooks as
    contrib's: ``(span, prepared_request)`` and ``(span, prepared_request, response)``."""

    _instance = None  # contrib keeps its singleton on the class, where a subclass would find it
    _hops: Hops | None = None

    def _instrument(self, **kwargs: Any) -> None:
        self._hops = hops = Hops(**kwargs)
        hops.wrap(HTTPAdapter)
        hops.patches.replace(Session, "get_adapter", hops.get_adapter)
        hops.patches.replace(Session, "resolve_redirects", _resolve_redirects)

    def _uninstrument(self, **kwargs: Any) -> None:
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


class _Answers:
    """How hops to one server with one method end: ``error.type`` and timer, for each status."""

    __slots__ = ("_bound", "_key")

    def __init__(self, scheme: str, host: str, port: int | None, method: str) -> None:
        self._key = (scheme, host, port, method)
        self._bound: tuple[Any, dict[int, Timer]] = (None, {})

    def timer(self, sink: SinkLike, status: int) -> Timer:
        """``status``: 0 where the adapter's answer had none."""
        bound = self._bound
        if bound[0] is not sink:
            bound = self._bound = (sink, {})
        timer = bound[1].get(status)
        if timer is None:
            error = None if 0 < status < 400 else str(status or None)
            timer = bound[1][status] = sink.timer(names.request, *self._key, status, error)
        return timer


class _Kind:
    """Requests that are the same: what their spans begin with, and what those of each answer end with."""

    __slots__ = ("answers", "given", "key", "title", "with_status")

    def __init__(self, title: str, given: Given, key: tuple[str, str, int | None, str], answers: _Answers) -> None:
        self.title = title
        self.given = given
        self.key = key
        """Scheme, host, port and method, as they are measured."""
        self.answers = answers
        self.with_status: dict[tuple[int, Any], Given] = {}


class _Hop:
    """One request on its way through an adapter. Its span is current until the headers are there; ``before``: what
    was current before."""

    __slots__ = ("before", "kind", "span", "started")

    before: Context
    kind: _Kind
    span: Any
    started: int


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
        excluded = get_excluded_urls("REQUESTS") if excluded_urls is None else parse_excluded_urls(excluded_urls)
        self._is_excluded = excluded.url_disabled if getattr(excluded, "_excluded_urls", True) else None
        self._headers = CapturedHeaders() or None
        self._bound: tuple[Any, Any] = (None, None)
        """The sink, and the tracer for as long as it is that sink."""
        self._lock = threading.Lock()
        self._wrapped: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        """Class -> what stands for its ``send``."""
        self._kinds: dict[Any, _Kind] = {}
        self._answers: dict[Any, _Answers] = {}
        self.patches = Patches()

    # -- which classes are wrapped ----------------------------------------------------------------------------

    def get_adapter(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """What stands for ``Session.get_adapter(url)``: the one place that sees every adapter before it is used."""

        def get_adapter(session: Session, *args: Any, **kwargs: Any) -> Any:
            adapter = original(session, *args, **kwargs)
            try:
                if self.patches.active and getattr(type(adapter).send, "c2c_otel_hops", None) is not self:
                    self.wrap(type(adapter))
            except Exception:
                guard.failed("requests.adapter")
            return adapter

        return get_adapter

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
            owner.send = self._wrapped[owner] = self._wrapper(original, owner is HTTPAdapter)

    def _wrapper(self, original: Callable[..., Any], reaches_network: bool) -> Callable[..., Any]:
        patches = self.patches

        @functools.wraps(original)
        def send(adapter: Any, request: PreparedRequest, *args: Any, **kwargs: Any) -> Any:
            if not patches.active:
                return original(adapter, request, *args, **kwargs)
            if reaches_network and kwargs.get("timeout") is None:
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
        self.patches.undo()
        for owner, ours in list(self._wrapped.items()):
            if owner.__dict__.get("send") is ours:
                owner.send = ours.__wrapped__
        self._wrapped.clear()

    # -- a hop ------------------------------------------------------------------------------------------------

    def _begin(self, request: PreparedRequest) -> _Hop | None:
        now = current()
        outer: Any = now.get(_HOP)
        if outer is not None and (outer is request or (outer.url == request.url and outer.method == request.method)):
            return None  # an adapter that passes on to another: the same hop
        asked = _SUPPRESS_HTTP in now or SUPPRESSED in now or ALSO_SUPPRESSED in now
        if asked and outer is None and client.is_suppressed_http(now):
            return None
        try:
            url = request.url or ""
            if self._is_excluded is not None and self._is_excluded(url):
                return None
            kind = self._kind(request, url)
            given = kind.given
            resend = _resend.get()
            if resend or self._headers is not None:
                given = self._more(given, request, resend)
            sink = telemetry.get().sink
            bound = self._bound
            if bound[0] is not sink:
                bound = self._bound = (sink, self._tracers())
            tracer = bound[1]
            inside = Context(now)
            _set_item(inside, _HOP, request)
            _set_item(inside, _SUPPRESS_HTTP, True)  # lower layers (urllib3) make no span of their own
            if tracer.__class__ is LeanTracer and given.__class__ is Given:
                span = tracer.start_current(kind.title, now, SpanKind.CLIENT, given, inside)
            else:
                span = start_current(tracer, kind.title, now, SpanKind.CLIENT, given, inside)
        except Exception:
            guard.failed("requests.begin")
            return None
        hop: _Hop = _new(_Hop)
        hop.kind = kind
        hop.span = span
        hop.before = now
        try:
            if self._request_hook is not None:
                client.call_hook(self._request_hook, span, request)
            _inject(request, span, inside)
        except Exception:
            guard.failed("requests.inject")
        hop.started = perf_counter_ns()
        return hop

    def _kind(self, request: PreparedRequest, url: str) -> _Kind:
        headers: Any = request.headers
        agent: Any = None
        if headers.__class__ is CaseInsensitiveDict:
            agent = _stored(headers).get("user-agent", _NOTHING)[1]
        elif headers:
            agent = headers.get("User-Agent")
        method = request.method
        known = self._kinds.get((method, url, agent))
        if known is None:
            known = self._new_kind((method or "").strip(), url, agent)
            if len(self._kinds) >= _MOST:
                self._kinds.clear()
            if len(url) <= _MOST_REMEMBERED:
                self._kinds[method, url, agent] = known
        return known

    def _new_kind(self, given_method: str, url: str, agent: Any) -> _Kind:
        method = known_method(given_method)
        redacted, scheme, host, port = _parsed(url)
        found: dict[str, Any] = {"http.request.method": method, "url.full": redacted}
        if method == OTHER:
            found["http.request.method_original"] = given_method
        if host:
            found["server.address"] = host
        if port is not None:
            found["server.port"] = port
        if agent := normalize_user_agent(agent):
            found["user_agent.original"] = agent
            if synthetic := _synthetic(agent):
                found["user_agent.synthetic.type"] = synthetic
        key = (scheme, host, port, method)
        answers = self._answers.get(key)
        if answers is None:
            answers = _Answers(*key)
            if len(self._answers) < _MOST:
                self._answers[key] = answers
        return _Kind("HTTP" if method == OTHER else method, Given(found), key, answers)

    def _more(self, given: Given, request: PreparedRequest, resend: int) -> Any:
        """What is another in each request."""
        more: dict[str, Any] = dict(given)
        if resend:
            more["http.request.resend_count"] = resend
        if self._headers is not None and request.headers:
            more |= self._headers.of_request(request.headers)
            return more  # with lists, which have to be cleaned
        return Given(more)

    def _finish(self, hop: _Hop, request: PreparedRequest, response: Any) -> None:
        elapsed = perf_counter_ns() - hop.started
        span: Any = hop.span
        try:
            try:
                status = getattr(response, "status_code", None)  # an adapter may answer what it likes
                if not isinstance(status, int):
                    status = None
                elif (
                    span.__class__ is LeanSpan
                    and span._end_time is None
                    and span._own is hop.kind.given
                    and 100 <= status < 400
                    and self._headers is None
                ):
                    span._own = _with_status(hop.kind, status, getattr(getattr(response, "raw", None), "version", None))
                else:
                    self._answered(span, response, status)
                if self._response_hook is not None and isinstance(response, Response):
                    client.call_hook(self._response_hook, span, request, response)
            finally:
                attach(hop.before)
            started: Any = span._start_time if span.__class__ is LeanSpan else time_ns() - elapsed
            sink = telemetry.get().sink
            ended = started + elapsed
            hop.kind.answers.timer(sink, status or 0).observe_ns(elapsed, span, ended)
            span.end(ended)
        except Exception:
            guard.failed("requests.finish")

    def _fail(self, hop: _Hop, request: PreparedRequest, error: BaseException) -> None:
        elapsed = perf_counter_ns() - hop.started
        try:
            try:
                response = getattr(error, "response", None)
                if isinstance(response, Response):
                    self._answered(hop.span, response, response.status_code)
                    if self._response_hook is not None:
                        client.call_hook(self._response_hook, hop.span, request, response)
            finally:
                attach(hop.before)
            kind = client.failed(hop.span, error)
            key = hop.kind.key
            timer = telemetry.get().sink.timer(names.request, *key, names.STATUS_EXCEPTION, kind)
            timer.observe(elapsed / 1e9, hop.span)
            hop.span.end()
        except Exception:
            guard.failed("requests.fail")

    def _answered(self, span: Span, response: Any, status: int) -> None:
        if not span.is_recording():
            return
        span.set_attribute("http.response.status_code", status)
        version = getattr(getattr(response, "raw", None), "version", None)
        if version in _VERSIONS:
            span.set_attribute("network.protocol.version", _VERSIONS[version])
        if self._headers is not None and (headers := getattr(response, "headers", None)):
            span.set_attributes(self._headers.of_response(headers))
        if not 100 <= status < 400:
            span.set_attribute("error.type", str(status))
            span.set_status(Status(StatusCode.ERROR))


def _with_status(kind: _Kind, status: int, version: Any) -> Given:
    known = kind.with_status.get((status, version))
    if known is None:
        known = Given(kind.given | {"http.response.status_code": status})
        if version in _VERSIONS:
            known["network.protocol.version"] = _VERSIONS[version]
        if len(kind.with_status) < _MOST_STATUS:
            kind.with_status[status, version] = known
    return known


_MOST_REMEMBERED = 500
"""Characters of a URL that is remembered."""
_MOST = 1000
"""Requests that are told apart and remembered, with each method, URL and user agent."""
_MOST_STATUS = 8

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


_stored: Callable[[Any], dict[str, tuple[str, Any]]] = attrgetter("_store")
"""What requests' dictionary of headers keeps: lower name -> name and value. Each of its own methods is a few calls."""


def _inject(request: PreparedRequest, span: Any, inside: Context) -> None:
    """Trace and request id as headers; an id that the caller has put there stays. A prepared request that is sent
    once more gets the id of the request that is then being served, not what it was given the first time."""
    headers: Any = request.headers
    if headers is None:
        headers = request.headers = CaseInsensitiveDict()
    own = getattr(request, _OURS, None)
    if own:
        for name, value in own:
            if headers.get(name) == value:
                del headers[name]
    if span.__class__ is LeanSpan and headers.__class__ is CaseInsensitiveDict and outbound.is_usual(inside):
        store: dict[str, tuple[str, object]] = _stored(headers)
        made = span._context
        store["traceparent"] = ("traceparent", outbound.traceparent(made))
        if made[4]:
            store["tracestate"] = ("tracestate", made[4].to_header())
        identity = inside.get(request_id.REQUEST_ID_KEY) or request_id.from_trace_id(made[0])
        added = []
        for name, lower in request_id.sent():
            if lower not in store:
                store[lower] = (name, identity)
                added.append((name, identity))
        request._c2c_otel_request_id = added  # type: ignore[attr-defined] # _OURS
        return
    absent = [name for name, _ in request_id.sent() if name not in headers]
    propagate.inject(headers)
    added = [(name, headers[name]) for name in absent if name in headers]
    request._c2c_otel_request_id = added  # type: ignore[attr-defined] # _OURS


def _resolve_redirects(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """What stands for ``Session.resolve_redirects``, a generator that sends one request for each item."""

    usual = Session.get_redirect_target

    def resolve_redirects(session: Session, resp: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        responses = original(session, resp, *args, **kwargs)
        if getattr(resp, "status_code", None) in REDIRECT_STATI or type(session).get_redirect_target is not usual:
            return _counted(responses)
        return responses  # there will be none

    return resolve_redirects


def _counted(responses: Iterator[Any]) -> Iterator[Any]:
    for count in range(1, 1_000_000):
        token = _resend.set(count)
        try:
            response = next(responses)
        except StopIteration:
            return
        finally:
            _resend.reset(token)
        yield response
