"""The transport between machines: Redis pub/sub, compatible with what c2cwsgiutils publishes.

Membership is subscription, see `redis_names`. While Redis is away, a question reaches nobody else, and ``missing``
names Redis itself; once it is back, the process subscribes again and reads again what is stored.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from c2c_otel import bounded, redis_clients
from c2c_otel.broadcast import redis_round
from c2c_otel.broadcast.redis_clock import Clock
from c2c_otel.broadcast.redis_listener import Listener
from c2c_otel.broadcast.redis_names import Names
from c2c_otel.broadcast.transport import Accept, Deliver
from c2c_otel.settings import ConfigurationError
from c2c_otel_exporters import guard

if TYPE_CHECKING:
    from c2c_otel.settings import Settings

__all__ = ["RedisTransport", "make"]

OPEN_SECONDS = 1.5
"""How long a start waits for the first attempt to listen; it then goes on without."""

SEND_SECONDS = 5.0
"""How long a question may be on its way to Redis."""

_AWAY_SECONDS = 1.0
"""The same, where Redis was away a moment ago."""


def make(settings: Settings) -> RedisTransport | None:
    """The transport of these settings; None where they name no Redis."""
    return RedisTransport(settings) if redis_clients.configured(settings) else None


class RedisTransport:
    """A `Transport`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.prefix = settings.broadcast_prefix
        self._names = Names(self.prefix)
        self._clock = Clock()
        self._listener: Listener | None = None
        self._lock = threading.Lock()
        self._opening = self._listens = False

    def open(self, name: str, deliver: Deliver, listening: Callable[[], None], channels: Iterable[str]) -> None:
        """See `Transport.open`."""
        listener = Listener(
            self._settings,
            self._names,
            (name, os.urandom(8).hex()),
            self._clock,
            lambda channel, message: self._hear(deliver, channel, message),
            lambda: self._begun(listening),
        )
        self._opening, self._listens = True, False
        try:
            redis_clients.check(self._settings)
            listener.start(channels)
        except (ConfigurationError, RuntimeError) as error:
            raise OSError(str(error)) from error
        self._listener = listener
        listener.attempted.wait(OPEN_SECONDS)
        with self._lock:
            self._opening = False
            listens = self._listens
        if listens:
            listening()

    def _begun(self, listening: Callable[[], None]) -> None:
        """On the listener's thread."""
        with self._lock:
            if self._opening:
                self._listens = True
                return
        listening()

    def _hear(self, deliver: Deliver, channel: str, message: bytes) -> None:
        try:
            deliver(channel, message, self._reply)
        except Exception:
            guard.failed("broadcast.deliver")

    def _reply(self, answer_channel: str, answer: bytes) -> None:
        if not answer_channel.startswith(self.prefix):  # nobody who asks here listens there
            guard.count("broadcast.refused.astray")
            return
        try:
            with redis_clients.quiet():
                redis_clients.own(self._settings).publish(answer_channel, answer)
        except Exception as error:
            place = redis_clients.describe(self._settings)
            guard.dropped("broadcast.answer", reason=f"{place}: {redis_clients.reason(self._settings, error)}")

    def subscriptions_changed(self, channels: Iterable[str]) -> None:
        """See `Transport.subscriptions_changed`."""
        listener = self._listener
        if listener is not None:
            listener.want(channels)

    def ask(
        self, channel: str, question: bytes, answer_channel: str | None, timeout: float, accept: Accept
    ) -> tuple[str, ...]:
        """See `Transport.ask`. Where Redis cannot be reached, its own name is among the missing."""
        listener = self._listener
        if listener is None:
            return ()
        if answer_channel is None:
            listener.publish(channel, question)
            return ()
        patience = min(timeout, SEND_SECONDS if listener.connected else _AWAY_SECONDS), timeout
        place = redis_clients.describe(self._settings)
        try:
            missing, whole = redis_round.ask(
                self._settings, self._names, listener.token, channel, question, answer_channel, patience, accept
            )
        except Exception as error:
            why = redis_clients.reason(self._settings, error)
            guard.dropped("broadcast.question", reason=f"{place}: {why}")
            return (*listener.others, place)
        if whole and not listener.connected:
            listener.hurry()
        return missing if whole else (*missing, place)

    def members(self) -> tuple[str, ...]:
        """See `Transport.members`. Where Redis cannot be reached: those of the last look."""
        listener = self._listener
        if listener is None:
            return ()
        try:
            listed = bounded.call(self._listed, _AWAY_SECONDS, "c2c_broadcast_members")
        except Exception:
            return listener.others
        return tuple(one.name for one in self._names.listed(listed) if one.token != listener.token)

    def _listed(self) -> list[bytes]:
        with redis_clients.quiet():
            client: Any = redis_clients.own(self._settings)
            found: list[bytes] = client.pubsub_channels(self._names.pattern())
        return found

    def now(self) -> float:
        """See `Transport.now`: the clock of Redis."""
        return self._clock.now()

    def close(self) -> None:
        """See `Transport.close`."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop(1.0)

    def abandon(self) -> None:
        """See `Transport.abandon`."""
        listener, self._listener = self._listener, None
        self._lock = threading.Lock()
        if listener is not None:
            listener.abandon()
