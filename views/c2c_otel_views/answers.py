"""What all our views have in common: their methods, and that nobody keeps their answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import orjson
from pyramid.httpexceptions import HTTPException
from pyramid.response import Response

from c2c_otel import admin, auth
from c2c_otel_exporters import guard
from c2c_otel_views import parameters

__all__ = ["add_view", "error", "failed", "guarded", "includeme", "json_response", "not_allowed"]

_logger = logging.getLogger("c2c_otel")

View = Callable[[Any], Response]


_HEADERS = (("Referrer-Policy", "no-referrer"), ("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY"))
"""Of every answer, unless the view has set them: a ``secret`` in the address stays there."""

_NOT_FORWARDED = frozenset({"content-type", "content-length"})


def add_view(
    config: Any,
    name: str,
    path: str,
    view: View,
    methods: tuple[str, ...] = ("GET",),
    *,
    protected: bool = False,
    login: bool = False,
) -> None:
    """Serve a path: by ``view`` for these methods (HEAD comes with GET), else 405.

    ``protected``: for who has the secret, as are all views where ``C2C_OPEN_VIEWS`` is off; without a secret such a
    view does not exist. ``login``: one that shows who comes without the secret how to log in, and nothing else.
    """
    settings = admin.settings_of(config)
    if protected or not settings.open_views:
        if not settings.secret:
            return
        if protected or not login:
            view = _protected(view)
    config.include("c2c_otel_views.answers")
    allowed = sorted({*methods, "HEAD"} if "GET" in methods else methods)
    config.add_route(name, path)
    config.add_view(_view(view), route_name=name, request_method=tuple(allowed), http_cache=0)
    config.add_view(_view(not_allowed(", ".join(allowed))), route_name=name, http_cache=0)


def _view(view: View) -> Callable[[Any, Any], Response]:
    """Pyramid looks at a view's arguments; these are always the same."""

    def answer(_context: Any, request: Any) -> Response:
        parameters.check(request)
        return guarded(view(request))

    return answer


def guarded(response: Response) -> Response:
    """With the headers that all of our answers have."""
    for name, value in _HEADERS:
        response.headers.setdefault(name, value)
    return response


def _protected(view: View) -> View:
    def protected(request: Any) -> Response:
        auth.auth_view(request)
        return view(request)

    return protected


def not_allowed(allow: str) -> View:
    """A view that answers 405, for a header ``Allow``."""

    def refuse(request: Any) -> Response:
        response = error(405, f"{request.method} is not allowed for {request.path_info}.")
        response.headers["Allow"] = allow
        return response

    return refuse


def json_response(body: Any, status: int = 200) -> Response:
    """Indented by two, keys sorted."""
    text = orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return Response(text, status, content_type="application/json", charset="utf-8")


def error(status: int, message: str) -> Response:
    """``{"message": ..., "status": ...}``."""
    return json_response({"message": message, "status": status}, status)


def failed(problem: Any, request: Any) -> Response:
    """The answer to what a view has raised; to be called where it is handled."""
    if isinstance(problem, HTTPException):
        return guarded(_as_json(problem))
    guard.failed(f"view {request.path_info}")  # one of ours, wherever it is mounted
    return guarded(error(500, "Internal error; see the service's log."))


def _as_json(problem: HTTPException) -> Response:
    """With its headers: Retry-After, Allow, Location ..."""
    response = error(problem.status_int, problem.detail or problem.title)
    for name, value in problem.headers.items():
        if name.lower() not in _NOT_FORWARDED:
            response.headers.add(name, value)
    return response


def includeme(config: Any) -> None:
    for context in (Exception, HTTPException):
        config.add_exception_view(failed, context=context, http_cache=0)
