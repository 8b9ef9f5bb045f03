"""OpenTelemetry's own exporters, from OpenTelemetry's own variables, with bounds that a worker can live with.

``OTEL_{TRACES,METRICS,LOGS}_EXPORTER`` name exporters by their entry points: ``otlp`` (over HTTP, unless a protocol
is set), ``console``, ``none`` and whatever is installed. Unset, it is ``otlp`` where an OTLP endpoint is set, else
nothing leaves the process. Everything here is made in the worker that uses it, so that no fork has to be survived.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from c2c_otel import __version__
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel_exporters import exported

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor

    from c2c_otel_exporters.model import Metric
    from c2c_otel_exporters.store import Store

__all__ = [
    "abandon",
    "check",
    "exporter_names",
    "logger_provider",
    "metric_exporters",
    "metric_readers",
    "resource",
    "shutdown",
    "preload",
    "span_processors",
]

_SHUTDOWN_SECONDS = 2.0
"""For all exporters together: what an unreachable collector may cost a worker that ends."""


class _Signal(NamedTuple):
    """``ours``: names whose work is done in any case; nothing is added for them."""

    name: str
    otlp_module: str
    otlp_class: str
    console: str
    ours: tuple[str, ...]


_TRACES = _Signal(
    "traces",
    "trace_exporter",
    "OTLPSpanExporter",
    "opentelemetry.sdk.trace.export:ConsoleSpanExporter",
    ("c2c_statsd",),  # the sink sends what is timed to STATSD_ADDRESS, without waiting for a batch of spans
)
_METRICS = _Signal(
    "metrics",
    "metric_exporter",
    "OTLPMetricExporter",
    "opentelemetry.sdk.metrics.export:ConsoleMetricExporter",
    ("prometheus", "c2c_statsd"),  # /metrics is there, and the publisher sends to STATSD_ADDRESS
)
_LOGS = _Signal(
    "logs",
    "_log_exporter",
    "OTLPLogExporter",
    "opentelemetry.sdk._logs.export:ConsoleLogRecordExporter",
    (),
)
_SIGNALS = (_TRACES, _METRICS, _LOGS)

_OTLP_HTTP = "otlp_proto_http"
_OTLP_GRPC = "otlp_proto_grpc"
_PACKAGES = {
    _OTLP_HTTP: ("opentelemetry.exporter.otlp.proto.http", "c2c-otel[otlp]"),
    _OTLP_GRPC: ("opentelemetry.exporter.otlp.proto.grpc", "opentelemetry-exporter-otlp-proto-grpc"),
}


# -- which ----------------------------------------------------------------------------------------------------


def exporter_names(settings: Settings, signal: str) -> tuple[str, ...]:
    """The exporters of ``traces``, ``metrics`` or ``logs``, ``otlp`` replaced by the one of its protocol.

    Raises ConfigurationError where none of that name is installed, or an endpoint cannot be used.
    """
    wanted = next(known for known in _SIGNALS if known.name == signal)
    return tuple(name for name, _ in _exporters(settings, wanted))


def check(settings: Settings) -> None:
    """Raise ConfigurationError for what `span_processors` and the others would refuse. Imports no exporter."""
    for signal in _SIGNALS:
        list(_exporters(settings, signal))


def preload(settings: Settings) -> bool:
    """Import what the workers of an arbiter that preloads will export with, so that they share it: it is 20 MiB. Not
    gRPC, which must not be there before a fork. Whether there is such an exporter."""
    found = False
    for signal in _SIGNALS:
        for name, where in _exporters(settings, signal):
            if name == _OTLP_HTTP:
                importlib.import_module(where.partition(":")[0])
                importlib.import_module("c2c_otel.batch")
                found = True
    return found


def _exporters(settings: Settings, signal: _Signal) -> Iterator[tuple[str, str]]:
    """(name, where its class is) of each exporter that is to be made."""
    variable = f"OTEL_{signal.name.upper()}_EXPORTER"
    names = getattr(settings, f"{signal.name}_exporter")
    if names is None:
        variable, endpoint = _endpoint(settings, signal)
        names = ("otlp",) if endpoint else ()
    for name in dict.fromkeys(names):
        if name == "none" or name in signal.ours:
            continue
        exporter = _protocol(settings, signal) if name == "otlp" else name
        if exporter == "console":
            yield exporter, signal.console
        elif exporter in _PACKAGES:
            yield exporter, _otlp(settings, signal, exporter, variable)
        else:
            yield exporter, _installed(signal, exporter, variable)


def _endpoint(settings: Settings, signal: _Signal) -> tuple[str, str | None]:
    """The variable that names the collector of a signal, and its value."""
    own = getattr(settings, f"otlp_{signal.name}_endpoint")
    if own:
        return f"OTEL_EXPORTER_OTLP_{signal.name.upper()}_ENDPOINT", own
    return "OTEL_EXPORTER_OTLP_ENDPOINT", settings.otlp_endpoint


def _protocol(settings: Settings, signal: _Signal) -> str:
    own = getattr(settings, f"otlp_{signal.name}_protocol")
    return _OTLP_GRPC if (own or settings.otlp_protocol) == "grpc" else _OTLP_HTTP


def _otlp(settings: Settings, signal: _Signal, name: str, variable: str) -> str:
    package, distribution = _PACKAGES[name]
    if not _is_importable(package):
        raise ConfigurationError(variable, name, f"{package} to be installed", f"Run: pip install '{distribution}'")
    endpoint_variable, endpoint = _endpoint(settings, signal)
    if name == _OTLP_HTTP and endpoint and not endpoint.startswith(("http://", "https://")):
        raise ConfigurationError(
            endpoint_variable,
            endpoint,
            "a URL that starts with http:// or https://",
            f"Write http://{endpoint}, or set OTEL_EXPORTER_OTLP_PROTOCOL=grpc.",
        )
    return f"{package}.{signal.otlp_module}:{signal.otlp_class}"


def _is_importable(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _installed(signal: _Signal, name: str, variable: str) -> str:
    from opentelemetry.util._importlib_metadata import entry_points

    group = f"opentelemetry_{signal.name}_exporter"
    for found in entry_points(group=group, name=name):
        return str(found.value)
    known = {found.name for found in entry_points(group=group)} | {"otlp", "console", "none", *signal.ours}
    raise ConfigurationError(
        variable,
        name,
        f"one of {', '.join(sorted(known))}",
        f"Correct it, or install the package that has it as an entry point in {group}.",
    )


def _make(settings: Settings, signal: _Signal) -> Iterator[Any]:
    """The exporters (or metric readers) of a signal, made."""
    for name, where in _exporters(settings, signal):
        module, _, attribute = where.partition(":")
        made = getattr(importlib.import_module(module), attribute)
        if name in _PACKAGES:
            from c2c_otel_exporters import collector_trouble

            collector_trouble.hush()
        if name == "c2c_cee":
            from c2c_otel_exporters import logs

            logs.configure(settings.log_host, settings.log_port)
        if name == _OTLP_HTTP:
            variable, endpoint = _endpoint(settings, signal)
            if endpoint and variable == "OTEL_EXPORTER_OTLP_ENDPOINT":
                endpoint = f"{endpoint.removesuffix('/')}/v1/{signal.name}"
            yield exported.watch(made(endpoint=endpoint), signal.name, name, endpoint)
        else:
            yield exported.watch(made(), signal.name, name)


# -- traces, metrics, logs ------------------------------------------------------------------------------------


def span_processors(settings: Settings) -> list[SpanProcessor]:
    """One batch processor around each traces exporter. Each has a thread."""
    exporters = list(_make(settings, _TRACES))
    if not exporters:
        return []
    from c2c_otel.batch import BatchSpanProcessor

    return [BatchSpanProcessor(exporter, shutdown_seconds=_SHUTDOWN_SECONDS) for exporter in exporters]


def metric_exporters(settings: Settings) -> list[MetricExporter]:
    """The metrics exporters themselves, for who exports once and ends. Readers are not among them: nobody would ask
    a process that is gone."""
    from opentelemetry.sdk.metrics.export import MetricReader

    return [exporter for exporter in _make(settings, _METRICS) if not isinstance(exporter, MetricReader)]


def metric_readers(
    settings: Settings, store: Store, resource: Resource, skip: Container[Metric] = ()
) -> list[MetricReader]:
    """One reader for each metrics exporter, to be given to the MeterProvider. Each has a thread.

    Beside the instruments of the SDK they export the series of ``store``, without those in ``skip``: what a
    `Publisher` has put there from the SDK.
    """
    exporters = list(_make(settings, _METRICS))
    if not exporters:
        return []
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from c2c_otel_exporters.exporting_reader import StoreExportingReader

    return [
        exporter
        if isinstance(exporter, MetricReader)
        else StoreExportingReader(
            exporter,
            store.families,
            resource,
            scope=InstrumentationScope("c2c_otel", __version__),
            skip=skip,
            interval=settings.metric_export_interval / 1000,
            timeout=settings.metric_export_timeout / 1000,
        )
        for exporter in exporters
    ]


def logger_provider(settings: Settings, resource: Resource) -> LoggerProvider | None:
    """The SDK's log pipeline, where a logs exporter is named; it costs 2.6 times what our own handlers cost.

    Each exporter has a thread. A logging handler that feeds it is not installed here.
    """
    exporters = list(_make(settings, _LOGS))
    if not exporters:
        return None
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    class BoundedBatchLogRecordProcessor(BatchLogRecordProcessor):
        def shutdown(self) -> None:
            self._batch_processor.shutdown(timeout_millis=int(_SHUTDOWN_SECONDS * 1000))

    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_log_record_processor(BoundedBatchLogRecordProcessor(exporter))
    return provider


def shutdown(parts: Iterable[Any], timeout: float = _SHUTDOWN_SECONDS) -> None:
    """Call ``shutdown()`` of each, all at the same time, and wait for at most ``timeout`` seconds altogether."""
    deadline = time.monotonic() + timeout
    threads = [threading.Thread(target=part.shutdown, name="c2c_otel_shutdown", daemon=True) for part in parts]
    for thread in threads:
        try:
            thread.start()
        except RuntimeError:  # none can be started any more: one after the other, each has its own bound
            thread.run()
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, deadline - time.monotonic()))


def abandon(parts: Iterable[Any]) -> None:
    """In a forked child: batch processors that are the parent's do not begin again, as the SDK lets them do."""
    for part in parts:
        several = getattr(getattr(part, "_multi_log_record_processor", None), "_log_record_processors", (part,))
        for processor in several:
            batch = getattr(processor, "_batch_processor", None)
            if batch is not None:
                batch._shutdown = True  # its thread, which the SDK's fork handler starts, ends at once


