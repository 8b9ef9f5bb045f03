"""``python -m tests.benchmarks.bench_cold``: what surrounds a Redis GET, part by part, warm and cold.

*In a loop*: around a function that returns at once. *Around a GET*: around a real one. A process that has waited for a
socket goes on with caches that others have used meanwhile, and so the same code takes several times as long there.
us of CPU of this thread, median over the rounds of what a part adds to a round without it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from time import perf_counter_ns, time_ns
from typing import Any

import redis
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from c2c_otel import distro, request_id, telemetry
from c2c_otel._sdk_private import SPAN_KEY, attach, current
from c2c_otel.instrumentation.redis import Calls
from c2c_otel.pending import Given
from c2c_otel.settings import Settings
from c2c_otel_exporters import names
from tests.benchmarks import compare
from tests.servers.redis_server import Redis
from tests.servers.udp import UdpSink

CALLS = 200
"""In a block."""

Call = Callable[..., Any]


def wrappers() -> dict[str, Callable[[Call], Call]]:
    """What is done around a call -> what makes it be done."""
    process = telemetry.get()
    process.start()
    tracer: Any = process.tracer("bench")
    given = Given({})
    root = tracer.start_root("GET", SpanKind.SERVER, given, 1)
    attach(Context({SPAN_KEY: root, request_id.REQUEST_ID_KEY: "bench"}))
    timer = process.sink.timer(names.redis, "GET", True, "0", "localhost", 6379, None)

    def passed_on(original: Call) -> Call:
        return lambda *args: original(*args)

    def clocks(original: Call) -> Call:
        def call(*args: Any) -> Any:
            time_ns()
            started = perf_counter_ns()
            result = original(*args)
            perf_counter_ns() - started
            return result

        return call

    def context(original: Call) -> Call:
        def call(*args: Any) -> Any:
            now = current()
            attach(Context(now))
            result = original(*args)
            attach(now)
            return result

        return call

    def span(original: Call) -> Call:
        def call(*args: Any) -> Any:
            now = current()
            begun = tracer.start_current("GET", now, SpanKind.CLIENT, given)
            result = original(*args)
            attach(now)
            begun.end()
            return result

        return call

    def measured(original: Call) -> Call:
        def call(*args: Any) -> Any:
            result = original(*args)
            timer.observe_ns(300_000, root, 1)
            return result

        return call

    return {
        "nothing, but a call more": passed_on,
        "three readings of clocks": clocks,
        "a context, attached and taken back": context,
        "a span that is current": span,
        "a measurement": measured,
        "all that the instrumentation does": Calls().commands,
    }


def block(call: Call, client: Any) -> float:
    """us of one call."""
    started = time.thread_time()
    for _ in range(CALLS):
        call(client, "GET", "key")
    return (time.thread_time() - started) / CALLS * 1e6


def added(original: Call, client: Any, made: dict[str, Callable[[Call], Call]], rounds: int) -> dict[str, float]:
    """Part -> us that it adds to a call of `original`."""
    calls = {name: make(original) for name, make in made.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        block(original, client)
        bare = block(original, client)
        for name, call in calls.items():
            block(call, client)
            found[name].append(block(call, client) - bare)
    return {name: statistics.median(values) for name, values in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_cold", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args(arguments)
    with Redis() as server, UdpSink() as sink:
        os.sched_setaffinity(0, {compare.cores()[-1]})
        os.environ["STATSD_ADDRESS"] = sink.address
        distro.instrument(Settings.load(), whole_process=False)
        original: Call = redis.Redis.execute_command.__wrapped__  # type: ignore[attr-defined] # ours stands before it
        client = redis.Redis(port=server.port)
        made = wrappers()
        warm = added(lambda *args: None, client, made, options.rounds)
        cold = added(original, client, made, options.rounds)
        telemetry.get().shutdown()  # while somebody still listens
    print("| us around one call | in a loop | around a GET |\n| --- | ---: | ---: |")
    for name in made:
        print(f"| {name} | {warm[name]:.1f} | {cold[name]:.1f} |")


if __name__ == "__main__":
    main()
