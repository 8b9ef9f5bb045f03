"""A metric file in memory: the process that owns it writes through it, others read it.

The owner holds an exclusive ``flock`` as long as it lives; that, and no pid, says that it is alive (containers may
share a volume). The lock is on a descriptor of its own: Python's mmap duplicates the one it is given, and a
duplicate in a forked child would keep the owner alive for ever.

A file is made at its full size but sparse, so that it never has to be mapped anew; space is reserved by
``posix_fallocate`` before it is touched, so that a full disk is an OSError and not a SIGBUS.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import time
import uuid
from array import array
from pathlib import Path
from typing import Protocol

from c2c_otel_exporters.layout import (
    HEADER_BYTES,
    ROW_BYTES,
    USED_AT,
    CorruptError,
    Entries,
    Entry,
    Header,
    encode_row,
    identity,
    read_key,
    read_rows,
)

__all__ = ["CAPACITY", "HIDDEN_PREFIX", "SUFFIX", "FileSource", "LocalSource", "Source", "Writer", "is_alive"]

SUFFIX = ".metrics"
HIDDEN_PREFIX = ".new-"

CAPACITY = 64 * 1024 * 1024
"""Bytes of one file, most of them never used: 200,000 series of usual size. A quarter is for values, an eighth for
rows."""

_CHUNK = 32 * 1024
"""Bytes reserved at a time."""


class Source(Protocol):
    """Where series and their values are read from."""

    def entries(self) -> Entries:
        """The rows that were added since the last call. Raises CorruptError."""
        ...

    def key(self, number: int) -> bytes:
        """The key of a row, by its number among all of them. Raises CorruptError."""
        ...

    def room(self) -> int:
        """How many values there can be."""
        ...

    def block(self, first: int, count: int) -> list[float]:
        """Some of the values, read now."""
        ...


class Writer:
    """The file of this process. Not thread-safe: the store's lock is held where it is used.

    Making one raises OSError where the place cannot hold it.
    """

    def __init__(self, directory: Path, capacity: int = CAPACITY) -> None:
        name = uuid.uuid4().hex
        self.path = directory / f"{name}{SUFFIX}"
        hidden = directory / f"{HIDDEN_PREFIX}{name}"
        self._rows_at = HEADER_BYTES + capacity // 4 // 4096 * 4096
        self._keys_at = self._rows_at + capacity // 8 // 4096 * 4096
        self._lock = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._lock, capacity)
            _reserve(self._lock, 0, HEADER_BYTES)
            self._map = _map(hidden, capacity)
            header = Header(os.getpid(), time.time_ns(), self._rows_at, self._keys_at).encode()
            self._map[: len(header)] = header
            hidden.rename(self.path)
        except BaseException:
            hidden.unlink(missing_ok=True)
            os.close(self._lock)
            raise
        self._whole = memoryview(self._map)
        self._used = self._whole[USED_AT : USED_AT + 8].cast("Q")
        self.values = self._whole[HEADER_BYTES : self._rows_at].cast("d")
        """The area of values. Writing one is one machine word: nobody reads half of it."""
        self._areas = (
            _Area(self._lock, HEADER_BYTES, self._rows_at),
            _Area(self._lock, self._rows_at, self._keys_at),
            _Area(self._lock, self._keys_at, capacity),
        )
        self._next = HEADER_BYTES, self._rows_at, self._keys_at

    def append(self, key: bytes, doubles: int) -> int:
        """Publish a series whose values are 0; gives the index of its first value. Raises OSError.

        A signal handler may come back in here half-way: places are taken, without a call in between, before they
        are filled, and a reader waits at a row that is not there yet.
        """
        size = len(key)
        places = value_at, row_at, key_at = self._next
        ends = self._next = value_at + doubles * 8, row_at + ROW_BYTES, key_at + size
        try:
            for area, end in zip(self._areas, ends, strict=True):
                area.reserve(end)
        except OSError:
            if self._next == ends:
                self._next = places
            raise
        first = (value_at - HEADER_BYTES) // 8
        row = encode_row((identity(key, doubles), first, time.time()), key_at, size)
        self._whole[key_at : key_at + size] = key
        self._whole[row_at : row_at + ROW_BYTES - 8] = row[:-8]
        self._whole[row_at + ROW_BYTES - 8 : row_at + ROW_BYTES] = row[-8:]
        self._used[0] = max(self._used[0], (row_at - self._rows_at) // ROW_BYTES + 1)
        return first

    def source(self) -> FileSource:
        """A reader of this file through the same mapping; of no use after `close`."""
        return FileSource(self._map, len(self._map))

    def close(self) -> None:
        """Let go: what was written stays, and the process counts as dead."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)  # a child that forgot to abandon may still have the descriptor
        self.abandon()

    def abandon(self) -> None:
        """Let go of what a forked child inherited; the owner's lock stays the owner's."""
        os.close(self._lock)
        for view in (self.values, self._used, self._whole):
            view.release()
        self._map.close()


