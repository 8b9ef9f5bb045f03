"""The thread that listens to Redis: it connects, subscribes, hands on what comes, and begins again when that ends.

Everything on its connection is done by this thread, which waits for the server and for what the process wants of it at
the same time. A connection that has become silent is found by PING; one to a server that is no longer the master, or
that has forgotten the subscription, by looking for oneself in the master's list of who listens.
"""

from __future__ import annotations

import collections
import logging
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from c2c_otel import redis_clients
from c2c_otel.broadcast.redis_clock import Clock
from c2c_otel.broadcast.redis_names import Names
from c2c_otel.redis_clients import Connection
from c2c_otel_exporters import guard

if TYPE_CHECKING:
    from c2c_otel.settings import Settings

__all__ = ["Listener"]

PING_SECONDS = 5.0
"""Of silence, until the server is asked whether it is there; it then has `redis_clients.TIMEOUT_SECONDS` to answer."""

CHECK_SECONDS = 10.0
"""Between two looks into the master's list of who listens, and at its clock."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0
"""Seconds before the next attempt; the pause doubles, and a random part of it keeps processes from coming together."""

_MAX_WAITING = 1000  # messages that wait for the thread
_AT_ONCE = 100  # messages that are taken before the thread looks at what else there is to do

_logger = logging.getLogger("c2c_otel.broadcast")


class Listener:
    """One process's subscriptions. ``hear(channel, message)`` and ``listening()`` are called on the thread.

    ``attempted`` is set when the first attempt to listen is over, well or not; ``connected`` says whether it listens;
    ``others`` is who else there was at the last look, as ``hostname/pid``.
    """

    def __init__(
        self,
        settings: Settings,
        names: Names,
        presence: tuple[str, str],
        clock: Clock,
        hear: Callable[[str, bytes], None],
        listening: Callable[[], None],
    ) -> None:
        self._settings, self._names, self._clock = settings, names, clock
        self._name, self.token = presence
        self._hear, self._listening = hear, listening
        self.attempted = threading.Event()
        self.connected = False
        self.others: tuple[str, ...] = ()
        self._wanted: frozenset[str] = frozenset()
        self._subscribed: frozenset[str] = frozenset()
        self._outbox: collections.deque[tuple[str, bytes]] = collections.deque()
        self._stopping = self._hurried = False
        self._trouble = ""
        self._connection: Connection | None = None

    def start(self, channels: Iterable[str]) -> None:
        """Raises OSError or RuntimeError where there can be no thread or no socket."""
        self._wanted = frozenset(channels)
        self._ear, self._wake = socket.socketpair()
        self._ear.setblocking(False)
        self._wake.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="c2c_broadcast_listener", daemon=True)
        self._thread.start()

    def want(self, channels: Iterable[str]) -> None:
        """All channels there are callbacks for. Returns at once."""
        self._wanted = frozenset(channels)
        self._wake_up()

    def publish(self, channel: str, message: bytes) -> None:
        """To be sent by the thread, in this order. Returns at once; what cannot be sent is dropped."""
        if not self.connected or len(self._outbox) >= _MAX_WAITING:
            guard.dropped("broadcast.question", reason=f"{self._place} cannot be reached")
            return
        self._outbox.append((channel, message))
        self._wake_up()

    def hurry(self) -> None:
        """Redis has just been reached: the next attempt is now."""
        self._hurried = True
        self._wake_up()

    def stop(self, seconds: float) -> None:
        """Send what waits, and end; the thread is left behind where it takes longer."""
        self._stopping = True
        self._wake_up()
        self._thread.join(seconds)

    def abandon(self) -> None:
        """In a forked child: the sockets are the parent's."""
        self._stopping = True
        self.connected = False
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
        self._ear.close()
        self._wake.close()

    @property
    def _place(self) -> str:
        return redis_clients.describe(self._settings)

    def _wake_up(self) -> None:
        try:
            self._wake.send(b"\0")
        except OSError:  # it is awake, or at its end
            pass

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        with redis_clients.quiet():
            while not self._stopping:
                begun = time.monotonic()
                try:
                    self._listen()
                except Exception as error:  # whatever it is: the thread goes on
                    self._say_away(error)
                finally:
                    self._disconnect()
                failures = 0 if time.monotonic() - begun > LONGEST_PAUSE else failures + 1
                self.attempted.set()
                self._pause(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10)) * random.uniform(0.5, 1))  # noqa: S311 - not for secrets
        self._ear.close()
        self._wake.close()

    def _listen(self) -> None:
        """Until the connection fails or the process leaves."""
        connection = self._connection = redis_clients.connection(self._settings)
        connection.connect()
        self._clock.measure(lambda: _command(connection, "TIME"))
        self._subscribed = frozenset()
        expected = self._subscribe(connection)
        while expected:
            expected -= self._take(connection.read_response())
        self._say_back()
        self.connected = True
        self._listening()
        self.attempted.set()
        heard = time.monotonic()
        checked = heard
        asked: float | None = None
        while True:
            more = True
            for _ in range(_AT_ONCE):
                if not (more := connection.can_read(0)):
                    break
                self._take(connection.read_response())
                heard, asked = time.monotonic(), None
            self._send_waiting()
            if self._stopping:
                return
            self._subscribe(connection)
            now = time.monotonic()
            if asked is not None and now - asked > redis_clients.TIMEOUT_SECONDS:
                raise TimeoutError("no answer to a PING")
            if asked is None and now - heard > PING_SECONDS:
                connection.send_command("PING", check_health=False)
                asked = now
            if now - checked > CHECK_SECONDS:
                self._check()
                checked = time.monotonic()
            if more:
                continue
            due = heard + PING_SECONDS if asked is None else asked + redis_clients.TIMEOUT_SECONDS
            self._wait(connection, max(0.0, min(due, checked + CHECK_SECONDS) - time.monotonic()) + 0.001)

    def _subscribe(self, connection: Connection) -> int:
        """Bring what is subscribed to what is wanted; the number of confirmations that will come."""
        wanted, had = self._wanted, self._subscribed
        first = not had and not self.connected
        more = [name for channel in wanted - had for name in self._both(channel)]
        if first:
            more.insert(0, self._names.presence(self._name, self.token))
        less = [name for channel in had - wanted for name in self._both(channel)]
        if more:
            connection.send_command("SUBSCRIBE", *more, check_health=False)
        if less:
            connection.send_command("UNSUBSCRIBE", *less, check_health=False)
        self._subscribed = wanted
        return len(more) + len(less)

    def _both(self, channel: str) -> tuple[bytes, bytes]:
        return self._names.question(channel), self._names.presence(self._name, self.token, channel)

    def _take(self, message: Any) -> bool:
        """Whether it was the confirmation of a subscription."""
        kind = message[0] if isinstance(message, list) else b""
        if kind != b"message":
            return bool(kind == b"subscribe")
        channel = self._names.channel(message[1])
        if channel in self._subscribed:
            self._hear(channel, message[2])
        return False

    def _send_waiting(self) -> None:
        while self._outbox:
            channel, message = self._outbox.popleft()
            try:
                redis_clients.own(self._settings).publish(self._names.question(channel), message)
            except Exception as error:
                why = redis_clients.reason(self._settings, error)
                guard.dropped("broadcast.question", 1 + len(self._outbox), f"{self._place}: {why}")
                self._outbox.clear()

    def _check(self) -> None:
        """Whether the master knows of this subscription. Where it cannot be asked, PING will tell what is wrong."""
        client: Any = redis_clients.own(self._settings)
        pool = client.connection_pool
        try:
            if hasattr(pool, "get_master_address"):
                pool.get_master_address()  # where it has moved, the pool lets go of its connections
            self._clock.measure(client.time)
            listed = self._names.listed(client.pubsub_channels(self._names.pattern()))
        except Exception:
            guard.count("broadcast.check")
            return
        if not any(one.token == self.token for one in listed):
            raise ConnectionError("the master does not know this process's subscription")
        self.others = tuple(one.name for one in listed if one.token != self.token)

    def _wait(self, connection: Connection, seconds: float) -> None:
        """Until something comes, or is wanted."""
        server = getattr(connection, "_sock", None)  # redis-py has no public name for it
        poll = select.poll()
        poll.register(self._ear, select.POLLIN)
        if server is None:
            seconds = min(seconds, 0.2)
        else:
            poll.register(server, select.POLLIN)
        poll.poll(seconds * 1000)
        self._forget_wakes()

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and not self._hurried and (left := end - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(self._ear, select.POLLIN)
            poll.poll(left * 1000)
            self._forget_wakes()
        self._hurried = False

    def _forget_wakes(self) -> None:
        try:
            while self._ear.recv(4096):
                pass
        except OSError:
            pass

    def _disconnect(self) -> None:
        self.connected = False
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.disconnect()
            except Exception:
                guard.count("broadcast.disconnect")

    def _say_away(self, error: Exception) -> None:
        why = redis_clients.reason(self._settings, error)
        guard.count("broadcast.interrupted")
        if why != self._trouble and not self._stopping:
            message = "%s cannot be reached: until it can, a broadcast reaches this process alone (%s)"
            _logger.warning(message, self._place, why)
        self._trouble = why

    def _say_back(self) -> None:
        if self._trouble:
            _logger.warning("%s can be reached again", self._place)
        self._trouble = ""


def _command(connection: Connection, *words: str) -> Any:
    connection.send_command(*words, check_health=False)
    return connection.read_response()
