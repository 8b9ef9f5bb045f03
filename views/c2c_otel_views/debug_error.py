"""{base}/debug/error: an error of the status that is asked for, to see what proxies, alerts and error pages do then."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPError, status_map
from pyramid.response import Response

from c2c_otel import admin, auth
from c2c_otel_views import answers, parameters

__all__ = ["debug_error", "error_class", "includeme"]

_EXPECTED = "the status of an HTTP error, such as 404 or 503"


def error_class(request: Any) -> type[HTTPError]:
    """The error of the parameter ``status``. Raises `HTTPBadRequest` where there is no such error."""
    found = parameters.text(request, "status", expected=_EXPECTED)
    kind: Any = status_map.get(int(found)) if found.isascii() and found.isdecimal() and len(found) == 3 else None
    if not isinstance(kind, type) or not issubclass(kind, HTTPError):
        raise parameters.refuse("status", found, _EXPECTED)
    return kind


def debug_error(request: Any) -> Response:
    """Raises the error of ``status``; it is answered as errors of our views are."""
    raise error_class(request)("Test")


def includeme(config: Any) -> None:
    settings = admin.settings_of(config)
    if auth.is_enabled(settings, settings.debug_view_enabled):
        path = f"{admin.base_path(config)}/debug/error"
        answers.add_view(config, "c2c_debug_error", path, debug_error, protected=True)
