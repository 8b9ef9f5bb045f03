"""What all our views have in common: their methods, and that nobody keeps their answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import orjson
from pyramid.httpexceptions import HTTPException
from pyramid.response import Response

from c2c_otel import auth
from c2c_otel_exporters import guard

__all__ = ["add_view", "error", "includeme", "json_response"]

_logger = logging.getLogger("c2c_otel")

View = Callable[[Any], Response]


def add_view(
    config: Any, name: str, path: str, view: View, methods: tuple[str, ...] = ("GET",), *, protected: bool = False
) -> None:
    """Serve a path: by ``view`` for these methods (HEAD comes with GET), else 405.
    ``protected``: for who has the secret."""
    config.include("c2c_otel_views.answers")
    if protected:
        view = _protected(view)
    allowed = sorted({*methods, "HEAD"} if "GET" in methods else methods)
    config.add_route(name, path)
    config.add_view(_view(view), route_name=name, request_method=tuple(allowed), http_cache=0)
    config.add_view(_view(_not_allowed(", ".join(allowed))), route_name=name, http_cache=0)


def _view(view: View) -> Callable[[Any, Any], Response]:
    """Pyramid looks at a view's arguments; these are always the same."""
    return lambda _context, request: view(request)


def _protected(view: View) -> View:
    def protected(request: Any) -> Response:
        auth.auth_view(request)
        return view(request)

    return protected


def _not_allowed(allow: str) -> View:
    def not_allowed(request: Any) -> Response:
        response = error(405, f"{request.method} is not allowed for {request.path_info}.")
        response.headers["Allow"] = allow
        return response

    return not_allowed


def json_response(body: Any, status: int = 200) -> Response:
    """Indented by two, keys sorted."""
    text = orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return Response(text, status, content_type="application/json", charset="utf-8")


def error(status: int, message: str) -> Response:
    """``{"message": ..., "status": ...}``."""
    return json_response({"message": message, "status": status}, status)


def _failed(problem: Any, request: Any) -> Response:
    if isinstance(problem, HTTPException):
        return error(problem.status_int, problem.detail or problem.title)
    guard.failed(f"view {request.path_info}")  # one of ours, wherever it is mounted
    return error(500, "Internal error; see the service's log.")


def includeme(config: Any) -> None:
    for context in (Exception, HTTPException):
        config.add_exception_view(_failed, context=context, http_cache=0)
