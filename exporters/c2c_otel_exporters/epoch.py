"""Which reset of stats.json this is: one number, shared by all processes of a service.

A writer whose entry is of an older epoch starts it anew, a reader ignores it: nobody has to reach anybody.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from array import array
from pathlib import Path

__all__ = ["Epoch"]

_NAME = "epoch"
_BYTES = 8


class Epoch:
    """``word[0]`` is the epoch, as it is now; 0 at first. Without a directory it is this process's own.

    Making one raises OSError where the directory cannot hold it.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._path = directory / _NAME if directory is not None else None
        self._map = _shared(self._path) if self._path is not None else None
        self.word = memoryview(array("d", [0.0]) if self._map is None else self._map).cast("B").cast("d")

    @staticmethod
    def read(directory: Path) -> float:
        """The epoch of a directory; 0 where there was no reset. Raises OSError."""
        try:
            data = (directory / _NAME).read_bytes()
        except FileNotFoundError:
            return 0.0
        return float(memoryview(data[:_BYTES]).cast("d")[0]) if len(data) >= _BYTES else 0.0

    def bump(self) -> None:
        """Begin a new epoch. Raises OSError."""
        if self._path is None:
            self.word[0] += 1
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self.word[0] += 1
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of it. What is counted from now on is lost."""
        self.word.release()
        if self._map is not None:
            self._map.close()


def _shared(path: Path) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(descriptor).st_size < _BYTES:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_size < _BYTES:
                os.pwrite(descriptor, bytes(_BYTES), 0)  # written, not a hole: a full disk is an error here
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # the mapping duplicates the descriptor, closing would not do
        return mmap.mmap(descriptor, _BYTES)
    finally:
        os.close(descriptor)
