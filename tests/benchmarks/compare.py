"""Peers in alternation, one at a time on one core; what each adds to its own bare application."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import environments, features
from tests.benchmarks.application import PATHS
from tests.servers.process import wait_until
from tests.servers.redis_server import Redis
from tests.servers.udp import UdpSink

BARE = {
    "contrib": "bare",
    "ours": "bare",
    "ours-include": "bare",
    "ours-include over its includes": "bare-include",
    "4.1.1": "bare-4.1.1",
}
"""Row of the table -> the application it is subtracted from."""

RATIOS = (
    ("ours", "contrib"),
    ("ours", "4.1.1"),
    ("ours-include", "4.1.1"),
    ("ours-include over its includes", "ours"),
)
"""Rows whose ratio is shown."""

MEASURED = ("bare", "contrib", "ours", "bare-include", "ours-include", "bare-4.1.1", "4.1.1")
BLOCK = 50
WARM = 200
"""Requests of each scenario at the worker's start."""
WARM_AGAIN = 10
"""Before each timing."""
CHECKED = 20

_cores = sorted(os.sched_getaffinity(0))

Times = dict[str, dict[str, list[float]]]
"""Peer -> scenario -> us per request, one figure a round."""


def environment() -> dict[str, str]:
    """This process's, without what would change a peer."""
    theirs = ("OTEL_", "C2C_", "STATS", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return {**kept, "PYTHONHASHSEED": "0"}


class Worker:
    """A peer's process, pinned to a core."""

    def __init__(self, peer: str, core: int, redis_port: int, statsd_port: int, prefix: Sequence[str] = ()) -> None:
        self.peer = peer
        self.requests: Counter[str] = Counter(dict.fromkeys(PATHS, WARM))
        argv = [*prefix, environments.python(peer), "-W", "ignore", str(Path(__file__).with_name("worker.py"))]
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "C2C_", "PYTHON"))
        }
        environ["PYTHONHASHSEED"] = "0"
        self._process = subprocess.Popen(
            [*argv, peer, str(redis_port), str(statsd_port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
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
        sink.clear()
        found = self.ask("check", scenario, CHECKED)
        self.requests[scenario] += CHECKED
        try:
            expected = {"4.1.1": features.LINES_PREDECESSOR}.get(self.peer, features.LINES_OURS)[scenario] * CHECKED
            if self.peer in ("4.1.1", "ours", "ours-include"):
                wait_until("statsd lines", lambda: len(sink.lines()) >= expected, 5)
            features.CHECKS[self.peer](scenario, CHECKED, found, sink.lines())
        except Exception as error:
            seen = "\n".join(sorted({line.partition(":")[0] for line in sink.lines()}))
            raise AssertionError(f"{self.peer}, {scenario}: {error}\nstatsd names:\n{seen}") from error
        sink.clear()

    def time(self, scenario: str, blocks: int) -> float:
        """us of CPU per request: the lower quartile of that many blocks."""
        self.requests[scenario] += WARM_AGAIN + blocks * BLOCK
        return statistics.quantiles(self.ask("time", scenario, blocks, BLOCK), n=4)[0]

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


def last_core() -> int:
    """Where the peers run; all else keeps off it."""
    return _cores[-1]


def measure(peers: Sequence[str], scenarios: Sequence[str], rounds: int, blocks: int) -> Times:
    """Check the features of every peer, then time them in alternation, then account for all spans."""
    for peer in peers:
        environments.python(peer)
    core = last_core()
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {core} or {core})  # Redis and the statsd listener
    times: Times = {peer: {scenario: [] for scenario in scenarios} for peer in peers}
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


def added(times: Times, row: str, scenario: str) -> list[float]:
    """us that a row of the table adds to its bare application, round by round."""
    peer = row.partition(" ")[0]
    pairs = zip(times[peer][scenario], times[BARE[row]][scenario], strict=True)
    return [with_ - without for with_, without in pairs]


def ratio(times: Times, row: str, other: str, scenario: str) -> float:
    """What one row adds over what another adds: the median of the rounds' ratios."""
    pairs = zip(added(times, row, scenario), added(times, other, scenario), strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs if theirs > 0)
