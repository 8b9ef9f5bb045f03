"""What ``json.dumps(value, indent=2, sort_keys=True)`` writes, in a third of the time.

The standard library has an encoder in C, but not for indented text: that is written by generators. Here text, numbers,
dictionaries with text for keys, lists and tuples are written by one function that calls itself; anything else, and
what goes in circles, is left to the standard library, all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as _quoted
from math import isfinite
from typing import Any

__all__ = ["dumps"]


class _OddError(Exception):
    """Something is in there that only the standard library knows how to write."""


def dumps(value: Any, *, default: Callable[[Any], Any] | None = None) -> str:
    """Raises what ``json.dumps`` does: TypeError, ValueError, RecursionError."""
    try:
        return _written(value, "\n")
    except (_OddError, TypeError, RecursionError):
        return json.dumps(value, default=default, indent=2, sort_keys=True)


def _written(value: Any, newline: str) -> str:  # noqa: PLR0911 - one line for each type
    """``newline``: with the indentation of where the value stands."""
    kind = type(value)
    if kind is str:
        return _quoted(value)
    if kind is dict:
        inside = f"{newline}  "
        return _enclosed("{}", [_pair(key, item, inside) for key, item in sorted(value.items())], newline, inside)
    if kind is list or kind is tuple:
        inside = f"{newline}  "
        return _enclosed("[]", [_written(item, inside) for item in value], newline, inside)
    if kind is int:
        return repr(value)
    if kind is bool:
        return "true" if value else "false"
    if value is None:
        return "null"
    if kind is float and isfinite(value):
        return repr(value)
    raise _OddError


def _pair(key: Any, item: Any, inside: str) -> str:
    if type(key) is not str:
        raise _OddError
    return f"{_quoted(key)}: {_written(item, inside)}"


def _enclosed(brackets: str, items: list[str], newline: str, inside: str) -> str:
    return f"{brackets[0]}{inside}{f',{inside}'.join(items)}{newline}{brackets[1]}" if items else brackets
