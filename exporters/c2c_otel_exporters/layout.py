"""The bytes of a metric file: what a process writes and others read while it writes.

One page of header, an area of values (native doubles), an area of records that say what the values are. Sizes of
both areas are fixed when the file is made; space in them is reserved as it is needed.

    0     magic, version, pid, unix ns of creation, start of the record area, generation (archive only)
    64    uint64: bytes of the record area in use; written last, so that a reader sees whole records only
    4096  values
    ...   records: uint32 length, first double, number of doubles, 0; uint64 unix ns of creation; key

The key is JSON in ASCII, padded with spaces to a multiple of 8 bytes: ``[kind, name, unit, help, buckets, exact,
[[label, value], ...]]``, or ``[0, [file name, ...]]`` for the list of files that an archive has taken in.
Equal series have equal bytes, which lets a reader decode each but once for all files.
"""

from __future__ import annotations

import json
import struct
from functools import lru_cache
from operator import add
from typing import Any, NamedTuple

from c2c_otel_exporters.model import Exemplar, Kind, Labels, Metric

__all__ = [
    "EXEMPLAR_WORDS",
    "HEADER_BYTES",
    "MAX_KEY_BYTES",
    "RECORD_BYTES",
    "USED_AT",
    "CorruptError",
    "Entries",
    "Entry",
    "Header",
    "decode_key",
    "encode_key",
    "encode_merged",
    "encode_record",
    "exemplar_from",
    "exemplar_words",
    "read_records",
    "width",
]

HEADER_BYTES = 4096
USED_AT = 64
MAX_KEY_BYTES = 65536
"""A longer key is not stored; its values go to the overflow series."""

_MAGIC = b"c2c-otel"
_VERSION = 1
_HEADER = struct.Struct("=8sIIQQQ")
_RECORD = struct.Struct("=IIIIQ")
_RECORD_READ = struct.Struct("=III4xQ")
RECORD_BYTES = _RECORD.size

EXEMPLAR_WORDS = 9
"""Behind the values of a histogram: sequence (odd while being written), value, time, trace id in four parts of 32
bits, span id in two. Such parts are exact in doubles."""


class CorruptError(ValueError):
    """The bytes are not a metric file of this version, or not a sound one."""


class Header(NamedTuple):
    """``started``: unix ns. ``records_at``: byte offset of the record area."""

    pid: int
    started: int
    records_at: int
    generation: int = 0

    def encode(self) -> bytes:
        return _HEADER.pack(_MAGIC, _VERSION, *self)

    @classmethod
    def decode(cls, data: bytes, size: int) -> Header:
        """``size``: bytes of the file. Raises CorruptError."""
        if len(data) < _HEADER.size or size < HEADER_BYTES:
            raise CorruptError("too short")
        magic, version, *rest = _HEADER.unpack_from(data)
        if magic != _MAGIC or version != _VERSION:
            raise CorruptError("another format or version")
        header = cls(*rest)
        if header.records_at % 8 or not HEADER_BYTES <= header.records_at <= size:
            raise CorruptError("areas outside the file")
        return header


Entry = tuple[bytes, int, int, int]
"""One record: key, index of its first double in the area of values, number of doubles, unix ns of creation."""


class Entries(NamedTuple):
    """Records, by column: sixteen thousand are read in a first scrape, and nobody needs an object for each.

    ``end``: the number of doubles up to the end of the last of them, 0 without any.
    """

    keys: list[bytes]
    firsts: list[int]
    widths: list[int]
    created: list[int]

    @property
    def end(self) -> int:
        return max(map(add, self.firsts, self.widths), default=0)


def width(metric: Metric) -> int:
    """Doubles that `Kind` says one series of this metric has (a histogram's exemplar words come on top)."""
    if metric.kind is Kind.HISTOGRAM:
        return len(metric.buckets) + 2
    return _WIDTHS[metric.kind]


_WIDTHS = {
    Kind.COUNTER: 1,
    Kind.SUMMARY: 2,
    Kind.GAUGE_SUM: 2,
    Kind.GAUGE_LAST: 2,
    Kind.GAUGE_MIN: 2,
    Kind.GAUGE_MAX: 2,
    Kind.STAT_TIMER: 5,
    Kind.STAT_COUNTER: 2,
    Kind.STAT_GAUGE: 3,
}


def encode_key(metric: Metric, labels: Labels) -> bytes:
    """The key of a series, padded."""
    name, kind, unit, help_, buckets, exact = metric
    return _pad([int(kind), name, unit, help_, [float(bound) for bound in buckets], exact, labels])


def encode_merged(names: list[str]) -> bytes:
    """The key that lists the files an archive has taken in."""
    return _pad([0, names])


def _pad(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode("ascii")
    return text + b" " * (-len(text) % 8)


def decode_key(key: bytes) -> tuple[Metric, Labels] | list[str]:
    """What `encode_key` or `encode_merged` was given. Raises CorruptError."""
    try:
        value = json.loads(key.decode("ascii"))
        if value[0] == 0:
            return [str(name) for name in value[1]]
        kind, name, unit, help_, buckets, exact, labels = value
        metric = _metric(name, kind, unit, help_, tuple(buckets), exact)
        return metric, tuple([(str(label), str(text)) for label, text in labels])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise CorruptError(f"a key that cannot be read: {error}") from error


@lru_cache(maxsize=1024)
def _metric(name: str, kind: int, unit: str, help_: str, buckets: tuple[float, ...], exact: bool) -> Metric:
    return Metric(name, Kind(kind), unit, help_, tuple(map(float, buckets)), exact)


def encode_record(entry: Entry) -> bytes:
    """The whole record."""
    key, first, doubles, created = entry
    return _RECORD.pack(RECORD_BYTES + len(key), first, doubles, 0, created) + key


def read_records(data: Any, start: int, end: int, doubles: int) -> tuple[Entries, int]:
    """Records of ``data`` from byte ``start`` up to ``end``, and where the next one will begin.

    ``doubles``: size of the area of values. Stops at a record whose length is not there yet. Raises CorruptError.
    """
    unpack = _RECORD_READ.unpack_from
    area, at, size = data[start:end], 0, end - start
    found = Entries([], [], [], [])
    add_key, add_first, add_width, add_created = (column.append for column in found)
    while at < size:
        if at + RECORD_BYTES > size:
            raise CorruptError("half a record")
        length, first, width_, created = unpack(area, at)
        if length == 0:
            break
        after = at + length
        if length < RECORD_BYTES or length % 8 or after > size:
            raise CorruptError("a record outside its area")
        add_key(area[at + RECORD_BYTES : after])
        add_first(first)
        add_width(width_)
        add_created(created)
        at = after
    if found.end > doubles:
        raise CorruptError("values outside their area")
    return found, start + at


def exemplar_words(exemplar: Exemplar) -> list[float]:
    """The words behind the sequence."""
    trace, span = exemplar.trace_id, exemplar.span_id
    parts = [trace >> 96, trace >> 64, trace >> 32, trace, span >> 32, span]
    return [exemplar.value, exemplar.time, *(float(part & 0xFFFFFFFF) for part in parts)]


def exemplar_from(words: list[float]) -> Exemplar:
    """Of what `exemplar_words` made."""
    a, b, c, d, e, f = (int(word) for word in words[2:])
    return Exemplar(words[0], words[1], a << 96 | b << 64 | c << 32 | d, e << 32 | f)
