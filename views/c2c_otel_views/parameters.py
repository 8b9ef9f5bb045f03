"""What a request may say to a view: each parameter, from the query or a form, decoded or refused with a 400."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from pyramid.httpexceptions import HTTPBadRequest, HTTPLengthRequired, HTTPRequestEntityTooLarge

__all__ = ["MAX_FORM_BYTES", "check", "flag", "integer", "number", "only", "refuse", "text"]

_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_MISSING: Any = object()

MAX_FORM_BYTES = 100_000
"""Anybody may send one, and decoded it takes forty times as much memory."""


def refuse(name: str, value: object, expected: str) -> HTTPBadRequest:
    """The error to raise: 400, with the parameter's name, its value (cut) and what was expected."""
    shown = repr(value)
    return HTTPBadRequest(f"{name} is {shown if len(shown) <= 100 else shown[:97] + '...'}; expected {expected}.")


def text(request: Any, name: str, default: Any = _MISSING, expected: str = "text") -> Any:
    """The parameter, or the default. Raises `HTTPBadRequest` where it is missing and there is no default."""
    values = _all(request, name)
    if len(values) > 1:
        raise HTTPBadRequest(f"{name} is given {len(values)} times; expected {expected}, once.")
    if values:
        if not isinstance(values[0], str):
            raise HTTPBadRequest(f"{name} is a file; expected {expected}.")
        return values[0]
    if default is _MISSING:
        raise HTTPBadRequest(f"{name} is missing; expected {expected}.")
    return default


def check(request: Any) -> None:
    """Before anything is read. Raises `HTTPBadRequest` where the query or the form cannot be read at all,
    `HTTPRequestEntityTooLarge` and `HTTPLengthRequired` for a form that is, or may be, longer than any of ours."""
    if request.method not in ("GET", "HEAD"):
        _check_length(request)
    _all(request, "")


def _check_length(request: Any) -> None:
    length = request.content_length
    if length is None and request.environ.get("HTTP_TRANSFER_ENCODING"):
        raise HTTPLengthRequired("A form is sent with its Content-Length here.")
    if (length or 0) > MAX_FORM_BYTES:
        raise HTTPRequestEntityTooLarge(f"The form has {length} bytes; expected {MAX_FORM_BYTES} at most.")


def _all(request: Any, name: str) -> list[Any]:
    try:
        values: list[Any] = request.params.getall(name)
    except Exception:  # bytes that are no UTF-8, a multipart form without its boundary, ...
        raise HTTPBadRequest("The parameters cannot be read; expected a query and a form in UTF-8.") from None
    return values


def _filled_in(request: Any, name: str, default: Any, expected: str) -> str | None:
    """The text; None where there is a default for it and it is missing, or empty as what a form leaves blank."""
    found: str | None = text(request, name, default if default is _MISSING else None, expected)
    return None if not found and default is not _MISSING else found


def flag(request: Any, name: str, default: Any = _MISSING) -> Any:
    """1, true, yes, on, 0, false, no or off, in any case."""
    expected = "one of 1, true, yes, on, 0, false, no, off"
    found = _filled_in(request, name, default, expected)
    if found is None:
        return default
    try:
        return _WORDS[found.strip().lower()]
    except KeyError:
        raise refuse(name, found, expected) from None


def integer(request: Any, name: str, low: int, high: int, default: Any = _MISSING) -> Any:
    """An integer from low to high, both included."""
    expected = f"an integer from {low} to {high}"
    found = _filled_in(request, name, default, expected)
    if found is None:
        return default
    try:
        value = int(found)
    except ValueError:
        raise refuse(name, found, expected) from None
    if not low <= value <= high:
        raise refuse(name, found, expected)
    return value


def number(request: Any, name: str, low: float, high: float, default: Any = _MISSING, unit: str = "") -> Any:
    """A finite number from low to high, both included; ``unit`` is for the message."""
    expected = f"a number{f' of {unit}' if unit else ''} from {low:g} to {high:g}"
    found = _filled_in(request, name, default, expected)
    if found is None:
        return default
    try:
        value = float(found)
    except ValueError:
        raise refuse(name, found, expected) from None
    if not (math.isfinite(value) and low <= value <= high):
        raise refuse(name, found, expected)
    return value


def only(request: Any, name: str, choices: Collection[str], default: Any = _MISSING) -> Any:
    """One of these words."""
    expected = f"one of {', '.join(choices)}"
    found = _filled_in(request, name, default, expected)
    if found is None:
        return default
    if found not in choices:
        raise refuse(name, found, expected)
    return found
