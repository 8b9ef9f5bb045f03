"""What stands for the telemetry of a process that has not started: the first use of any starts it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from opentelemetry._logs import Logger, LoggerProvider, NoOpLogger

from c2c_otel import request_id
from c2c_otel_exporters.null_sink import NULL_SINK

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span

    from c2c_otel.telemetry import Telemetry
    from c2c_otel_exporters.sink import Counter, Gauge, Namer, SinkLike, Timer

__all__ = ["StartingLogs", "StartingProcessor", "UnstartedSink"]


class UnstartedSink:
    """The sink of a process that has not started: the first measurement starts it."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def _started(self) -> SinkLike:
        self._telemetry.start()
        sink = self._telemetry.sink
        return NULL_SINK if sink is self else sink

    def timer(self, namer: Namer, *args: Hashable) -> Timer:
        return self._started().timer(namer, *args)

    def counter(self, namer: Namer, *args: Hashable) -> Counter:
        return self._started().counter(namer, *args)

    def gauge(self, namer: Namer, *args: Hashable) -> Gauge:
        return self._started().gauge(namer, *args)


class StartingProcessor(request_id.RequestIdSpanProcessor):
    """The processor of a process that has not started: the first span starts it."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        super().on_start(span, parent_context)
        self._telemetry.start()


class StartingLogs(LoggerProvider):
    """The log pipeline of a forked child that has not started: the first record starts it."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def get_logger(self, name: str, *args: Any, **kwargs: Any) -> Logger:
        self._telemetry.start()
        parts = self._telemetry.parts
        provider = parts.logger_provider if parts is not None else None
        return NoOpLogger(name) if provider is None else provider.get_logger(name, *args, **kwargs)
