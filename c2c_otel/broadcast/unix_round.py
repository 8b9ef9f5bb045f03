"""The side that asks: all members at once, on the caller's thread, without ever waiting for one alone."""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from pathlib import Path

from c2c_otel.broadcast import unix_address
from c2c_otel.broadcast.messages import MAX_ANSWER_BYTES
from c2c_otel.broadcast.transport import Accept
from c2c_otel.broadcast.unix_address import ANSWER, QUESTION
from c2c_otel_exporters import guard

__all__ = ["ask", "frame", "sweep", "tell"]

_AGAIN_SECONDS = 0.02
"""A member whose backlog is full (a stopped one, after many questions) cannot be waited for: it is tried again."""


def frame(channel: str, question: bytes) -> bytes:
    """The bytes of a question on a connection."""
    name = channel.encode()
    return QUESTION.pack(len(name), len(question)) + name + question


def ask(directory: Path, own: str, question: bytes, timeout: float, accept: Accept) -> tuple[str, ...]:
    """See `Transport.ask`. ``own``: the file of who asks; ``question``: of `frame`."""
    asking = _Round(directory, own, question, accept)
    try:
        return asking.run(timeout)
    finally:
        asking.close()


def tell(directory: Path, own: str, question: bytes, timeout: float) -> None:
    """Ask without waiting: what does not get away at once is sent by a thread."""
    telling = _Round(directory, own, question, None)
    telling.run(0.0)
    if not telling.calls:
        telling.close()
        return

    def rest() -> None:
        try:
            if telling.run(timeout):
                guard.count("broadcast.untold")
        except Exception:
            guard.failed("broadcast.tell")
        finally:
            telling.close()

    try:
        threading.Thread(target=rest, name="c2c_broadcast_sender", daemon=True).start()
    except RuntimeError:  # the interpreter ends
        telling.close()


def sweep(directory: Path, own: str) -> None:
    """Remove the sockets of the dead: a service in which nobody asks anything must not keep one for each."""
    for file in unix_address.members(directory):
        if file != own:
            connection, _ = _connect(directory, file)
            if connection is not None:
                connection.close()


def _connect(directory: Path, file: str) -> tuple[socket.socket | None, int]:
    """A connection, or why there is none (errno; 0: it is not ours). The socket of who has died is removed."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        with unix_address.address(directory, file) as address:
            failed = connection.connect_ex(address)
        if not failed and unix_address.is_ours(connection):
            return connection, 0
    except OSError as error:  # the directory is gone
        failed = error.errno or errno.ENOENT
    connection.close()
    if failed == errno.ECONNREFUSED:
        (directory / file).unlink(missing_ok=True)
    return None, failed


class _Call:
    """One member. ``left``: what of the question is not sent yet; ``answer``: what has come so far."""

    __slots__ = ("answer", "file", "left", "socket")

    def __init__(self, file: str, question: bytes) -> None:
        self.file = file
        self.left = memoryview(question)
        self.answer = bytearray()
        self.socket: socket.socket | None = None


class _Round:
    def __init__(self, directory: Path, own: str, question: bytes, accept: Accept | None) -> None:
        self._directory = directory
        self._accept = accept
        self._selector = selectors.DefaultSelector()
        self._missing: list[str] = []
        self.calls = {file: _Call(file, question) for file in unix_address.members(directory) if file != own}
        """Those that are not done with."""

    def run(self, timeout: float) -> tuple[str, ...]:
        """Go on for so long. Returns the names of those who have not answered."""
        end = time.monotonic() + timeout
        self._connect()
        while self.calls:
            remaining = end - time.monotonic()
            waiting = any(call.socket is None for call in self.calls.values())
            for key, _ in self._selector.select(max(0.0, min(remaining, _AGAIN_SECONDS if waiting else remaining))):
                self._go_on(key.data)
            if remaining <= 0:
                break
            if waiting:
                self._connect()
        return tuple(unix_address.member(file) for file in sorted([*self._missing, *self.calls]))

    def close(self) -> None:
        """Let go of all connections."""
        self._selector.close()
        for call in self.calls.values():
            if call.socket is not None:
                call.socket.close()

    def _connect(self) -> None:
        for call in [call for call in self.calls.values() if call.socket is None]:
            call.socket, failed = _connect(self._directory, call.file)
            if call.socket is not None:
                self._selector.register(call.socket, selectors.EVENT_WRITE, call)
                self._send(call)
            elif failed not in (errno.EAGAIN, errno.EINTR):
                self._done(call, missing=failed not in (errno.ECONNREFUSED, errno.ENOENT))

    def _go_on(self, call: _Call) -> None:
        if call.left:
            self._send(call)
        else:
            self._receive(call)

    def _send(self, call: _Call) -> None:
        assert call.socket is not None
        try:
            call.left = call.left[call.socket.send(call.left) :]
        except BlockingIOError:
            return
        except OSError:
            self._ended(call)
            return
        if not call.left:
            if self._accept is None:
                self._done(call)
            else:
                self._selector.modify(call.socket, selectors.EVENT_READ, call)

    def _receive(self, call: _Call) -> None:
        assert call.socket is not None
        assert self._accept is not None
        try:
            data = call.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        call.answer += data
        if not data:
            self._ended(call)
        elif len(call.answer) >= ANSWER.size:
            (size,) = ANSWER.unpack_from(call.answer)
            if size > MAX_ANSWER_BYTES:
                guard.count("broadcast.refused.oversized")
                self._done(call, missing=True)
            elif len(call.answer) >= ANSWER.size + size:
                answer = bytes(memoryview(call.answer)[ANSWER.size : ANSWER.size + size])
                self._done(call, missing=self._accept(answer) is None)

    def _ended(self, call: _Call) -> None:
        """No answer comes. Who has left is none of those asked; who has died is, but only once."""
        self._done(call, missing=(self._directory / call.file).exists())

    def _done(self, call: _Call, *, missing: bool = False) -> None:
        del self.calls[call.file]
        if missing:
            self._missing.append(call.file)
        if call.socket is not None:
            self._selector.unregister(call.socket)
            call.socket.close()
