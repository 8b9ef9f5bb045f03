"""The SDK's batch span processor, to which an ended lean span costs next to nothing.

The SDK makes a readable copy of each span on the request's thread. Here the span itself waits in the SDK's queue and
is made readable on the thread that exports it. Everything else is the SDK's: the queue and its limit, the thread and
when it wakes up, flushing, shutting down, forking.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor as _Sdk
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from c2c_otel._sdk_private import batch_queue
from c2c_otel.lean import Span
from c2c_otel.readable import ended_later

__all__ = ["BatchSpanProcessor"]


class _Readable(Sequence[ReadableSpan]):
    """Ended spans, made readable when the exporter first looks at one of them."""

    def __init__(self, spans: Sequence[Any]) -> None:
        self._spans = spans
        self._made: list[ReadableSpan] | None = None

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: Any) -> Any:
        made = self._made
        if made is None:
            made = self._made = [ended_later(span) if type(span) is Span else span for span in self._spans]
        return made[index]

    def __iter__(self) -> Iterator[ReadableSpan]:
        return iter(self[:])


class _Reading(SpanExporter):
    """Between the queue and the exporter."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.exporter = exporter

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        return self.exporter.export(_Readable(spans))

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        shutdown: Any = self.exporter.shutdown
        if "timeout_millis" in inspect.signature(shutdown).parameters:  # as the SDK looks at it
            shutdown(timeout_millis=timeout_millis)
        else:
            shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.exporter.force_flush(timeout_millis)


class BatchSpanProcessor(_Sdk):
    """As the SDK's, with its arguments. ``shutdown_seconds``: how long its end may take."""

    def __init__(self, span_exporter: SpanExporter, *args: Any, shutdown_seconds: float = 30.0, **kwargs: Any) -> None:
        super().__init__(_Reading(span_exporter), *args, **kwargs)
        self._shutdown_seconds = shutdown_seconds
        self.queue, self.few = batch_queue(self)
        """Where `Span.end` puts a span while fewer are in it: then nobody has to be told or woken up."""

    @property
    def span_exporter(self) -> SpanExporter:
        exporter = self._batch_processor._exporter
        return exporter.exporter if isinstance(exporter, _Reading) else exporter  # type: ignore[return-value] # the SDK's class is for logs, too

    def take(self, span: Span) -> None:
        """`on_end` for a lean span that nobody else wants to see."""
        made = span._made
        if made is not None and not made[3] & 1:
            return
        if len(self.queue) < self.few:
            self.queue.appendleft(span)
        else:  # the thread has to be woken up, or something has to be said
            self._batch_processor.emit(span)

    def shutdown(self) -> None:
        self.few = 0
        self._batch_processor.shutdown(timeout_millis=int(self._shutdown_seconds * 1000))
