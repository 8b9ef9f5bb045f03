"""A `logging.LogRecord` -> one JSON object -> a line for stdout, or a CEE datagram for syslog.

Fields (those of c2cwsgiutils, so that stored searches go on working): ``host`` (full name), ``timestamp`` (float,
seconds since 1970, UTC), ``level`` (syslog severity: 7 debug, 6 info, 4 warning, 3 error, 2 critical),
``level_name`` (Python's), ``source_facility`` and ``logger_name``, ``file``, ``line``, ``function``, ``msg``, ``pid``,
``thread_name``, ``process_name``; with an exception or a stack ``full_message`` (the text) and ``full_msg`` (the text
``true``); in a request ``client_addr``, ``method``, ``matched_route`` (the route's name), ``path`` (quoted, without
query), ``request_id``; in a span ``trace_id`` (32 hex digits) and ``span_id`` (16); then what came by ``extra=``.

On the wire: a line is the object and ``\\n``; a datagram is ``<PRI>: @cee: `` the object and a NUL byte, with PRI =
facility * 8 + level. The ``: `` stands for an empty tag; without it rsyslog takes ``@cee:`` for the tag.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import IO

import orjson

from c2c_otel_exporters import guard, plain
from c2c_otel_exporters.hostname import host_name
from c2c_otel_exporters.masking import mask, mask_json

__all__ = [
    "FIXED",
    "LOG_USER",
    "MAX_DATAGRAM",
    "MAX_LINE",
    "MIN_LIMIT",
    "add_extra",
    "cee_datagram",
    "datagram_of",
    "encode",
    "extras",
    "json_line",
    "line_of",
    "mask",
    "severity",
    "write_line",
]

LOG_USER = 1
"""The syslog facility "user"."""

MAX_DATAGRAM = 65507
"""Bytes that one UDP datagram over IPv4 can carry."""

MAX_LINE = 1 << 20
"""Bytes of a line on stdout; collectors split or refuse longer ones."""

MIN_LIMIT = 4096
"""The least limit that can be asked for: what is left when everything is cut must fit."""

FIXED = (
    "host", "timestamp", "level", "level_name", "source_facility", "logger_name", "file", "line", "function", "msg",
    "pid", "thread_name", "process_name", "client_addr", "method", "matched_route", "path", "request_id",
    "trace_id", "span_id", "full_message", "full_msg",
)  # fmt: skip
"""The names that are ours; an ``extra=`` of the same name is shown with an underscore before it."""

_PLAIN = vars(logging.LogRecord("", 0, "", 0, "", (), None))
_STANDARD = frozenset(_PLAIN) | {"message", "asctime", "taskName"}
_NAMES = list(_PLAIN)
_COUNT = len(_PLAIN)  # of the attributes of a record without extras
_SCALARS = frozenset({str, int, float, bool, type(None)})
_SEVERITY = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
_MARK = 40  # bytes; at least the length of "[... N characters cut]"
_NOT_WORTH_A_CUT = 200  # bytes of a field, name included

_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")  # the escape, not an escaped backslash before "u0000"
_FORMATTER = logging.Formatter()


def encode(record: logging.LogRecord, context: Mapping[str, object], with_extras: bool = True) -> dict[str, object]:
    """The fields of the record and, as they are, those of ``context`` (request and trace).

    Values of ``extra=`` that JSON cannot hold become text. Secrets are masked later, in the bytes.
    """
    try:
        message = record.getMessage()
    except Exception as error:  # the application's arguments do not fit its format: say both, lose neither
        message = f"{plain.text_of(record.msg)} {plain.text_of(record.args)} ({plain.text_of(error)})"
    level = record.levelno
    name = record.name
    fields: dict[str, object] = {
        "host": host_name(),
        "timestamp": record.created,
        "level": _SEVERITY.get(level) or severity(level),
        "level_name": record.levelname,
        "source_facility": name,
        "logger_name": name,
        "file": record.pathname,
        "line": record.lineno,
        "function": record.funcName,
        "msg": message,
        "pid": record.process,
        "thread_name": record.threadName,
        "process_name": record.processName,
        **context,
    }
    if record.exc_info or record.exc_text or record.stack_info:
        text = _full_message(record)
        if text:
            fields["full_message"] = text
            fields["full_msg"] = "true"
    if with_extras and len(record.__dict__) != _COUNT:
        _add_extras(fields, record.__dict__)
    return fields


def severity(level: int) -> int:
    """The syslog severity of a Python level, of one between the standard ones too."""
    for threshold, number in _SEVERITY.items():
        if level >= threshold:
            return number
    return 7


def extras(record: logging.LogRecord) -> list[tuple[str, object]]:
    """What the record has beyond Python's own attributes, by ``extra=``, a filter or a record factory."""
    return [(str(name), value) for name, value in record.__dict__.items() if name not in _STANDARD]


def _add_extras(fields: dict[str, object], attributes: dict[str, object]) -> None:
    """Add what `extras` gives. Python's own attributes come first in a record; they are passed over as a whole,
    because asking of each whether it is one costs as much as the rest of the line's dictionary."""
    names = list(attributes)
    for name in names[_COUNT:] if names[:_COUNT] == _NAMES else names:
        if name not in _STANDARD:
            value = attributes[name]
            if type(value) in _SCALARS and type(name) is str and name not in fields and name[:1] != "_":
                fields[name] = value
            else:
                add_extra(fields, str(name), value)


