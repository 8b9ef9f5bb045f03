"""One process's part in the broadcast: its subscriptions, and the transport that its messages take."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Answers", "Node"]


class Answers(list[Any]):
    """One for each process that was asked, None for one that did not answer. ``missing``: the names of those, as
    ``hostname/pid``."""

    missing: tuple[str, ...] = ()


class Node:
    """The subscriptions of this process. Until `join`, and where there is nobody else, a broadcast stays in it."""

    def __init__(self) -> None:
        self._callbacks: dict[str, Callable[..., Any]] = {}
        self._on_join: list[Callable[[], None]] = []
        self.joined = False

    @property
    def name(self) -> str:
        """``hostname/pid``."""
        return f"{socket.gethostname()}/{os.getpid()}"

    def join(self) -> None:
        """Begin to listen, then tell those of `on_join`. Idempotent."""
        if not self.joined:
            self.joined = True
            for callback in self._on_join:
                callback()

    def on_join(self, callback: Callable[[], None]) -> None:
        """See `c2c_otel.broadcast.on_join`."""
        self._on_join.append(callback)
        if self.joined:
            callback()

    def subscribe(self, channel: str, callback: Callable[..., Any]) -> None:
        """See `c2c_otel.broadcast.subscribe`."""
        self._callbacks[channel] = callback

    def unsubscribe(self, channel: str) -> None:
        """See `c2c_otel.broadcast.unsubscribe`."""
        self._callbacks.pop(channel, None)

    def broadcast(
        self, channel: str, params: Mapping[str, Any] | None, expect_answers: bool, timeout: float
    ) -> Answers | None:
        """See `c2c_otel.broadcast.broadcast`."""
        callback = self._callbacks.get(channel)
        answers = Answers([callback(**(params or {}))] if callback else [])
        for answer in answers:
            if isinstance(answer, dict):
                answer.update(hostname=socket.gethostname(), pid=os.getpid())
        return answers if expect_answers else None
