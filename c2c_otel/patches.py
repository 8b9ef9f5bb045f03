"""Methods of a library that are replaced, and put back.

With plain functions: `wrapt`, which the contrib packages use, takes five times as long for each call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["Patches"]


class Patches:
    """``active``: False after `undo`, for replacements that somebody else has wrapped and that so stay; they are to
    pass everything through."""

    def __init__(self) -> None:
        self.active = True
        self._done: list[tuple[Any, str, Any]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Put ``make(original)`` in its place. An attribute that the owner only inherits is put on the owner."""
        original = getattr(owner, name)
        replacement = functools.wraps(original)(make(original))
        setattr(owner, name, replacement)
        self._done.append((owner, name, replacement))

    def undo(self) -> None:
        """Put back what was there, where ours still is."""
        self.active = False
        for owner, name, replacement in reversed(self._done):
            if vars(owner).get(name) is replacement:
                setattr(owner, name, replacement.__wrapped__)
        self._done.clear()
