"""What carries the messages between the processes of a service: bytes in, bytes out, and who there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

__all__ = ["Accept", "Deliver", "Reply", "Transport"]

Reply = Callable[[str, bytes], None]
"""``reply(answer_channel, answer)``: send an answer. Called once at most, on any thread; it may take its time, within
that of the question, and raises nothing. ``answer_channel`` is the question's, which only Redis needs."""

Deliver = Callable[[str, bytes, Reply], bool]
"""``deliver(channel, question, reply)``: a question has come. Returns at once and raises nothing; what is to be
answered is answered later. False: ``reply`` will never be called."""

Accept = Callable[[bytes], str | None]
"""``accept(answer)`` -> the name (``hostname/pid``) of who has answered, empty where the answer does not tell, None
where it is refused and does not count."""


class Transport(Protocol):
    """Made without side effects; nothing is held before `open`. Thread-safe from then on.

    Channels are named without any prefix; a transport that needs one puts it before the name, and takes it away.
    """

    prefix: str
    """What is put before a channel's name: the node names answer channels ``{prefix}{channel}{id}``."""

    def open(self, name: str, deliver: Deliver, listening: Callable[[], None], channels: Iterable[str]) -> None:
        """Begin to listen as the member ``name`` (``hostname/pid``) to these channels.

        ``listening()`` is called each time the process has begun to listen: in `open` itself, on its thread, where that
        is then the case; else later, from a thread of the transport's, again after each interruption. It returns at
        once in that case. Raises OSError where this can never work here. Does not block for longer than two seconds.
        """

    def subscriptions_changed(self, channels: Iterable[str]) -> None:
        """All channels that have a callback now. Returns at once, raises nothing."""

    def ask(
        self, channel: str, question: bytes, answer_channel: str | None, timeout: float, accept: Accept
    ) -> tuple[str, ...]:
        """Bring the question to every other member, and each answer to ``accept``, for ``timeout`` seconds at most, or
        until all have answered. Returns the names of those who have not, ``""`` for each that cannot be named.

        Without ``answer_channel`` nobody answers: it returns at once, with nothing. Raises nothing for members that
        are away; the node itself ignores what comes back to it (Redis delivers to the sender, too).
        """

    def members(self) -> tuple[str, ...]:
        """The names of the other members, as far as they are known now."""

    def now(self) -> float:
        """Epoch seconds by the clock on which the members agree: `time.time`, where they are on one host."""

    def close(self) -> None:
        """Leave. Questions that are being answered are dropped. Idempotent; takes a second at most."""

    def abandon(self) -> None:
        """In a forked child: let go of what the parent goes on using; no word to anybody, no lock, no thread."""
