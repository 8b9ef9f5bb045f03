"""What this process keeps in memory: the answer of each process to debug/memory."""

from __future__ import annotations

import gc
import linecache
import types
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from c2c_otel.debug import census, sizes
from c2c_otel.debug.budget import Budget
from c2c_otel.debug.describe import describe
from c2c_otel.debug.objects import Kinds
from c2c_otel.debug.release import given_back

__all__ = ["SECONDS", "dump_memory"]

SECONDS = 10.0
"""What one answer may take, but for the three collections of garbage."""

_UNTRACKED = 100
"""Objects at least that the collector does not know and that are looked at: it is those that are big themselves."""

_MODULE = frozenset({"__name__", "__doc__", "__package__", "__loader__", "__spec__"})
"""Modules written in C, such as sys, have no ``__file__``."""
_SCOPE = frozenset({"scope", "module", "locals", "globals"})


def dump_memory(
    limit: int = 30,
    analyze_type: str | None = None,
    python_internals_map: bool = False,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """``nb_collected``, ``most_common_types`` and ``leaking_objects``; and under the name of ``analyze_type``, what
    there is of it. See docs/debugging.md. Bounded in time and memory: ``timeout`` says where that was felt."""
    if python_internals_map and not analyze_type:
        analyze_type = "builtins.dict"
    with given_back():
        return _dump(limit, analyze_type, python_internals_map, seconds)


def _dump(limit: int, analyze_type: str | None, python_internals_map: bool, seconds: float) -> dict[str, Any]:
    answer: dict[str, Any] = {"nb_collected": census.collect()}
    budget = Budget(seconds)
    known = gc.get_objects()
    part = budget.part(0.2)
    answer["most_common_types"] = _pairs(census.count_types(known, part), limit)
    complete = not part.spent()
    if analyze_type:
        answer[analyze_type] = _analyze(known, analyze_type, python_internals_map, limit, budget.part(0.6))
    leaking, leaks_complete = census.leaking(known, budget)
    answer["leaking_objects"] = _pairs(leaking, limit)
    if not (complete and leaks_complete):
        answer["timeout"] = True
    return answer


def _analyze(known: Sequence[Any], name: str, internals: bool, limit: int, budget: Budget) -> dict[str, Any]:
    if name == "linecache":
        return _linecache(limit, budget)
    keep = _keep(name, internals)
    part = budget.part(0.3)
    found = census.by_type(known, name, part, keep)
    complete = not part.spent()
    if name == "builtins.function":
        return _functions(found, limit) | ({} if complete else {"timeout": True})
    part = budget.part(0.4)
    others = census.untracked(known, name, max(limit, _UNTRACKED), part, keep)
    complete = complete and not part.spent()
    best = sizes.biggest([*others, *found], limit, Kinds(), budget)
    return _objects([(describe(obj), measured) for obj, measured in best.found], complete=complete and best.complete)


def _pairs(counts: Counter[str], limit: int) -> list[list[Any]]:
    return [[name, count] for name, count in counts.most_common(limit)]


def _functions(found: Sequence[Any], limit: int) -> dict[str, Any]:
    """How many functions each top-level package or module has."""
    counts: Counter[str] = Counter()
    for function in found:
        module = function.__module__ if type(function) is types.FunctionType else None
        counts[module.partition(".")[0] if type(module) is str else ""] += 1
    return {"modules": [{"module": name, "nb_func": count} for name, count in counts.most_common(limit)]}


def _keep(analyze_type: str, internals: bool) -> Callable[[Any], bool]:
    """Of dictionaries, either those of the interpreter or all others."""
    if analyze_type == "builtins.dict":
        return lambda one: _is_internal(one) == internals
    return lambda one: True


def _is_internal(one: Any) -> bool:
    """Whether a dictionary is a module's namespace, or one that decorators keep of where they stood."""
    if _has(one, _MODULE):
        return True
    return _has(one, _SCOPE) and _has(one["globals"], _MODULE)


def _has(one: Any, names: frozenset[str]) -> bool:
    return type(one) is dict and len(one) >= len(names) and all(name in one for name in names)


def _linecache(limit: int, budget: Budget) -> dict[str, Any]:
    """The source files that Python's `linecache` keeps, for the lines of tracebacks."""
    cached = dict(linecache.cache)
    kinds = Kinds()
    found = [(str(name), sizes.measure(entry, kinds, budget)) for name, entry in cached.items()]
    found.sort(key=lambda pair: pair[1].size, reverse=True)
    answer = _objects(
        [(name.encode("utf-8", "backslashreplace").decode(), measured) for name, measured in found[:limit]],
        complete=all(measured.complete for _, measured in found),
    )
    for one in answer["biggest_objects"]:
        one["filename"] = one["repr"]
    return answer


def _objects(found: Sequence[tuple[str, sizes.Measured]], *, complete: bool) -> dict[str, Any]:
    """``at_least`` marks a size that was not measured to the end."""
    answer: dict[str, Any] = {
        "biggest_objects": [
            {"size_kb": measured.size / 1024, "repr": text} | ({} if measured.complete else {"at_least": True})
            for text, measured in found
        ]
    }
    if not complete:
        answer["timeout"] = True
    return answer
