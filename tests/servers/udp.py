"""A UDP socket that keeps what it is sent: the statsd and syslog server that has no opinion."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Self

from tests.servers.process import wait_until

__all__ = ["UdpSink"]


class UdpSink:
    """``with UdpSink() as sink: send_to(sink.host, sink.port); sink.wait_for(3)``"""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.packets: list[bytes] = []

    @property
    def address(self) -> str:
        """``host:port``, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def lines(self) -> list[str]:
        """The lines of all packets, in order of arrival."""
        return [line for packet in self.packets.copy() for line in packet.decode().split("\n") if line]

    def clear(self) -> None:
        """Forget what has arrived."""
        self.packets.clear()

    def wait_for(self, what: int | Callable[[list[str]], object], timeout: float = 10.0) -> list[str]:
        """The lines, once there are that many, or once they satisfy the function. Raises NotReady."""

        def enough() -> list[str] | None:
            lines = self.lines()
            return lines if (what(lines) if callable(what) else len(lines) >= what) else None

        return wait_until(f"{what} lines", enough, timeout, lambda: "\n".join(self.lines()))

    def start(self) -> Self:
        """Bind and collect from now on."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind((self.host, 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._collect, name="udp-sink", daemon=True)
        self._stopping = False
        self._thread.start()
        return self

    def stop(self) -> None:
        """Let go of the port."""
        self._stopping = True
        with socket.socket(self._socket.family, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", (self.host, self.port))
        self._thread.join(5)
        self._socket.close()

    def _collect(self) -> None:
        while True:
            packet = self._socket.recv(65536)
            if packet:
                self.packets.append(packet)
            elif self._stopping:
                return

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
