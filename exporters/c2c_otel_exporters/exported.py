"""What became of each export to a collector: how often, how much, when last. For who asks how the process is doing.

An exporter of OpenTelemetry tells the success of an export to nobody but its caller.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import Any, TypeVar

__all__ = ["Exports", "states", "watch"]

E = TypeVar("E")


class Exports:
    """Of one exporter. ``items``: spans, log records, or exports of metrics. Written on the exporter's own threads, one
    at a time; times are those of `time.time`, 0 where there was none."""

    def __init__(self, signal: str, exporter: str, endpoint: str) -> None:
        self.signal, self.exporter, self.endpoint = signal, exporter, endpoint
        self.items = self.succeeded = self.failed = self.failed_since_success = 0
        self.last_success = self.last_failure = self.began = 0.0
        """``began``: of an export that is under way."""

    def ended(self, items: int, success: bool) -> None:
        """An export has come to its end."""
        self.began = 0.0
        if success:
            self.items += items
            self.succeeded += 1
            self.failed_since_success = 0
            self.last_success = time.time()
        else:
            self.failed += 1
            self.failed_since_success += 1
            self.last_failure = time.time()


_all: weakref.WeakSet[Exports] = weakref.WeakSet()


def watch(exporter: E, signal: str, name: str, endpoint: str | None = None) -> E:
    """The same exporter, its exports counted from now on. What has no ``export`` (a reader) is left as it is."""
    export = getattr(exporter, "export", None)
    if export is None:
        return exporter
    where = endpoint or str(getattr(exporter, "_endpoint", "") or "")
    counted = Exports(signal, name, where)

    def counting(data: Any, *args: Any, **kwargs: Any) -> Any:
        counted.began = time.time()
        success = False
        try:
            result = export(data, *args, **kwargs)
            success = getattr(result, "name", "SUCCESS") == "SUCCESS"
            return result
        finally:
            counted.ended(len(data) if hasattr(data, "__len__") else 1, success)

    try:
        exporter.export = counting  # type: ignore[attr-defined] # what the getattr above has found
    except AttributeError:  # it has slots
        return exporter
    _all.add(counted)  # the exporter holds it
    return exporter


def states() -> list[dict[str, Any]]:
    """One of each exporter that this process has: the attributes of `Exports`."""
    return sorted((dict(vars(one)) for one in list(_all)), key=lambda one: (one["signal"], one["exporter"]))


os.register_at_fork(after_in_child=_all.clear)
