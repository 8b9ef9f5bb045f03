"""Datagrams to a syslog server: never waits, never raises, never loses one in silence.

The socket belongs to the process that sends; a forked child makes its own. A name is looked up by a thread where
threads are allowed (`background`), again every minute because a restarted container has a new address; what is
sent meanwhile waits, up to `MAX_WAITING` datagrams. Elsewhere, in an arbiter, it is looked up once, in line.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections import deque
from typing import Any

from c2c_otel_exporters import background, guard

__all__ = ["MAX_WAITING", "RETRY_SECONDS", "Sender"]

MAX_WAITING = 1000
"""Datagrams that wait for the first answer of the resolver."""

RETRY_SECONDS = 60.0
"""How long an answer, or the lack of one, is good for."""

_Target = tuple[int, Any]  # address family, socket address


class Sender:
    """Sends to ``host`` (a name, an IPv4 or IPv6 address, or the path of a Unix socket) and UDP ``port``.

    Where a name has several addresses, IPv4 comes first (what most syslog servers listen on), and the next one is
    taken when one refuses. Any thread may call any method.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._state = _State(host, port)

    def send(self, datagram: bytes) -> None:
        """Send now, or when the name is resolved."""
        self._own().send(datagram)

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Give a running look-up so long to answer, send what waits for it, and let go of the socket."""
        self._own().close(timeout_seconds)

    def _own(self) -> _State:
        if self._state.pid != os.getpid():
            self._state = _State(self.host, self.port)
        return self._state


class _State:
    """What one process has of a sender."""

    def __init__(self, host: str, port: int) -> None:
        self.pid = os.getpid()
        self.host, self.port = host, port
        self.lock = threading.Lock()
        self.socket: socket.socket | None = None
        self.targets: list[_Target] = _numeric(host, port)
        self.fixed = bool(self.targets)
        self.ask_at = 0.0
        self.thread: threading.Thread | None = None
        self.asking = False
        self.waiting: deque[bytes] = deque()
        self.complained = False

    def send(self, datagram: bytes) -> None:
        if not self.fixed and time.monotonic() >= self.ask_at:
            self._ask()
        with self.lock:
            if self.targets:
                self._transmit(datagram)
                return
            if self.asking and len(self.waiting) < MAX_WAITING:
                self.waiting.append(datagram)
                return
        guard.count("dropped.logs.syslog")

    def close(self, timeout_seconds: float) -> None:
        if self.thread is not None and self.waiting:
            self.thread.join(timeout_seconds)
        with self.lock:
            self._disconnect()

    def _ask(self) -> None:
        self.ask_at = time.monotonic() + RETRY_SECONDS
        if not background.allowed():
            if not self.targets:
                self._resolve()
        elif not self.asking:
            self.asking = True
            self.thread = background.run(self._resolve, "c2c-otel-syslog-name")
            self.asking = self.asking and self.thread is not None

    def _resolve(self) -> None:
        """Look the name up; the old addresses are kept where there is no answer."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
            targets: list[_Target] = [(family, address) for family, _, _, _, address in found]
            targets.sort(key=_ipv4_first)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that IDNA cannot encode
            self._complain(error)
            targets = []
        with self.lock:
            if targets and targets != self.targets:
                self.targets = targets
                self._disconnect()
            while self.waiting and self.targets:
                self._transmit(self.waiting.popleft())
            guard.count("dropped.logs.syslog", len(self.waiting))
            self.waiting.clear()
            self.asking = False

    def _complain(self, error: Exception) -> None:
        """On stderr, once: the log itself is what cannot be reached."""
        if not self.complained and sys.stderr is not None:
            self.complained = True
            sys.stderr.write(
                f"c2c-otel: the syslog server {self.host!r} cannot be resolved ({error}); "
                f"log lines for it are dropped, the name is tried again every {RETRY_SECONDS:.0f} seconds\n"
            )

    def _transmit(self, datagram: bytes) -> None:
        """Send to the current target, or to one that does not refuse. A refusal tells of an earlier datagram, so
        an only target is tried twice. The caller holds the lock."""
        for _ in range(max(2, len(self.targets))):
            try:
                self._connected().send(datagram)
                return
            except BlockingIOError:  # the system's buffer is full
                break
            except OSError:  # refused, or no way there
                self._disconnect()
                self.targets.append(self.targets.pop(0))
        guard.count("dropped.logs.syslog")

    def _connected(self) -> socket.socket:
        """The non-blocking socket, connected to the first target."""
        if self.socket is None:
            family, address = self.targets[0]
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
            self.socket.setblocking(False)
            self.socket.connect(address)
        return self.socket

    def _disconnect(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def _numeric(host: str, port: int) -> list[_Target]:
    """The target of a Unix socket's path or a numeric address, which need no look-up."""
    if host.startswith("/"):
        return [(socket.AF_UNIX, host)]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [(family, address) for family, _, _, _, address in found]


def _ipv4_first(target: _Target) -> bool:
    return target[0] != socket.AF_INET
