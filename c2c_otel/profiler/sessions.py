"""The requests that this process has followed: the newest ones, as many as there is room for."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Mapping
from typing import Any

import orjson

from c2c_otel import telemetry
from c2c_otel.profiler.tree import Tree

__all__ = ["MAX_BYTES", "MAX_MERGED_NODES", "Sessions", "kept"]

MAX_BYTES = 16 << 20
"""Of all sessions of a process together, compressed."""

MAX_MERGED_NODES = 10_000
"""Of many requests together."""

Head = Mapping[str, Any]


class Sessions:
    """``id -> (head, call tree)``, the oldest first; the tree is compressed. All methods may be called by any thread.

    A head is what the list shows: id, method, path, route, pattern, status, error, started (epoch seconds), seconds,
    samples, sampled (seconds), interval (seconds), thread, request_id, trace_id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, tuple[Head, bytes]] = {}
        self._bytes = 0
        self._dropped = 0

    def add(self, head: Head, tree: Tree) -> None:
        """The oldest ones make room."""
        packed = zlib.compress(orjson.dumps(tree.dump()), 1)
        most = telemetry.get().settings.profiler_max_sessions
        with self._lock:
            self._found[head["id"]] = (head, packed)
            self._bytes += _size(head, packed)
            while len(self._found) > most or (self._bytes > MAX_BYTES and len(self._found) > 1):
                self._drop(next(iter(self._found)))
                self._dropped += 1

    def _drop(self, identity: str) -> None:
        head, packed = self._found.pop(identity)
        self._bytes -= _size(head, packed)

    def heads(self) -> list[Head]:
        """The oldest first."""
        with self._lock:
            return [head for head, _ in self._found.values()]

    def state(self) -> dict[str, int]:
        """``sessions``, their ``bytes``, and how many were ``dropped`` to make room."""
        with self._lock:
            return {"sessions": len(self._found), "bytes": self._bytes, "dropped": self._dropped}

    def get(self, identity: str) -> tuple[Head, dict[str, Any]] | None:
        """Head and dumped tree, where it is here."""
        with self._lock:
            found = self._found.get(identity)
        return None if found is None else (found[0], orjson.loads(zlib.decompress(found[1])))

    def merged(self, route: str | None = None) -> tuple[list[Head], Tree]:
        """All of them together, or those of one route."""
        with self._lock:
            found = list(self._found.values())
        found = [(head, packed) for head, packed in found if route is None or (head["route"] or "") == route]
        tree = Tree(MAX_MERGED_NODES)
        for _, packed in found:
            tree.merge(Tree.load(orjson.loads(zlib.decompress(packed))))
        return [head for head, _ in found], tree

    def delete(self, identity: str | None) -> int:
        """This one, or all; how many there were."""
        with self._lock:
            gone = [one for one in self._found if identity in (None, one)]
            for one in gone:
                self._drop(one)
            if identity is None:
                self._dropped = 0
            return len(gone)


def _size(head: Head, packed: bytes) -> int:
    """About what it takes: a head is some 2 kB of objects."""
    return len(packed) + 2_000 + len(head["path"])


kept = Sessions()
"""Those of this process."""


def _after_fork() -> None:
    kept.__init__()  # type: ignore[misc]  # the parent's are not the child's, and nobody holds the lock


os.register_at_fork(after_in_child=_after_fork)
