"""What a WSGI environ says about a request, as stable OpenTelemetry HTTP attributes.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import itemgetter
from typing import Any
from urllib.parse import quote, unquote_plus

from opentelemetry.util.http import (
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS,
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST,
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE,
    get_custom_header_attributes,
    get_custom_headers,
    normalise_request_header_name,
    normalise_response_header_name,
)

from c2c_otel.pending import Pending
from c2c_otel.settings import ConfigurationError
from c2c_otel_exporters import guard, masking

__all__ = [
    "Arrival",
    "CapturedHeaders",
    "attributes",
    "is_secret_name",
    "known_method",
    "redacted_query",
    "request_url",
    "url_path",
]

OTHER = "_OTHER"
"""What semantic conventions call every method that is not a registered one: it bounds names and series."""

METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PATH_SAFE = "/:@!$&'()*+,;=~-._"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/:@!$&'()*+,;=~._-]*\Z")
_SECRET_NAME = re.compile(
    r"secret|passw|token|credential|signature|api[-_]?key|access[-_]?key|auth|^(sig|pwd|key|jwt|code)$", re.IGNORECASE
)
_SECRET_HEADERS = (".x_api_key", ".x-api-key", ".authorization", ".proxy_authorization", ".proxy-authorization")
_QUERY_PART = re.compile(r"[^&;]+")
_NOTHING: Mapping[str, Any] = {}


def known_method(method: str) -> str:
    """The method, or ``_OTHER``. Methods are case-sensitive."""
    return method if method in METHODS else OTHER


def attributes(environ: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Attributes known when a request arrives. ``method``: as `known_method` gave it."""
    scheme = environ.get("wsgi.url_scheme", "http")
    found: dict[str, Any] = {
        "http.request.method": method,
        "url.scheme": scheme,
        "url.path": url_path(environ),
    }
    if method == OTHER:
        found["http.request.method_original"] = environ.get("REQUEST_METHOD", "")
    if query := environ.get("QUERY_STRING"):
        found["url.query"] = redacted_query(query)
    _add_server(found, environ, scheme)
    if client := environ.get("REMOTE_ADDR"):
        found["client.address"] = client
    if agent := environ.get("HTTP_USER_AGENT"):
        found["user_agent.original"] = agent
    protocol = environ.get("SERVER_PROTOCOL", "")
    if protocol.startswith("HTTP/"):
        found["network.protocol.version"] = protocol[5:]
    return found


_READ = (
    *("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL"),
    *("REMOTE_ADDR", "HTTP_HOST", "HTTP_USER_AGENT", "wsgi.url_scheme"),
)
"""What `attributes` reads of an environ."""
_values = itemgetter(*_READ)


class Arrival(Pending):
    """A request as it has arrived, whatever the application does to the environ then. `attributes` of it are made when
    the span is read; ``end`` are those that are known at the end."""

    __slots__ = ("_method", "_values", "end")

    def __init__(self, environ: Mapping[str, Any], method: str) -> None:
        try:
            self._values = _values(environ)
        except KeyError:  # a client that says little, or a server
            self._values = tuple(map(environ.get, _READ))
        self._method = method
        self.end: Mapping[str, Any] = _NOTHING

    def settled(self) -> dict[str, Any]:
        """See `Pending`."""
        environ = {name: value for name, value in zip(_READ, self._values, strict=True) if value is not None}
        try:
            found = attributes(environ, self._method)
        except Exception as error:  # a server that gives no text
            guard.dropped("span_attribute", 1, f"attributes of a request that cannot be read: {error!r}")
            found = {}
        return found | dict(self.end)


def url_path(environ: Mapping[str, Any]) -> str:
    """The path with the mount point, percent-encoded; the environ has latin-1 characters for bytes (PEP 3333)."""
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    if _PLAIN_PATH.match(path):
        return path
    return quote(path.encode("latin-1", "replace"), safe=_PATH_SAFE)


