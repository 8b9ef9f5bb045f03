"""OpenTelemetry log exporters: the SDK's records as the same JSON lines and CEE datagrams that the handlers write.

``OTEL_LOGS_EXPORTER=c2c_json,c2c_cee`` chooses them. The encoders themselves are in `log_lines`, which needs no SDK.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from c2c_otel_exporters import guard
from c2c_otel_exporters.hostname import host_name
from c2c_otel_exporters.log_lines import (
    LOG_USER,
    MAX_DATAGRAM,
    add_extra,
    cee_datagram,
    datagram_of,
    encode,
    json_line,
    line_of,
    mask,
    write_line,
)
from c2c_otel_exporters.plain import text_of
from c2c_otel_exporters.syslog import Sender

__all__ = [
    "ATTRIBUTE_OF",
    "CeeLogExporter",
    "JsonLogExporter",
    "cee_datagram",
    "configure",
    "encode",
    "encode_otel",
    "json_line",
    "mask",
    "write_line",
]

ATTRIBUTE_OF: Mapping[str, str] = {
    "file": "code.file.path",
    "line": "code.line.number",
    "function": "code.function.name",
    "pid": "process.pid",
    "thread_name": "thread.name",
    "process_name": "c2c.process_name",
    "client_addr": "client.address",
    "method": "http.request.method",
    "matched_route": "c2c.route_name",
    "path": "url.path",
    "request_id": "c2c.request_id",
    "full_message": "exception.stacktrace",
}
"""Field of a log line -> the attribute that stands for it in an OpenTelemetry record."""

_FIELD_OF = {attribute: field for field, attribute in ATTRIBUTE_OF.items()}
_IN_STACKTRACE = frozenset({"exception.type", "exception.message"})
_LEVELS = ((21, 2, "CRITICAL"), (17, 3, "ERROR"), (13, 4, "WARNING"), (9, 6, "INFO"), (0, 7, "DEBUG"))
_LEVEL_NAMES = {"WARN": "WARNING", "FATAL": "CRITICAL"}  # OpenTelemetry's word -> Python's


class _Defaults(NamedTuple):
    host: str = "localhost"
    port: int = 514
    facility: int = LOG_USER
    max_bytes: int = MAX_DATAGRAM


_defaults = _Defaults()


def configure(
    host: str = "localhost", port: int = 514, facility: int = LOG_USER, max_bytes: int = MAX_DATAGRAM
) -> None:
    """Where a `CeeLogExporter` made without arguments sends to: an entry point is called without any."""
    global _defaults
    _defaults = _Defaults(host, port, facility, max_bytes)


def encode_otel(readable: ReadableLogRecord) -> dict[str, object]:
    """The fields (see `log_lines`) of a record of the SDK.

    Request, thread and code are there where its attributes have them, by the names of `ATTRIBUTE_OF`.
    """
    record = readable.log_record
    number = record.severity_number.value if record.severity_number else 9
    level, name = next((level, name) for least, level, name in _LEVELS if number >= least)
    text = record.severity_text
    scope = readable.instrumentation_scope
    logger = scope.name if scope is not None else ""
    fields: dict[str, object] = {
        "host": host_name(),
        "timestamp": (record.timestamp or record.observed_timestamp or 0) / 10**9,
        "level": level,
        "level_name": _LEVEL_NAMES.get(text, text) if text else name,
        "source_facility": logger,
        "logger_name": logger,
        "msg": record.body if isinstance(record.body, str) else text_of(record.body),
        "pid": os.getpid(),
    }
    if record.trace_id:
        fields["trace_id"] = f"{record.trace_id:032x}"
    if record.span_id:
        fields["span_id"] = f"{record.span_id:016x}"
    if record.event_name:
        fields["event_name"] = record.event_name
    _add_attributes(fields, record.attributes or {})
    return fields


def _add_attributes(fields: dict[str, object], attributes: Mapping[str, object]) -> None:
    for attribute, field in _FIELD_OF.items():
        if attribute in attributes:
            fields[field] = attributes[attribute]
    told: frozenset[str] = frozenset()
    if "full_message" in fields:
        fields["full_msg"] = "true"
        told = _IN_STACKTRACE
    for name, value in attributes.items():
        if name not in _FIELD_OF and name not in told:
            add_extra(fields, name, value)


class JsonLogExporter(LogRecordExporter):
    """Writes JSON lines to ``stream``, by default what is ``sys.stdout`` at that moment."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Never raises; FAILURE where at least one line could not be written."""
        try:
            lines = b"".join(line_of(encode_otel(record)) for record in batch)
            with self._lock:
                write_line(self._stream or sys.stdout, lines)
        except Exception:
            guard.failed("logs.json")
            return LogRecordExportResult.FAILURE
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing to do: each line is flushed, and the stream is not ours."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing waits."""
        return True


class CeeLogExporter(LogRecordExporter):
    """Sends CEE datagrams; what is not given comes from `configure`."""

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        facility: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        defaults = _defaults
        self._sender = Sender(host or defaults.host, defaults.port if port is None else port)
        self._facility = defaults.facility if facility is None else facility
        self._max_bytes = max_bytes or defaults.max_bytes

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Never raises. SUCCESS means handed to the network or waiting for the name of the server."""
        try:
            for record in batch:
                self._sender.send(datagram_of(encode_otel(record), self._facility, self._max_bytes))
        except Exception:
            guard.failed("logs.cee")
            return LogRecordExportResult.FAILURE
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """Let go of the socket."""
        self._sender.close()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing waits but for a name."""
        return True
