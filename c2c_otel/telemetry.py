"""What this process has for its telemetry: one object, made lazily, renewed after a fork.

gunicorn forks its workers, and threads, sockets, locks and recorded values do not survive that. So nothing of the
kind exists before `Telemetry.start`, which happens in the worker: when its application is ready, or with the first
measurement. A process that is known to be gunicorn's arbiter is *held*: it never starts.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics as metrics_api
from opentelemetry import trace

from c2c_otel import __version__, request_id, runtime_dir
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel_exporters import guard
from c2c_otel_exporters.null_sink import NULL_SINK

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

    from c2c_otel.parts import Parts
    from c2c_otel_exporters.model import Family
    from c2c_otel_exporters.sink import Counter, Gauge, Namer, SinkLike, Timer

__all__ = ["Telemetry", "get"]


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


class Telemetry:
    """The telemetry of one process. ``sink`` is where measurements go: read it anew for each, it changes."""

    sink: SinkLike

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._tracer_provider: trace.TracerProvider | None = None
        self._run_id: str | None = None
        self._held_pid = 0
        self._configured = False
        self._application = False
        self._renew()

    def _renew(self) -> None:
        """Become unstarted, with locks nobody holds."""
        self._lock = threading.RLock()
        self._tracers: dict[str, trace.Tracer] = {}
        self._parts: Parts | None = None
        self.sink = _Unstarted(self)

    # -- settings -----------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The process's settings; read from the environment where nobody gave any."""
        if self._settings is None:
            self._settings = Settings.load()
        return self._settings

    def configure(self, settings: Settings) -> None:
        """Give the settings; the start freezes them. What a second application wants otherwise has no effect on the
        process (its views have their own), and is said in the log."""
        with self._lock:
            if not self._configured and self._parts is None:
                self._settings, self._configured = settings, True
                return
        ours = {row.env: value for row, value, _ in self.settings.describe()}
        ignored = [row.env for row, value, _ in settings.describe() if ours[row.env] != value]
        if ignored:
            guard.warn_once(
                f"configure.{ignored}",
                "The settings of a second application only count for its views where they differ from those this "
                "process runs with: %s",
                ", ".join(ignored),
            )

    # -- tracing ------------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Make this process's spans real and let the request id travel. Idempotent; starts nothing."""
        with self._lock:
            if self._tracer_provider is not None:
                return
            found = trace.get_tracer_provider()
            if isinstance(found, trace.ProxyTracerProvider):
                from c2c_otel import otlp, tracing

                found = tracing.TracerProvider(resource=otlp.resource(self.settings), shutdown_on_exit=False)
                trace.set_tracer_provider(found)
            elif hasattr(found, "add_span_processor"):
                found.add_span_processor(request_id.RequestIdSpanProcessor())
            self._tracer_provider = found
            request_id.install(self.settings.request_id_header)

    @property
    def tracer_provider(self) -> trace.TracerProvider:
        """Ours, or the one that the application had set before."""
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

    # -- start and end ------------------------------------------------------------------------------------------------

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
        """An application was made: a worker starts now, an arbiter that preloads only learns whose run it is."""
        self._application = True
        role = runtime_dir.gunicorn_role()
        if self._run_id is None:
            self._run_id = runtime_dir.run_id(self.settings)
        if role is not None and role[0] == "arbiter":
            self.hold()
        if self._parts is not None and self._parts.logger_provider is not None:
            from c2c_otel import logging_setup

            logging_setup.attach_otel(self._parts.logger_provider)  # the application may have set logging up anew
        self.start()

    def worker_started(self) -> None:
        """gunicorn has forked a worker. With a preloaded application it starts now, before its first request."""
        if self._application:
            self.start()

    @property
    def started(self) -> bool:
        """Whether this process has what holds threads, files, sockets or values."""
        return self._parts is not None

    def start(self) -> None:
        """Make everything that holds a thread, a socket, a file or a value. Idempotent; nothing where held.

        Raises `ConfigurationError` for a setting that turns out not to be usable.
        """
        if self._parts is not None or self.held or self.sink is NULL_SINK:
            return
        with self._lock:
            if self._parts is not None:
                return
            if self.settings.sdk_disabled:
                self.sink = NULL_SINK
                return
            try:
                self._start()
            except ConfigurationError:
                raise
            except Exception:
                self.sink = NULL_SINK
                guard.failed("telemetry.start")

    def _start(self) -> None:
        from c2c_otel import logging_setup, parts
        from c2c_otel_exporters import background

        if self._run_id is None:
            self._run_id = runtime_dir.run_id(self.settings)
        background.allow()
        made = parts.make(self.settings, self._run_id)
        self._use(made)
        if made.logger_provider is not None:
            logging_setup.attach_otel(made.logger_provider)
        made.publisher.start()

    def _use(self, parts: Parts) -> None:
        from c2c_otel import tracing

        self._parts = parts
        self.sink = parts.sink
        if isinstance(self.tracer_provider, tracing.TracerProvider):
            self.tracer_provider.renew(parts.resource, parts.span_processors)
        self._set_meter_provider(parts)

    def _set_meter_provider(self, parts: Parts) -> None:
        """The application's own instruments become real here, in the worker: what is recorded in an arbiter would
        be counted once for each worker. An application that has set a provider of its own keeps it."""
        from opentelemetry.sdk.metrics import MeterProvider

        if type(metrics_api.get_meter_provider()).__name__ != "_ProxyMeterProvider":
            return
        readers = [parts.publisher.reader, *parts.metric_readers]
        metrics_api.set_meter_provider(
            MeterProvider(metric_readers=readers, resource=parts.resource, shutdown_on_exit=False)
        )

    def shutdown(self) -> None:
        """Send and publish what is there, then let go of everything, within a few seconds at most."""
        with self._lock:
            parts, self._parts = self._parts, None
            self.sink = NULL_SINK
        if parts is None:
            return
        if parts.logger_provider is not None:
            from c2c_otel import logging_setup

            logging_setup.attach_otel(None)
        parts.end()

    def after_fork(self) -> None:
        """In a forked child: what the parent has stays the parent's."""
        parts = self._parts
        self._renew()
        guard.reset()
        if parts is not None:
            parts.abandon()

    @contextmanager
    def captured(self, settings: Settings, sender: Any, processors: Sequence[SpanProcessor]) -> Iterator[None]:
        """For `c2c_otel.testing`: another, unshared telemetry in the place of this one until the block ends."""
        from c2c_otel import parts
        from c2c_otel_exporters.store import Store

        self.install()
        before = self._parts, self.sink, self._settings, self._held_pid
        if self._parts is not None and self._parts.captured:
            raise RuntimeError("This process's telemetry is captured already; captures do not nest.")
        made = parts.build(settings, Store(None, max_series=settings.metrics_max_series), sender)
        made.captured = True
        made.span_processors = processors
        self._settings, self._held_pid = settings, 0
        self._use(made)
        try:
            yield
        finally:
            self._parts, self.sink, self._settings, self._held_pid = before
            self._renew_processors()
            made.end()

    def _renew_processors(self) -> None:
        from c2c_otel import tracing

        if isinstance(self.tracer_provider, tracing.TracerProvider):
            processors = self._parts.span_processors if self._parts else ()
            self.tracer_provider.renew(self.tracer_provider.resource, processors)

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def parts(self) -> Parts | None:
        """What `start` made; None before."""
        return self._parts

    def families(self) -> tuple[list[Family], list[str]]:
        """The measurements of all processes of the service, and what must be said about them."""
        self.start()
        return self._parts.families() if self._parts else ([], ["Telemetry is off in this process."])

    def render(self, accept: str) -> tuple[str, bytes]:
        """The body of /metrics and its content type, as negotiated by an Accept header."""
        from c2c_otel_exporters import prometheus

        families, comments = self.families()
        return prometheus.render(families, accept, comments=comments)


_telemetry = Telemetry()


def get() -> Telemetry:
    """This process's telemetry."""
    return _telemetry


os.register_at_fork(after_in_child=_telemetry.after_fork)
atexit.register(_telemetry.shutdown)