# -- resource -------------------------------------------------------------------------------------------------


def resource(settings: Settings) -> Resource:
    """What the telemetry of this process is about: OTEL_RESOURCE_ATTRIBUTES, the service, the process.

    ``service.instance.id`` is one for each process. Entry points are only looked for where
    OTEL_EXPERIMENTAL_RESOURCE_DETECTORS names some.
    """
    from opentelemetry.sdk import resources

    instance = resources.ServiceInstanceIdResourceDetector().detect()
    if settings.resource_detectors:
        found = resources.Resource.create()
    else:
        found = _sdk_resource().merge(instance).merge(resources.OTELResourceDetector().detect())
    attributes: dict[str, Any] = {
        "telemetry.distro.name": "c2c-otel",
        "telemetry.distro.version": __version__,
        "process.pid": os.getpid(),
        "service.name": settings.service_name
        or found.attributes.get("service.name")
        or f"unknown_service:{Path(sys.executable or 'python').name}",
    }
    chosen = found.attributes.get("service.instance.id")
    if chosen != instance.attributes["service.instance.id"]:  # one name for all workers: their counters would mix
        attributes["service.instance.id"] = f"{chosen}-{os.getpid()}"
    return found.merge(resources.Resource(attributes))


def _sdk_resource() -> Resource:
    from opentelemetry.sdk import resources
    from opentelemetry.sdk.version import __version__ as sdk_version

    return resources.Resource(
        {
            resources.TELEMETRY_SDK_LANGUAGE: "python",
            resources.TELEMETRY_SDK_NAME: "opentelemetry",
            resources.TELEMETRY_SDK_VERSION: sdk_version,
        }
    )
