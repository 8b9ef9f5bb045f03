"""One warning where the SDK's exporters would log each failed export.

A collector that cannot be reached makes each exporter log every attempt, of spans, of metrics and of logs, and with
logs exported, those messages travel the same way. The first is said, with what happens next; all are counted.
"""

from __future__ import annotations

import logging

from c2c_otel_exporters import guard

__all__ = ["LOGGERS", "hush"]

LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.sdk._shared_internal",
)


class _Once(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        text = record.getMessage()
        if text.startswith("Queue full"):
            guard.dropped("otlp.queue", 1, f"{text} The collector takes less than there is, or nothing")
            return False
        if record.levelno >= logging.ERROR:
            guard.count("failed.otlp.export")
        guard.warn_once(
            "otlp.export",
            "Telemetry does not reach the OpenTelemetry collector: %s It is tried again; more failures are only "
            "counted.",
            text if text.endswith(".") else f"{text}.",
        )
        return False


_once = _Once()


def hush() -> None:
    """From now on. Idempotent."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if _once not in logger.filters:
            logger.filters.insert(0, _once)  # before the SDK's own filter, which hides some: all are counted
