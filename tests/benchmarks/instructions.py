"""Instructions for each request, by ``valgrind --tool=callgrind``: what a noisy machine cannot hide.

System calls count for nothing here, nor does waiting; what a thread of the process does beside,
counts, but for the publisher: under valgrind its once a second would be once in a few requests.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import compare, environments
from tests.servers.redis_server import Redis
from tests.servers.udp import UdpSink

Counts = dict[str, dict[str, float]]
"""Peer -> scenario -> thousands of instructions per request."""


def measure(peers: Sequence[str], scenarios: Sequence[str], requests: int) -> Counts:
    """A process for each peer, instrumented only while it answers the requests that are counted."""
    for peer in peers:
        environments.python(peer)
    counts: Counts = {}
    with Redis() as redis, UdpSink() as sink, tempfile.TemporaryDirectory() as directory:
        for peer in peers:
            out = Path(directory, peer)
            command = ["valgrind", "--tool=callgrind", "--quiet", "--instr-atstart=no", f"--callgrind-out-file={out}"]
            worker = compare.Worker(peer, compare.last_core(), redis.port, sink.port, command)
            try:
                worker.ask("quiet")
                counts[peer] = {name: _count(worker, name, requests, out) for name in scenarios}
                print(f"{peer}: {counts[peer]}", flush=True)
            finally:
                worker.stop()
    return counts


def _count(worker: compare.Worker, scenario: str, requests: int, out: Path) -> float:
    worker.ask("time", scenario, 1, compare.BLOCK)
    _control("--instr=on", worker)
    worker.ask("time", scenario, 1, requests)
    before = set(out.parent.iterdir())
    _control("--dump", worker)
    (dump,) = set(out.parent.iterdir()) - before
    _control("--instr=off", worker)  # which forgets what was counted
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    assert found, dump.read_text()[:1000]
    return int(found[1]) / (requests + compare.WARM_AGAIN) / 1000


def _control(what: str, worker: compare.Worker) -> None:
    subprocess.run(
        ["callgrind_control", what, str(worker.pid)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def table(counts: Counts, scenarios: Sequence[str]) -> str:
    """Markdown: thousands of instructions of the bare applications, added by the others, and ratios."""
    lines = ["| 1,000 instructions per request | " + " | ".join(scenarios) + " |"]
    lines.append("| --- |" + " ---: |" * len(scenarios))
    added: Counts = {}
    for peer in counts:
        if peer.startswith("bare"):
            lines.append(_row(peer, [f"{counts[peer][name]:.0f}" for name in scenarios]))
    for row, bare in compare.BARE.items():
        peer = row.partition(" ")[0]
        if peer in counts and bare in counts:
            added[row] = {name: counts[peer][name] - counts[bare][name] for name in scenarios}
            lines.append(_row(f"+ {row}", [f"{added[row][name]:.0f}" for name in scenarios]))
    for row, other in compare.RATIOS:
        if row in added and other in added:
            lines.append(
                _row(f"{row} / {other}", [f"{added[row][name] / added[other][name]:.2f}" for name in scenarios])
            )
    return "\n".join(lines)


def _row(head: str, cells: Sequence[str]) -> str:
    return f"| {head} | " + " | ".join(cells) + " |"
