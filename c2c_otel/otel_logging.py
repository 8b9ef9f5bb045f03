"""Python's log records into the OpenTelemetry SDK, on their way to OTLP or to our own log exporters.

A handler of our own on the public API, where contrib's lacks what a log line must have: the request, the thread,
the process, and secrets that are masked. It sits on the root logger and on those that do not propagate and have
handlers (``gunicorn.error``), which contrib's misses; loggers that somebody has silenced stay silent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry._logs import LoggerProvider, LogRecord
from opentelemetry.context import Context
from opentelemetry.instrumentation.log_utils import std_to_otel
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.util.types import AnyValue

from c2c_otel.pyramid_logging import MAX_NESTING, log_context, nesting
from c2c_otel_exporters import log_lines, plain
from c2c_otel_exporters.logs import ATTRIBUTE_OF

__all__ = ["OtelLogHandler", "attach", "detach"]

_TEXTS = {"WARNING": "WARN", "CRITICAL": "FATAL"}  # Python's word -> OpenTelemetry's
_PIPELINE = ("opentelemetry.sdk.", "opentelemetry.exporter.")
_TRANSPORT = ("urllib3", "requests", "grpc", "opentelemetry")


class OtelLogHandler(logging.Handler):
    """Emits each record to ``logger_provider``; attributes are named as in `ATTRIBUTE_OF`.

    Where it is the only handler that a record meets, warnings still appear on stderr, as `logging` does it for a
    program that has configured no logging.
    """

    def __init__(self, logger_provider: LoggerProvider) -> None:
        super().__init__()
        self.logger_provider = logger_provider

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises; what goes wrong is reported on stderr, as `logging` does."""
        _last_resort(record)
        depth = nesting
        if depth.level >= MAX_NESTING or _of_an_export(record.name):
            return
        depth.level += 1
        try:
            self.logger_provider.get_logger(record.name).emit(_translate(record))
        except Exception:
            self.handleError(record)
        finally:
            depth.level -= 1


def _last_resort(record: logging.LogRecord) -> None:
    """What `logging.Logger.callHandlers` does where there is no handler, which ours must not count for."""
    last = logging.lastResort
    if last is None or record.levelno < last.level:
        return
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        if not all(isinstance(handler, OtelLogHandler) for handler in logger.handlers):
            return
        logger = logger.parent if logger.propagate else None
    last.handle(record)


def _of_an_export(name: str) -> bool:
    """Whether the line is about sending lines: it would make one more with each."""
    return name.startswith(_PIPELINE) or (name.startswith(_TRANSPORT) and not is_instrumentation_enabled())


def _translate(record: logging.LogRecord) -> LogRecord:
    fields = log_lines.encode(record, log_context(record), with_extras=False)
    attributes: dict[str, AnyValue] = {}
    for field, attribute in ATTRIBUTE_OF.items():
        value = fields.get(field)
        if isinstance(value, str):
            attributes[attribute] = _text(value)
        elif isinstance(value, int):
            attributes[attribute] = value
    if record.exc_info and record.exc_info[0] is not None:
        attributes["exception.type"] = record.exc_info[0].__name__
        attributes["exception.message"] = _text(plain.text_of(record.exc_info[1]))
    for name, value in log_lines.extras(record):
        attributes.setdefault(name, _attribute(value))
    text = record.levelname
    return LogRecord(
        timestamp=int(record.created * 1e9),
        observed_timestamp=time.time_ns(),
        context=_span_context(fields),
        severity_text=_TEXTS.get(text, text),
        severity_number=std_to_otel(record.levelno),
        body=_text(str(fields["msg"])),
        attributes=attributes,
    )


def _span_context(fields: Mapping[str, object]) -> Context:
    """The current context; where that has no span, one with the span that the fields name."""
    current = otel_context.get_current()
    trace_id, span_id = fields.get("trace_id"), fields.get("span_id")
    if trace.get_current_span(current).get_span_context().is_valid or not trace_id:
        return current
    named = trace.SpanContext(int(str(trace_id), 16), int(str(span_id), 16), is_remote=False)
    return trace.set_span_in_context(trace.NonRecordingSpan(named), current)


def _text(value: str) -> str:
    return log_lines.mask(plain.valid(value))


def _attribute(value: object) -> AnyValue:
    if isinstance(value, str):
        return _text(value)
    result: AnyValue = plain.plain(value)  # type: ignore[assignment]  # None, numbers, text, lists and dicts of them
    return result


def attach(logger_provider: LoggerProvider) -> OtelLogHandler:
    """Put one handler for the provider where it is missing; one for another provider is replaced.

    Cheap and idempotent: call it again after anything that configures logging (``fileConfig`` and ``dictConfig``
    take every handler off the root logger).
    """
    mine: OtelLogHandler | None = None
    for logger in _loggers():
        for handler in logger.handlers[:]:
            if isinstance(handler, OtelLogHandler):
                if handler.logger_provider is logger_provider:
                    mine = handler
                else:
                    logger.removeHandler(handler)
    mine = mine or OtelLogHandler(logger_provider)
    root = logging.getLogger()
    for logger in _loggers():
        if mine not in logger.handlers and (logger is root or _ends_a_chain(logger)):
            logger.addHandler(mine)
    return mine


def detach() -> None:
    """Take the handlers off all loggers."""
    for logger in _loggers():
        for handler in logger.handlers[:]:
            if isinstance(handler, OtelLogHandler):
                logger.removeHandler(handler)


def _loggers() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    yield root
    for logger in list(root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger


def _ends_a_chain(logger: logging.Logger) -> bool:
    """It does not propagate, yet somebody wants to see what it says."""
    return (
        not logger.propagate
        and not logger.name.startswith("opentelemetry.")
        and any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers)
    )
