"""Our own views beside an application, and who of the two answers a path.

They live in a Pyramid registry of their own, so that the application's policies, tweens, view derivers and root
factory do not touch them. A path stays the application's where one of its routes matches; where it has views that
are found by traversal, it is asked first, and ours answer its 404.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable
from typing import Any

from pyramid.config import Configurator
from pyramid.config.views import isexception
from pyramid.httpexceptions import HTTPNotFound
from pyramid.interfaces import IRouteRequest, IRoutesMapper, IViewClassifier
from pyramid.registry import Registry

from c2c_otel import application as applications
from c2c_otel.settings import Settings
from c2c_otel_exporters import guard

__all__ = ["VIEWS", "Admin", "base_path", "settings_of"]

VIEWS = (
    "c2c_otel_views.metrics",
    "c2c_otel_views.stats",
    "c2c_otel_views.versions",
    "c2c_otel_views.health_check",
    "c2c_otel_views.debug_time",
    "c2c_otel_views.debug_stacks",
    "c2c_otel_views.debug_memory",
    "c2c_otel_views.debug_refs",
    "c2c_otel_views.log_levels",
    "c2c_otel_views.db_maintenance",
    "c2c_otel_views.sql_profiler",
    "c2c_otel_views.profiler",
    "c2c_otel_views.debug_sleep",
    "c2c_otel_views.debug_headers",
    "c2c_otel_views.debug_error",
    "c2c_otel_views.index",
)
"""Included in this order, by name: the core does not import views."""

_logger = logging.getLogger("c2c_otel")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Wsgi = Callable[[Environ, StartResponse], Iterable[bytes]]


def settings_of(config: Any) -> Settings:
    """The settings of the application beside which these views are configured."""
    settings: Settings = config.registry.c2c_settings
    return settings


def base_path(config: Any) -> str:
    """Where all views but /metrics hang: "/c2c", or "" for the root. ``config``: our views' or an application's own,
    before or after it has included us."""
    registry = config.registry
    found = getattr(registry, "c2c_settings", None) or applications.of(registry).settings
    return (found or Settings.load(ini=registry.settings or {})).base_path


class Admin:
    """The views beside one application. ``paths``: those that have a route of ours, as PATH_INFO has them."""

    def __init__(
        self,
        application: Any,
        settings: Settings,
        route_prefix: str | None,
        make_router: Callable[[Any], Wsgi],
        service: Wsgi | None = None,
    ) -> None:
        """``service``: application and views together, for a view that sends a request to them."""
        registry = _configured(settings, route_prefix, application)
        registry.c2c_service = service
        self._router = make_router(registry)
        self._application = application
        self._asks_first = has_traversal_views(application)
        self._mapper = application.queryUtility(IRoutesMapper)
        ours = registry.queryUtility(IRoutesMapper)
        patterns = [route.pattern for route in ours.get_routes()] if ours is not None else []
        self.paths = _paths(map(_path_info, patterns))
        self._claims: dict[str, _Claim] = {}
        self._log_shadowed()

    def answer(
        self, environ: Environ, start_response: StartResponse, application: Wsgi, request_context: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a path that is in `paths`, or let the application do so. ``request_context``: its Router's."""
        try:
            path = environ["PATH_INFO"]
            claimed = self._claim(path).holds(environ, request_context)
        except Exception:
            guard.failed("admin.claim")
            claimed = True
        if claimed:
            return application(environ, start_response)
        if self._asks_first:
            return _asked_first(environ, start_response, application, self._router)
        return self._router(environ, start_response)

    def _claim(self, path: str) -> _Claim:
        """Which of the application's routes match a path; remembered for as long as it has as many routes."""
        routes = self._mapper.get_routes() if self._mapper is not None else []
        claim = self._claims.get(path)
        if claim is None or claim.known != len(routes):
            claim = _Claim.of(path, routes)
            if frozenset.__contains__(self.paths, path):  # of those below a prefix there is no end
                self._claims[path] = claim
        return claim

    def _log_shadowed(self) -> None:
        for path in sorted(self.paths):
            for route in self._claim(path).routes:
                _logger.warning(
                    "%s is not served by c2c-otel%s: the application's route %r (pattern %r) matches it.",
                    path,
                    " where its predicates hold" if route.predicates else "",
                    route.name,
                    route.pattern,
                )


