"""Shared state in files: one JSON object a topic, in the state part of the runtime directory.

Whoever writes holds an exclusive ``flock`` on the topic's ``.lock`` file, reads, and puts a new file in the place of
the old one by rename: readers take no lock and see the old one or the new one. Nothing is kept open in between, so a
fork changes nothing. A file that is not what it should be is moved aside as ``*.corrupt``, and counts as empty.

| file | what it holds |
|---|---|
| ``{topic}.json`` | name -> ``{"value": JSON, "expires": epoch seconds or None}`` |
| ``{topic}.count.json`` | the same, of counters |
| ``.{topic}.json.lock``, ``.{topic}.json.new`` | while one is written |
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from c2c_otel import runtime_dir
from c2c_otel.settings import Settings
from c2c_otel.shared import Unavailable
from c2c_otel.shared_entries import counted, living
from c2c_otel_exporters import guard

__all__ = ["FileBackend"]

MAX_FILE_BYTES = 4_000_000
"""What is longer has not been written here."""

LOCK_SECONDS = 2.0
"""How long to wait for another process that is writing: it takes milliseconds, unless it has been stopped."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class FileBackend:
    """A `c2c_otel.shared.Backend` for the processes of one machine. Raises OSError where no directory can be had."""

    look_seconds = 5.0

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory = runtime_dir.state_directory(settings)

    def read(self, topic: str) -> dict[str, Any]:
        return self._load(self._path(topic))

    def write(self, topic: str, name: str, entry: Mapping[str, Any] | None) -> Any:
        path = self._path(topic)
        with self._locked(path):
            entries = living(self._load(path, locked=True), time.time())
            before = entries.pop(name, None)
            if entry is not None:
                entries[name] = dict(entry)
            if before is not None or entry is not None:
                _replace(path, entries, durable=True)
            return before

    def count(self, topic: str, name: str, seconds: float, increment: int = 1) -> int:
        path = self._path(f"{topic}.count")
        if not increment:
            return counted(self._load(path), name, seconds, 0, time.time())[1]
        with self._locked(path):
            entries, total = counted(self._load(path, locked=True), name, seconds, increment, time.time())
            _replace(path, entries, durable=False)
            return total

    def _path(self, topic: str) -> Path:
        name, separator, kind = topic.partition(".count")
        return self._directory / f"{_UNSAFE.sub('_', name)}{separator}{kind}.json"

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Raises `Unavailable`, also for what fails in the block: a full disk, a directory that is read-only."""
        try:
            runtime_dir.state_directory(self._settings)  # somebody may have emptied the temporary directory
            lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
            try:
                _wait(lock, path)
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor, too
                os.close(lock)
        except OSError as error:
            raise Unavailable(f"{path} cannot be written: {error.strerror or error}. Nothing was changed.") from error

    def _load(self, path: Path, locked: bool = False) -> dict[str, Any]:
        try:
            content = _content(path)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror or error}.") from error
        try:
            return _decode(content)
        except (ValueError, RecursionError) as error:
            guard.warn_once(
                f"shared.corrupt.{path}",
                "%s is not what it should be (%s): it is kept as %s, and counts as empty.",
                path,
                error,
                _aside(path).name,
            )
        self._put_aside(path, locked)
        return {}

    def _put_aside(self, path: Path, locked: bool) -> None:
        """Unless another process has done so, or has put a good one there."""
        if not locked:
            try:
                with self._locked(path):
                    self._load(path, locked=True)
            except Unavailable:
                guard.count("shared.corrupt")
            return
        try:
            path.replace(_aside(path))
        except OSError:
            guard.count("shared.corrupt")


def _aside(path: Path) -> Path:
    return path.with_suffix(".corrupt")


def _wait(lock: int, path: Path) -> None:
    """Until the lock is ours. Raises `Unavailable` after `LOCK_SECONDS`."""
    end = time.monotonic() + LOCK_SECONDS
    pause = 0.001
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise Unavailable(
                    f"{path} has been locked by another process for {LOCK_SECONDS:g} seconds. Nothing was changed."
                ) from None
            time.sleep(pause)
            pause = min(pause * 2, 0.05)


def _content(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | _FLAGS), "rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _decode(content: bytes) -> dict[str, Any]:
    """Raises ValueError, RecursionError."""
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"more than {MAX_FILE_BYTES:,} bytes")
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _replace(path: Path, entries: Mapping[str, Any], durable: bool) -> None:
    """Under the lock. ``durable``: also when the machine loses its power right afterwards."""
    new = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(entries).encode())
            if durable:
                file.flush()
                os.fsync(descriptor)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
