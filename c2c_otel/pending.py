"""Attributes of a span that are put together when somebody reads them: on an exporter's thread, or never.

An instrumentor gives `Given` (or another `Pending`) to ``start_span``. A lean span keeps the object itself, and turns
it into attributes of its own when one is added to it or when it is exported. To any other tracer `Given` is a mapping.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Given", "Pending"]


class Pending:
    """Knows the attributes that a span was started with: text for keys, values that the SDK keeps as they are."""

    __slots__ = ()

    def settled(self) -> dict[str, Any]:
        """The attributes, in a dictionary that is the caller's. Called on any thread, maybe more than once."""
        raise NotImplementedError


class Given(dict[str, Any], Pending):
    """Attributes that many spans have in common. Never changed once a span has them."""

    __slots__ = ()

    def settled(self) -> dict[str, Any]:
        return dict(self)
