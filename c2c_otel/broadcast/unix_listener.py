"""The side that is asked: one thread that accepts connections, reads questions and writes answers. It never waits for
a peer, and runs no callback."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque
from pathlib import Path

from c2c_otel.broadcast import unix_address
from c2c_otel.broadcast.messages import MAX_CHANNEL_BYTES, MAX_QUESTION_BYTES, MAX_SECONDS
from c2c_otel.broadcast.transport import Deliver
from c2c_otel.broadcast.unix_address import ANSWER, QUESTION
from c2c_otel_exporters import guard

__all__ = ["Listener"]

_BACKLOG = 128
_MAX_CONNECTIONS = 256
_READ_SECONDS = 10.0  # a peer sends its question at once
_LOOK_SECONDS = 30.0
"""How often it is seen to that the socket's file is still there: cleaners of temporary directories remove old ones."""


class _Connection:
    """``unread``: the question so far. ``left``: what of the answer is not sent yet."""

    __slots__ = ("asked", "closed", "left", "socket", "unread", "until")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.unread = bytearray()
        self.left: memoryview | None = None
        self.asked = self.closed = False
        self.until = time.monotonic() + _READ_SECONDS


class Listener:
    """Not to be used after a fork but for `abandon`."""

    def __init__(self, directory: Path, name: str, deliver: Deliver) -> None:
        self.file = unix_address.file_name(name)
        self._directory = directory
        self._deliver = deliver
        self._connections: set[_Connection] = set()
        self._answers: deque[tuple[_Connection, bytes]] = deque()
        self._ending = False

    def start(self) -> None:
        """Listen, and only then be seen in the directory. Raises OSError."""
        self._socket = self._listen()
        self._selector = selectors.DefaultSelector()
        self._wakes, self._waker = socket.socketpair()
        self._wakes.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._selector.register(self._wakes, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="c2c_broadcast_listener", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._unlink()
            self.abandon()
            raise OSError(str(error)) from error

    def stop(self) -> None:
        """First not to be seen any more, then to end. A second at most."""
        self._unlink()
        self._ending = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)

    def abandon(self) -> None:
        """Close the descriptors, and nothing else: a forked child's are copies."""
        self._selector.close()
        for one in (self._socket, self._wakes, self._waker, *(each.socket for each in list(self._connections))):
            one.close()

    def _unlink(self) -> None:
        (self._directory / self.file).unlink(missing_ok=True)

    def _listen(self) -> socket.socket:
        unix_address.make(self._directory)
        hidden = f".{self.file}"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            with unix_address.address(self._directory, hidden) as address:
                listening.bind(address)
            listening.listen(_BACKLOG)
            (self._directory / hidden).rename(self._directory / self.file)
        except BaseException:
            listening.close()
            raise
        return listening

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        look = time.monotonic() + _LOOK_SECONDS
        while not self._ending:
            try:
                self._step(_LOOK_SECONDS if not self._connections else 1.0)
                if time.monotonic() >= look:
                    look = time.monotonic() + _LOOK_SECONDS
                    self._look()
            except Exception:
                if self._ending:
                    break
                time.sleep(0.1)  # whatever it was, no loop that takes a whole processor
                guard.failed("broadcast.listener")
        self.abandon()

    def _step(self, timeout: float) -> None:
        for key, events in self._selector.select(timeout):
            if key.fileobj is self._socket:
                self._accept()
            elif key.fileobj is self._wakes:
                self._wakes.recv(4096)
            elif events & selectors.EVENT_READ:
                self._read(key.data)
            else:
                self._write(key.data)
        while self._answers:
            self._begin_answer(*self._answers.popleft())
        now = time.monotonic()
        for connection in [one for one in self._connections if one.until < now]:
            self._close(connection)

    def _look(self) -> None:
        if not (self._directory / self.file).exists():
            guard.count("broadcast.socket_was_removed")
            before, self._socket = self._socket, self._listen()
            self._selector.unregister(before)
            before.close()
            self._selector.register(self._socket, selectors.EVENT_READ)

    def _accept(self) -> None:
        try:
            accepted, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        accepted.setblocking(False)
        if len(self._connections) >= _MAX_CONNECTIONS or not unix_address.is_ours(accepted):
            guard.count("broadcast.refused.connection")
            accepted.close()
            return
        connection = _Connection(accepted)
        self._connections.add(connection)
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or connection.asked:  # the peer is gone, or says what is none of the protocol
            self._close(connection)
            return
        unread = connection.unread
        unread += data
        if len(unread) < QUESTION.size:
            return
        channel_bytes, message_bytes = QUESTION.unpack_from(unread)
        if channel_bytes > MAX_CHANNEL_BYTES or message_bytes > MAX_QUESTION_BYTES:
            guard.count("broadcast.refused.oversized")
            self._close(connection)
        elif len(unread) >= QUESTION.size + channel_bytes + message_bytes:
            start = QUESTION.size + channel_bytes
            self._asked(connection, bytes(unread[QUESTION.size : start]), bytes(unread[start : start + message_bytes]))

    def _asked(self, connection: _Connection, channel: bytes, message: bytes) -> None:
        connection.asked = True
        connection.unread = bytearray()
        connection.until = time.monotonic() + MAX_SECONDS  # whoever has asked closes it sooner
        try:
            name = channel.decode()
        except UnicodeDecodeError:
            guard.count("broadcast.refused.garbage")
            self._close(connection)
            return
        if not self._deliver(name, message, lambda _, answer: self._answer(connection, answer)):
            self._close(connection)

    def _answer(self, connection: _Connection, answer: bytes) -> None:
        """On any thread."""
        self._answers.append((connection, answer))
        self._wake()

    def _wake(self) -> None:
        try:
            self._waker.send(b"\0")
        except OSError:  # it has been woken often enough, or has ended
            pass

    def _begin_answer(self, connection: _Connection, answer: bytes) -> None:
        if not connection.closed:
            connection.left = memoryview(ANSWER.pack(len(answer)) + answer)
            self._write(connection)

    def _write(self, connection: _Connection) -> None:
        assert connection.left is not None
        try:
            sent = connection.socket.send(connection.left)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        connection.left = connection.left[sent:]
        if connection.left:
            self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
        else:
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        if not connection.closed:
            connection.closed = True
            self._connections.discard(connection)
            self._selector.unregister(connection.socket)
            connection.socket.close()
