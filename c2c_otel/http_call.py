"""One HTTP request to a server of the operator's: Pushgateway, Elasticsearch. From the standard library, so that no
extra is needed; always with a timeout; whatever goes wrong is an OSError that names the server and what it said.
"""

from __future__ import annotations

import base64
import http.client
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping

from c2c_otel import __version__

__all__ = ["CallError", "basic", "call", "split_url"]

_MOST_SAID = 500
"""Characters of an error's body that are told."""


class CallError(OSError):
    """No answer, or one that is not 2xx. ``status`` is 0 where there is none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def split_url(url: str) -> tuple[str, str | None]:
    """``http://user:password@host/path`` -> the URL without credentials, and the Authorization header for them.

    Raises ValueError, without the URL in it (it may hold a password), for what is not http or https.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected a URL that starts with http:// or https://")
    user, at, host = parts.netloc.rpartition("@")
    plain = urllib.parse.urlunsplit(parts._replace(netloc=host))
    if not at:
        return plain, None
    name, _, password = user.partition(":")
    return plain, basic(urllib.parse.unquote(name), urllib.parse.unquote(password))


def call(
    method: str,
    url: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = 10.0,
    max_bytes: int = 10_000_000,
) -> bytes:
    """The body of the answer, at most ``max_bytes`` of it. Redirects are errors: the URL is the operator's to correct.

    Credentials in the URL are sent as basic authentication, unless ``headers`` has an Authorization. ``timeout``
    seconds are for connecting, and for each time that something is waited for. Raises `CallError`, and ValueError
    as `split_url`.
    """
    plain, authorization = split_url(url)
    sent = {"User-Agent": f"c2c-otel/{__version__}", **({"Authorization": authorization} if authorization else {})}
    request = urllib.request.Request(plain, data=body, method=method, headers={**sent, **(headers or {})})  # noqa: S310 - split_url has looked at the scheme
    try:
        with _opener().open(request, timeout=timeout) as response:
            return bytes(response.read(max_bytes))
    except urllib.error.HTTPError as error:
        with error:
            raise CallError(f"{method} {plain}: {error.code} {error.reason}{_said(error)}", error.code) from None
    except urllib.error.URLError as error:
        raise CallError(f"{method} {plain}: {_reason(error.reason, timeout)}") from None
    except (OSError, http.client.HTTPException) as error:
        raise CallError(f"{method} {plain}: {_reason(error, timeout)}") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object) -> None:
        """None: the redirect is an HTTPError."""


def _opener() -> urllib.request.OpenerDirector:
    """With the proxies of the environment."""
    return urllib.request.build_opener(_NoRedirects)


def _said(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read(4 * _MOST_SAID).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException):
        return ""
    return f": {' '.join(text.split())[:_MOST_SAID]}" if text else ""


def _reason(error: object, timeout: float) -> str:
    if isinstance(error, TimeoutError | socket.timeout):
        return f"no answer within {timeout:g} s"
    return str(error) or type(error).__name__
