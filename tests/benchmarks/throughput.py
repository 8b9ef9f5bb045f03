"""Under load: gunicorn with one worker of 32 threads on one core, wrk with 32 connections on the other.

The peers take turns. After each turn the features of that very server account for what wrk has counted.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import compare, environments, features
from tests.benchmarks.application import PATHS
from tests.benchmarks.figures import BARE, line
from tests.servers.find import Program, find
from tests.servers.process import Process, free_port, wait_until
from tests.servers.redis_server import Redis
from tests.servers.udp import UdpSink

PEERS = ("bare", "ours", "contrib", "bare-4.1.1", "4.1.1")
SCENARIOS = ("json", "redis")
"""SQLite in memory is another database in each thread."""
THREADS = 32
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Load(NamedTuple):
    """What wrk says: requests a second, and milliseconds that half and 99 of 100 requests took at most."""

    per_second: float
    p50: float
    p99: float


Loads = dict[str, dict[str, list[Load]]]
"""Peer -> scenario -> one a round."""


def wrk() -> Program:
    """On PATH, or unpacked from Debian's package. Raises Unavailable."""
    return find("wrk", packages=["wrk"])


def measure(peers: Sequence[str], rounds: int, seconds: int) -> Loads:
    """Raises AssertionError where an answer was no 200, or a feature has not seen all of them."""
    program = wrk()
    for peer in peers:
        environments.python(peer)
    ours, theirs = compare.cores()[0], compare.cores()[-1]
    os.sched_setaffinity(0, {ours})  # wrk, Redis and the statsd listener
    loads: Loads = {peer: {scenario: [] for scenario in SCENARIOS} for peer in peers}
    with Redis() as redis, UdpSink() as sink, tempfile.TemporaryDirectory() as directory:
        for number in range(rounds):
            for peer in peers if number % 2 else reversed(peers):
                with _service(peer, theirs, redis.port, sink, Path(directory)) as url:
                    for scenario in SCENARIOS:
                        loads[peer][scenario].append(_load(program, url, peer, scenario, seconds))
            print(f"\rserver round {number + 1} of {rounds}", end="", file=sys.stderr)
        print(file=sys.stderr)
    return loads


@contextmanager
def _service(peer: str, core: int, redis_port: int, sink: UdpSink, directory: Path) -> Iterator[str]:
    port = free_port()
    argv: list[object] = ["taskset", "-c", core, environments.python(peer), "-W", "ignore", "-m", "gunicorn"]
    argv += [
        "-k",
        "gthread",
        "--threads",
        THREADS,
        "--no-control-socket",
        "-b",
        f"127.0.0.1:{port}",
        "--chdir",
        Path(__file__).parent,
    ]
    log = directory / "log"
    app = f"worker:serve('{peer}', {redis_port}, {sink.port})"
    process = Process([*argv, app], log, env={**compare.environment(), "C2C_RUNTIME_DIR": str(directory)})
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(peer, lambda: urllib.request.urlopen(url + PATHS["json"], timeout=20).read(), 30, log.read_text)
        yield url
    except Exception as error:
        raise AssertionError(f"{peer}: {error}\n{log.read_text()[-3000:]}") from error
    finally:
        process.stop()
        sink.clear()


def _shown(url: str) -> dict[str, float]:
    """Once it no longer changes: the last requests end after their answers have been read, or are not waited for."""
    last = None
    while True:
        found: dict[str, float] = json.loads(urllib.request.urlopen(f"{url}/shown", timeout=20).read())
        if found == last:
            return found
        last = found
        time.sleep(0.2)


def _load(program: Program, url: str, peer: str, scenario: str, seconds: int) -> Load:
    before = _shown(url)
    argv = [program.path, "--latency", "-t", "1", "-c", str(THREADS), "-d", str(seconds), url + PATHS[scenario]]
    said = subprocess.run(argv, env=program.environ(), check=True, capture_output=True, text=True).stdout
    after = _shown(url)
    count, load = read(said)
    features.under_load(peer, scenario, count, THREADS, {key: after[key] - before[key] for key in after})
    return load


def read(said: str) -> tuple[int, Load]:
    """Requests, and what is to be known of them. Raises AssertionError where not all were answered with 200."""
    assert "Non-2xx" not in said and "Socket errors" not in said, said
    numbers = [re.search(pattern, said) for pattern in (r"(\d+) requests in", r"Requests/sec: +([\d.]+)")]
    times = [re.search(rf"{percent}% +([\d.]+)(us|ms|s)", said) for percent in (50, 99)]
    count, per_second = (float(found[1]) for found in numbers if found)
    p50, p99 = (float(found[1]) * _UNITS[found[2]] for found in times if found)
    return int(count), Load(per_second, p50, p99)


def table(loads: Loads) -> str:
    """Markdown: medians over the rounds, and the throughput beside that of the bare application with the same pins."""
    head = [f"{scenario}: {what}" for scenario in SCENARIOS for what in ("requests/s", "of bare", "p50 ms", "p99 ms")]
    lines = [line("gunicorn, 32 threads", head), line("---", ["---:"] * len(head))]
    for peer in loads:
        cells = []
        for scenario in SCENARIOS:
            middle = Load(*(statistics.median(values) for values in zip(*loads[peer][scenario], strict=True)))
            bare = loads[BARE.get(peer, peer)][scenario]
            share = [its.per_second / plain.per_second for its, plain in zip(loads[peer][scenario], bare, strict=True)]
            cells += [f"{middle.per_second:.0f}", f"{statistics.median(share):.2f}"]
            cells += [f"{middle.p50:.1f}", f"{middle.p99:.1f}"]
        lines.append(line(peer, cells))
    return "\n".join(lines)
