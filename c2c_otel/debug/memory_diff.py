"""Which objects there are more of after something was done: a leak shows as growth that comes each time."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from c2c_otel.debug import census
from c2c_otel.debug.budget import Budget
from c2c_otel.debug.release import given_back

__all__ = ["Busy", "growth"]

_COUNT_SECONDS = 5.0

_one = threading.Lock()


class Busy(Exception):  # noqa: N818 - the word for a state
    """Another thread is measuring; both would count what the other one does."""


def growth(action: Callable[[], object], limit: int = 30, warmup: bool = True) -> list[list[Any]]:
    """``[type, total, increase]`` of each class that has more objects after the action than before it, biggest increase
    first. With ``warmup`` it is done once before: what the first time fills (caches, imports) is no leak. What other
    threads make meanwhile is counted, too. Raises what the action raises, and `Busy`."""
    if not _one.acquire(blocking=False):
        raise Busy
    try:
        if warmup:
            action()
        _counted([[]])  # imports, and the caches of abstract classes, that counting itself needs
        before = _counted()
        action()
        after = _counted()
    finally:
        _one.release()
    increase = Counter({name: more for name, count in after.items() if (more := count - before.get(name, 0)) > 0})
    return [[name, after[name], more] for name, more in increase.most_common(limit)]


def _counted(known: Sequence[Any] | None = None) -> dict[str, int]:
    """A plain dictionary of texts and numbers, which the collector does not know: it is not counted itself."""
    census.collect()
    with given_back():
        return dict(census.count_types(gc.get_objects() if known is None else known, Budget(_COUNT_SECONDS)))
