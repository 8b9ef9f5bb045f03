"""Shared state of one process: in tests, and where no directory can be had. What a change says travels with it then."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from c2c_otel.shared_entries import counted, living

__all__ = ["MemoryBackend"]


class MemoryBackend:
    """A `c2c_otel.shared.Backend` that never raises `Unavailable`."""

    look_seconds = 5.0

    def __init__(self) -> None:
        self._topics: dict[str, dict[str, Any]] = {}
        self._counts: dict[str, dict[str, Any]] = {}
        self.renew()

    def renew(self) -> None:
        """In a forked child: nobody holds the lock."""
        self._lock = threading.Lock()

    def read(self, topic: str) -> dict[str, Any]:
        with self._lock:
            return dict(self._topics.get(topic, {}))

    def write(self, topic: str, name: str, entry: Mapping[str, Any] | None) -> Any:
        with self._lock:
            entries = living(self._topics.get(topic, {}), time.time())
            before = entries.pop(name, None)
            if entry is not None:
                entries[name] = dict(entry)
            self._topics[topic] = entries
            return before

    def count(self, topic: str, name: str, seconds: float, increment: int = 1) -> int:
        with self._lock:
            entries, total = counted(self._counts.get(topic, {}), name, seconds, increment, time.time())
            self._counts[topic] = entries
            return total
