"""The transport that needs no server: Unix sockets of the processes of one run, in the run's directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from c2c_otel.broadcast import unix_address, unix_round
from c2c_otel.broadcast.transport import Accept, Deliver
from c2c_otel.broadcast.unix_listener import Listener

__all__ = ["UnixTransport"]


class UnixTransport:
    """A `Transport`. Members are the sockets in the directory: each process makes its own, and whoever finds one that
    nobody listens to any more removes it."""

    prefix = ""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._listener: Listener | None = None

    def open(self, name: str, deliver: Deliver, listening: Callable[[], None], channels: Iterable[str]) -> None:
        """See `Transport.open`. Every member is asked, whatever it has subscribed to."""
        listener = Listener(self._directory, name, deliver)
        listener.start()
        self._listener = listener
        listening()
        unix_round.sweep(self._directory, listener.file)

    def subscriptions_changed(self, channels: Iterable[str]) -> None:
        """See `Transport.subscriptions_changed`: it makes no difference here."""

    def ask(
        self, channel: str, question: bytes, answer_channel: str | None, timeout: float, accept: Accept
    ) -> tuple[str, ...]:
        """See `Transport.ask`."""
        framed = unix_round.frame(channel, question)
        if answer_channel is not None:
            return unix_round.ask(self._directory, self._own, framed, timeout, accept)
        unix_round.tell(self._directory, self._own, framed, timeout)
        return ()

    def members(self) -> tuple[str, ...]:
        """See `Transport.members`; who has died is among them until the next question."""
        files = unix_address.members(self._directory)
        return tuple(unix_address.member(file) for file in files if file != self._own)

    def now(self) -> float:
        """See `Transport.now`."""
        return time.time()

    def close(self) -> None:
        """See `Transport.close`."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()

    def abandon(self) -> None:
        """See `Transport.abandon`."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.abandon()

    @property
    def _own(self) -> str:
        listener = self._listener
        return listener.file if listener is not None else ""
