"""What exporting traces by OTLP costs a worker, and its requests: ``python -m tests.benchmarks.bench_otlp``.

A process that serves a Pyramid application, called as WSGI on one thread at a steady rate, with the batch processor and
OpenTelemetry's own OTLP exporter over HTTP; a receiver in another process decodes what arrives. Without an exporter,
with all requests sampled, and with a tenth. Encoding and sending happen on the exporter's thread, which holds the GIL
for most of it: what that means for requests is in their wall time.

[--rate N] [--seconds N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.servers.otlp import OtlpReceiver

RATE = 300
SAMPLED = 0.1
SPANS = 5
"""Of a request: its own, the rendering's, and what the view does."""

SAMPLER = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": str(SAMPLED)}
MODES: dict[str, dict[str, str]] = {
    "no exporter": {"OTEL_TRACES_EXPORTER": "none"},
    "all requests exported": {"OTEL_TRACES_EXPORTER": "otlp"},
    "a tenth exported": {"OTEL_TRACES_EXPORTER": "otlp", **SAMPLER},
}

GOAL_SHARE = 2 * SAMPLED
"""A tenth exported costs the exporter's thread at most so much of what all do: a batch has costs of its own."""


# -- the receiver, a process ------------------------------------------------------------------------------------------


def receive(pipe: Connection) -> None:
    """Says where it listens, and how many spans have arrived since it was last asked."""
    with OtlpReceiver() as receiver:
        pipe.send(receiver.url)
        while pipe.recv():
            assert not receiver.errors, receiver.errors
            pipe.send(len(receiver.spans))
            receiver.clear()


@contextmanager
def receiving() -> Iterator[tuple[str, Connection]]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=receive, args=(theirs,))
    process.start()
    try:
        yield ours.recv(), ours
    finally:
        ours.send(False)
        process.join(20)


# -- the worker, a process --------------------------------------------------------------------------------------------


def environ() -> dict[str, Any]:
    from wsgiref.util import setup_testing_defaults

    made = {"PATH_INFO": "/orders/7", "QUERY_STRING": "", "REMOTE_ADDR": "192.0.2.7", "HTTP_USER_AGENT": "bench"}
    setup_testing_defaults(made)
    return made


def application() -> Any:
    from opentelemetry import trace
    from pyramid.config import Configurator

    tracer = trace.get_tracer("shop")

    def order(request: Any) -> dict[str, Any]:
        for number in range(SPANS - 2):
            with tracer.start_as_current_span("look up a part", attributes={"shop.part": number, "shop.order": "7"}):
                pass
        return {"order": request.matchdict["order"], "parts": [1, 2, 3]}

    with Configurator() as config:
        config.add_route("order", "/orders/{order}")
        config.add_view(order, route_name="order", renderer="json")
    return config.make_wsgi_app()


def work(rate: int, seconds: float) -> dict[str, Any]:
    """In the worker: requests at that rate, then what became of them."""
    from c2c_otel import distro, telemetry
    from c2c_otel.settings import Settings
    from c2c_otel_exporters import guard

    distro.instrument(Settings.load(), whole_process=True)
    app = application()
    process = telemetry.get()

    def ask() -> None:
        answer = app(environ(), lambda status, headers, exc_info=None: None)
        assert b"".join(answer)
        answer.close()

    for _ in range(100):
        ask()
    process.tracer_provider.force_flush(10_000)
    gc.collect()
    count = int(rate * seconds)
    walls, cpus, late = [], [], []
    own, whole, started = time.thread_time(), time.process_time(), time.perf_counter()
    for number in range(count):
        due = started + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        cpu, wall = time.thread_time(), time.perf_counter()
        ask()
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.thread_time() - cpu) * 1e6)
        late.append((time.perf_counter() - due) * 1000)
    own = time.thread_time() - own
    process.tracer_provider.force_flush(10_000)  # on this thread, for the exporter's
    whole = time.process_time() - whole
    _, text = process.render("text/plain")
    dropped = {what: number for what, number in guard.tally.items() if number}
    assert not dropped, dropped
    process.shutdown()
    ordered = sorted(late)
    return {
        "requests": count,
        "measured": served(text.decode()) - 100,
        "cpu us": statistics.median(cpus),
        "other threads us": (whole - own) / count * 1e6,
        "p50 ms": statistics.median(walls),
        "p99 ms": sorted(walls)[int(count * 0.99)],
        "p99 ms, waiting included": ordered[int(count * 0.99)],
        "max ms": max(walls),
    }


