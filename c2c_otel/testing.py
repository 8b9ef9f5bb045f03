"""What an application's tests need to look at its telemetry, in memory.

    def test_hello(c2c_telemetry, app):              # the fixture comes with the installed package
        app.get("/hello")
        assert c2c_telemetry.tree() == [("GET /hello", [("SELECT hello", []), ("render json", [])])]
        assert "route.GET.hello.200" in c2c_telemetry.statsd_names()
        assert c2c_telemetry.value("http_server_request_duration_seconds_count", http_route="/hello") == 1

Or ``with capture() as captured:`` without pytest. Nothing leaves the process and no thread is started.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from c2c_otel import telemetry
from c2c_otel.pyramid_logging import log_context
from c2c_otel.settings import Settings
from c2c_otel_exporters import log_lines, prometheus, stats_json

__all__ = ["Captured", "Tree", "capture"]

Tree = list[tuple[str, "Tree"]]
"""Span names with the trees of their children, in the order in which they started."""


class _Lines:
    """A statsd sender that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.send = self.lines.append

    def flush(self, timeout: float = 0) -> None: ...

    def close(self, timeout: float = 0) -> None: ...

    def abandon(self) -> None: ...


class _Records(logging.Handler):
    """A log handler that keeps JSON lines as `JsonLogHandler` writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(log_lines.encode(record, log_context()))


class Captured:
    """What was recorded since the capture began."""

    def __init__(
        self, owner: telemetry.Telemetry, exporter: InMemorySpanExporter, lines: _Lines, logs: _Records
    ) -> None:
        self._telemetry = owner
        self._exporter = exporter
        self._lines = lines
        self._logs = logs

    @property
    def spans(self) -> list[ReadableSpan]:
        """Ended spans, in the order in which they ended."""
        return list(self._exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        """The one span of this name. Raises AssertionError, with the names there are, for none or several."""
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, f"expected one span {name!r}; ended were {[span.name for span in self.spans]}"
        return found[0]

    def tree(self) -> Tree:
        """The ended spans by name, children under their parents."""
        spans = sorted(self.spans, key=lambda span: span.start_time or 0)
        known = {span.context.span_id for span in spans if span.context}

        def below(parent: int | None) -> Tree:
            return [
                (span.name, below(span.context.span_id))
                for span in spans
                if span.context
                and (span.parent.span_id if span.parent and span.parent.span_id in known else None) == parent
            ]

        return below(None)

    @property
    def statsd(self) -> list[str]:
        """statsd lines as they would be sent."""
        return [line for lines in self._lines.lines for line in lines.split("\n")]

    def statsd_names(self) -> list[str]:
        """The names of these lines, without value and tags."""
        return [line.partition(":")[0] for line in self.statsd]

    @property
    def logs(self) -> list[dict[str, Any]]:
        """What was logged, as the fields of a JSON line. The root logger's level decides what comes here."""
        return self._logs.lines

    def metrics_text(self) -> str:
        """/metrics, in Prometheus' text format."""
        families, _ = self._telemetry.families()
        return prometheus.render(families, "text/plain")[1].decode()

    def value(self, name: str, **labels: str) -> float | None:
        """The value of the sample in /metrics that has this name and at least these labels; None where there is
        none. Raises AssertionError where several have them."""
        found = [
            sample.value
            for family in text_string_to_metric_families(self.metrics_text())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert len(found) < 2, f"{len(found)} samples of {name} have {labels}; name more labels"
        return found[0] if found else None

    def stats(self) -> dict[str, Any]:
        """The body of stats.json."""
        families, _ = self._telemetry.families()
        return stats_json.body(families)

    def clear(self) -> None:
        """Forget spans, statsd lines and logs; metrics go on counting."""
        self._exporter.clear()
        self._lines.lines.clear()
        self._logs.lines.clear()


@contextmanager
def capture(settings: Settings | None = None) -> Iterator[Captured]:
    """Record this process's telemetry in memory until the block ends. ``settings``: instead of the defaults; the
    environment is not read. Raises RuntimeError inside another capture."""
    owner = telemetry.get()
    exporter, lines, logs = InMemorySpanExporter(), _Lines(), _Records()
    root = logging.getLogger()
    with owner.captured(settings or Settings(stats_view=True), lines, [SimpleSpanProcessor(exporter)]):
        root.addHandler(logs)
        try:
            yield Captured(owner, exporter, lines, logs)
        finally:
            root.removeHandler(logs)
