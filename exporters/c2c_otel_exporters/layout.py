"""The bytes of a metric file: what a process writes and others read while it writes.

One page of header, an area of values (native doubles), an area of rows that say what the values are, an area of keys.
Sizes of all areas are fixed when the file is made; space in them is reserved as it is needed.

    0     magic, version, pid, unix ns of creation, start of the rows, start of the keys, generation (archive only)
    64    uint64: number of rows in use; written last, so that a reader sees whole rows only
    4096  values
    ...   rows, one a series: digest of its key; uint32 number of doubles, first of them, byte of the file where the key
          is, bytes of the key; double unix time of creation, also written last: 0 is a row that is not there yet
    ...   keys

A key is JSON in ASCII: ``[name, kind, unit, help, buckets, exact]``, a line feed, ``[label, value, label, ...]``. An
archive's first row has no values, and its key is the list of files that the archive has taken in. Of equal series the
first 20 bytes are equal: whoever reads many files looks at all rows at once, and at each key in but one of the files.
"""

from __future__ import annotations

import json
import struct
import sys
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple

from c2c_otel_exporters.model import Exemplar, Kind, Labels, Metric

__all__ = [
    "EXEMPLAR_WORDS",
    "HEADER_BYTES",
    "MAX_KEY_BYTES",
    "ROW_BYTES",
    "USED_AT",
    "CorruptError",
    "Entries",
    "Entry",
    "Header",
    "decode_key",
    "decode_labels",
    "decode_metric",
    "decode_texts",
    "doubles_of",
    "encode_key",
    "encode_merged",
    "encode_row",
    "exemplar_from",
    "exemplar_words",
    "identity",
    "read_key",
    "read_rows",
    "split_key",
    "width",
]

HEADER_BYTES = 4096
USED_AT = 64
MAX_KEY_BYTES = 65536
"""A longer key is not stored; its values go to the overflow series."""

_MAGIC = b"c2c-otel"
_VERSION = 2
_HEADER = struct.Struct("=8sIIQQQQ")
_ROW = struct.Struct("=20sIIId")
_IDENTITY = struct.Struct("=20s20x")
_KEY_READ = struct.Struct("=24xII8x")
ROW_BYTES = _ROW.size

EXEMPLAR_WORDS = 9
"""Behind the values of a histogram: sequence (odd while being written), value, time, trace id in four parts of 32
bits, span id in two. Such parts are exact in doubles."""


class CorruptError(ValueError):
    """The bytes are not a metric file of this version, or not a sound one."""


class Header(NamedTuple):
    """``started``: unix ns. ``rows_at``, ``keys_at``: where these areas begin, in bytes."""

    pid: int
    started: int
    rows_at: int
    keys_at: int
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
        if header.rows_at % 8 or not HEADER_BYTES <= header.rows_at <= header.keys_at <= size:
            raise CorruptError("areas outside the file")
        return header


Entry = tuple[bytes, int, float]
"""One series: what identifies it, index of its first double in the area of values, unix time of creation."""


class Entries(NamedTuple):
    """Rows, by column: sixteen thousand are read in a first scrape, and a tuple for each would start the garbage
    collector again and again.

    ``start``: the number of the first of them, by which its key is found.
    """

    start: int
    identities: list[bytes]
    firsts: list[int]
    created: list[float]


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
    """The key of a series."""
    return _encoded_metric(metric) + _encode(list(chain.from_iterable(labels))).encode("ascii")


@lru_cache(maxsize=1024)
def _encoded_metric(metric: Metric) -> bytes:
    name, kind, unit, help_, buckets, exact = metric
    return _encode([name, int(kind), unit, help_, [float(bound) for bound in buckets], exact]).encode("ascii") + b"\n"


def encode_merged(names: list[str]) -> bytes:
    """The key that lists the files an archive has taken in."""
    return _encode(names).encode("ascii")


_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError)


def decode_key(key: bytes) -> tuple[Metric, Labels]:
    """What `encode_key` was given. Raises CorruptError."""
    metric, labels = split_key(key)
    return decode_metric(metric), decode_labels(labels)


def split_key(key: bytes) -> tuple[bytes, bytes]:
    """What is the metric's in it, and what are the labels."""
    metric, _, labels = key.partition(b"\n")
    return metric, labels


def decode_metric(encoded: bytes) -> Metric:
    """Raises CorruptError."""
    try:
        name, kind, unit, help_, buckets, exact = _decode(encoded.decode("ascii"))
        return Metric(str(name), Kind(kind), str(unit), str(help_), tuple(map(float, buckets)), bool(exact))
    except _UNREADABLE as error:
        raise CorruptError(f"a metric that cannot be read: {error}") from error


def decode_labels(encoded: bytes) -> Labels:
    """Raises CorruptError."""
    texts = decode_texts(encoded)
    if len(texts) % 2:
        raise CorruptError("a label without a value")
    return tuple(zip(texts[::2], texts[1::2]))  # noqa: B905 - strict takes as long as all the rest


def decode_texts(encoded: bytes) -> list[str]:
    """A list of texts in JSON. Where nothing is escaped, it need not be parsed: a third of the time."""
    try:
        text = encoded.decode("ascii")
        if text[:2] == '["' and text[-2:] == '"]' and "\\" not in text:
            return text[2:-2].split('","')
        return list(map(str, _decode(text)))
    except _UNREADABLE as error:
        raise CorruptError(f"texts that cannot be read: {error}") from error


def identity(key: bytes, doubles: int) -> bytes:
    """What equal series, and no others, have in common in every file."""
    return blake2b(key, digest_size=16).digest() + doubles.to_bytes(4, sys.byteorder)


def doubles_of(identity_: bytes) -> int:
    """The number of doubles that `identity` was given."""
    return int.from_bytes(identity_[16:], sys.byteorder)


def encode_row(entry: Entry, key_at: int, key_bytes: int) -> bytes:
    """The whole row; its key is so many bytes from that byte of the file."""
    identity_, first, created = entry
    return _ROW.pack(identity_, first, key_at, key_bytes, created)


def read_rows(area: bytes, start: int) -> Entries:
    """All rows of ``area``, of which the first has the number ``start``, up to one that is not there yet."""
    view = memoryview(area)
    created: list[float] = view.cast("d")[4::5].tolist()  # type: ignore[assignment]  # typeshed: any cast, integers
    if not all(created):
        return read_rows(area[: created.index(0) * ROW_BYTES], start)
    return Entries(start, [*chain.from_iterable(_IDENTITY.iter_unpack(area))], view.cast("I")[5::10].tolist(), created)


def read_key(data: Any, header: Header, size: int, number: int) -> bytes:
    """The key of a row of this file, which has ``size`` bytes. Raises CorruptError."""
    at, length = _KEY_READ.unpack_from(data, header.rows_at + number * ROW_BYTES)
    if at < header.keys_at or at + length > size:
        raise CorruptError("a key outside its area")
    key: bytes = data[at : at + length]
    return key


def exemplar_words(exemplar: Exemplar) -> list[float]:
    """The words behind the sequence."""
    trace, span = exemplar.trace_id, exemplar.span_id
    parts = [trace >> 96, trace >> 64, trace >> 32, trace, span >> 32, span]
    return [exemplar.value, exemplar.time, *(float(part & 0xFFFFFFFF) for part in parts)]


def exemplar_from(words: list[float]) -> Exemplar:
    """Of what `exemplar_words` made."""
    a, b, c, d, e, f = (int(word) for word in words[2:])
    return Exemplar(words[0], words[1], a << 96 | b << 64 | c << 32 | d, e << 32 | f)
