"""All objects that the garbage collector knows: how many of which class, and which ones nothing refers to.

That is containers and instances; numbers and texts are not among them. The list of them takes eight bytes an object for
as long as one looks.
"""

from __future__ import annotations

import gc
import heapq
import mmap
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from c2c_otel.debug import objects
from c2c_otel.debug.budget import Budget

__all__ = ["by_type", "collect", "count_types", "leaking", "named", "referents", "untracked"]

_CHUNK = 5000
_REGION = 28
_ALIGNED = 4 if sys.maxsize > 2**32 else 3
_IN_REGION = (1 << _REGION) - 1
"""Objects are marked by address, a byte for each place where one may begin, in regions of the address space: that takes
at most a sixteenth of the memory in which there are objects. The marks are mapped, so that all of it is given back."""

_CROWD = 20_000
"""Members of a builtin container from which on it is read in pieces."""

_CONTAINERS = {id(cls): cls for cls in (list, tuple, dict, set, frozenset)}


def collect() -> list[int]:
    """Collect each generation, youngest first; how many objects each had to give back. Nothing else runs meanwhile."""
    return [gc.collect(generation) for generation in range(3)]


def _chunks(known: Sequence[Any], budget: Budget) -> Iterator[Sequence[Any]]:
    """All of them, or those up to the end of the time."""
    for start in range(0, len(known), _CHUNK):
        yield known[start : start + _CHUNK]
        if budget.spent():
            return


def _types(chunk: Sequence[Any]) -> dict[int, type]:
    """The classes of these objects, by id: how a class compares and hashes is its metaclass' business."""
    classes = list(map(type, chunk))
    return dict(zip(map(id, classes), classes, strict=True))


def count_types(known: Sequence[Any], budget: Budget) -> Counter[str]:
    """How many of these objects are of which class, by the class's name; of the first ones, where the time is over."""
    counts: Counter[str] = Counter()
    for chunk in _chunks(known, budget):
        ids = Counter(map(id, map(type, chunk)))
        for key, cls in _types(chunk).items():
            counts[objects.type_name(cls)] += ids[key]
    return counts


def named(name: str) -> Callable[[type], bool]:
    """Whether a class has this name: ``module.name``, or a name without a dot, of whatever module."""
    if "." in name:
        return lambda cls: objects.type_name(cls) == name
    return lambda cls: objects.type_name(cls).rpartition(".")[2] == name


def by_type(
    known: Sequence[Any], name: str, budget: Budget, keep: Callable[[Any], bool] = lambda obj: True
) -> list[Any]:
    """Those of the objects whose class has this name (subclasses are other classes), and that are to be kept."""
    wanted = named(name)
    found: list[Any] = []
    for chunk in _chunks(known, budget):
        ids = {key for key, cls in _types(chunk).items() if wanted(cls)}
        if ids:
            found += [obj for obj in chunk if id(type(obj)) in ids and keep(obj)]
    return found


def untracked(
    known: Sequence[Any], name: str, count: int, budget: Budget, keep: Callable[[Any], bool] = lambda obj: True
) -> list[Any]:
    """The biggest ``count`` objects of this class that the collector does not know, but one of the objects refers to:
    texts and numbers, and dictionaries and tuples of nothing else."""
    wanted = named(name)
    kinds = objects.Kinds()
    best: dict[int, tuple[int, Any]] = {}
    least = 0
    for start in range(0, len(known), 500):
        if budget.spent():
            break
        for piece in referents(known[start : start + 500]):
            ids = {key for key, cls in _types(piece).items() if wanted(cls)}
            for obj in [obj for obj in piece if id(type(obj)) in ids and not gc.is_tracked(obj)] if ids else ():
                size = kinds.of(obj).size(obj)
                if size > least and id(obj) not in best and keep(obj):
                    best[id(obj)] = (size, obj)
                    if len(best) >= 2 * count:
                        best = dict(heapq.nlargest(count, best.items(), key=_size_of_entry))
                        least = min(size for size, _ in best.values())
    return [obj for _, (_, obj) in heapq.nlargest(count, best.items(), key=_size_of_entry)]


def _size_of_entry(entry: tuple[int, tuple[int, Any]]) -> int:
    return entry[1][0]


def leaking(known: Sequence[Any], budget: Budget) -> tuple[Counter[str], bool]:
    """How many objects there are, by class, that no other one refers to: what C code, or a frame, holds or has
    forgotten. And whether the time was enough; where not, nothing is said."""
    with ExitStack() as stack:
        marks: dict[int, mmap.mmap] = {}
        for chunk in _chunks(known, budget):
            for region in {id(obj) >> _REGION for obj in chunk} - marks.keys():
                marks[region] = stack.enter_context(_mapped(1 << (_REGION - _ALIGNED)))
        for start in range(0, len(known), 500):
            if budget.spent():
                return Counter(), False
            for piece in referents(known[start : start + 500]):
                for key in map(id, piece):
                    if (of_region := marks.get(key >> _REGION)) is not None:
                        of_region[(key & _IN_REGION) >> _ALIGNED] = 1
        counts: Counter[str] = Counter()
        for chunk in _chunks(known, budget):
            for obj in chunk:
                key = id(obj)
                if not marks[key >> _REGION][(key & _IN_REGION) >> _ALIGNED]:
                    counts[objects.type_name(type(obj))] += 1
        return counts, not budget.spent()


def _mapped(length: int) -> mmap.mmap:
    """Zeros, of which each page takes memory once it is written to."""
    return mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def referents(chunk: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """What a few objects refer to. A big container's are told in pieces: to copy them at once would double it."""
    crowds = [obj for obj in chunk if id(type(obj)) in _CONTAINERS and len(obj) > _CROWD]
    mine = set(map(id, crowds))
    yield gc.get_referents(*([obj for obj in chunk if id(obj) not in mine] if crowds else chunk))
    for crowd in crowds:
        try:
            yield from objects.pieces(crowd, objects.Kinds())
        except RuntimeError:  # another thread is changing it
            yield gc.get_referents(crowd)