def _add_server(found: dict[str, Any], environ: Mapping[str, Any], scheme: str) -> None:
    """The name and port that the client asked for; where it named none, what the server calls itself."""
    host = environ.get("HTTP_HOST") or ""
    if not host:
        found["server.address"] = environ.get("SERVER_NAME", "")
        port = environ.get("SERVER_PORT", "")
    elif host[0] == "[":
        address, _, rest = host[1:].partition("]")
        found["server.address"] = address
        port = rest[1:]
    else:
        found["server.address"], _, port = host.partition(":")
    if port.isascii() and port.isdecimal() and len(port) <= 5:
        found["server.port"] = int(port)
    elif scheme in _DEFAULT_PORTS:
        found["server.port"] = _DEFAULT_PORTS[scheme]


def is_secret_name(name: str) -> bool:
    """Whether a parameter or header of this name holds a secret, as far as its name tells."""
    return _SECRET_NAME.search(name) is not None


def redacted_query(query: str) -> str:
    """A query string whose secrets are ``REDACTED``; recognised by their names, percent-encoded or not.

    >>> redacted_query("a=1&secret=x&api%4bey=y")
    'a=1&secret=REDACTED&api%4bey=REDACTED'
    """
    if "%" not in query and not _SECRET_NAME.search(query) and not _has_short_secret(query):
        return query
    return _QUERY_PART.sub(_redacted_part, query)


def _has_short_secret(query: str) -> bool:
    return any(_SECRET_NAME.search(part.partition("=")[0]) for part in _QUERY_PART.findall(query))


def _redacted_part(part: re.Match[str]) -> str:
    name, separator, _ = part[0].partition("=")
    return f"{name}=REDACTED" if separator and _SECRET_NAME.search(unquote_plus(name)) else part[0]


def request_url(environ: Mapping[str, Any]) -> str:
    """The whole URL, as the patterns of excluded URLs are matched against it."""
    host = environ.get("HTTP_HOST") or f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"
    path = url_path(environ)
    query = environ.get("QUERY_STRING")
    return f"{environ.get('wsgi.url_scheme', 'http')}://{host}{path}{'?' + query if query else ''}"


def _patterns(variable: str) -> list[str]:
    """They are compiled with each request; here while somebody can still mend them."""
    found = get_custom_headers(variable)
    for pattern in found:
        try:
            re.compile(pattern)
        except re.error:
            expected = "regular expressions of header names, with commas between them"
            raise ConfigurationError(variable, pattern, expected) from None
    return found


class CapturedHeaders:
    """Headers that ``OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_*`` ask for; falsy where they ask for none.

    Raises `ConfigurationError` where one of them has no regular expressions."""

    def __init__(self) -> None:
        self._request = _patterns(OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST)
        self._response = _patterns(OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE)
        self._hidden = _patterns(OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS)

    def __bool__(self) -> bool:
        return bool(self._request or self._response)

    def of_request(self, environ: Mapping[str, Any]) -> dict[str, list[str]]:
        """Attributes ``http.request.header.{name}``."""
        headers = {
            name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")
        }
        return _masked(
            get_custom_header_attributes(headers, self._request, self._hidden, normalise_request_header_name)
        )

    def of_response(self, headers: list[tuple[str, str]]) -> dict[str, list[str]]:
        """Attributes ``http.response.header.{name}``."""
        gathered: dict[str, str | list[str]] = {}
        for name, value in headers:
            values = gathered.setdefault(name.lower(), [])
            if isinstance(values, list):
                values.append(value)
        return _masked(
            get_custom_header_attributes(gathered, self._response, self._hidden, normalise_response_header_name)
        )


def _masked(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """Without our secret: in cookies and addresses its value alone, of headers that are a secret all."""
    for name, values in found.items():
        if name.endswith(_SECRET_HEADERS):
            found[name] = [masking.MASK for _ in values]
        else:
            found[name] = [masking.mask(value) for value in values]
    return found
