"""statsd: the lines of a series, and the thread that packs lines into datagrams and sends them.

A line is ``{prefix}.{a.b.c}:{value}|{ms|g|c}``, then ``|#name:value,...`` where there are tags. Datagrams hold
lines with a newline between and none at the end.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Literal, NamedTuple

from . import guard
from .names import Series

__all__ = ["MAX_PACKET", "Line", "Names", "Sender", "gauge_line", "next_packet", "number", "timer_value"]

MAX_PACKET = 1432
"""Bytes of a datagram: what an Ethernet frame takes beside the headers of UDP and IPv6, with some room."""

_MAX_NAME = 450
_NOT_IN_KEY = re.compile(r"[^A-Za-z0-9_]")
_NOT_IN_PREFIX = re.compile(r"[^A-Za-z0-9_.-]")
# The separators of the format, all that some reader may take for the end of a line, and what UTF-8 cannot hold.
_NOT_IN_VALUE = re.compile("[,#|\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Line(NamedTuple):
    """A line is ``head + value + tail``."""

    head: str
    tail: str


class Names:
    """Names series in the form that one service uses.

    ``prefix``: put before every name, with a dot; it may hold dots and ``-`` itself. ``use_tags``: automatic
    metrics have short names and tags. ``global_tags`` are on every line; a tag of the series wins over them.
    """

    def __init__(self, prefix: str, use_tags: bool, global_tags: Mapping[str, str]) -> None:
        self.use_tags = use_tags
        clean = _NOT_IN_PREFIX.sub("_", prefix)
        self._prefix = clean if not clean or clean.endswith(".") else f"{clean}."
        self._global_tags = dict(global_tags)

    def lines(self, series: Series, type: Literal["ms", "c", "g"]) -> tuple[Line, ...]:  # noqa: A002 - statsd's word
        """What goes before and after the value, for each name of the series."""
        keys, tags = ((series.parts, *series.also), series.user_tags)
        if self.use_tags:
            keys, tags = (series.stem,), series.tags + series.user_tags
        shown = self._tags(tags)
        return tuple(_line(self._name(key), type, shown) for key in keys)

    def _name(self, parts: Iterable[str]) -> str:
        return (self._prefix + ".".join(_NOT_IN_KEY.sub("_", part) for part in parts))[:_MAX_NAME] or "_"

    def _tags(self, tags: Iterable[tuple[str, str]]) -> str:
        merged = {**self._global_tags, **dict(tags)}
        return ",".join(f"{_NOT_IN_KEY.sub('_', name)}:{_tag_value(merged[name])}" for name in sorted(merged))


def _tag_value(value: str) -> str:
    # A value that is cut here has no place in a datagram anyway: the line will lose its tags.
    return _NOT_IN_VALUE.sub("_", value[:MAX_PACKET])


def _line(name: str, type: str, tags: str) -> Line:  # noqa: A002 - statsd's word
    line = Line(f"{name}:", f"|{type}|#{tags}" if tags else f"|{type}")
    if tags and len("".join(line).encode()) >= MAX_PACKET:
        _count_lost_tags()
        return Line(line.head, f"|{type}")
    return line


def _count_lost_tags() -> None:
    guard.dropped("statsd.tags", 1, f"a line with its tags has more than {MAX_PACKET} bytes; it is sent without them")


def timer_value(seconds: float) -> str:
    """Milliseconds, halves to even, at least 1. Raises ValueError or OverflowError for NaN and infinity."""
    milliseconds = round(seconds * 1000)
    return str(milliseconds) if milliseconds > 1 else "1"


def number(value: object) -> str | None:
    """Plain decimal text, without exponent. None (and counted) for NaN, infinity and what is not a number."""
    try:
        if isinstance(value, int):
            return str(int(value))
        text = repr(float(value))  # type: ignore[arg-type] # what float() refuses is what the except is for
        if "e" in text:
            text = format(Decimal(text), "f")
        if "n" not in text:  # nan, inf
            return "0" if text == "-0.0" else text
    except (TypeError, ValueError, OverflowError):  # an int may have more digits than Python writes
        pass
    guard.dropped("statsd.values", 1, "it is not a finite number")
    return None


def gauge_line(line: Line, value: object) -> str | None:
    """What is sent for a gauge, as one entry for `Sender.send`; None where `number` is None.

    A sign means a change by so much; so a negative value is preceded by 0, in the same datagram.
    """
    text = number(value)
    if text is None:
        return None
    head, tail = line
    return f"{head}0{tail}\n{head}{text}{tail}" if text.startswith("-") else head + text + tail


def next_packet(queue: deque[str], max_packet: int = MAX_PACKET) -> bytes:
    """Take as many entries from the left as fit into one datagram; empty when there are none.

    An entry is never split. One that is too long loses its tags; one that still is, is dropped. Both are counted.
    """
    taken: list[str] = []
    room = max_packet + 1
    try:
        while True:
            entry = queue.popleft()
            size = 1 + (len(entry) if entry.isascii() else len(entry.encode("utf-8", "replace")))
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
        _count_lost_tags()
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
        self._target = _Target(host, port)
        self._flush_interval = flush_interval
        self._max_packet = max_packet
        self._max_queue = max_queue
        self._reset()
        _senders.add(self)

    def _reset(self) -> None:
        self._queue: deque[str] = deque()
        self._pending = b""  # the packet that could not be sent
        self._waiting = True  # the next line has to wake the thread, or to start it
        self._closed = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wakeup = threading.Event()  # there is something to do
        self._hurry = threading.Event()  # and it cannot wait
        self._flushes: deque[threading.Event] = deque()

    def send(self, line: str) -> None:
        """Queue a line (or several that belong together, with newlines between). Never blocks, never raises."""
        self._queue.append(line)
        if self._waiting or len(self._queue) > self._max_queue:
            self._attend()

    def _attend(self) -> None:
        if self._closed:
            self._forget("the sender is closed")
            return
        while len(self._queue) > self._max_queue:
            with contextlib.suppress(IndexError):
                self._queue.popleft()
                guard.dropped("statsd.lines", 1, f"more than {self._max_queue} wait for {self._target}")
        if self._waiting:
            self._waiting = False
            self._start()
            self._wakeup.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                thread = threading.Thread(target=self._run, name="c2c-otel-statsd", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is ending, or there are too many threads
                    self._waiting = True
                    guard.dropped("statsd.threads", 1, "no thread can be started")
                else:
                    self._thread = thread

    def _forget(self, reason: str) -> None:
        count = len(self._queue) + (1 + self._pending.count(b"\n") if self._pending else 0)
        self._queue.clear()
        self._pending = b""
        if count:
            guard.dropped("statsd.lines", count, reason)

    def flush(self, timeout: float = 1.0) -> bool:
        """Send at once what is queued, and wait for it; whether it was sent."""
        if not (self._queue or self._pending) or self._closed:
            return not self._queue
        done = threading.Event()
        self._flushes.append(done)
        self._start()
        self._hurry.set()
        self._wakeup.set()
        return done.wait(timeout)

    def close(self, timeout: float = 1.0) -> None:
        """Send the rest, if that is possible in time, and end the thread. Later lines are dropped."""
        if self._queue and not self._closed:
            self._start()
        with self._lock:
            self._closed, thread = True, self._thread
        self._hurry.set()
        self._wakeup.set()
        if thread is not None:
            thread.join(timeout)
        if thread is None or thread.is_alive():
            self._forget(f"{self._target} did not take them before the end")
        self._waiting = True

    def abandon(self) -> None:
        """In a forked child: forget thread, lines and socket, which are the parent's, and be as new."""
        self._target.close()
        self._reset()

    # What follows runs in the thread.

    def _run(self) -> None:
        pause = 0.0  # between two attempts, after a failure
        while not self._closed:
            self._waiting = True
            if not (self._queue or self._flushes or pause or self._closed):
                self._wakeup.wait()
            self._waiting = False
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
        """Send what is queued; whether the server took it."""
        flushes = len(self._flushes)
        for sent in range(1, 1_000_000):
            packet = self._pending or next_packet(self._queue, self._max_packet)
            if not packet:
                break
            self._pending = packet
            if not self._target.send(packet):
                return False
            self._pending = b""
            if sent % 16 == 0:
                time.sleep(0.001)  # a burst would overrun the buffer of the receiver
        for _ in range(flushes):
            self._flushes.popleft().set()
        return True


class _Target:
    """The server, and the socket that is connected to it. Used by one thread."""

    _RESOLVE_EVERY = 60.0  # seconds

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._addresses: list[tuple[int, tuple[object, ...]]] = []
        self._resolve_at = 0.0
        self._socket: socket.socket | None = None

    def __str__(self) -> str:
        return f"statsd at {f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    def send(self, packet: bytes) -> bool:
        """Whether the packet left, and the one before it was not refused.

        UDP tells of a missing listener only at the next packet. Then the next address of the name is tried.
        """
        try:
            self._resolve()
        except OSError as error:
            self._warn(error)
            if not self._addresses:
                return False
        for _ in self._addresses.copy():
            try:
                self._connected().send(packet)
                return True
            except OSError as error:
                self._warn(error)
                self.close()
                self._addresses.append(self._addresses.pop(0))
        return False

    def _warn(self, error: OSError) -> None:
        key = f"statsd.{self._host}.{self._port}"
        guard.tally[key] += 1
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
            connection.settimeout(1.0)
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
