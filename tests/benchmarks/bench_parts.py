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

    from opentelemetry.sdk.trace import SpanProcessor

    from c2c_otel import request_id, telemetry
    from c2c_otel.instrumentation import exchange, wsgi_attributes
    from c2c_otel_exporters import names

    process = telemetry.get()
    process.start()
    tracer = process.tracer("bench")
    processors: Any = process.tracer_provider
    environ = application.environ("/json")
    attributes = wsgi_attributes.attributes(environ, "GET")
    span = tracer.start_span("GET", attributes=attributes)
    timer = process.sink.timer(names.route, "GET", "json", "/json", 200, "http", None)

    def observe() -> None:
        found = process.sink.timer(names.route, "GET", "json", "/json", 200, "http", None)
        found.observe(0.01, span)

    def whole() -> None:
        begun = exchange.begin(environ, lambda *_: None)
        assert begun is not None
        begun.start_response("200 OK", [])
        begun.answered()
        begun.finish()

    parts: dict[str, Callable[[], Any]] = {
        "the loop": lambda: None,
        "two clocks": lambda: (time.time_ns(), time.perf_counter_ns()),
        "attributes from the environ": lambda: wsgi_attributes.attributes(environ, "GET"),
        "what the caller sent": lambda: request_id.remote_context(environ, "accept"),
        "request id from the trace id": lambda: request_id.from_trace_id(2**100 + 17),
        "span: start, 8 attributes": lambda: tracer.start_span("GET", attributes=attributes),
        "span: start and end, batch processor": lambda: tracer.start_span("GET", attributes=attributes).end(),
        "sink: look-up": lambda: process.sink.timer(names.route, "GET", "json", "/json", 200, "http", None),
        "sink: look-up, statsd line, histogram": observe,
        "histogram alone": lambda: timer._histogram.observe(0.01),
        "a request without Pyramid": whole,
    }
    loop = cost(parts["the loop"])
    for name, part in parts.items():
        process.parts.sender.queue.clear()  # type: ignore[union-attr] # it is started
        print(f"{name:40} {cost(part) - (loop if part is not parts['the loop'] else 0):6.2f}")
    active = processors._active_span_processor
    active._span_processors = ()
    print(f"{'the same without a span processor':40} {cost(whole) - loop:6.2f}")

    class Nothing(SpanProcessor):
        def on_end(self, span: Any) -> None:
            pass

    active._span_processors = (Nothing(),)
    print(f"{'the same with one that does nothing':40} {cost(whole) - loop:6.2f}")


if __name__ == "__main__":
    main()
