"""What this process has for its telemetry: one object, made lazily, renewed after a fork.

gunicorn forks its workers, and threads, sockets, locks and recorded values do not survive that. So nothing of the
kind exists before `Telemetry.start`, which happens in the worker: when its application is ready, or with the first
measurement. A process that is known to be gunicorn's arbiter is *held*: it never starts.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics as metrics_api
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor

from c2c_otel import __version__, broadcast, doctor, request_id, runtime_dir
from c2c_otel.doctor import presence
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel.unstarted import StartingLogs, StartingProcessor, UnstartedSink
from c2c_otel_exporters import guard
from c2c_otel_exporters.null_sink import NULL_SINK

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from c2c_otel.meters import MeterProvider
    from c2c_otel.parts import Parts
    from c2c_otel_exporters.model import Family
    from c2c_otel_exporters.sink import SinkLike

__all__ = ["Telemetry", "get"]


_FIRST_READING_SECONDS = 1.0
"""How long a forked child waits to learn what the application's observable counters had counted before."""


def _report() -> dict[str, Any]:
    """To the doctor, who asks seldom."""
    from c2c_otel.doctor import state

    return state.report()


class _Relay(request_id.RequestIdSpanProcessor):
    """Our side of a provider that the application has set: the request id, and what a capture wants to see."""

    processors: Sequence[SpanProcessor] = ()

    def on_end(self, span: ReadableSpan) -> None:
        for processor in self.processors:
            processor.on_end(span)


