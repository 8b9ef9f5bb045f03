"""One question and its answers, over Redis: on a connection of its own, so that a long answer holds up nobody else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from c2c_otel import bounded, redis_clients
from c2c_otel.broadcast.redis_names import Listed, Names
from c2c_otel.broadcast.transport import Accept
from c2c_otel.redis_clients import Connection

if TYPE_CHECKING:
    from c2c_otel.settings import Settings

__all__ = ["ask"]

LOOK_SECONDS = 1.0
"""Between two looks at who of those that have not answered is still there."""


def ask(
    settings: Settings,
    names: Names,
    token: str,
    channel: str,
    question: bytes,
    answer_channel: str,
    patience: tuple[float, float],
    accept: Accept,
) -> tuple[tuple[str, ...], bool]:
    """Publish the question and take the answers. ``token`` is the own presence's, ``patience`` the seconds in which it
    must be sent, and those after which answers no longer count.

    Returns the names of those who have not answered, and whether Redis was there until the end. Raises what redis-py
    raises, and TimeoutError, where the question could not be sent.
    """
    end = time.monotonic() + patience[1]
    one = _Round(settings, names, token, accept)
    try:
        bounded.call(lambda: one.begin(channel, question, answer_channel), patience[0], "c2c_broadcast_ask")
        whole = one.gather(channel, end)
    finally:
        one.close()
    return one.missing(), whole


class _Round:
    def __init__(self, settings: Settings, names: Names, token: str, accept: Accept) -> None:
        self._settings, self._names, self._token, self._accept = settings, names, token, accept
        self._waiting: dict[str, str] = {}  # token -> name
        self._suspects: set[str] = set()
        self._gone: list[str] = []
        self._unnamed = 0
        self._given_up = False
        self._connection: Connection | None = None

    def begin(self, channel: str, question: bytes, answer_channel: str) -> None:
        """Listen to the answers, then learn who will hear the question and send it, at one moment."""
        with redis_clients.quiet():
            connection = redis_clients.connection(self._settings)
            try:
                connection.connect()
                connection.send_command("SUBSCRIBE", answer_channel, check_health=False)
                connection.read_response()
                self._connection = connection
                if self._given_up:
                    raise TimeoutError
                self._send(channel, question)
            except BaseException:
                connection.disconnect()
                raise
            if self._given_up:
                connection.disconnect()

    def _send(self, channel: str, question: bytes) -> None:
        there = self._names.question(channel)
        with redis_clients.own(self._settings).pipeline(transaction=True) as pipeline:
            pipeline.pubsub_channels(self._names.pattern(channel))
            pipeline.pubsub_numsub(there)
            pipeline.publish(there, question)
            channels, subscribers, _ = pipeline.execute()
        self._expect(self._names.listed(channels, channel), subscribers)

    def _expect(self, listed: list[Listed], subscribers: list[Any]) -> None:
        """Whoever is subscribed and not in the list is of another kind (c2cwsgiutils), and cannot be named."""
        self._waiting = {one.token: one.name for one in listed if one.token != self._token}
        self._unnamed = max(0, int(subscribers[0][1]) - len(listed))

    def gather(self, channel: str, end: float) -> bool:
        """Until all have answered or gone, or the end. False where the connection failed."""
        connection = self._connection
        assert connection is not None, "begun"
        look = time.monotonic() + LOOK_SECONDS
        while (self._waiting or self._unnamed) and (left := end - time.monotonic()) > 0:
            try:
                if not connection.can_read(min(left, max(0.0, look - time.monotonic()))):
                    if time.monotonic() >= look:
                        self._look(channel, min(left, LOOK_SECONDS))
                        look = time.monotonic() + LOOK_SECONDS
                    continue
                message = connection.read_response()
            except Exception:  # of redis-py: the server has gone, and with it what they may have answered
                return False
            if isinstance(message, list) and message[0] == b"message":
                self._answered(self._accept(message[2]))
        return True

    def _answered(self, name: str | None) -> None:
        if name is None:
            return
        token = next((token for token, one in self._waiting.items() if one == name), None)
        if token is not None:
            del self._waiting[token]
        elif name in self._gone:
            self._gone.remove(name)
        else:
            self._unnamed = max(0, self._unnamed - 1)

    def _look(self, channel: str, seconds: float) -> None:
        """Who has not been there twice has died, and is not waited for; one that only reconnects is."""
        try:
            listed = bounded.call(lambda: self._listed(channel), seconds, "c2c_broadcast_look")
        except Exception:  # the answers' connection will tell
            return
        absent = self._waiting.keys() - {one.token for one in listed}
        for token in absent & self._suspects:
            self._gone.append(self._waiting.pop(token))
        self._suspects = absent

    def _listed(self, channel: str) -> list[Listed]:
        client: Any = redis_clients.own(self._settings)
        with redis_clients.quiet():
            return self._names.listed(client.pubsub_channels(self._names.pattern(channel)), channel)

    def missing(self) -> tuple[str, ...]:
        """Who has not answered."""
        return (*self._waiting.values(), *self._gone, *[""] * self._unnamed)

    def close(self) -> None:
        self._given_up = True
        connection = self._connection
        if connection is not None:
            connection.disconnect()