class _Area:
    """A part of the file, and up to where its space is reserved."""

    def __init__(self, descriptor: int, start: int, limit: int) -> None:
        self._descriptor = descriptor
        self._reserved = start
        self._limit = limit

    def reserve(self, end: int) -> None:
        """Space up to this byte, and a chunk at once. Raises OSError."""
        if end > self._limit:
            raise OSError(errno.ENOSPC, "the metric file is full")
        if end > self._reserved:
            new = min(max(end, self._reserved + _CHUNK), self._limit)
            _reserve(self._descriptor, self._reserved, new - self._reserved)
            self._reserved = new


class FileSource:
    """A metric file or an archive, read while others may write it."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self._map = data
        self.header = Header.decode(data[:USED_AT], size)
        self._size = size
        self._read = 0

    @classmethod
    def open(cls, path: Path) -> FileSource:
        """Raises FileNotFoundError once it has been taken in, CorruptError, other OSErrors for what may pass."""
        descriptor = _open_regular(path)
        try:
            status = os.fstat(descriptor)
            if status.st_size < HEADER_BYTES:
                raise CorruptError("too short")
            data = mmap.mmap(descriptor, status.st_size, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        try:
            source = cls(data, status.st_size)
        except CorruptError:
            data.close()
            raise
        source.identity = (status.st_dev, status.st_ino)
        source.size = status.st_size
        return source

    identity: tuple[int, int] = (0, 0)
    """Device and inode: no other file has them as long as this one is mapped."""

    size: int = 0

    def entries(self) -> Entries:
        with memoryview(self._map) as whole, whole[USED_AT : USED_AT + 8].cast("Q") as word:
            used = word[0]
        if used == self._read:
            return Entries(used, [], [], [])
        if used > (self.header.keys_at - self.header.rows_at) // ROW_BYTES:
            raise CorruptError("more in use than there is")
        start, end = (self.header.rows_at + number * ROW_BYTES for number in (self._read, used))
        found = read_rows(self._map[start:end], self._read)
        self._read += len(found.identities)
        return found

    def key(self, number: int) -> bytes:
        return read_key(self._map, self.header, self._size, number)

    def room(self) -> int:
        return (self.header.rows_at - HEADER_BYTES) // 8

    def block(self, first: int, count: int) -> list[float]:
        start = HEADER_BYTES + first * 8
        with memoryview(self._map) as whole, whole[start : start + count * 8].cast("d") as part:
            values: list[float] = part.tolist()  # type: ignore[assignment]  # typeshed takes any cast for integers
            return values

    def close(self) -> None:
        """Unmap."""
        self._map.close()


class LocalSource:
    """Series of a process that has no file: the same, in its own memory."""

    def __init__(self) -> None:
        self.data = array("d")
        self._keys: list[bytes] = []
        self._rows: list[Entry] = []

    def append(self, key: bytes, doubles: int) -> int:
        """As `Writer.append`; never fails."""
        first = len(self.data)
        self.data.extend([0.0] * doubles)
        self._keys.append(key)
        self._rows.append((identity(key, doubles), first, time.time()))
        return first

    def reader(self) -> LocalReader:
        """A new reader, which begins with the first series."""
        return LocalReader(self.data, self._keys, self._rows)


class LocalReader:
    """Reads a `LocalSource`."""

    def __init__(self, data: array[float], keys: list[bytes], rows: list[Entry]) -> None:
        self._data = data
        self._keys = keys
        self._rows = rows
        self._read = 0

    def entries(self) -> Entries:
        start, new = self._read, self._rows[self._read :]
        self._read += len(new)
        return Entries(start, *map(list, zip(*new, strict=True))) if new else Entries(start, [], [], [])

    def key(self, number: int) -> bytes:
        return self._keys[number]

    def room(self) -> int:
        return len(self._data)

    def block(self, first: int, count: int) -> list[float]:
        return self._data[first : first + count].tolist()


def is_alive(path: Path, size: int = 0) -> bool:
    """Whether the owner of a metric file lives. Raises as `FileSource.open` does.

    ``size``: how much of it is mapped; CorruptError if it has less by now, reading on would be a SIGBUS.
    """
    descriptor = _open_regular(path)
    try:
        if os.fstat(descriptor).st_size < size:
            raise CorruptError("cut off while in use")
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not see one another
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _open_regular(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would wait
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO):
            raise
        raise CorruptError(os.strerror(error.errno)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CorruptError("not a file")
    return descriptor


def _map(path: Path, size: int) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _reserve(descriptor: int, start: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, start, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        _write_zeros(descriptor, start, size)  # a file system without it: writing reserves too


def _write_zeros(descriptor: int, start: int, size: int) -> None:
    while size > 0:
        written = os.pwrite(descriptor, bytes(size), start)
        start, size = start + written, size - written
