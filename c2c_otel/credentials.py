"""What a request brings to be let in with, as bytes: whatever is in it, nothing here raises."""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import parse_qsl

from webob.cookies import parse_cookie

__all__ = ["COOKIE", "api_key", "bearer", "cookies", "is_right", "secret_parameters"]

COOKIE = "C2C_SECRET"

_LONGEST_BODY = 1 << 20
"""Bytes of a form in which a secret is looked for."""

_MOST_COOKIES = 10
"""Cookies of our name that are looked at: one for each path that fits, and the predecessor's."""

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def is_right(expected: str, given: bytes) -> bool:
    """Whether these bytes are the secret, as UTF-8 or as the Latin-1 in which some clients send headers. How long it
    takes says nothing but how long both are."""
    right = hmac.compare_digest(expected.encode("utf-8", "surrogateescape"), given)
    if not expected.isascii():
        try:
            right |= hmac.compare_digest(expected.encode("latin-1"), given)
        except UnicodeEncodeError:
            pass
    return right


def secret_parameters(request: Any) -> list[bytes]:
    """The values of all parameters ``secret``, of the query and of a form."""
    found = []
    query = request.environ.get("QUERY_STRING") or ""
    if "secret" in query or "%" in query:
        pairs = parse_qsl(query, keep_blank_values=True, encoding="latin-1")
        found = [_bytes(value) for name, value in pairs if name == "secret"]
    return found + _of_form(request)


def _of_form(request: Any) -> list[bytes]:
    """A form that cannot be read has none."""
    if request.method in ("GET", "HEAD") or request.content_type not in _FORMS:
        return []
    try:
        if not 0 < (request.content_length or 0) <= _LONGEST_BODY:
            return []
        values = request.POST.getall("secret")
    except Exception:  # WebOb and its multipart parser raise what they like
        return []
    return [value.encode("utf-8", "surrogateescape") if isinstance(value, str) else b"\0" for value in values]


def api_key(request: Any) -> bytes:
    """Of the header ``X-API-Key``; empty where there is none."""
    return _bytes(request.environ.get("HTTP_X_API_KEY") or "")


def bearer(request: Any) -> bytes:
    """Of ``Authorization: Bearer ...``; empty where there is none."""
    scheme, _, token = (request.environ.get("HTTP_AUTHORIZATION") or "").partition(" ")
    return _bytes(token.strip()) if scheme.lower() == "bearer" else b""


def cookies(request: Any) -> list[str]:
    """The values of all cookies of our name: a browser sends one for each path that fits."""
    header = request.environ.get("HTTP_COOKIE") or ""
    if COOKIE not in header:
        return []
    wanted = COOKIE.encode("ascii")
    try:
        found = [value.decode("latin-1") for name, value in parse_cookie(header) if name == wanted]
    except Exception:  # WebOb's parser was written for what browsers send
        return []
    return found[:_MOST_COOKIES]


def _bytes(text: str) -> bytes:
    """Of WSGI's text, which has a Latin-1 character for each byte (PEP 3333)."""
    return text.encode("latin-1", "replace")
