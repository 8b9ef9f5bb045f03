"""What can be learnt of any object without running any code of its class.

An application's objects answer questions in ways of their own: a ``MagicMock`` makes a new object for each attribute it
is asked for, a lazy one connects to a database, ``__sizeof__``, ``__class__`` and ``__repr__`` may be anything, and a
metaclass may say how classes compare. So types are asked through what `type` itself has, told apart by identity, and
objects through the interpreter's C functions.
"""

from __future__ import annotations

import gc
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

__all__ = ["PIECE", "Kind", "Kinds", "contents", "mro", "pieces", "type_name"]

PIECE = 1000
"""References that are looked at in one go."""

_KINDS = 5000
"""Types that are remembered at a time: each ``MagicMock`` has one of its own."""

_HAVE_GC = 1 << 14  # Py_TPFLAGS_HAVE_GC
_PREHEADER = 1 << 3 | 1 << 4  # Py_TPFLAGS_MANAGED_WEAKREF, Py_TPFLAGS_MANAGED_DICT
_HEAD = 16  # what sys.getsizeof adds for the one, and for the others

_of_type = type.__dict__
_mro_of = _of_type["__mro__"].__get__
_dict_of = _of_type["__dict__"].__get__
_flags_of = _of_type["__flags__"].__get__
_name_of = _of_type["__name__"].__get__
_module_of = _of_type["__module__"].__get__

_SHARED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.FrameType, types.CodeType)
"""Of these everybody has a reference to: they belong to nobody, and lead everywhere."""


def mro(cls: type) -> tuple[type, ...]:
    """The classes that a class is made of, itself first."""
    found: tuple[type, ...] = _mro_of(cls)
    return found


def type_name(cls: type) -> str:
    """``module.name``, as in ``builtins.dict``; what cannot be written as UTF-8 is escaped."""
    module = _module_of(cls)
    name: str = _name_of(cls)
    text = f"{module}.{name}" if type(module) is str and module else name
    return text.encode("utf-8", "backslashreplace").decode()


class Kind(NamedTuple):
    """Of one class: how its objects are sized, whether they may refer to others, whether nobody owns them (`_SHARED`),
    and how the references of big ones are cut in pieces."""

    cls: type
    size: Callable[[Any], int]
    refers: bool
    shared: bool
    cut: Callable[[Any], Iterator[Any]] | None
    length: Callable[[Any], int]


class Kinds:
    """What is known of classes; for one look at a process, so that no class is kept longer."""

    def __init__(self) -> None:
        self._known: dict[int, Kind] = {}

    def of(self, obj: Any) -> Kind:
        """The kind of an object's class."""
        cls = type(obj)
        return self._known.get(id(cls)) or self._learn(cls)

    def _learn(self, cls: type) -> Kind:
        if len(self._known) >= _KINDS:
            self._known.clear()
        classes = mro(cls)
        cut, length = None, len
        for base, (cutter, measure) in _CUTS.items():
            if any(one is base for one in classes):
                cut, length = cutter, measure
        shared = any(one is other for one in classes for other in _SHARED)
        kind = Kind(cls, _sizer(cls, classes), bool(_flags_of(cls) & _HAVE_GC), shared, cut, length)
        self._known[id(cls)] = kind
        return kind


def _sizer(cls: type, classes: tuple[type, ...]) -> Callable[[Any], int]:
    """`sys.getsizeof` where that ends in C; else what the nearest base says that is written in C."""
    foreign = False
    for one in classes:
        found = _dict_of(one).get("__sizeof__")
        if type(found) is types.MethodDescriptorType:
            return _with_head(found, cls) if foreign else sys.getsizeof
        foreign = foreign or found is not None
    return sys.getsizeof  # not reached: the last one is object, which has it


def _with_head(sizeof: Callable[[Any], int], cls: type) -> Callable[[Any], int]:
    flags = _flags_of(cls)
    head = _HEAD * (bool(flags & _HAVE_GC) + bool(flags & _PREHEADER))
    return lambda obj: sizeof(obj) + head


def _cut_sequence(base: Any) -> Callable[[Any], Iterator[Any]]:
    def cut(obj: Any) -> Iterator[Any]:
        for start in range(0, base.__len__(obj), PIECE):
            yield base.__getitem__(obj, slice(start, start + PIECE))

    return cut


def _cut_iterable(base: Any) -> Callable[[Any], Iterator[Any]]:
    def cut(obj: Any) -> Iterator[Any]:
        members = base.__iter__(obj)
        while piece := list(islice(members, PIECE)):
            yield piece

    return cut


def _cut_dict(obj: Any) -> Iterator[Any]:
    items = iter(dict.items(obj))
    while piece := list(islice(items, PIECE)):
        yield list(chain.from_iterable(piece))


_CUTS: dict[Any, tuple[Callable[[Any], Iterator[Any]], Callable[[Any], int]]] = {
    list: (_cut_sequence(list), list.__len__),
    tuple: (_cut_sequence(tuple), tuple.__len__),
    dict: (_cut_dict, dict.__len__),
    set: (_cut_iterable(set), set.__len__),
    frozenset: (_cut_iterable(frozenset), frozenset.__len__),
    deque: (_cut_iterable(deque), deque.__len__),
}


def pieces(obj: Any, kinds: Kinds, keys: bool = False) -> Iterator[Any]:
    """What an object refers to, in lists of at most a few thousand: a container of millions is not copied. (Of such a
    container's own attributes, which subclasses have, nothing is said.) ``keys``: also the texts that are keys of
    dictionaries, which the garbage collector does not tell; then one object may come twice. Raises RuntimeError where
    another thread changes it meanwhile."""
    kind = kinds.of(obj)
    if not kind.refers:
        return
    if kind.cut is not None and kind.length(obj) > PIECE:
        for piece in kind.cut(obj):
            yield piece if keys or kind.cut is not _cut_dict else [one for one in piece if type(one) is not str]
        return
    found = gc.get_referents(obj)
    if keys and kind.cut is _cut_dict:
        found += list(dict.keys(obj))
    if len(found) <= 2 * PIECE:
        yield found
        return
    for start in range(0, len(found), PIECE):
        yield found[start : start + PIECE]


def contents(obj: Any, count: int) -> tuple[str, list[Any], int] | None:
    """Of a builtin container or a subclass of one: the name of the builtin, its first ``count`` members (pairs of a
    dictionary), and how many it has. None for all others."""
    classes = mro(type(obj))
    for base, (_, length) in _CUTS.items():
        if any(one is base for one in classes):
            members = dict.items(obj) if base is dict else base.__iter__(obj)
            return base.__name__, list(islice(members, count)), length(obj)
    return None
