"""Entries as they are stored: name -> ``{"value": JSON, "expires": epoch seconds or None}``. Pure.

What does not look like that has been written by somebody else, and is treated as if it had expired.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["counted", "is_living", "living", "values"]

MAX_COUNTERS = 2000
"""Of one topic; beyond, those that would be forgotten first are."""

Entries = Mapping[str, Any]


def is_living(entry: object, now: float) -> bool:
    """Whether it has not expired; it does so in the second that it names."""
    if not isinstance(entry, Mapping) or "value" not in entry:
        return False
    expires = entry.get("expires", 0)
    if expires is None:
        return True
    return isinstance(expires, int | float) and math.isfinite(expires) and expires > now


def living(entries: Entries, now: float) -> dict[str, Any]:
    """Those that are to be kept."""
    return {name: entry for name, entry in entries.items() if is_living(entry, now)}


def values(entries: Entries, now: float) -> dict[str, Any]:
    """Name -> value of the living."""
    return {name: entry["value"] for name, entry in entries.items() if is_living(entry, now)}


def counted(entries: Entries, name: str, seconds: float, increment: int, now: float) -> tuple[dict[str, Any], int]:
    """The counters after one was added to, and what it now is; it is forgotten ``seconds`` after its first count."""
    kept = living(entries, now)
    entry = kept.get(name) or {"value": 0, "expires": now + seconds}
    total = int(entry["value"]) + increment if isinstance(entry["value"], int) else increment
    if increment:
        kept[name] = {**entry, "value": total}
    if len(kept) > MAX_COUNTERS:
        others = sorted((other for other in kept if other != name), key=lambda other: kept[other]["expires"] or 0)
        for other in others[: len(kept) - MAX_COUNTERS]:
            del kept[other]
    return kept, total
