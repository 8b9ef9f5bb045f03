"""Where the microseconds of a request go: ``.cache/bench/ours/bin/python tests/benchmarks/bench_parts.py``.

Each part alone in a loop, CPU time of this thread, lower quartile. In a request they cost up to twice as much, as
the caches then hold the application too.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import application
import worker

LOOPS = 2000
BLOCKS = 60


def cost(function: Callable[[], Any]) -> float:
    """us of one call, the loop included."""
    times = []
    for _ in range(BLOCKS):
        started = time.thread_time()
        for _ in range(LOOPS):
            function()
        times.append((time.thread_time() - started) / LOOPS * 1e6)
    return sorted(times)[BLOCKS // 4]


def main() -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    peer: Any = worker.PEERS["ours"]()
    peer.instrument(listener.getsockname()[1])

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import SpanKind

    from c2c_otel import request_id, telemetry
    from c2c_otel._sdk_private import SPAN_KEY, attach
    from c2c_otel.instrumentation import client, exchange, wsgi_attributes
    from c2c_otel.pending import Given
    from c2c_otel_exporters import names

    process = telemetry.get()
    process.start()
    tracer: Any = process.tracer("bench")
    processors: Any = process.tracer_provider
    environ = application.environ("/json")
    attributes = wsgi_attributes.attributes(environ, "GET")
    given = Given(attributes)
    root = tracer.start_root("GET", SpanKind.SERVER, given, 1)
    inside = Context({SPAN_KEY: root, request_id.REQUEST_ID_KEY: "bench"})
    timer = process.sink.timer(names.route, "GET", "json", "/json", 200, "http", None)
    site = client.Site("GET", given, lambda error: (names.redis, "GET", error is None, "0", "localhost", 6379, error))

    def tracers() -> Any:
        return tracer

    def call() -> None:
        client.finish(site, client.begin(site, tracers, inside), 300_000, inside)

    def child() -> None:
        tracer.start_current("GET", inside, SpanKind.CLIENT, given).end()
        attach(inside)

    def whole() -> None:
        begun = exchange.begin(environ, lambda *_: None)
        assert begun is not None
        begun.start_response("200 OK", [])
        begun.answered()
        begun.finish()

    parts: dict[str, Callable[[], Any]] = {
        "the loop": lambda: None,
        "two clocks": lambda: (time.time_ns(), time.perf_counter_ns()),
        "what the environ says: taken down": lambda: wsgi_attributes.Arrival(environ, "GET"),
        "the same as attributes, for an exporter": lambda: wsgi_attributes.attributes(environ, "GET"),
        "whether the caller sent an id or a trace": lambda: request_id.brings_nothing(environ),
        "request id from the trace id": lambda: request_id.from_trace_id(2**100 + 17),
        "a span by OpenTelemetry's API, 8 attributes": lambda: tracer.start_span("GET", attributes=attributes).end(),
        "a span of ours, a root": lambda: tracer.start_root("GET", SpanKind.SERVER, given, 1).end(),
        "a span of ours, a child": child,
        "a measurement: statsd line, histogram": lambda: timer.observe_ns(3_000_000, root, 0),
        "a call of a client, but for the call": call,
        "a request without Pyramid": whole,
    }
    loop = cost(parts["the loop"])
    for name, part in parts.items():
        process.parts.sender.queue.clear()  # type: ignore[union-attr] # it is started
        print(f"{name:44} {cost(part) - (loop if part is not parts['the loop'] else 0):6.2f}")
    active = processors._active_span_processor
    active._span_processors = ()
    print(f"{'the same without a span processor':44} {cost(whole) - loop:6.2f}")

    class Nothing(SpanProcessor):
        def on_end(self, span: Any) -> None:
            pass

    active._span_processors = (Nothing(),)
    print(f"{'the same with one that does nothing':44} {cost(whole) - loop:6.2f}")


if __name__ == "__main__":
    main()
