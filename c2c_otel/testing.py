"""What an application's tests need to look at its telemetry, in memory.

    def test_hello(c2c_telemetry, app):              # the fixture comes with the installed package
        app.get("/hello")
        assert c2c_telemetry.tree() == [("GET /hello", [("SELECT hello", []), ("render json", [])])]
        assert "route.GET.hello.200" in c2c_telemetry.statsd_names()
        assert c2c_telemetry.value("http_server_request_duration_seconds_count", http_route="/hello") == 1

Or ``with capture() as captured:`` without pytest. Nothing leaves the process and no thread is started.

In the fixture, and with ``capture(deterministic=True)``, trace and span ids count from 1, and time passes when the test
says so:

    c2c_telemetry.clock.advance(1.5)                 # in what is timed
    assert c2c_telemetry.statsd == ["import:1500|ms"]
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from prometheus_client.parser import text_string_to_metric_families

from c2c_otel import telemetry, tracing
from c2c_otel.pyramid_logging import log_context
from c2c_otel.settings import Settings
from c2c_otel_exporters import log_lines, prometheus, stats_json

__all__ = ["Captured", "Clock", "CountingIds", "Tree", "capture"]

Tree = list[tuple[str, "Tree"]]
"""Span names with the trees of their children, in the order in which they started."""


class Clock:
    """The time of a deterministic capture, in our own modules: it begins at 1,000,000,000 s, and each look at it takes
    a microsecond, so that what starts later is later. Modules of ours that are imported meanwhile have the real one."""

    def __init__(self) -> None:
        self._nanoseconds = 10**18

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._nanoseconds += round(seconds * 1e9)

    def time_ns(self) -> int:
        """Stands for `time.time_ns` and `time.perf_counter_ns`."""
        self._nanoseconds += 1_000
        return self._nanoseconds

    def perf_counter(self) -> float:
        """Stands for `time.perf_counter`."""
        return (self.time_ns() - 10**18) / 1e9

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let our modules look at this clock until the block ends."""
        ours = {time.time_ns: self.time_ns, time.perf_counter_ns: self.time_ns, time.perf_counter: self.perf_counter}
        replaced = []
        for module_name, module in list(sys.modules.items()):
            if module_name.startswith("c2c_otel."):
                for name in ("time_ns", "perf_counter_ns", "perf_counter"):
                    real = vars(module).get(name)
                    if real in ours:
                        replaced.append((module, name, real))
                        setattr(module, name, ours[real])
        try:
            yield
        finally:
            for module, name, real in replaced:
                setattr(module, name, real)


class CountingIds(IdGenerator):
    """Trace ids and span ids: 1, 2, 3."""

    def __init__(self) -> None:
        self._traces = itertools.count(1)
        self._spans = itertools.count(1)

    def generate_trace_id(self) -> int:
        return next(self._traces)

    def generate_span_id(self) -> int:
        return next(self._spans)


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

    clock: Clock
    """The time of a deterministic capture."""

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
def capture(settings: Settings | None = None, *, deterministic: bool = False) -> Iterator[Captured]:
    """Record this process's telemetry in memory until the block ends. ``settings``: instead of the defaults; the
    environment is not read. ``deterministic``: ids that count, and a `Clock` that the test moves. The spans of a
    `TracerProvider` that the application has set are seen too; their ids are its own. Raises RuntimeError inside
    another capture."""
    owner = telemetry.get()
    exporter, lines, logs = InMemorySpanExporter(), _Lines(), _Records()
    root = logging.getLogger()
    with owner.captured(settings or Settings(stats_view=True), lines, [SimpleSpanProcessor(exporter)]):
        captured = Captured(owner, exporter, lines, logs)
        root.addHandler(logs)
        try:
            with _deterministic(owner, captured) if deterministic else nullcontext():
                yield captured
        finally:
            root.removeHandler(logs)


@contextmanager
def _deterministic(owner: telemetry.Telemetry, captured: Captured) -> Iterator[None]:
    provider = owner.tracer_provider
    captured.clock = Clock()
    ids = provider.number(CountingIds()) if isinstance(provider, tracing.TracerProvider) else None
    try:
        with captured.clock.installed():
            yield
    finally:
        if ids is not None and isinstance(provider, tracing.TracerProvider):
            provider.number(ids)
