"""{base}/health_check and what Kubernetes asks for: /live, /ready, /startup.

Checks get the application's request, so these routes are the application's own: `serve` adds them to its registry,
apart from its permissions and its root factory. Our registry, `includeme`, only knows where they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pyramid.httpexceptions import HTTPException, HTTPNotFound
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED
from pyramid.traversal import DefaultRootFactory

from c2c_otel import auth
from c2c_otel.health_check import HealthCheck, report
from c2c_otel_views import answers, parameters

__all__ = ["includeme", "serve"]

_MAX_LEVEL = 1_000_000

Probe = Callable[[HealthCheck, Any], Response]


def health_check(health: HealthCheck, request: Any) -> Response:
    """The checks up to ``max_level``, or those that are named in ``checks``; 500 where one fails."""
    return _report(health, request, 500)


def live(health: HealthCheck, request: Any) -> Response:
    """The process answers."""
    return answers.json_response(report.body((), 200))


def ready(health: HealthCheck, request: Any) -> Response:
    """As `health_check`, with 503 where a check fails."""
    return _report(health, request, 503)


def startup(health: HealthCheck, request: Any) -> Response:
    """As `ready`, but a check that has succeeded once in this process is not run again."""
    return _report(health, request, 503, once=True)


PROBES: dict[str, Probe] = {"": health_check, "live": live, "ready": ready, "startup": startup}


def _report(health: HealthCheck, request: Any, failing: int, *, once: bool = False) -> Response:
    max_level = parameters.integer(request, "max_level", 0, _MAX_LEVEL, None)
    names = parameters.text(request, "checks", "", "names of checks with commas between them")
    try:
        checks = health.select(max_level, names)
    except LookupError as unknown:
        raise HTTPNotFound(str(unknown.args[0])) from None
    outcomes = health.run(request, checks, once=once)
    status = 200 if all(result.ok for _, result in outcomes) else failing
    detailed = health.settings.development or auth.is_auth(request)
    return answers.json_response(report.body(outcomes, status, detailed=detailed), status)


def serve(config: Any) -> None:
    """Into the application's registry, which has a `HealthCheck`. Without the secret nobody is answered where
    ``C2C_OPEN_VIEWS`` is off."""
    health: HealthCheck = config.registry.c2c_health_check
    if not (health.settings.open_views or health.settings.secret):
        return
    config.route_prefix = None
    options = {"permission": NO_PERMISSION_REQUIRED, "require_csrf": False, "http_cache": 0}
    for name, probe in PROBES.items():
        route = "_".join(filter(None, ("c2c_health_check", name)))
        config.add_route(route, _path(health, name), factory=DefaultRootFactory)
        view = _view(functools.partial(probe, health), open_to_all=health.settings.open_views)
        config.add_view(view, route_name=route, request_method=("GET", "HEAD"), **options)
        config.add_view(_view(answers.not_allowed("GET, HEAD"), open_to_all=True), route_name=route, **options)


def _path(health: HealthCheck, name: str = "") -> str:
    return f"{health.path}/{name}" if name else health.path


def _view(view: Callable[[Any], Response], *, open_to_all: bool) -> Callable[[Any, Any], Response]:
    """The application's exception views do not see what ours raises."""

    def answer(_context: Any, request: Any) -> Response:
        try:
            parameters.check(request)
            if not open_to_all:
                auth.auth_view(request, bearer=True)
            return answers.guarded(view(request))
        except HTTPException as problem:
            return answers.failed(problem, request)

    return answer


def includeme(config: Any) -> None:
    """For the index, which links to what is there: a route that is never matched."""
    health = getattr(config.registry.c2c_application, "c2c_health_check", None)
    if health is not None and (health.settings.open_views or health.settings.secret):
        config.route_prefix = None
        config.add_route("c2c_health_check", _path(health), static=True)
