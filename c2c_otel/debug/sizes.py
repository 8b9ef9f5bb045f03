"""How much memory an object takes, with everything that only it may lead to."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from c2c_otel.debug.budget import Budget
from c2c_otel.debug.objects import Kinds, pieces

__all__ = ["MOST", "Biggest", "Measured", "biggest", "get_size", "measure"]

MOST = 300_000
"""Objects that one measurement visits: what it has seen takes about 25 MB then."""

_QUICK = 1000
"""Objects that are visited while it is not known yet which candidates are worth more."""

_STEPS = 500


class Measured(NamedTuple):
    """``size`` in bytes. Not ``complete``: it is at least that."""

    size: int
    complete: bool


def get_size(obj: Any, seconds: float = 60.0) -> int:
    """Bytes of an object and of all that it leads to, each counted once; classes, modules, functions and frames, which
    lead everywhere, are left out. After ``seconds``, or `MOST` objects, it is what was found until then."""
    return measure(obj, Kinds(), Budget(seconds)).size


def measure(root: Any, kinds: Kinds, budget: Budget, most: int = MOST) -> Measured:
    """Without recursion, in bounded memory and time, whatever the graph looks like and however it grows meanwhile."""
    size = kinds.of(root).size(root)
    seen = {id(root)}
    waiting = [root]
    steps = 0
    try:
        while waiting:
            for piece in pieces(waiting.pop(), kinds, keys=True):
                for found in piece:
                    key = id(found)
                    if key in seen:
                        continue
                    kind = kinds.of(found)
                    if kind.shared:
                        continue
                    if len(seen) >= most:
                        return Measured(size, False)
                    seen.add(key)
                    size += kind.size(found)
                    if kind.refers:
                        waiting.append(found)
                steps += len(piece) + 1
                if steps >= _STEPS:
                    steps = 0
                    if budget.spent():
                        return Measured(size, False)
    except RuntimeError:  # another thread has changed a container
        return Measured(size, False)
    return Measured(size, True)


class Biggest(NamedTuple):
    """``found``: the biggest ones with their sizes, biggest first. Not ``complete``: the time was over before all
    candidates were measured."""

    found: list[tuple[Any, Measured]]
    complete: bool


def biggest(candidates: Sequence[Any], count: int, kinds: Kinds, budget: Budget) -> Biggest:
    """First those that are big themselves, then the others, each with a quick look; what that has not measured to the
    end is then measured as far as the time goes."""
    scan = budget.part(0.6)
    first = _big_themselves(candidates, max(count, 100), kinds, scan.part(0.3))
    best: list[tuple[int, int, bool]] = []
    complete = True
    chosen = set(first)
    others = (index for index in range(len(candidates)) if index not in chosen)
    for index in chain(first, others):
        if scan.spent():
            complete = False
            break
        measured = measure(candidates[index], kinds, scan, _QUICK)
        entry = (measured.size, index, measured.complete)
        if len(best) < 2 * count:
            heapq.heappush(best, entry)
        elif entry > best[0]:
            heapq.heapreplace(best, entry)
    found = []
    for size, index, was_complete in sorted(best, reverse=True):
        result = Measured(size, was_complete)
        if not was_complete:
            if budget.spent():
                complete = False
            else:
                again = measure(candidates[index], kinds, budget)
                result = max(result, again)
        found.append((candidates[index], result))
    found.sort(key=lambda pair: pair[1].size, reverse=True)
    return Biggest(found[:count], complete)


def _big_themselves(candidates: Sequence[Any], count: int, kinds: Kinds, budget: Budget) -> list[int]:
    """Indexes of those whose own size is the biggest, without what they refer to."""
    best: list[tuple[int, int]] = []
    for start in range(0, len(candidates), _STEPS):
        if budget.spent():
            break
        sizes = [(kinds.of(one).size(one), start + n) for n, one in enumerate(candidates[start : start + _STEPS])]
        best = heapq.nlargest(count, best + sizes)
    return [index for _, index in best]
