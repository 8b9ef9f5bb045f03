"""One peer in its own process: ``python worker.py PEER REDIS_PORT STATSD_PORT WARM``, run in that peer's environment.

Reads commands, one JSON list a line, and answers each with one line of JSON:

``["check", scenario, n]``         n requests, and what the features have to show for them
``["time", scenario, blocks, n]``  CPU time of each block of n requests, in us per request
``["quiet"]``                      no more work in the background (where a second takes as long as a minute), and what
                                   the start has made is not looked through for garbage any more
``["settle"]``                     what threads have still to do is done
``["end"]``                        totals of the whole life
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import application
import others
from peer import Bare, BareInclude, Tween, TweenClocks, TweenUpdate, served

WARM_AGAIN = 10  # as compare.py counts them

Headers = list[tuple[str, str]]


def null_exporter(processor: Any = None) -> tuple[Any, Any]:
    """A batch processor as a service has it (the SDK's, or the given class), whose exporter counts and forgets."""
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Null(SpanExporter):
        spans = 0

        def export(self, spans: Any) -> Any:
            self.spans += len(spans)
            return SpanExportResult.SUCCESS

    exporter = Null()
    return (processor or BatchSpanProcessor)(exporter), exporter


class Contrib(Bare):
    """OpenTelemetry's own instrumentors, its SDK, and its Prometheus reader."""

    def instrument(self, statsd_port: int) -> None:
        from opentelemetry import metrics, trace
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from opentelemetry.instrumentation.logging import LoggingInstrumentor
        from opentelemetry.instrumentation.pyramid import PyramidInstrumentor
        from opentelemetry.instrumentation.redis import RedisInstrumentor
        from opentelemetry.instrumentation.requests import RequestsInstrumentor
        from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.trace import TracerProvider

        self.processor, self.exporter = null_exporter()
        provider = TracerProvider()
        provider.add_span_processor(self.processor)
        trace.set_tracer_provider(provider)
        metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
        for each in (PyramidInstrumentor, SQLAlchemyInstrumentor, RedisInstrumentor, RequestsInstrumentor):
            each().instrument(skip_dep_check=True)  # contrib has not named SQLAlchemy 2.1 yet, and works with it
        LoggingInstrumentor().instrument(set_logging_format=False)  # trace ids into each record

    def settle(self) -> None:
        self.processor.force_flush()

    def shown(self) -> dict[str, float]:
        import prometheus_client

        self.processor.force_flush()
        text = prometheus_client.generate_latest().decode()
        return {"spans": self.exporter.spans, "requests": served(text, "http_server_")}


_FLUSH_SECONDS, _VALGRIND = 0.05, 50
"""How often the statsd thread wakes up, and how much slower a program is under valgrind, where it would wake up with
every other request otherwise."""


class Ours(Bare):
    """As under c2c-otel-instrument; the program's code is unchanged."""

    def instrument(self, statsd_port: int) -> None:
        os.environ["STATSD_ADDRESS"] = f"127.0.0.1:{statsd_port}"
        os.environ["OTEL_TRACES_EXPORTER"] = "none"  # the null exporter is added below
        self.start()
        from c2c_otel import telemetry
        from c2c_otel.batch import BatchSpanProcessor  # what OTEL_TRACES_EXPORTER makes

        self.processor, self.exporter = null_exporter(BatchSpanProcessor)
        provider: Any = telemetry.get().tracer_provider
        provider.add_span_processor(self.processor)

    def start(self) -> None:
        from c2c_otel import distro
        from c2c_otel.settings import Settings

        distro.instrument(Settings.load(), whole_process=True)

    def handler(self, stream: Any) -> Any:
        from c2c_otel.pyramid_logging import JsonLogHandler

        return JsonLogHandler(stream)

    def shown(self) -> dict[str, float]:
        from c2c_otel import telemetry
        from c2c_otel_exporters import guard

        process = telemetry.get()
        self.processor.force_flush()
        parts = process.parts
        assert parts is not None and parts.sender.flush(10)
        text = parts.render("text/plain")[1].decode()
        trouble = {what: count for what, count in guard.tally.items() if count}
        assert not trouble, trouble
        return {"spans": self.exporter.spans, "requests": served(text, "http_server_")}

    def settle(self) -> None:
        from c2c_otel import telemetry

        parts = telemetry.get().parts
        assert parts is not None and parts.sender.flush(60)
        self.processor.force_flush()

    def quiet(self) -> None:
        from c2c_otel import telemetry

        parts = telemetry.get().parts
        assert parts is not None
        parts.publisher.stop()
        parts.sender._flush_interval = _FLUSH_SECONDS * _VALGRIND


class OursInclude(Ours):
    """``config.include("c2c_otel")`` and no launcher."""

    def start(self) -> None:
        pass

    def configure(self, config: Any) -> None:
        config.include("c2c_otel")


PEERS: dict[str, type[Bare]] = {
    "bare": Bare,
    "bare-include": BareInclude,
    "bare-4.1.1": Bare,
    "bare-6.1.10": Bare,
    "contrib": Contrib,
    "ours": Ours,
    "ours-include": OursInclude,
    "4.1.1": others.Predecessor,
    "6.1.10": others.Predecessor6,
    "ddtrace": others.Datadog,
    "sentry-sdk": others.Sentry,
    "tween": Tween,
    "tween-clocks": TweenClocks,
    "tween-update": TweenUpdate,
}


class Client:
    """Asks the application as a WSGI server would, in this thread."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app
        self.status = ""
        self.headers: Headers = []

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], None]:
        self.status, self.headers = status, headers
        return lambda data: None

    def ask(self, path: str) -> bytes:
        answer = self._app(application.environ(path), self.start_response)
        body = b"".join(answer)
        close = getattr(answer, "close", None)
        if close is not None:
            close()
        return body

    def block(self, path: str, count: int) -> float:
        """CPU time of this process for each request, in us."""
        ask = self.ask
        started = time.process_time()
        for _ in range(count):
            ask(path)
        return (time.process_time() - started) / count * 1e6


def check(client: Client, peer: Bare, stream: application.Nowhere, scenario: str, count: int) -> dict[str, Any]:
    """The features' own account of these very requests."""
    before = peer.shown()
    found = []
    application.sent.clear()
    for _ in range(count):
        body = client.ask(application.PATHS[scenario])
        names = {name.lower(): value for name, value in client.headers}
        found.append({key: names.get(key) for key in ("x-request-id", "server-timing")})
        assert int(client.status[:3]) == application.STATUS[scenario], client.status
        assert scenario == "404" or body
    after = peer.shown()
    return {
        "headers": found,
        "sent": application.sent[0] if application.sent else {},
        "line": stream.last,
        **{key: after[key] - before[key] for key in after},
    }


def serve(name: str, redis_port: int, statsd_port: int) -> Callable[..., Any]:
    """For ``gunicorn "worker:serve('ours', 6379, 8125)"``; /shown has what the features have to show."""
    peer = PEERS[name]()
    peer.instrument(statsd_port)
    application.log_to(peer.handler(application.Nowhere()))
    app = application.make(peer.configure, redis_port)

    def either(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] != "/shown":
            return app(environ, start_response)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(peer.shown()).encode()]

    return either


def main(name: str, redis_port: int, statsd_port: int, warm: int) -> None:
    peer = PEERS[name]()
    peer.instrument(statsd_port)
    stream = application.Nowhere()
    application.log_to(peer.handler(stream))
    client = Client(application.make(peer.configure, redis_port))
    at_start = peer.shown()  # of the application's own set-up
    for path in application.PATHS.values():
        client.block(path, warm)
    gc.collect()
    print(json.dumps({"ready": name, "pid": os.getpid()}), flush=True)
    for line in sys.stdin:
        command, *words = json.loads(line)
        answer: Any = None
        if command == "check":
            answer = check(client, peer, stream, words[0], words[1])
        elif command == "time":
            scenario, blocks, count = words
            path = application.PATHS[scenario]
            client.block(path, WARM_AGAIN)
            answer = [client.block(path, count) for _ in range(blocks)]
        elif command == "quiet":
            peer.quiet()
            gc.collect()
            gc.freeze()  # or one of a hundred counted requests looks through all that the start has made, or none does
        elif command == "settle":
            peer.settle()
        elif command == "end":
            answer = {key: total - at_start[key] for key, total in peer.shown().items()}
        print(json.dumps(answer), flush=True)
        if command == "end":
            break


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
