"""The peers that are neither OpenTelemetry's nor ours: what their users turn on, with nothing sent anywhere."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import peer


class Predecessor(peer.Bare):
    """c2cwsgiutils 4.1.1 with statsd: no spans, no request counts in /metrics."""

    def instrument(self, statsd_port: int) -> None:
        os.environ["STATSD_ADDRESS"] = f"127.0.0.1:{statsd_port}"

    def configure(self, config: Any) -> None:
        config.include("c2cwsgiutils.pyramid")

    def handler(self, stream: Any) -> Any:
        from c2cwsgiutils.pyramid_logging import JsonLogHandler

        return JsonLogHandler(stream)


class Predecessor6(Predecessor):
    """c2cwsgiutils 6.1.10: prometheus_client's files for several processes in place of statsd, as its image has it.

    Routes, rendering, SQL, Redis and outgoing calls are measured without being asked to; the error views, which 4.1.1
    always has, want a setting.
    """

    def instrument(self, statsd_port: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = self.directory.name
        os.environ["C2C_ENABLE_EXCEPTION_HANDLING"] = "1"

    def shown(self) -> dict[str, float]:
        """What its own exposition has of each of its summaries."""
        import prometheus_client
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = prometheus_client.CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        text = prometheus_client.generate_latest(registry).decode()
        names = {"requests": "pyramid_routes", "renders": "pyramid_render", "statements": "database"}
        names |= {"commands": "redis", "calls": "requests"}
        return {
            what: peer.counted(text, f"c2cwsgiutils_{name}_seconds_count".__eq__)  # of each label set
            for what, name in names.items()
        }


class Datadog(peer.Bare):
    """ddtrace as ``ddtrace-run`` does it, with its runtime metrics, and a writer that counts and forgets.

    Its agent makes the metrics of requests from the spans, so there are none in this process. What it tells its maker
    of itself, and asks its agent for from time to time, is off.
    """

    def instrument(self, statsd_port: int) -> None:
        os.environ["DD_DOGSTATSD_URL"] = f"udp://127.0.0.1:{statsd_port}"
        os.environ["DD_RUNTIME_METRICS_ENABLED"] = "true"
        for name in (
            "DD_TRACE_STARTUP_LOGS",
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED",
            "DD_REMOTE_CONFIGURATION_ENABLED",
        ):
            os.environ[name] = "false"
        os.environ["DD_LOGS_INJECTION"] = "true"
        import ddtrace.auto
        from ddtrace.internal.writer import TraceWriter
        from ddtrace.trace import tracer

        assert ddtrace.auto

        class Null(TraceWriter):  # type: ignore[misc]  # it is in no environment but its own
            spans = requests = 0

            def write(self, spans: Any = None) -> None:
                self.spans += len(spans or ())
                self.requests += sum(span.name == "pyramid.request" for span in spans or ())

            def recreate(self, *args: Any, **kwargs: Any) -> Any:
                return self

            def stop(self, timeout: Any = None) -> None:
                pass

            def flush_queue(self) -> None:
                pass

        self.writer = tracer._span_aggregator.writer = Null()

    def shown(self) -> dict[str, float]:
        from ddtrace.internal.runtime.runtime_metrics import RuntimeWorker

        RuntimeWorker._instance.flush()  # what it sends every ten seconds
        return {"spans": self.writer.spans, "requests": self.writer.requests}


class Sentry(peer.Bare):
    """sentry-sdk with tracing of every request, and a transport that counts and forgets.

    Its integration for outgoing calls sits in http.client, which the application's adapter never reaches.
    """

    def instrument(self, statsd_port: int) -> None:
        import sentry_sdk
        from sentry_sdk.integrations.pyramid import PyramidIntegration
        from sentry_sdk.integrations.redis import RedisIntegration
        from sentry_sdk.integrations.sqlalchemy import SqlalchemyIntegration
        from sentry_sdk.transport import Transport

        class Null(Transport):
            spans = requests = 0

            def capture_envelope(self, envelope: Any) -> None:
                for item in envelope.items:
                    if item.type == "transaction":
                        self.requests += 1
                        self.spans += 1 + len(item.payload.json["spans"])

        self.transport = Null()
        sentry_sdk.init(
            dsn="http://key@127.0.0.1:9/1",
            transport=self.transport,
            traces_sample_rate=1.0,
            integrations=[PyramidIntegration(), SqlalchemyIntegration(), RedisIntegration()],
        )

    def shown(self) -> dict[str, float]:
        return {"spans": self.transport.spans, "requests": self.transport.requests}
