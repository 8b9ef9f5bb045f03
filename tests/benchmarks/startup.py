"""``python -m tests.benchmarks.startup``: what a start and a worker cost under gunicorn, bare and with the launcher.

Start: from the command to the first answer, and the CPU time of all its processes until then. Memory: of each worker
after some requests; private is what the worker has for itself, pss adds its part of what it shares. With OTLP, an
endpoint is set at which nobody listens: the exporter is imported in each worker, or it is not.

[--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks import compare, environments
from tests.servers.process import free_port
from tests.servers.redis_server import Redis

WORKERS = 2
REQUESTS = 200

GOAL_SECONDS, GOAL_MIB = 0.5, 20.0
"""What ours may add: to the first answer, and to a worker."""

OTLP = "ours, OTLP"
PEERS = ("bare", "ours", OTLP)
WHAT = ("s to the first answer", "CPU s until then", "private MiB a worker", "pss MiB")


def _environment(peer: str) -> str:
    return peer.partition(",")[0]


@contextmanager
def service(peer: str, redis_port: int, preload: bool) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """gunicorn with that peer, in a process group of its own."""
    directory = Path(environments.python(_environment(peer))).parent
    port = free_port()
    launcher = [str(directory / "c2c-otel-instrument")] if peer != "bare" else []
    argv = [*launcher, str(directory / "gunicorn"), "-w", str(WORKERS), "--threads", "4", "-b", f"127.0.0.1:{port}"]
    argv += ["--chdir", str(Path(__file__).parent), *(["--preload"] if preload else [])]
    with tempfile.TemporaryDirectory() as runtime:
        environ = {**compare.environment(), "C2C_RUNTIME_DIR": runtime, "STATSD_ADDRESS": "127.0.0.1:9"}
        environ.pop("OTEL_EXPORTER_OTLP_ENDPOINT", None)
        if peer == OTLP:
            environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
        process = subprocess.Popen(
            [*argv, f"application:served('{redis_port}')"],
            env=environ,
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)


def tree(process: subprocess.Popen[bytes]) -> dict[int, tuple[int, float]]:
    """pid -> parent and CPU seconds, of all processes of its group."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == process.pid:
            found[int(stat.parent.name)] = (
                int(fields[1]),
                (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
            )
    return found


def memory(pid: int) -> tuple[float, float]:
    """Private and proportional MiB of a process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {name: int(kib) / 1024 for name, kib in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    return sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Pss"]


def measure(peer: str, redis_port: int, preload: bool) -> tuple[float, float, float, float]:
    """Seconds to the first answer, CPU seconds until then, and of an average worker private and proportional MiB."""
    environments.python(_environment(peer))
    started = time.perf_counter()
    with service(peer, redis_port, preload) as (process, url):
        while True:
            try:
                urllib.request.urlopen(f"{url}/json", timeout=10).read()
                break
            except OSError:
                assert process.poll() is None, f"{peer} did not start"
                time.sleep(0.005)
        took = time.perf_counter() - started
        cpu = sum(seconds for _, seconds in tree(process).values())
        for number in range(REQUESTS):
            urllib.request.urlopen(f"{url}/{('json', 'redis', 'call')[number % 3]}", timeout=10).read()
        workers = [pid for pid, (parent, _) in tree(process).items() if parent == process.pid]
        assert len(workers) == WORKERS, workers
        private, pss = (statistics.mean(values) for values in zip(*map(memory, workers), strict=True))
    return took, cpu, private, pss


def row(name: str, figures: Sequence[float]) -> str:
    took, cpu, private, pss = figures
    return f"| {name} | {took:.2f} | {cpu:.2f} | {private:.1f} | {pss:.1f} |"


def goals(name: str, added: Sequence[float]) -> dict[str, bool]:
    """``added``: to the bare application, in the order of WHAT."""
    return {
        f"{name}: {added[0]:.2f} s more at the start, at most {GOAL_SECONDS:g}": added[0] <= GOAL_SECONDS,
        f"{name}: {added[2]:.1f} MiB more a worker, at most {GOAL_MIB:g}": added[2] <= GOAL_MIB,
    }


def added(medians: Mapping[str, Sequence[float]], peer: str) -> list[float]:
    return [ours - bare for bare, ours in zip(medians["bare"], medians[peer], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.startup")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    figures: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    judged: dict[str, bool] = {}
    print(f"| gunicorn, {WORKERS} workers | {' | '.join(WHAT)} |\n| --- |{' ---: |' * len(WHAT)}")
    with Redis() as redis:
        for preload in (False, True):
            suffix = ", --preload" if preload else ""
            times: dict[str, list[tuple[float, ...]]] = {peer: [] for peer in PEERS}
            for _ in range(options.rounds):
                for peer, found in times.items():
                    found.append(measure(peer, redis.port, preload))
            figures[f"workers{suffix}"] = times
            medians = {
                peer: [statistics.median(column) for column in zip(*found, strict=True)]
                for peer, found in times.items()
            }
            for peer, values in medians.items():
                print(row(f"{peer}{suffix}", values), flush=True)
            for peer in PEERS[1:]:
                print(row(f"added by {peer}{suffix}", added(medians, peer)), flush=True)
                judged |= goals(f"{peer}{suffix}", added(medians, peer))
    print("\n" + "\n".join(f"- {goal}: {'met' if met else 'NOT MET'}" for goal, met in judged.items()))
    if options.json is not None:
        options.json.write_text(json.dumps({"what": WHAT, **figures, "goals": judged}, indent=1))


if __name__ == "__main__":
    main()
