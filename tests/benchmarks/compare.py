"""Peers in alternation, one at a time on one core: CPU time of each request."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import environments, features
from tests.benchmarks.application import PATHS
from tests.benchmarks.figures import Figures
from tests.servers.process import wait_until
from tests.servers.redis_server import Redis
from tests.servers.udp import UdpSink

MEASURED = (
    *("bare", "contrib", "ours", "bare-include", "ours-include", "bare-4.1.1", "4.1.1", "bare-6.1.10", "6.1.10"),
    *("ddtrace", "sentry-sdk"),
)
FLOOR = ("bare", "tween", "tween-clocks", "tween-update")
BLOCK = 50
WARM = 200
"""Requests of each scenario at the worker's start."""
WARM_AGAIN = 10
"""Before each timing."""
CHECKED = 20

_cores = sorted(os.sched_getaffinity(0))


def environment() -> dict[str, str]:
    """This process's, without what would change a peer."""
    theirs = ("OTEL_", "C2C_", "STATS", "DD_", "SENTRY_", "PROMETHEUS_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return {**kept, "PYTHONHASHSEED": "0"}


class Worker:
    """A peer's process, pinned to a core."""

    def __init__(
        self,
        peer: str,
        core: int,
        redis_port: int,
        statsd_port: int,
        prefix: Sequence[str] = (),
        environ: Mapping[str, str] = {},
        warm: int = WARM,
    ) -> None:
        self.peer = peer
        self.requests: Counter[str] = Counter(dict.fromkeys(PATHS, warm))
        argv = [*prefix, environments.python(peer), "-W", "ignore", str(Path(__file__).with_name("worker.py"))]
        self._process = subprocess.Popen(
            [*argv, peer, str(redis_port), str(statsd_port), str(warm)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment(), **environ},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        self.pid = self._process.pid
        self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self.peer} ended with {self._process.wait()}"
        return json.loads(line)

    def ask(self, *command: object) -> Any:
        """One command and its answer; see worker.py."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def check(self, scenario: str, sink: UdpSink) -> None:
        """Raises AssertionError if a feature has nothing to show for `CHECKED` requests."""

        def lines() -> list[str]:
            """Those of this peer; what ddtrace sends every ten seconds comes at any time."""
            theirs = self.peer == "ddtrace"
            return [line for line in sink.lines() if line.startswith("runtime.python.") == theirs]

        sink.clear()
        found = self.ask("check", scenario, CHECKED)
        self.requests[scenario] += CHECKED
        try:
            if self.peer in features.LINES:
                expected = features.LINES[self.peer][scenario] * CHECKED
                wait_until("statsd lines", lambda: len(lines()) >= expected, 5)
            elif self.peer == "ddtrace":
                wait_until("its runtime metrics", lambda: bool(lines()), 5)
            features.CHECKS[self.peer](scenario, CHECKED, found, lines())
        except Exception as error:
            seen = "\n".join(sorted({line.partition(":")[0] for line in lines()}))
            raise AssertionError(f"{self.peer}, {scenario}: {error}\nstatsd names:\n{seen}") from error
        sink.clear()

    def time(self, scenario: str, blocks: int) -> float:
        """us of CPU per request: the lower quartile of that many blocks."""
        self.requests[scenario] += WARM_AGAIN + blocks * BLOCK
        found: list[float] = self.ask("time", scenario, blocks, BLOCK)
        return statistics.quantiles(found, n=4)[0]

    def end(self) -> None:
        """Raises AssertionError if a span of its whole life did not reach the exporter."""
        shown = self.ask("end")
        expected = features.spans_of_all(self.peer, self.requests)
        assert expected is None or shown["spans"] == expected, f"{self.peer}: {shown} of {expected} spans exported"
        self._process.wait(20)

    def stop(self) -> None:
        """Whatever has happened."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def cores() -> list[int]:
    """What this process was given; the peers run on the last one, all else keeps off it."""
    return _cores


def measure(peers: Sequence[str], scenarios: Sequence[str], rounds: int, blocks: int) -> Figures:
    """Check the features of every peer, then time them in alternation, then account for all spans.

    us per request, one figure a round.
    """
    for peer in peers:
        environments.python(peer)
    core = _cores[-1]
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {core} or {core})  # Redis and the statsd listener
    times: Figures = {peer: {scenario: [] for scenario in scenarios} for peer in peers}
    workers: list[Worker] = []
    with Redis() as redis, UdpSink() as sink:
        try:
            for peer in peers:
                workers.append(Worker(peer, core, redis.port, sink.port))
            for worker in workers:
                for scenario in scenarios:
                    worker.check(scenario, sink)
            started = time.monotonic()
            for number in range(rounds):
                for scenario in scenarios:
                    for worker in workers if number % 2 else reversed(workers):
                        times[worker.peer][scenario].append(worker.time(scenario, blocks))
                    sink.clear()
                print(f"\rround {number + 1} of {rounds}, {time.monotonic() - started:.0f} s", end="", file=sys.stderr)
            print(file=sys.stderr)
            for worker in workers:
                worker.end()
        finally:
            for worker in workers:
                worker.stop()
    return times
