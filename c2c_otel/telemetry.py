"""What this process has for its telemetry: one object, made lazily, renewed after a fork.

gunicorn forks its workers, and threads, sockets, locks and recorded values do not survive that. So nothing of the
kind exists before `Telemetry.start`, which happens in the worker: when its application is ready, or with the first
measurement. A process that is known to be gunicorn's arbiter is *held*: it never starts.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

from c2c_otel import __version__, request_id, runtime_dir
from c2c_otel.settings import Settings
from c2c_otel_exporters import guard
from c2c_otel_exporters.null_sink import NULL_SINK

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from c2c_otel_exporters.merge import Scraper
    from c2c_otel_exporters.publish import Publisher
    from c2c_otel_exporters.statsd import Sender
    from c2c_otel_exporters.store import Store
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.trace import SpanProcessor

    from c2c_otel.prometheus_port import Server
    from c2c_otel.runtime_dir import Run
    from c2c_otel_exporters.model import Family
    from c2c_otel_exporters.sink import Counter, Gauge, Namer, SinkLike, Timer

__all__ = ["Telemetry", "get"]

_EXIT_SECONDS = 2.0
"""How long a worker that exits waits for its collectors: gunicorn gives it 30, other masters less."""


class _Unstarted:
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


@dataclasses.dataclass
class _Parts:
    """What `Telemetry.start` made: everything that holds a thread, a file, a socket or a value."""

    store: Store
    scraper: Scraper
    publisher: Publisher
    run: Run | None = None
    sender: Sender | None = None
    port: Server | None = None
    logger_provider: LoggerProvider | None = None
    span_processors: Sequence[SpanProcessor] = ()


class Telemetry:
    """The telemetry of one process. ``sink`` is where measurements go: read it anew for each, it changes."""

    sink: SinkLike

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._tracer_provider: trace.TracerProvider | None = None
        self._run_id: str | None = None
        self._held_pid = 0
        self._application = False
        self._renew()

    def _renew(self) -> None:
        """Become unstarted, with locks nobody holds."""
        self._lock = threading.RLock()
        self._tracers: dict[str, trace.Tracer] = {}
        self._parts: _Parts | None = None
        self.sink = _Unstarted(self)

    # -- settings ---------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The process's settings; read from the environment where nobody gave any."""
        if self._settings is None:
            self._settings = Settings.load()
        return self._settings

    def configure(self, settings: Settings) -> None:
        """Give the settings. They are frozen by the first application or the start: what a later one wants
        otherwise is said in the log and has no effect on the process (its views have their own)."""
        with self._lock:
            if not self._application and self._parts is None:
                self._settings = settings
                self._application = True
                return
        ignored = [
            row.env
            for row, value, _ in settings.describe()
            if getattr(self.settings, row.name) != getattr(settings, row.name)
        ]
        if ignored:
            guard.warn_once(
                f"configure.{ignored}",
                "Settings of a second application differ from those this process runs with, and only count for "
                "its views: %s",
                ", ".join(ignored),
            )

    # -- tracing ----------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Make this process's spans real and let the request id travel. Idempotent; starts nothing."""
        with self._lock:
            if self._tracer_provider is not None:
                return
            current = trace.get_tracer_provider()
            if isinstance(current, trace.ProxyTracerProvider):
                current = self._make_tracer_provider()
                trace.set_tracer_provider(current)
            self._tracer_provider = current
            request_id.install(self.settings.request_id_header)

    def _make_tracer_provider(self) -> trace.TracerProvider:
        from c2c_otel import otlp, sampling, tracing

        return tracing.TracerProvider(
            sampler=sampling.from_environment(), resource=otlp.resource(self.settings), shutdown_on_exit=False
        )

    @property
    def tracer_provider(self) -> trace.TracerProvider:
        """Ours, or the one the application had set before."""
        if self._tracer_provider is None:
            self.install()
        assert self._tracer_provider is not None
        return self._tracer_provider

    def tracer(self, name: str) -> trace.Tracer:
        """The tracer of one of our instrumentation scopes."""
        tracer = self._tracers.get(name)
        if tracer is None:
            tracer = self._tracers[name] = self.tracer_provider.get_tracer(name, __version__)
        return tracer

    # -- start and end ----------------------------------------------------------------------------------------

    def hold(self) -> None:
        """This process is gunicorn's arbiter: it forks those who serve, and starts nothing itself."""
        self._held_pid = os.getpid()

    def release(self) -> None:
        """It serves a request after all, so it is no arbiter."""
        self._held_pid = 0

    @property
    def held(self) -> bool:
        """Whether this very process must not start."""
        return self._held_pid == os.getpid()

    def application_ready(self) -> None:
        """An application was made: a worker starts now, an arbiter that preloads remembers whose run it is."""
        self._application = True
        role = runtime_dir.gunicorn_role()
        if self._run_id is None:
            self._run_id = runtime_dir.run_id(self.settings)
        if role is not None and role[0] == "arbiter":
            self.hold()
        self.start()

    def worker_started(self) -> None:
        """gunicorn has forked a worker. With a preloaded application it starts now, before its first request."""
        if self._application:
            self.start()

    @property
    def started(self) -> bool:
        return self._parts is not None

    def start(self) -> None:
        """Make everything that holds a thread, a socket, a file or a value. Idempotent; nothing where held."""
        if self._parts is not None or self.held or self.settings.sdk_disabled:
            if self._parts is None:
                self.sink = NULL_SINK if self.settings.sdk_disabled else self.sink
            return
        with self._lock:
            if self._parts is None:
                self._start()

    def _start(self) -> None:
        from c2c_otel_exporters.merge import Scraper
        from c2c_otel_exporters.publish import Publisher
        from c2c_otel_exporters.statsd import Names, Sender
        from c2c_otel_exporters.store import Store

        from c2c_otel import otlp
        from c2c_otel_exporters.sink import Sink

        settings = self.settings
        run = self._join_run()
        directory = run.metrics if run else None
        store = Store(directory, max_series=settings.metrics_max_series)
        names = Names(settings.statsd_prefix, settings.statsd_use_tags, settings.statsd_tags)
        address = settings.statsd_address
        sender = Sender(address.host, address.port) if address else None
        publisher = Publisher(store, sender=sender, names=names)
        self._parts = parts = _Parts(store, Scraper(directory, store), publisher, run, sender)
        self.sink = Sink(store, names, sender, stats=settings.stats_view)
        resource = otlp.resource(settings)
        parts.span_processors = self._add_span_processors(resource)
        self._set_meter_provider(resource)
        parts.logger_provider = otlp.logger_provider(settings, resource)
        if settings.prometheus_port is not None:
            from c2c_otel import prometheus_port

            parts.port = prometheus_port.serve(settings.prometheus_host, settings.prometheus_port, self.render)
        publisher.start()

    def _join_run(self) -> Run | None:
        if self._run_id is None:
            self._run_id = runtime_dir.run_id(self.settings)
        try:
            return runtime_dir.Run.join(self.settings, self._run_id)
        except OSError as error:
            guard.warn_once("runtime_dir", "Metrics are those of each process alone, not of the service: %s", error)
            return None

    def _add_span_processors(self, resource: Any) -> Sequence[SpanProcessor]:
        from c2c_otel import otlp, tracing

        processors = otlp.span_processors(self.settings)
        provider = self.tracer_provider
        if isinstance(provider, tracing.TracerProvider):
            provider.renew(resource, processors)
        return processors

    def _set_meter_provider(self, resource: Any) -> None:
        """The application's own OpenTelemetry instruments become real here, in the worker: what is recorded in an
        arbiter would be counted once for each worker."""
        from opentelemetry.metrics import _internal as api
        from opentelemetry.sdk.metrics import MeterProvider

        from c2c_otel import otlp

        assert self._parts is not None
        if api._METER_PROVIDER is not None:  # the application has its own
            return
        readers = [
            self._parts.publisher.reader,
            *otlp.metric_readers(self.settings, self._parts.store, resource),
        ]
        metrics.set_meter_provider(MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False))

    def shutdown(self) -> None:
        """Send and publish what is there, then let go of everything. At most `_EXIT_SECONDS`."""
        with self._lock:
            parts, self._parts = self._parts, None
            self.sink = NULL_SINK
        if parts is None:
            return
        for place, step in (
            ("publisher", parts.publisher.stop),
            ("port", parts.port.close if parts.port else None),
            ("statsd", (lambda: parts.sender.close(_EXIT_SECONDS)) if parts.sender else None),
            *((f"spans {n}", p.shutdown) for n, p in enumerate(parts.span_processors)),
            ("logs", parts.logger_provider.shutdown if parts.logger_provider else None),
            ("store", parts.store.close),
            ("run", parts.run.leave if parts.run else None),
        ):
            try:
                if step is not None:
                    step()
            except Exception:
                guard.failed(f"shutdown.{place}")

    def after_fork(self) -> None:
        """In a forked child: what the parent has stays the parent's."""
        parts = self._parts
        self._renew()
        guard.reset()
        if parts is not None:
            parts.store.abandon()
            if parts.sender is not None:
                parts.sender.abandon()
            if parts.run is not None:
                parts.run.leave()

    # -- reading ----------------------------------------------------------------------------------------------

    def families(self) -> tuple[list[Family], list[str]]:
        """The measurements of all processes of the service, and what must be said about them."""
        self.start()
        parts = self._parts
        if parts is None:
            return [], ["telemetry is not running in this process"]
        parts.publisher.publish()
        comments = [] if parts.run and parts.store.shared else ["These are the metrics of one process alone."]
        return parts.scraper.scrape(), comments

    def render(self, accept: str) -> tuple[str, bytes]:
        """The body of /metrics and its content type, as negotiated by an Accept header."""
        from c2c_otel_exporters import prometheus

        families, comments = self.families()
        return prometheus.render(families, accept, comments=comments)

    @property
    def store(self) -> Store | None:
        return self._parts.store if self._parts else None

    @property
    def publisher(self) -> Publisher | None:
        return self._parts.publisher if self._parts else None

    @property
    def metrics_directory(self) -> Any:
        return self._parts.run.metrics if self._parts and self._parts.run else None


_telemetry = Telemetry()


def get() -> Telemetry:
    """This process's telemetry."""
    return _telemetry


os.register_at_fork(after_in_child=_telemetry.after_fork)
atexit.register(_telemetry.shutdown)
