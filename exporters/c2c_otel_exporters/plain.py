"""Any Python value as something that JSON can hold, whatever its size, its loops or its ``__str__``."""

from __future__ import annotations

__all__ = ["MAX_DEPTH", "MAX_NODES", "MAX_TEXT", "cut", "plain", "text_of", "valid"]

MAX_DEPTH = 8
"""Levels of nesting that are kept; a loop ends here."""

MAX_NODES = 1000
"""Values inside one container that are kept, over all levels: shared parts would multiply without end."""

MAX_TEXT = 10_000
"""Characters of a text inside a container, or of an object's ``str``."""

_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1  # what orjson writes as a number


def plain(value: object) -> object:
    """None, bool, int, float and str as they are; dicts and sequences item by item; all else as its ``str``.

    Sets become lists, keys text, integers beyond 64 bits text, and what exceeds the limits of this module is
    replaced by a mark that says how much is missing.
    """
    return _plain(value, MAX_DEPTH, [MAX_NODES])


def _plain(value: object, depth: int, left: list[int]) -> object:
    left[0] -= 1
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value)  # a plain one, also of numpy's
    if isinstance(value, str):
        return cut(valid(str.__str__(value)))
    if isinstance(value, int):
        return int(value) if _MIN_INT <= value <= _MAX_INT else text_of(value)
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        try:
            return _container(value, depth, left)
        except Exception:  # changed meanwhile by another thread, or a subclass with ideas of its own
            pass
    return text_of(value)


def _container(
    value: dict[object, object] | list[object] | tuple[object, ...] | set[object] | frozenset[object],
    depth: int,
    left: list[int],
) -> object:
    if depth == 0:
        return f"[... {len(value)} items]"
    if isinstance(value, dict):
        result: dict[str, object] = {}
        for key, item in value.items():
            if left[0] <= 0:
                result["..."] = f"{len(value) - len(result)} more"
                break
            result[cut(valid(key)) if isinstance(key, str) else text_of(key)] = _plain(item, depth - 1, left)
        return result
    items: list[object] = []
    for item in value:
        if left[0] <= 0:
            items.append(f"[... {len(value) - len(items)} more]")
            break
        items.append(_plain(item, depth - 1, left))
    return items


def text_of(value: object) -> str:
    """``str(value)``, or its ``repr``, or the name of its class; bytes as the UTF-8 text they most likely are."""
    try:
        if isinstance(value, (bytes, bytearray)):
            return cut(value[: MAX_TEXT + 1].decode("utf-8", "backslashreplace"))
        if type(value) is int:
            return str(value) if _MIN_INT <= value <= _MAX_INT else cut(hex(value))  # str() of a long one is refused
        return cut(valid(str.__str__(str(value))))
    except Exception:
        try:
            return cut(valid(str.__str__(repr(value))))
        except Exception:
            return f"<{type(value).__name__}, which cannot be shown>"


def valid(text: str) -> str:
    """The text, with lone surrogates (bytes that were not UTF-8) written as ``\\udcff``."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """At most ``limit`` characters and a mark."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}[... {len(text) - limit} characters cut]"
