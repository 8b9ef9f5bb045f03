"""{base}/debug/headers: a request as it arrives here, behind all proxies; what looks like a secret is masked."""

from __future__ import annotations

import re
from typing import Any

import orjson
from pyramid.response import Response

from c2c_otel import admin, auth
from c2c_otel.instrumentation import wsgi_attributes
from c2c_otel_views import answers, debug_error

__all__ = ["MASK", "debug_headers", "dump", "includeme", "masked"]

MASK = "***"

_CLIENT_INFO = (
    "client_addr",
    "host",
    "host_port",
    "http_version",
    "path",
    "path_info",
    "remote_addr",
    "remote_host",
    "scheme",
    "server_name",
    "server_port",
)

# Headers carry more kinds of secrets than parameters do.
_SECRET_NAME = re.compile(r"cookie|session|jwt|assertion|ticket|oidc|bearer|private|csrf|xsrf", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"\s*(?:basic|bearer|digest|negotiate|ntlm|apikey|token|aws4-hmac-sha256)\s"  # a scheme and its credentials
    r"|\beyJ[\w-]*\.[\w-]+\.[\w-]*",  # a JSON web token
    re.IGNORECASE,
)
_QUERY = re.compile(r"(?<=\?)[^#\s<>\"]+")
_PASSWORD = re.compile(r"(?<=://)[^/\s@]*@")


def masked(name: str, value: str, secret: str | None = None) -> str:
    """A header's value as it may be shown. ``secret``: that of the service, which no header shows."""
    if wsgi_attributes.is_secret_name(name) or _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
        return MASK
    value = _QUERY.sub(lambda query: wsgi_attributes.redacted_query(query[0]), value)
    value = _PASSWORD.sub(f"{MASK}@", value)
    return value.replace(secret, MASK) if secret else value


def dump(request: Any) -> dict[str, Any]:
    """``{"headers": {name: value}, "client_info": {...}}``."""
    secret = auth.get_expected_secret(request)
    return {
        "headers": {name: masked(name, value, secret) for name, value in request.headers.items()},
        "client_info": {name: getattr(request, name) for name in _CLIENT_INFO},
    }


def debug_headers(request: Any) -> Response:
    """The dump; with ``status`` the HTTP error of that status, whose message is the dump as JSON."""
    if "status" not in request.params:
        return answers.json_response(dump(request))
    error = debug_error.error_class(request)
    raise error(orjson.dumps(dump(request)).decode())


def includeme(config: Any) -> None:
    settings = admin.settings_of(config)
    if auth.is_enabled(settings, settings.debug_view_enabled):
        path = f"{admin.base_path(config)}/debug/headers"
        answers.add_view(config, "c2c_debug_headers", path, debug_headers, protected=True)
