"""Everything of a process's telemetry that holds a thread, a file, a socket or a value: made and ended here.

`c2c_otel.telemetry` decides when. After a fork the child leaves all of it to its parent and makes its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from c2c_otel import metrics, otlp, runtime_dir
from c2c_otel_exporters import background, guard, merge, prometheus
from c2c_otel_exporters.publish import Publisher
from c2c_otel_exporters.sink import Sink
from c2c_otel_exporters.statsd import Names, Sender
from c2c_otel_exporters.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor

    from c2c_otel.prometheus_port import Server
    from c2c_otel.runtime_dir import Run
    from c2c_otel.settings import Settings
    from c2c_otel_exporters.model import Family

__all__ = ["EXIT_SECONDS", "Parts", "make"]

EXIT_SECONDS = 2.0
"""How long a worker that exits waits for its collectors: gunicorn gives it 30, other masters less."""


@dataclasses.dataclass
class Parts:
    """``sender`` is None without a statsd address, ``run`` where no directory can be had."""

    store: Store
    scraper: merge.Scraper
    publisher: Publisher
    sink: Sink
    resource: Resource
    run: Run | None = None
    sender: Any = None
    port: Server | None = None
    span_processors: Sequence[SpanProcessor] = ()
    metric_readers: Sequence[MetricReader] = ()
    logger_provider: LoggerProvider | None = None
    captured: bool = False
    """Whether a test looks at them: then they are in memory and no thread runs."""

    @property
    def readers(self) -> list[MetricReader]:
        """Those who read the application's own OpenTelemetry instruments."""
        return [self.publisher.reader, *self.metric_readers]

    def families(self) -> tuple[list[Family], list[str]]:
        """The measurements of all processes of the service, and what must be said about them."""
        self.publisher.publish()
        return self.scraper.families(), list(self.scraper.comments())

    def render(self, accept: str) -> tuple[str, bytes]:
        """The body of /metrics and its content type, as negotiated by an Accept header."""
        families, comments = self.families()
        return prometheus.render(families, accept, comments=comments)

    def end(self) -> None:
        """Send and publish what is there, then let go of everything; each step for itself, each bounded."""
        for place, step in self._ending():
            try:
                step()
            except Exception:
                guard.failed(f"shutdown.{place}")

    def _ending(self) -> Iterator[tuple[str, Callable[[], object]]]:
        yield "publisher", self.publisher.stop
        if self.port:
            yield "port", self.port.close
        if self.sender:
            yield "statsd", lambda: self.sender.close(EXIT_SECONDS)
        logs = [self.logger_provider] if self.logger_provider else []
        yield "otlp", lambda: otlp.shutdown([*self.span_processors, *self.metric_readers, *logs])
        yield "store", self.store.close
        if self.run:
            yield "run", self.run.leave

    def abandon(self) -> None:
        """In a forked child: let go without touching what the parent goes on using."""
        self.store.abandon()
        if self.sender:
            self.sender.abandon()
        if self.port:
            self.port.abandon()
        logs = [self.logger_provider] if self.logger_provider else []
        otlp.abandon([*self.span_processors, *logs])
        if self.run:
            self.run.leave()


def make(settings: Settings, run_id: str) -> Parts:
    """The parts of this process; no thread runs yet but those of the exporters that the settings name."""
    run, reason = _join(settings, run_id)
    directory = run.metrics if run else None
    store = Store(directory, settings.metrics_max_series, reason=reason)
    address = settings.statsd_address
    parts = build(settings, store, Sender(*address) if address else None, directory)
    parts.run = run
    if "c2c_statsd" in {*(settings.traces_exporter or ()), *(settings.metrics_exporter or ())}:
        from c2c_otel_exporters import statsd_otel

        tags, prefix = settings.statsd_tags, settings.statsd_prefix
        statsd_otel.configure(address, prefix=prefix, use_tags=settings.statsd_use_tags, tags=tags)
    if "c2c_cee" in (settings.logs_exporter or ()):
        from c2c_otel_exporters import logs

        logs.configure(settings.log_host, settings.log_port, max_bytes=settings.log_max_bytes)
    parts.span_processors = otlp.span_processors(settings)
    parts.metric_readers = otlp.metric_readers(settings, store, parts.resource, parts.publisher.sdk_metrics)
    parts.logger_provider = otlp.logger_provider(settings, parts.resource)
    if settings.prometheus_port is not None:
        from c2c_otel import prometheus_port

        parts.port = prometheus_port.serve(settings.prometheus_host, settings.prometheus_port, parts.render)
    if directory is not None:
        background.run(lambda: _compact(directory, settings.metrics_max_series), "c2c_otel_compact")
    return parts


def _compact(directory: Path, max_series: int) -> None:
    """Take in what dead workers left: a service that is never scraped must not keep a file for each."""
    try:
        merge.compact(directory, max_series)
    except Exception:
        guard.failed("compact")


def build(settings: Settings, store: Store, sender: Any, directory: Path | None = None) -> Parts:
    """Parts around a store and a statsd sender."""
    names = Names(settings.statsd_prefix, settings.statsd_use_tags, settings.statsd_tags)
    return Parts(
        store,
        merge.Scraper(directory, store),
        Publisher(store, sender=sender, names=names, providers=metrics.providers),
        Sink(store, names, sender, stats=settings.stats_view),
        otlp.resource(settings),
        sender=sender,
    )


def _join(settings: Settings, run_id: str) -> tuple[Run | None, str]:
    try:
        return runtime_dir.Run.join(settings, run_id), ""
    except OSError as error:
        guard.warn_once("runtime_dir", "Metrics are those of each process alone, not of all workers: %s", error)
        return None, str(error)
