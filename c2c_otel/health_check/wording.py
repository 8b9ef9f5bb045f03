"""What an exception says of a failing check: to everybody, and to who may see details.

Neither ever has the password of a URL or of a connection string in it.
"""

from __future__ import annotations

import re
import traceback
from typing import Any, NamedTuple

from c2c_otel import errors
from c2c_otel.instrumentation.wsgi_attributes import redacted_query
from c2c_otel_exporters import masking, plain

__all__ = ["Said", "clean", "of", "without_passwords"]

_USERINFO = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^/?#\s\"'<>]*@")
_QUERY = re.compile(r"(?<=\?)[^\s\"'<>()]+=[^\s\"'<>()]*")
_PASSWORD = re.compile(r"(\bpass(?:word|wd)[\"']?\s*[=:]\s*)('[^']*'|\"[^\"]*\"|[^\s,;&)]+)", re.IGNORECASE)


class Said(NamedTuple):
    """``message``: for everybody."""

    message: str
    detailed: str
    stacktrace: str


def of(error: BaseException) -> Said:
    """An exception in words, without credentials; without statements for who must not see them."""
    name = type(error).__name__
    short = _outgoing(error) or errors.message(error, False) or name
    full = errors.message(error, True) or name
    return Said(clean(short), clean(full), clean("".join(traceback.format_exception(error))))


def clean(text: str) -> str:
    """The text without credentials."""
    text = _PASSWORD.sub(r"\1***", _USERINFO.sub(r"\1***@", plain.valid(text)))
    text = _QUERY.sub(lambda query: redacted_query(query[0]), text)
    return plain.cut(masking.mask(text))


def without_passwords(value: Any) -> Any:
    """Of JSON: each text in it without the passwords of URLs."""
    if isinstance(value, str):
        return _USERINFO.sub(r"\1***@", value) if "://" in value else value
    if isinstance(value, dict):
        return {without_passwords(key): without_passwords(held) for key, held in value.items()}
    return [without_passwords(held) for held in value] if isinstance(value, list) else value


def _outgoing(error: BaseException) -> str:
    """Of an outgoing call: the texts of `requests` have the whole URL."""
    if not any(cls.__module__ == "requests.exceptions" for cls in type(error).__mro__):
        return ""
    response = getattr(error, "response", None)
    if response is None:
        return type(error).__name__
    return f"{response.status_code} {plain.valid(str(response.reason or ''))}".strip()
