"""Sockets of processes of one user on one host: their files, who is behind one, and what goes over a connection.

``{run}/sockets/{pid}-{token}@{hostname}``, where the token tells a process from an earlier one of that pid. A
connection carries one question, ``>HI`` (bytes of channel and message), channel, message; and back at most one answer,
``>I`` (bytes), answer. A connection that ends without one says that none comes.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ANSWER", "QUESTION", "address", "file_name", "is_ours", "make", "member", "members"]

QUESTION = struct.Struct(">HI")
ANSWER = struct.Struct(">I")

_SUN_PATH = 108  # unix(7), the closing NUL included
_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


def file_name(name: str) -> str:
    """A new file name for the member ``hostname/pid``."""
    host, _, pid = name.rpartition("/")
    return f"{pid}-{os.urandom(4).hex()}@{host.replace('/', '_')}"


def member(file: str) -> str:
    """The member's name, ``hostname/pid``, from its file's."""
    pid, _, rest = file.partition("-")
    return f"{rest.partition('@')[2]}/{pid}"


def members(directory: Path) -> list[str]:
    """The files of those who listen, or did when they died; hidden ones do not yet. Empty without a directory."""
    try:
        return sorted(file for file in os.listdir(directory) if not file.startswith(".") and "@" in file)  # noqa: PTH208 - names are wanted
    except OSError:
        return []


def make(directory: Path) -> None:
    """The directory, closed to others, with those above it that a cleaner has removed as well. Raises OSError;
    `PermissionError` where another account has taken the place of one of them."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        if path.parent.stat().st_uid not in (os.geteuid(), 0):
            raise PermissionError(f"{path.parent} belongs to another account.")
        path.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def address(directory: Path, file: str) -> Iterator[str]:
    """What to bind or connect to: the path, or where that is too long one through a descriptor of the directory."""
    path = directory / file
    if len(os.fsencode(path)) < _SUN_PATH:
        yield str(path)
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{file}"
    finally:
        os.close(descriptor)


def is_ours(connection: socket.socket) -> bool:
    """Whether this user's process, or root's, is at the other end."""
    if not hasattr(socket, "SO_PEERCRED"):  # not Linux: the directory, closed to others, must do
        return True
    ucred = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return _PEER.unpack(ucred)[1] in (os.geteuid(), 0)
