"""The files of dead processes, taken into one archive, so that a thousand recycled workers leave one file.

The archive is never written in place: a new one, with the names of the files it has taken in, replaces it by rename,
and only then those files are removed. Who reads leaves out files that the archive names; who compacts next
removes them first. So nothing counts twice or is lost, whenever a compactor dies.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from array import array
from collections.abc import Iterator
from pathlib import Path

from c2c_otel_exporters import guard
from c2c_otel_exporters.epoch import Epoch
from c2c_otel_exporters.layout import (
    EXEMPLAR_WORDS,
    HEADER_BYTES,
    ROW_BYTES,
    USED_AT,
    CorruptError,
    Header,
    encode_merged,
    encode_row,
    exemplar_words,
    identity,
)
from c2c_otel_exporters.mapped import HIDDEN_PREFIX, SUFFIX, FileSource, is_alive
from c2c_otel_exporters.model import Kind
from c2c_otel_exporters.series import Keys, Layout, Row, Totals

__all__ = ["ARCHIVE", "OpenedLayout", "compact", "open_layout", "warn_unreadable"]

ARCHIVE = "archive"
_LOCK = "compact.lock"
_NEW_ARCHIVE = ".archive-"


def compact(directory: Path, max_series: int = 2000, keys: Keys | None = None) -> int:
    """Take the files of dead processes into the archive; gives their number. 0 if another process is at it.

    ``keys``: what the caller has learnt of them already. Raises OSError where there is no space for the new archive:
    then everything stays as it was.
    """
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _compact(directory, max_series, Keys() if keys is None else keys)
    except BlockingIOError:
        return 0
    finally:
        os.close(descriptor)


def _compact(directory: Path, max_series: int, keys: Keys) -> int:
    archive = open_layout(directory / ARCHIVE, keys)
    _clean(directory, archive.merged if archive is not None else frozenset())
    dead = dict(_dead(directory, keys))
    if not dead:
        return 0
    totals = Totals(Epoch.read(directory))
    for layout in (archive, *dead.values()):
        if layout is not None:
            totals.add(layout, alive=False)
    generation = archive.source.header.generation + 1 if archive is not None else 1
    _replace(directory, _encode(totals.rows(max_series), sorted(dead), generation))
    for name in dead:
        (directory / name).unlink(missing_ok=True)
    return len(dead)


class OpenedLayout(Layout):
    """The layout of a file."""

    source: FileSource


def open_layout(path: Path, keys: Keys) -> OpenedLayout | None:
    """Of an archive or a metric file; None where there is none, or where it is not sound, which is warned about once.

    Raises OSError for what may pass, such as too many open files: to leave a file out would make totals fall.
    """
    try:
        source = FileSource.open(path)
        try:
            return OpenedLayout(keys, source)
        except CorruptError:
            source.close()
            raise
    except FileNotFoundError:
        return None
    except CorruptError as error:
        warn_unreadable(path, error)
        return None


def warn_unreadable(path: Path, error: Exception) -> None:
    """The file is left out."""
    guard.warn_once(f"metrics.{path.name}", "The metric file %s cannot be read and is left out: %s", path, error)


def _clean(directory: Path, merged: frozenset[str]) -> None:
    """Finish what a compactor that died had begun, and remove what was never finished."""
    for name in merged:
        (directory / name).unlink(missing_ok=True)
    for path in directory.iterdir():
        if path.name.startswith(_NEW_ARCHIVE) or (path.name.startswith(HIDDEN_PREFIX) and _is_dead(path)):
            path.unlink(missing_ok=True)


def _dead(directory: Path, keys: Keys) -> Iterator[tuple[str, Layout]]:
    for path in directory.iterdir():
        if path.name.endswith(SUFFIX) and _is_dead(path):
            layout = open_layout(path, keys)
            if layout is not None:
                yield path.name, layout


def _is_dead(path: Path) -> bool:
    try:
        return not is_alive(path)
    except FileNotFoundError:  # it has just got its name
        return False
    except CorruptError as error:
        warn_unreadable(path, error)
        return False


def _encode(rows: list[Row], merged: list[str], generation: int) -> bytes:
    values = array("d")
    keys = [encode_merged(merged)]
    places = [(0, 0, time.time())]
    for row in rows:
        _append(row, keys, places, values)
        if row.lost:  # a second row of the series: whoever adds both has lost nothing
            rest = (*(0.0,) * (len(row.values) - 1), row.lost)
            _append(row._replace(values=rest, exemplar=None, lost=0.0), keys, places, values)
    rows_at = HEADER_BYTES + len(values) * 8
    at = keys_at = rows_at + len(keys) * ROW_BYTES
    table = []
    for key, (first, doubles, created) in zip(keys, places, strict=True):
        table.append(encode_row((identity(key, doubles), first, created), at, len(key)))
        at += len(key)
    head = Header(os.getpid(), 0, rows_at, keys_at, generation).encode().ljust(USED_AT, b"\0")
    page = (head + memoryview(array("Q", [len(keys)])).cast("B")).ljust(HEADER_BYTES, b"\0")
    return b"".join((page, values.tobytes(), *table, *keys))


def _append(row: Row, keys: list[bytes], places: list[tuple[int, int, float]], values: array[float]) -> None:
    words = [*row.values, *_words(row)]
    keys.append(row.encoded)
    places.append((len(values), len(words), row.created))
    values.extend(words)


def _words(row: Row) -> list[float]:
    if row.metric.kind is not Kind.HISTOGRAM:
        return []
    if row.exemplar is None:
        return [0.0] * EXEMPLAR_WORDS
    return [2.0, *exemplar_words(row.exemplar)]


def _replace(directory: Path, data: bytes) -> None:
    path = directory / f"{_NEW_ARCHIVE}{uuid.uuid4().hex}"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
        path.rename(directory / ARCHIVE)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
