"""Pyramid: a span and a measurement for each request, around everything the application does.

A subclass of Pyramid's Router takes its place where applications are made. That is outside of all tweens, explicit
ones too, needs no event subscriber and no tween of ours, and `isinstance(app, Router)`, ``app.registry`` and
``pyramid.scripting`` go on as before. A Router that nothing was decided for behaves as Pyramid's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import getrandbits
from typing import Any

import pyramid.config
import pyramid.request
import pyramid.router
from opentelemetry.instrumentation.pyramid import PyramidInstrumentor as ContribPyramidInstrumentor
from opentelemetry.trace import Span, Status, StatusCode, set_span_in_context
from opentelemetry.util.http import get_excluded_urls
from pyramid.httpexceptions import HTTPException
from pyramid.threadlocal import RequestContext

from c2c_otel import admin, application, auth, client_info, request_id, telemetry
from c2c_otel._sdk_private import attach, current
from c2c_otel.current_request import KEY
from c2c_otel.instrumentation import exchange as exchanges
from c2c_otel.instrumentation import pyramid_render, wsgi_attributes, wsgi_body
from c2c_otel.instrumentation.exchange import ENVIRON_ID, TRACER, Exchange, error_type, route_of
from c2c_otel.instrumentation.request_classes import RequestClasses
from c2c_otel.profiler import switch as profiler_switch
from c2c_otel.settings import ConfigurationError
from c2c_otel_exporters import guard

__all__ = ["PyramidInstrumentor", "TracedRouter"]

Environ = dict[str, Any]

_INSIDE_OTHERS = frozenset({"pyramid_debugtoolbar"})
"""Packages whose applications serve inside another, which is only being configured when they are made: they have no
views of ours, and telemetry does not start before the other's settings are known."""

_every_application = False
"""Whether applications are traced that nobody has asked about: under the launcher."""
_some_application = False
"""Whether some application was instrumented by its configuration: then what all share stays."""


_Router = pyramid.router.Router


class _SpannedRouter(pyramid.router.Router):  # type: ignore[misc]  # Pyramid has no types
    """Tells the exchange which request is handled, and gives subrequests their spans."""

    def invoke_request(self, request: Any, _use_tweens: bool = True) -> Any:
        exchange: Any = current().get(KEY)
        if exchange.__class__ is not Exchange:
            return _Router.invoke_request(self, request, _use_tweens)
        if exchange.in_request:
            return self._invoke_subrequest(request, _use_tweens)
        exchange.request = request
        exchange.in_request = True
        try:
            return _Router.invoke_request(self, request, _use_tweens)
        finally:
            exchange.in_request = False

    def _invoke_subrequest(self, request: Any, use_tweens: bool) -> Any:
        """A subrequest, or a request to an application that this one calls: a child span, no measurement."""
        previous = current()
        span = None
        try:
            span = _subrequest_span(request, previous)
            attach(set_span_in_context(span, previous))
        except Exception:
            guard.failed("pyramid.subrequest")
        status, error = 500, None
        try:
            response = super().invoke_request(request, use_tweens)
            status, error = getattr(response, "status_int", 200), getattr(request, "exception", None)
            return response
        except BaseException as raised:
            error = raised
            if isinstance(raised, HTTPException):
                status = raised.status_int
            raise
        finally:
            attach(previous)
            if span is not None:
                _end_subrequest(span, request, status, error)


def _subrequest_span(request: Any, context: Any) -> Span:
    method = wsgi_attributes.known_method(request.method)
    attributes = {"http.request.method": method, "url.path": wsgi_attributes.url_path(request.environ)}
    return telemetry.get().tracer(TRACER).start_span(method, context, attributes=attributes)


def _end_subrequest(span: Span, request: Any, status: int, error: BaseException | None) -> None:
    try:
        try:
            _describe_subrequest(span, request, status, error)
        finally:
            span.end()
    except Exception:
        guard.failed("pyramid.subrequest_end")


def _describe_subrequest(span: Span, request: Any, status: int, error: BaseException | None) -> None:
    span.set_attribute("http.response.status_code", status)
    if route := route_of(request):
        span.set_attributes({"pyramid.route.name": route[0], "http.route": route[1]})
        span.update_name(f"{wsgi_attributes.known_method(request.method)} {route[1]}")
    if status >= 500:
        span.set_attribute("error.type", str(status) if error is None else error_type(error))
        span.set_status(Status(StatusCode.ERROR))
    if error is not None and not (isinstance(error, HTTPException) and error.status_int < 500):
        span.record_exception(error)


