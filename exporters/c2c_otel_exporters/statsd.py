"""Sends statsd lines: a queue, and a thread that packs lines into datagrams.

Datagrams hold lines with a newline between and none at the end. What lines look like is in `statsd_lines`, whose
public names are here too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
import weakref
from bisect import bisect_right
from collections import deque
from itertools import accumulate

from . import guard
from .statsd_lines import (
    MAX_PACKET,
    Line,
    Names,
    gauge_line,
    lost_tags,
    metric_lines,
    number,
    number_value,
    timer_value,
)

__all__ = [
    "MAX_PACKET",
    "Line",
    "Names",
    "Sender",
    "gauge_line",
    "metric_lines",
    "next_packet",
    "number",
    "number_value",
    "timer_value",
]


_AT_ONCE = 8
"""Entries that are taken before their length is looked at: as a rule a packet holds 10 to 40."""


def next_packet(queue: deque[str], max_packet: int = MAX_PACKET) -> bytes:
    """Take as many entries from the left as fit into one datagram; empty when there are none.

    An entry is never split. One that is too long loses its tags; one that still is, is dropped. Both are counted.
    """
    taken: list[str] = []
    take, append = queue.popleft, taken.append
    size = counted = 0
    with contextlib.suppress(IndexError):
        while size <= max_packet:
            for _ in range(_AT_ONCE):
                append(take())
            size += sum(map(len, taken[counted:])) + _AT_ONCE
            counted += _AT_ONCE
    ends = list(accumulate(map(len, taken)))
    # where entries end in the text, with a newline before each but the first
    fit = bisect_right([end + at for at, end in enumerate(ends)], max_packet)
    text = "\n".join(taken[:fit])
    if fit and text.isascii():
        queue.extendleft(reversed(taken[fit:]))
        return text.encode()
    queue.extendleft(reversed(taken))
    return _careful_packet(queue, max_packet)


def _careful_packet(queue: deque[str], max_packet: int) -> bytes:
    """`next_packet` one by one: some are not ASCII, or too long."""
    taken: list[str] = []
    room = max_packet + 1
    try:
        while True:
            entry = queue.popleft()
            size = 1 + len(entry.encode("utf-8", "replace"))
            if size > room:
                if taken:
                    queue.appendleft(entry)
                    break
                entry = _without_tags(entry)
                size = 1 + len(entry.encode("utf-8", "replace"))
                if size > room:
                    guard.dropped("statsd.lines", 1, f"a line has more than {max_packet} bytes without its tags")
                    continue
            taken.append(entry)
            room -= size
    except IndexError:
        pass
    return "\n".join(taken).encode("utf-8", "replace")


def _without_tags(entry: str) -> str:
    if "|#" in entry:
        lost_tags()
    return "\n".join(line.partition("|#")[0] for line in entry.split("\n"))


_senders: weakref.WeakSet[Sender] = weakref.WeakSet()


class Sender:
    """Sends lines to a statsd server by UDP, from a thread that the first line starts.

    Whatever is queued leaves within ``flush_interval`` seconds and the time it takes to pack it. While the server
    cannot be resolved or reached, up to ``max_queue`` lines wait (the oldest are dropped and counted), and it is
    tried again. Thread-safe. A forked child begins anew, without the lines of its parent.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        flush_interval: float = 0.05,
        max_packet: int = MAX_PACKET,
        max_queue: int = 100_000,
    ) -> None:
        self._address = host, port
        self._flush_interval = flush_interval
        self._max_packet = max_packet
        self.max_queue = max_queue
        self._reset()
        _senders.add(self)

    def _reset(self) -> None:
        self._target = _Target(*self._address)
        self.queue: deque[str] = deque()
        self._pending = b""  # the packet that could not be sent
        self.waiting = True  # the next line has to wake the thread, or to start it
        self._closed = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wakeup = threading.Event()  # there is something to do
        self._hurry = threading.Event()  # and it cannot wait
        self._flushes: deque[threading.Event] = deque()
        self._sent = 0

    def send(self, line: str) -> None:
        """Queue a line (or several that belong together, with newlines between). Never blocks, never raises."""
        self.queue.append(line)
        if self.waiting or len(self.queue) > self.max_queue:
            self.attend()

    def attend(self) -> None:
        """After a line was queued while the thread was ``waiting``, or there are more than ``max_queue``."""
        if self._closed:
            self._forget("the sender is closed")
            return
        while len(self.queue) > self.max_queue:
            with contextlib.suppress(IndexError):
                entry = self.queue.popleft()
                guard.dropped(
                    "statsd.lines", 1 + entry.count("\n"), f"more than {self.max_queue} wait for {self._target}"
                )
        if self.waiting:
            self.waiting = False
            self._start()
            self._wakeup.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                thread = threading.Thread(target=self._run, name="c2c-otel-statsd", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is ending, or there are too many threads
                    self.waiting = True
                    guard.dropped("statsd.threads", 1, "no thread can be started")
                else:
                    self._thread = thread

    def _forget(self, reason: str) -> None:
        count = sum(1 + entry.count("\n") for entry in self.queue.copy()) + (
            1 + self._pending.count(b"\n") if self._pending else 0
        )
        self.queue.clear()
        self._pending = b""
        if count:
            guard.dropped("statsd.lines", count, reason)

    def flush(self, timeout: float = 1.0) -> bool:
        """Send at once what is queued, and wait for it; whether it was sent."""
        if self._closed or (self._thread is None and not self.queue):
            return not self.queue
        done = threading.Event()
        self._flushes.append(done)
        self._start()
        self._hurry.set()
        self._wakeup.set()
        sent = done.wait(timeout)
        with contextlib.suppress(ValueError):
            self._flushes.remove(done)
        return sent

    def close(self, timeout: float = 1.0) -> None:
        """Send the rest, if that is possible in time, and end the thread. Later lines are dropped."""
        if self.queue and not self._closed:
            self._start()
        with self._lock:
            self._closed, thread = True, self._thread
        self._hurry.set()
        self._wakeup.set()
        if thread is not None:
            thread.join(timeout)
        if thread is None or thread.is_alive():
            self._forget(f"{self._target} did not take them before the end")
        self.waiting = True

    def state(self) -> dict[str, object]:
        """How it is doing: lines ``sent`` and ``queued``, whether the server is ``failing``, whether its ``thread``
        runs (None where no line has needed one)."""
        thread = self._thread
        return {
            "address": str(self._target).removeprefix("statsd at "),
            "sent": self._sent,
            "queued": len(self.queue),
            "failing": self._target.suspect,
            "thread": None if thread is None else thread.is_alive(),
        }

    def abandon(self) -> None:
        """In a forked child: forget thread, lines and socket, which are the parent's, and be as new."""
        self._target.close()
        self._reset()

    # What follows runs in the thread.

    def _run(self) -> None:
        pause = 0.0  # between two attempts, after a failure
        while not self._closed:
            self.waiting = True
            if not (self.queue or self._flushes or pause or self._closed):
                self._wakeup.wait()
            self.waiting = False
            self._wakeup.clear()
            self._hurry.wait(pause or self._flush_interval)
            self._hurry.clear()
            pause = 0.0 if self._drain_guarded() else min(max(0.1, pause * 2), 5.0)
        self._drain_guarded()
        self._forget(f"{self._target} did not take them before the end")
        self._target.close()

    def _drain_guarded(self) -> bool:
        try:
            return self._drain()
        except Exception:
            guard.failed("statsd.send")
            return False

    def _drain(self) -> bool:
        """Send what is queued at the beginning, at least; whether the server took it."""
        flushes = list(self._flushes)
        for sent in range(1, len(self.queue) + 2):
            self._pending = packet = self._pending or next_packet(self.queue, self._max_packet)
            if not packet:
                break
            if not self._target.send(packet):
                return False
            self._pending = b""
            self._sent += 1 + packet.count(b"\n")
            if sent % 16 == 0:
                time.sleep(0.001)  # a burst would overrun the buffer of the receiver
        for done in flushes:
            done.set()
        return True


class _Target:
    """The server, and the socket that is connected to it. Used by one thread."""

    _RESOLVE_EVERY = 60.0  # seconds

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._addresses: list[tuple[int, tuple[object, ...]]] = []
        self._resolve_at = 0.0
        self._socket: socket.socket | None = None
        self.suspect = False  # it has failed, and not yet been seen to work

    def __str__(self) -> str:
        return f"statsd at {f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    def send(self, packet: bytes) -> bool:
        """Whether the packet left, and was not refused as far as can be known.

        On a refusal the other addresses of the name are tried too.
        """
        try:
            self._resolve()
        except (OSError, UnicodeError) as error:
            self._warn(error)
        for _ in self._addresses.copy():
            try:
                self._send(packet)
                return True
            except OSError as error:
                self._warn(error)
                self.close()
                if error.errno == errno.EMSGSIZE:
                    guard.dropped("statsd.lines", 1 + packet.count(b"\n"), f"too long for the way to {self}")
                    return True
                self._addresses.append(self._addresses.pop(0))
                self._resolve_at = 0.0
        return False

    def _send(self, packet: bytes) -> None:
        connection = self._connected()
        try:
            connection.send(packet)
        except BlockingIOError:  # its buffer is full
            select.select([], [connection], [], 1.0)
            connection.send(packet)
        # UDP tells by an error of the socket that nobody listens: on the same host at once, else a little later.
        if self.suspect:
            time.sleep(0.02)
        if code := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))
        self.suspect = False

    def _warn(self, error: Exception) -> None:
        self.suspect = True
        key = f"statsd.{self._host}.{self._port}"
        guard.count(key)
        guard.warn_once(key, "%s cannot be reached: %s. It will be tried again.", self, error)

    def _resolve(self) -> None:
        now = time.monotonic()
        if now < self._resolve_at and self._addresses:
            return
        self._resolve_at = now + self._RESOLVE_EVERY
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        # IPv4 first: most servers listen there alone, even where the name has both.
        addresses = sorted({(family, address) for family, _, _, _, address in found}, key=lambda entry: entry[0])
        if set(addresses) != set(self._addresses):
            self._addresses = list(addresses)
            self.close()

    def _connected(self) -> socket.socket:
        if self._socket is None:
            family, address = self._addresses[0]
            connection = socket.socket(family, socket.SOCK_DGRAM)
            connection.setblocking(False)  # with a timeout, each send would give up the GIL twice
            try:
                connection.connect(address)
            except OSError:
                connection.close()
                raise
            self._socket = connection
        return self._socket

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _abandon_all() -> None:
    for sender in list(_senders):
        sender.abandon()


os.register_at_fork(after_in_child=_abandon_all)