def served(text: str) -> int:
    """Requests that /metrics counts."""
    found = re.findall(r"^http_server_request_duration_seconds_count\S* (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, found)))


# -- all of them ------------------------------------------------------------------------------------------------------


def measure(mode: str, rate: int, seconds: float, url: str, pipe: Connection) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as runtime:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "C2C_RUNTIME_DIR": runtime, **MODES[mode]}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "C2C_", "STATSD"))}
        command = [sys.executable, "-m", "tests.benchmarks.bench_otlp", "--worker", "--rate", str(rate)]
        done = subprocess.run(
            [*command, "--seconds", str(seconds)],
            env={**kept, **variables, "OTEL_METRICS_EXPORTER": "none"},
            stdout=subprocess.PIPE,
            check=True,
        )
    pipe.send(True)
    return {**json.loads(done.stdout.splitlines()[-1]), "spans": pipe.recv() - _warm(mode)}


def _warm(mode: str) -> float:
    """Spans of the requests before, as far as they can be known: of a tenth, they are a tenth."""
    return {"no exporter": 0, "all requests exported": 100 * SPANS}.get(mode, 100 * SPANS * SAMPLED)


def median(found: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {what: statistics.median(one[what] for one in found) for what in found[0]}


def span_us(found: Mapping[str, Mapping[str, float]], mode: str) -> float:
    """us of CPU of the exporter's thread for each span that arrived."""
    added = found[mode]["other threads us"] - found["no exporter"]["other threads us"]
    return added * found[mode]["requests"] / max(found[mode]["spans"], 1)


def goals(found: Mapping[str, Mapping[str, float]]) -> dict[str, bool]:
    nothing, everything, tenth = (found[mode] for mode in MODES)
    base = nothing["other threads us"]
    share = (tenth["other threads us"] - base) / max(everything["other threads us"] - base, 1e-9)
    expected = everything["requests"] * SPANS
    return {
        "every request is measured, whatever is exported": all(
            one["measured"] == one["requests"] for one in found.values()
        ),
        "all spans of sampled requests arrive": everything["spans"] == expected
        and 0.5 * SAMPLED < tenth["spans"] / expected < 1.5 * SAMPLED,
        f"a tenth costs the exporter's thread {share:.2f} of what all do, at most {GOAL_SHARE:g}": share <= GOAL_SHARE,
    }


def table(found: Mapping[str, Mapping[str, float]], rate: int) -> str:
    columns = ["cpu us", "other threads us", "p50 ms", "p99 ms", "p99 ms, waiting included", "max ms"]
    head = [f"{rate} requests/s", "measured", "spans exported", *columns, "us of CPU per exported span"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for mode, one in found.items():
        cells = [f"{one['measured']:,.0f}", f"{one['spans']:,.0f}"]
        cells += [f"{one[what]:.0f}" if what.endswith("us") else f"{one[what]:.2f}" for what in columns]
        cells.append(f"{span_us(found, mode):.0f}" if one["spans"] else "")
        lines.append(f"| {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_otlp")
    parser.add_argument("--rate", type=int, default=RATE)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        print(json.dumps(work(options.rate, options.seconds)))
        return
    rounds: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    with receiving() as (url, pipe):
        for _ in range(options.rounds):
            for mode, measured in rounds.items():
                measured.append(measure(mode, options.rate, options.seconds, url, pipe))
    found = {mode: median(measured) for mode, measured in rounds.items()}
    judged = goals(found)
    print(f"{table(found, options.rate)}\n")
    print("\n".join(f"- {goal}: {'met' if met else 'NOT MET'}" for goal, met in judged.items()))
    if options.json is not None:
        options.json.write_text(json.dumps({"rounds": rounds, "goals": judged}, indent=1))


if __name__ == "__main__":
    main()