class TracedRouter(_SpannedRouter):
    """A Pyramid application as a WSGI callable, with its telemetry and our views around it."""

    def __init__(self, registry: Any) -> None:
        super().__init__(registry)
        self._c2c_traced = False
        self._c2c_admin: admin.Admin | None = None
        self._c2c_proxies: client_info.Resolver | None = None
        self._c2c_classes = RequestClasses()
        self._c2c_excluded: Callable[[str], bool] | None = None
        self._c2c_captured: wsgi_attributes.CapturedHeaders | None = None
        decided = application.of(registry)
        if decided.traced or decided.included or _every_application:
            try:
                self._c2c_begin(registry, decided)
            except ConfigurationError:
                raise
            except Exception:
                guard.failed("pyramid.application")

    def _c2c_begin(self, registry: Any, decided: application.Application) -> None:
        process = telemetry.get()
        settings = decided.settings or process.settings
        self._c2c_traced = (decided.traced or _every_application) and not settings.sdk_disabled
        if getattr(registry, "package_name", None) in _INSIDE_OTHERS:
            return
        process.application_ready()
        if settings.sentry_url and not decided.included:  # the include has done it before
            from c2c_otel import sentry

            sentry.configure(settings, registry.settings or {})
        auth.init(settings)
        if decided.included:
            self._c2c_proxies = client_info.Resolver(settings.trusted_proxies)
        if decided.included or (_every_application and settings.auto_include):
            self._c2c_admin = admin.Admin(registry, settings, decided.route_prefix, _AdminRouter, self._c2c_answer)
        excluded = get_excluded_urls("PYRAMID")
        self._c2c_excluded = excluded.url_disabled if getattr(excluded, "_excluded_urls", True) else None
        self._c2c_captured = wsgi_attributes.CapturedHeaders() or None

    def request_context(self, environ: Environ) -> Any:
        """As the Router's, with the classes of requests kept."""
        extensions = self.request_extensions
        if extensions is not None and (
            not self._c2c_traced
            or pyramid.router.apply_request_extensions is not pyramid.request.apply_request_extensions
        ):
            return super().request_context(environ)
        request = self.request_factory(environ)
        request.registry = self.registry
        request.invoke_subrequest = self.invoke_subrequest
        if extensions is not None:
            self._c2c_classes.apply(request, extensions)
        return RequestContext(request)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self._c2c_proxies is not None:
            self._c2c_proxies.resolve(environ)
        if not self._c2c_traced:
            return self._c2c_answer(environ, start_response)
        exchange = None
        try:
            if self._c2c_excluded is None or not self._c2c_excluded(wsgi_attributes.request_url(environ)):
                exchange = exchanges.begin(environ, start_response, self._c2c_captured)
        except Exception:
            guard.failed("pyramid.begin")
        if exchange is None:
            return self._c2c_answer(environ, start_response)
        try:
            exchange.running = True  # from here on it ends, whatever a signal handler raises wherever we are
            admin = self._c2c_admin
            if profiler_switch.active is None and (admin is None or environ.get("PATH_INFO") not in admin.paths):
                body: Iterable[bytes] = _Router.__call__(self, environ, exchange.start_response)
            else:
                body = self._c2c_answer(environ, exchange.start_response)
            exchange.answered()
            return wsgi_body.wrap(body, exchange)
        except BaseException as error:
            exchange.raised(error)
            raise

    def _c2c_answer(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Our views or the application, one of them and once."""
        ours = self._c2c_admin
        if ours is not None and environ.get("PATH_INFO") in ours.paths:
            return ours.answer(environ, start_response, super().__call__, self.request_context)
        recorder = profiler_switch.active
        if recorder is not None:
            return recorder.answer(super().__call__, environ, start_response)
        answer: Iterable[bytes] = _Router.__call__(self, environ, start_response)
        return answer


class _AdminRouter(_SpannedRouter):
    """Our own views: a part of the request that has reached them."""


class _RequestId:
    """``request.c2c_request_id``: of the request being served; else of the request's own headers; else a new one."""

    def __get__(self, request: Any, owner: type | None = None) -> Any:
        if request is None:
            return self
        environ = request.environ
        found = environ.get(ENVIRON_ID) or request_id.get() or request_id.from_environ(environ)
        if found is None:
            found = request_id.from_trace_id(getrandbits(128))
        environ[ENVIRON_ID] = found
        return found


class PyramidInstrumentor(ContribPyramidInstrumentor):
    """``instrument()``: every application made from here on. ``instrument_config(config)``: that one."""

    _instance = None  # contrib keeps its singleton in this attribute, which a subclass would find
    _is_instrumented_by_opentelemetry = False

    def _instrument(self, **kwargs: Any) -> None:
        global _every_application
        _every_application = True
        _put_in_place()

    def _uninstrument(self, **kwargs: Any) -> None:
        global _every_application
        _every_application = False
        if not _some_application:
            _take_away()

    @staticmethod
    def instrument_config(config: Any, *, traced: bool = True) -> None:
        """To be called before ``config.make_wsgi_app()``. Idempotent. Without ``traced``: our views and the request
        id alone."""
        global _some_application
        _some_application = True
        if traced:
            telemetry.get().install()
            application.of(config.registry).traced = True
        _put_in_place()

    @staticmethod
    def uninstrument_config(config: Any) -> None:
        """Undo `instrument_config`, where the application has not been made yet."""
        application.of(config.registry).traced = False


def _put_in_place() -> None:
    pyramid.config.Router = TracedRouter
    pyramid.request.CallbackMethodsMixin.c2c_request_id = _RequestId()  # of Request and of testing.DummyRequest
    pyramid_render.patch()


def _take_away() -> None:
    if pyramid.config.Router is TracedRouter:
        pyramid.config.Router = pyramid.router.Router
    if "c2c_request_id" in vars(pyramid.request.CallbackMethodsMixin):
        del pyramid.request.CallbackMethodsMixin.c2c_request_id
    pyramid_render.unpatch()