class Telemetry:
    """The telemetry of one process. ``sink`` is where measurements go: read it anew for each, it changes."""

    sink: SinkLike

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._tracer_provider: trace.TracerProvider | None = None
        self._meter_provider: MeterProvider | None = None
        self._relay = _Relay()
        self._run_id: str | None = None
        self._held_pid = self._worker_pid = 0
        self._configured = False
        self._application = False
        self._renew()

    def _renew(self) -> None:
        """Become unstarted, with locks nobody holds."""
        self._lock = threading.RLock()
        self._tracers: dict[str, trace.Tracer] = {}
        self._parts: Parts | None = None
        self._starting = False
        self.sink = UnstartedSink(self)

    # -- settings -----------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The process's settings; read from the environment where nobody gave any. Where that cannot be used,
        telemetry is off: whoever asks first, deep in a request, is not the one to be told."""
        if self._settings is None:
            try:
                self._settings = Settings.load()
            except ConfigurationError:
                guard.failed("settings")
                self._settings = Settings(sdk_disabled=True)
        return self._settings

    def configure(self, settings: Settings) -> None:
        """Give the settings; the start freezes them. What a second application wants otherwise has no effect on the
        process (its views have their own), and is said in the log."""
        with self._lock:
            if not self._configured and self._parts is None:
                self._settings, self._configured = settings, True
                return
            if self._parts is not None and self._parts.captured:
                return  # a test has chosen the settings
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

                resource = otlp.resource(self.settings)
                found = tracing.TracerProvider(resource=resource, shutdown_on_exit=False)
                found.renew(resource, [StartingProcessor(self)])
                trace.set_tracer_provider(found)
            elif hasattr(found, "add_span_processor"):
                found.add_span_processor(self._relay)
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
        self.start()

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
        if role[0] == "arbiter" if role else "gunicorn.arbiter" in sys.modules and self._worker_pid != os.getpid():
            from c2c_otel import distro

            self.hold()  # a program of its own may run gunicorn once it has its application
            distro.follow_workers()
            self._preload()
        if self._parts is not None and self._parts.logger_provider is not None:
            from c2c_otel import logging_setup

            logging_setup.attach_otel(self._parts.logger_provider)  # the application may have set logging up anew
        self.start()
        self._join()  # also where telemetry is off

    def _preload(self) -> None:
        """Before an arbiter forks: what its workers can share is there, and none of them copies it in its first second,
        as a full garbage collection does, which is due when a quarter more objects are there than after the last."""
        if self.settings.sdk_disabled:
            return
        from c2c_otel import otlp

        try:
            if otlp.preload(self.settings):
                gc.collect()
        except Exception:  # the workers will say so
            guard.failed("otlp.preload")

    def worker_started(self) -> None:
        """gunicorn has forked a worker. With a preloaded application it starts now, before its first request."""
        self._worker_pid = os.getpid()
        if self._application:
            self.start()
            self._join()

    def take_part(self) -> None:
        """Be asked by other processes of the service from here on, as one with an application is."""
        self.application_ready()

    def _join(self) -> None:
        """Take part in the broadcast. Idempotent; not where held, nor with others while a test looks at it."""
        if self.held:
            return
        from c2c_otel.broadcast import joining

        parts = self._parts
        try:
            if parts is not None and parts.captured:
                broadcast.get().join()
            else:
                run_id = self._run_id or runtime_dir.run_id(self.settings)
                broadcast.subscribe(doctor.CHANNEL, _report)
                joining.join(self.settings, parts.run if parts is not None else None, run_id)
        except Exception:
            guard.failed("broadcast.join")
        if parts is not None and parts.run is not None:
            presence.announce(parts.run.path, worker=self._is_worker())

    def _is_worker(self) -> bool:
        role = runtime_dir.gunicorn_role()
        return self._worker_pid == os.getpid() or (role is not None and role[0] == "worker")

    @property
    def started(self) -> bool:
        """Whether this process has what holds threads, files, sockets or values."""
        return self._parts is not None

    def start(self) -> None:
        """Make everything that holds a thread, a socket, a file or a value. Idempotent; nothing where held. Where it
        fails (for a setting that turns out not to be usable, too), the process goes on without telemetry."""
        if self._parts is not None or self.held or self.sink is NULL_SINK:
            return
        with self._lock:
            if self._parts is not None or self._starting:
                return
            self._starting = True
            try:
                self._start()
            except Exception:
                self.sink = NULL_SINK
                guard.failed("telemetry.start")
            finally:
                self._starting = False
        if self._application:
            self._join()

    def _start(self) -> None:
        from c2c_otel import logging_setup, parts
        from c2c_otel_exporters import background

        if self.settings.sdk_disabled:
            self.sink = NULL_SINK
            return
        role = runtime_dir.gunicorn_role()
        if role is not None and role[0] == "arbiter":  # without our launcher: the first measurement of a preload
            self.hold()
            return
        if self._run_id is None:
            self._run_id = runtime_dir.run_id(self.settings)
        background.allow()
        made = parts.make(self.settings, self._run_id)
        self._use(made)
        if made.logger_provider is not None:
            logging_setup.attach_otel(made.logger_provider)
        if made.publisher.reader.inherited:
            made.publisher.publish(_FIRST_READING_SECONDS)
        made.publisher.start()
        self._end_with_multiprocessing()

    def _use(self, parts: Parts) -> None:
        self._parts = parts
        self.sink = parts.sink
        self._renew_tracing(parts)
        self._renew_metering(parts)

    def _renew_tracing(self, parts: Parts | None) -> None:
        from c2c_otel import tracing

        provider = self.tracer_provider
        if isinstance(provider, tracing.TracerProvider):
            resource = parts.resource if parts is not None else provider.resource
            provider.renew(resource, parts.span_processors if parts is not None else [StartingProcessor(self)])
        else:
            self._relay.processors = parts.span_processors if parts is not None and parts.captured else ()

    def _renew_metering(self, parts: Parts) -> None:
        """The application's own instruments become real here, in the worker: what is recorded in an arbiter would
        be counted once for each worker. An application that has set a provider of its own keeps it."""
        if self._meter_provider is None:
            if type(metrics_api.get_meter_provider()).__name__ != "_ProxyMeterProvider":
                return
            from c2c_otel import meters

            self._meter_provider = meters.MeterProvider(parts.resource, self.start)
            metrics_api.set_meter_provider(self._meter_provider)
        self._meter_provider.renew(parts.resource, parts.readers)

    def _end_with_multiprocessing(self) -> None:
        """A process of `multiprocessing` ends without atexit, but does call what its own module has registered."""
        util = sys.modules.get("multiprocessing.util")
        if util is not None and sys.modules["multiprocessing.process"].parent_process() is not None:
            util.Finalize(None, self.shutdown, exitpriority=1)

    def shutdown(self) -> None:
        """Send and publish what is there, then let go of everything, within a few seconds at most."""
        presence.withdraw()
        if broadcast.get().joined:
            from c2c_otel.broadcast import joining

            joining.leave()
        with self._lock:
            parts, self._parts = self._parts, None
            self.sink = NULL_SINK
        if parts is None:
            return
        if parts.logger_provider is not None:
            from c2c_otel import logging_setup

            logging_setup.attach_otel(None)
        parts.end()
        if self._meter_provider is not None:
            self._meter_provider.renew(parts.resource, ())

    def after_fork(self) -> None:
        """In a forked child: what the parent has stays the parent's."""
        parts = self._parts
        self._renew()
        guard.reset()
        if parts is None:
            return
        parts.abandon()
        if parts.captured:  # a test of the parent's looks at what the parent does
            self.sink = NULL_SINK
        if self._meter_provider is not None:
            self._meter_provider.forget()
        tracing = sys.modules["c2c_otel.tracing"]
        if isinstance(self._tracer_provider, tracing.TracerProvider):
            self._tracer_provider.after_fork()
        self._renew_tracing(None)
        if parts.logger_provider is not None:
            from c2c_otel import logging_setup

            logging_setup.attach_otel(StartingLogs(self))

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
            with broadcast.get().alone():
                yield
        finally:
            self._parts, self.sink, self._settings, self._held_pid = before
            self._renew_tracing(self._parts)
            made.end()
            if self._meter_provider is not None:
                now = self._parts or made
                self._meter_provider.renew(now.resource, now.readers if now is not made else ())

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