@dataclasses.dataclass(frozen=True)
class _Claim:
    """The application's routes that match a path, up to the first one without predicates."""

    known: int
    routes: tuple[Any, ...]

    @classmethod
    def of(cls, path: str, routes: Iterable[Any]) -> _Claim:
        matching = []
        routes = tuple(routes)
        text = path.encode("latin-1").decode("utf-8", "replace")
        for route in routes:
            if route.match(text) is not None:
                matching.append(route)
                if not route.predicates:
                    break
        return cls(len(routes), tuple(matching))

    def holds(self, environ: Environ, request_context: Callable[..., Any]) -> bool:
        """Whether the application's mapper would match this request."""
        if not self.routes:
            return False
        if not self.routes[0].predicates:
            return True
        context = request_context(environ)
        request = context.begin()
        try:
            return any(_matches(route, request) for route in self.routes)
        finally:
            context.end()


def _matches(route: Any, request: Any) -> bool:
    info = {"match": route.match(request.path_info), "route": route}
    return all(predicate(info, request) for predicate in route.predicates)


class _Paths(frozenset[str]):
    """Exact paths, and all below some prefixes. A set without prefixes is a plain one: each request looks into it."""

    prefixes: tuple[str, ...] = ()

    def __contains__(self, path: object) -> bool:
        return super().__contains__(path) or (isinstance(path, str) and path.startswith(self.prefixes))


def _paths(patterns: Iterable[str]) -> frozenset[str]:
    """Those of our routes; ``/a/*rest`` stands for all paths below ``/a/``."""
    known = tuple(patterns)
    exact = [pattern for pattern in known if "*" not in pattern]
    prefixes = tuple(pattern.partition("*")[0] for pattern in known if "*" in pattern)
    if not prefixes:
        return frozenset(exact)
    paths = _Paths(exact)
    paths.prefixes = prefixes
    return paths


def _path_info(pattern: str) -> str:
    """A route's pattern, as a request for it has it in PATH_INFO (PEP 3333: latin-1 for bytes)."""
    path = pattern if pattern.startswith("/") else f"/{pattern}"
    return path.encode().decode("latin-1")


def _configured(settings: Settings, route_prefix: str | None, application: Any) -> Any:
    registry = Registry("c2c_otel")
    registry.c2c_settings = settings
    registry.c2c_application = application
    applications.of(registry).route_prefix = route_prefix
    config = Configurator(registry=registry)
    config.setup_registry(settings={})
    config.route_prefix = route_prefix
    for name in VIEWS:
        config.include(name)
    config.commit()
    return registry


def has_traversal_views(registry: Any) -> bool:
    """Whether an application has a view that is found without a route, other than for exceptions."""
    of_routes = {interface for _, interface in registry.getUtilitiesFor(IRouteRequest)}
    return any(
        len(adapter.required) == 3
        and adapter.required[0] is IViewClassifier
        and adapter.required[1] not in of_routes
        and not _for_exceptions(adapter.required[2])
        for adapter in registry.registeredAdapters()
    )


def _for_exceptions(context: Any) -> bool:
    return bool(isexception(context) or isexception(getattr(context, "inherit", None)))


class _Held:
    """A start_response that keeps a 404 to itself for as long as the application is being called."""

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response
        self._arguments: tuple[Any, ...] | None = None
        self._written: list[bytes] = []
        self._deciding = True

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        arguments = (status, headers) if exc_info is None else (status, headers, exc_info)
        if self._deciding and status.startswith("404"):
            self._arguments = arguments
            return self._written.append
        self._arguments = None
        return self._start_response(*arguments)

    def is_not_found(self) -> bool:
        """Whether it answered 404; from now on nothing is held."""
        self._deciding = False
        return self._arguments is not None


def _asked_first(environ: Environ, start_response: StartResponse, application: Wsgi, ours: Wsgi) -> Iterable[bytes]:
    """The application's answer, or ours where that is a 404."""
    held = _Held(start_response)
    try:
        body = application(environ, held)
    except HTTPNotFound:  # an application without exception views
        return ours(environ, start_response)
    if not held.is_not_found():
        return body
    close = getattr(body, "close", None)
    if close is not None:
        close()
    return ours(environ, start_response)