def add_extra(fields: dict[str, object], name: str, value: object) -> None:
    """Add a field under its name without leading underscores, or with as many as make it a new one."""
    name = name.lstrip("_") or name
    while name in fields:
        name = f"_{name}"
    fields[name] = value if type(value) in _SCALARS else plain.plain(value)


def _full_message(record: logging.LogRecord) -> str:
    """Traceback, then stack. The traceback's text is kept in the record, as `logging.Formatter` does."""
    text = record.exc_text or ""
    info = record.exc_info
    if not text and isinstance(info, tuple) and info[0] is not None:
        text = record.exc_text = _FORMATTER.formatException(info)
    if record.stack_info:
        text = f"{text}\n{record.stack_info}" if text else record.stack_info
    return text


def json_line(record: logging.LogRecord, context: Mapping[str, object]) -> bytes:
    """The record as one line of UTF-8 JSON with its newline, at most `MAX_LINE` bytes long."""
    return line_of(encode(record, context))


def cee_datagram(
    record: logging.LogRecord,
    context: Mapping[str, object],
    facility: int = LOG_USER,
    limit: int = MAX_DATAGRAM,
) -> bytes:
    """The record as a syslog datagram of at most ``limit`` bytes."""
    return datagram_of(encode(record, context), facility, limit)


def line_of(fields: dict[str, object]) -> bytes:
    """The fields as a line; over `MAX_LINE` they are shortened, and counted."""
    text = _json(fields)
    return (text if len(text) < MAX_LINE else _fit(fields, MAX_LINE - 1, len(text))) + b"\n"


def datagram_of(fields: dict[str, object], facility: int = LOG_USER, limit: int = MAX_DATAGRAM) -> bytes:
    """The fields as a datagram; over ``limit`` bytes they are shortened, and counted. NUL becomes U+2400."""
    level = fields.get("level")
    head = b"<%d>: @cee: " % (facility * 8 + (level if isinstance(level, int) else 6))
    room = limit - len(head) - 1
    text = _json(fields)
    if len(text) > room:
        text = _fit(fields, room, len(text))
    if b"\\u0000" in text:  # rsyslog parses it and then loses what follows in the value
        text = _NUL.sub(rb"\1\\u2400", text)
    return head + text + b"\0"


def write_line(stream: IO[str], line: bytes) -> None:
    """Write a line to a text stream in one piece, as UTF-8 whatever the stream's own encoding; flushed."""
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(line.decode())
        stream.flush()
    else:
        stream.flush()  # what was printed before comes before
        buffer.write(line)
        buffer.flush()


def _json(fields: Mapping[str, object]) -> bytes:
    """JSON of any fields, secrets masked; NaN and infinities are null."""
    try:
        text = orjson.dumps(fields, plain.text_of)
    except TypeError:  # lone surrogates, an integer beyond 64 bits, a key that is no text
        text = orjson.dumps({plain.valid(str(name)): _safe(value) for name, value in fields.items()})
    return mask_json(text)


def _safe(value: object) -> object:
    # A text is never cut here: the whole message is wanted, and the line has a limit of its own.
    return plain.valid(value) if type(value) is str else plain.plain(value)


def _fit(fields: Mapping[str, object], limit: int, size: int) -> bytes:
    """Shorten texts, the longest first, until the JSON has at most ``limit`` bytes; then leave out extras."""
    guard.dropped("logs.shortened", reason=f"a log line of {size} bytes was shortened to {limit}")
    fixed: dict[str, object] = {name: fields[name] for name in FIXED if name in fields}
    fixed["dropped_fields"] = len(fields) - len(fixed)
    for candidate in (dict(fields), fixed):
        text = _shorten(candidate, limit)
        if len(text) <= limit:
            return text
    return _json({name: plain.cut(v, 20) if isinstance(v, str) else v for name, v in fixed.items()})


def _shorten(fields: dict[str, object], limit: int) -> bytes:
    """The JSON of the fields with as much cut as is needed, or as is to be had."""
    sizes = {name: _size(name, value) for name, value in fields.items()}
    excess = sum(sizes.values()) + 1 - limit
    cuttable = (name for name in fields if name not in FIXED or isinstance(fields[name], str))
    for name in sorted(cuttable, key=sizes.__getitem__, reverse=True):
        if excess <= 0 or sizes[name] <= _NOT_WORTH_A_CUT:
            break
        fields[name] = _cut(fields[name], excess)
        excess += _size(name, fields[name]) - sizes[name]
    return _json(fields)


def _size(name: str, value: object) -> int:
    """Bytes that a field takes in the JSON, with its comma or the closing brace."""
    return len(_json({name: value})) - 1


def _cut(value: object, excess: int) -> str:
    """The value's text without ``excess`` bytes (in JSON) and room for the mark."""
    text = value if isinstance(value, str) else _json({"": value})[4:-1].decode()
    text = mask(plain.valid(text))
    room = max(len(orjson.dumps(text)) - excess - _MARK, 0)
    kept = text[:room]
    while kept and (length := len(orjson.dumps(kept)) - 2) > room:
        kept = kept[: len(kept) * room // length]
    return f"{kept}[... {len(text) - len(kept)} characters cut]"
