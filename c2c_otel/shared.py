"""State that every worker of the service has, and that outlives them: stored first, then broadcast.

A `Topic` is a mapping of names to JSON values. A change is written to the store (Redis under the broadcast prefix, else
the state part of the runtime directory, else memory), then every process is told to read it again; each hands the
whole mapping to the topic's ``apply``. So does a process that begins to listen, one that finds Redis again, and one in
which an entry has expired: to miss a message, or to see one twice, does no harm.

>>> levels = Topic("doc_levels", lambda entries: None)
>>> _ = levels.set("sqlalchemy.engine", "DEBUG")
>>> levels.entries()
{'sqlalchemy.engine': 'DEBUG'}
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from c2c_otel import broadcast
from c2c_otel.broadcast import Answers

__all__ = ["Backend", "Change", "Topic", "Unavailable"]


class Unavailable(Exception):  # noqa: N818 - the word for a state, as in HTTPServiceUnavailable
    """The store cannot be reached: nothing was changed. Views answer 503."""


class Backend(Protocol):
    """Where topics are kept. All methods raise `Unavailable`, and none blocks for longer than two seconds."""

    def read(self, topic: str) -> dict[str, Any]:
        """All stored entries of a topic: name -> ``{"value": JSON, "expires": epoch seconds or None}``."""

    def write(self, topic: str, name: str, entry: Mapping[str, Any] | None) -> Any:
        """Store one entry, or remove it, atomically among all processes. Returns the entry that was there, or None."""

    def count(self, topic: str, name: str, seconds: float, increment: int = 1) -> int:
        """Add to a counter that is forgotten ``seconds`` after its first count; returns what it now is. With
        ``increment=0`` it only reads."""


@dataclasses.dataclass(frozen=True)
class Change:
    """``before`` and ``after``: the entry's value, None where there is none. ``answers``: of the processes told."""

    before: Any
    after: Any
    answers: Answers


class _Memory:
    """Of this process alone."""

    def __init__(self) -> None:
        self._topics: dict[str, dict[str, Any]] = {}

    def read(self, topic: str) -> dict[str, Any]:
        return dict(self._topics.get(topic, {}))

    def write(self, topic: str, name: str, entry: Mapping[str, Any] | None) -> Any:
        entries = self._topics.setdefault(topic, {})
        before = entries.pop(name, None)
        if entry is not None:
            entries[name] = dict(entry)
        return before

    def count(self, topic: str, name: str, seconds: float, increment: int = 1) -> int:
        entry = self._topics.setdefault(f"{topic}.count", {}).setdefault(name, {"n": 0})
        entry["n"] += increment
        return int(entry["n"])


_memory = _Memory()


def backend() -> Backend:
    """Where this process stores."""
    return _memory


class Topic:
    """``apply(entries)`` is called with the whole mapping of living entries, in each process, after each change; it
    must set everything as the mapping says, and undo what is no longer in it. It may be called twice with the same."""

    def __init__(self, name: str, apply: Callable[[Mapping[str, Any]], None]) -> None:
        self.name = name
        self._apply = apply
        broadcast.subscribe(f"c2c_shared_{name}", self._refresh)
        broadcast.on_join(lambda: self._apply(self.entries()))

    def entries(self) -> dict[str, Any]:
        """Name -> value of what is stored and has not expired. Raises `Unavailable`."""
        now = time.time()
        stored = backend().read(self.name)
        return {name: entry["value"] for name, entry in stored.items() if not 0 < (entry["expires"] or 0) <= now}

    def set(self, name: str, value: Any, seconds: float | None = None) -> Change:
        """Store it, for ``seconds`` or for good, and tell every process. Raises `Unavailable`."""
        expires = None if seconds is None else time.time() + seconds
        before = backend().write(self.name, name, {"value": value, "expires": expires})
        return self._tell(before, value)

    def delete(self, name: str) -> Change:
        """Remove it, where it is stored, and tell every process. Raises `Unavailable`."""
        return self._tell(backend().write(self.name, name, None), None)

    def _tell(self, before: Any, after: Any) -> Change:
        answers = broadcast.broadcast(f"c2c_shared_{self.name}", {}, expect_answers=True, timeout=5)
        return Change(None if before is None else before["value"], after, answers or Answers())

    def _refresh(self) -> bool:
        self._apply(self.entries())
        return True
