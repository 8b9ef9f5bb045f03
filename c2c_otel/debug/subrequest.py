"""A GET request from inside: to the application that is being served, as a client's would be."""

from __future__ import annotations

import io
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any

from webob.cookies import parse_cookie

from c2c_otel import credentials

__all__ = ["MARKER", "environ_for", "query_without", "send"]

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

MARKER = "c2c_otel.subrequest"
"""The WSGI environ's key by which such a request is known, also to applications that this one calls."""

_KEPT = frozenset(
    {
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "SCRIPT_NAME",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "SERVER_SOFTWARE",
        "wsgi.errors",
        "wsgi.file_wrapper",
        "wsgi.multiprocess",
        "wsgi.multithread",
        "wsgi.run_once",
        "wsgi.url_scheme",
        "wsgi.version",
    }
)

_DROPPED = (
    "HTTP_CONNECTION",
    "HTTP_EXPECT",
    "HTTP_IF_",  # an answer of 304 would be another one
    "HTTP_RANGE",
    "HTTP_REFERER",  # may have the secret in its query
    "HTTP_TRANSFER_ENCODING",
    "HTTP_UPGRADE",
    "HTTP_X_API_KEY",
    "HTTP_X_CSRF_TOKEN",
)


def environ_for(environ: Environ, path: str, query: str, secret: str | None) -> Environ:
    """The environ of a GET of this path and query (as in an URL, the path unquoted), with the headers of the request at
    hand: what the application knows its client by goes on, what opens our own views (``secret``) does not."""
    made = {key: value for key, value in environ.items() if key in _KEPT or _goes_on(key, value, secret)}
    if cookie := _without_login(environ.get("HTTP_COOKIE", "")):
        made["HTTP_COOKIE"] = cookie
    made.update(
        {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path.encode().decode("latin-1"),
            "QUERY_STRING": urllib.parse.quote(query, safe="!$%&'()*+,-./:;=?@_~[]"),
            "wsgi.input": io.BytesIO(),
            MARKER: True,
        }
    )
    return made


def query_without(query: str, names: frozenset[str]) -> str:
    """A query string without these parameters."""
    parts = [part for part in query.split("&") if part]
    return "&".join(part for part in parts if urllib.parse.unquote_plus(part.partition("=")[0]) not in names)


def _goes_on(key: str, value: Any, secret: str | None) -> bool:
    if not key.startswith("HTTP_") or key == "HTTP_COOKIE" or key.startswith(_DROPPED):
        return False
    return not (secret and secret.encode() in str(value).encode("latin-1", "replace"))


def _without_login(header: str) -> str:
    """The cookies but for that of our login; none where it can be read out of what is left."""
    if credentials.COOKIE not in header:
        return header
    kept = ";".join(part for part in header.split(";") if part.partition("=")[0].strip() != credentials.COOKIE)
    names = [name for name, _ in parse_cookie(kept)]
    return "" if credentials.COOKIE.encode("ascii") in names else kept.strip()


def send(service: Wsgi, environ: Environ) -> int:
    """Send it, read the whole answer, and let it go. Returns its status; raises what the application raises."""
    statuses: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        statuses.append(status)
        return lambda data: None

    body = service(environ, start_response)
    try:
        for _ in body:
            pass
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    return int(statuses[-1][:3]) if statuses else 0
