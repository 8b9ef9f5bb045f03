"""What an object looks like, in a few words; no ``__repr__`` of the application's is called for it."""

from __future__ import annotations

import types
from typing import Any

from c2c_otel.debug import objects

__all__ = ["describe"]

_LONGEST = 300
"""Characters of one description."""

_MEMBERS = 8
_DEPTH = 3
_TEXT = 60
_BITS = 256

_BRACKETS = {
    "list": ("[", "]"),
    "tuple": ("(", ")"),
    "dict": ("{", "}"),
    "set": ("{", "}"),
    "frozenset": ("frozenset({", "})"),
    "deque": ("deque([", "])"),
}


_MODULE_NAMES: Any = vars(types.ModuleType)["__dict__"]


def describe(obj: Any) -> str:
    """As ``repr`` says it of builtin objects, but cut; ``<module.Class object at 0x...>`` of all others."""
    try:
        text = _described(obj, _DEPTH)
    except RuntimeError:  # another thread is changing it
        text = _plain(obj)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _described(obj: Any, depth: int) -> str:
    if obj is None or obj is True or obj is False or obj is Ellipsis:
        return repr(obj)
    cls = type(obj)
    if any(one is type for one in objects.mro(cls)):
        return f"<class '{objects.type_name(obj)}'>"
    if cls is types.FunctionType:
        return f"<function {_text(obj.__module__)}.{_text(obj.__qualname__)}>"
    if any(one is types.ModuleType for one in objects.mro(cls)):
        return f"<module {_module_name(obj)}>"
    for base, how in _SCALARS.items():
        if any(one is base for one in objects.mro(cls)):
            return how(obj) if cls is base else f"{objects.type_name(cls)}({how(obj)})"
    found = objects.contents(obj, _MEMBERS)
    return _plain(obj) if found is None else _container(obj, found, depth)


def _container(obj: Any, found: tuple[str, list[Any], int], depth: int) -> str:
    builtin, members, length = found
    before, after = _BRACKETS[builtin]
    if depth == 0 and length:
        inside = f"... {length}"
    else:
        shown = []
        for member in members:
            if builtin == "dict":
                shown.append(f"{_described(member[0], depth - 1)}: {_described(member[1], depth - 1)}")
            else:
                shown.append(_described(member, depth - 1))
            if sum(map(len, shown)) > _LONGEST:
                break
        if length > len(shown):
            shown.append(f"... {length - len(shown)} more")
        inside = ", ".join(shown)
        if builtin == "tuple" and length == 1:
            inside += ","
    text = f"{before}{inside}{after}" if length or builtin != "set" else "set()"
    name = objects.type_name(type(obj))
    return text if name in (f"builtins.{builtin}", f"collections.{builtin}") else f"{name}({text})"


def _plain(obj: Any) -> str:
    return f"<{objects.type_name(type(obj))} object at {id(obj):#x}>"


def _text(value: Any) -> str:
    return value if type(value) is str else "?"


def _module_name(module: Any) -> str:
    names = _MODULE_NAMES.__get__(module) or {}
    return repr(_text(dict.get(names, "__name__")))


def _integer(value: Any) -> str:
    bits = int.bit_length(value)
    return int.__repr__(value) if bits <= _BITS else f"<int of {bits} bits>"


def _string(base: Any) -> Any:
    def string(value: Any) -> str:
        length = base.__len__(value)
        text: str = base.__repr__(base.__getitem__(value, slice(0, _TEXT)))
        return text if length <= _TEXT else f"{text}... {length - _TEXT} more"

    return string


_SCALARS: dict[type, Any] = {
    int: _integer,
    float: float.__repr__,
    complex: complex.__repr__,
    str: _string(str),
    bytes: _string(bytes),
    bytearray: _string(bytearray),
}
