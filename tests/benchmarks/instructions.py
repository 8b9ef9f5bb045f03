"""Instructions for each request, by ``valgrind --tool=callgrind``: what a noisy machine cannot hide.

System calls count for nothing here, nor does waiting; what a thread of the process does beside,
counts, but for the publisher: under valgrind its once a second would be once in a few requests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import compare, environments
from tests.benchmarks.figures import Figures
from tests.servers.find import find
from tests.servers.redis_server import Redis
from tests.servers.udp import UdpSink

WARM = 30
"""Requests of each scenario at the worker's start; as many as a block follow before it is counted."""
AT_A_TIME = 2
"""A neighbour changes how long it takes, not what is counted."""


class Valgrind(NamedTuple):
    """`control` speaks to a running `program`; `environ` tells it where its tools are, if it was unpacked."""

    program: Path
    control: Path
    environ: dict[str, str]


def valgrind() -> Valgrind:
    """On PATH, or unpacked from Debian's package. Raises Unavailable."""
    found = find("valgrind", packages=["valgrind"])
    if found.root is None:
        return Valgrind(found.path, found.path.with_name("vgdb"), {})
    # Debian's `valgrind` is a script that starts what is installed
    (tools,) = {path.parent for path in found.root.glob("usr/lib*/valgrind/callgrind-*-linux")}
    return Valgrind(found.path.with_name("valgrind.bin"), found.path.with_name("vgdb"), {"VALGRIND_LIB": str(tools)})


def measure(peers: Sequence[str], scenarios: Sequence[str], requests: int) -> Figures:
    """Thousands of instructions per request. A process for each peer, instrumented only while it answers."""
    tool = valgrind()
    for peer in peers:
        environments.python(peer)
    with Redis() as redis, UdpSink() as sink, tempfile.TemporaryDirectory() as directory:

        def one(numbered: tuple[int, str]) -> tuple[str, dict[str, list[float]]]:
            number, peer = numbered
            out = Path(directory, peer, "out")
            out.parent.mkdir()
            command = [str(tool.program), "--tool=callgrind", "--quiet", "--instr-atstart=no"]
            command.append(f"--callgrind-out-file={out}")
            core = compare.cores()[number % len(compare.cores())]
            worker = compare.Worker(peer, core, redis.port, sink.port, command, tool.environ, WARM)
            try:
                worker.ask("quiet")
                counts = {name: [_count(tool, worker, name, requests, out)] for name in scenarios}
            finally:
                worker.stop()
            print(f"{peer}: instructions counted", file=sys.stderr)
            return peer, counts

        with ThreadPoolExecutor(AT_A_TIME) as pool:
            found = dict(pool.map(one, reversed(list(enumerate(peers)))))  # the last ones take longest
    return {peer: found[peer] for peer in peers}


def _count(tool: Valgrind, worker: compare.Worker, scenario: str, requests: int, out: Path) -> float:
    _control(tool, worker, "instrumentation", "on")
    worker.ask("time", scenario, 1, compare.BLOCK)  # at the pace of what is counted
    worker.ask("settle")
    _control(tool, worker, "zero")
    worker.ask("time", scenario, 1, requests)
    worker.ask("settle")  # all that these requests have left to threads, and nothing that others have
    before = set(out.parent.iterdir())
    _control(tool, worker, "dump")
    (dump,) = set(out.parent.iterdir()) - before
    _control(tool, worker, "instrumentation", "off")  # which forgets what was counted
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    assert found, dump.read_text()[:1000]
    return int(found[1]) / (requests + compare.WARM_AGAIN) / 1000


def _control(tool: Valgrind, worker: compare.Worker, *command: str) -> None:
    environ = {**os.environ, **tool.environ}
    subprocess.run([str(tool.control), f"--pid={worker.pid}", *command], check=True, capture_output=True, env=environ)
