"""What a statsd line costs, and what happens when there are too many: ``python -m tests.benchmarks.bench_statsd``.

100,000 events a second, then as many as the caller can make, which is more than can be sent. A second process reads
from UDP on the loopback interface. Each `send` is timed on the caller's thread; beside it, what two looks at the clock
take, which is what the machine does to a thread that does nothing.

[--rate N] [--seconds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import socket
import time
from array import array
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from c2c_otel_exporters import guard
from c2c_otel_exporters.statsd import Sender, timer_value

HEAD, TAIL = "shop.route.GET.hello.200:", "|ms|#env:production"
RATE = 100_000
MAX_QUEUE = 100_000
"""As a service has it."""

GOAL_CORE = 100.0
"""Per cent of a core, for the caller and the sending thread together."""
GOAL_P99_US = 20.0
"""Of one `send`, whatever is dropped: half of what the plainest request takes."""
GOAL_MIB = 30.0
"""What waits in a full queue may take."""


def read(pipe: Connection) -> None:
    """Count lines until one says stop."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        server.bind(("127.0.0.1", 0))
        pipe.send(server.getsockname()[1])
        lines = packets = 0
        while True:
            packet = server.recv(2000)
            if packet == b"stop":
                break
            packets += 1
            lines += packet.count(b"\n") + 1
        pipe.send((lines, packets))


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def timed(send: Callable[[str], None], rate: int, seconds: float) -> array[int]:
    """Wall nanoseconds of each call. ``rate``: events a second, 0 for as many as there can be."""
    clock, took = time.perf_counter_ns, array("q")
    started = clock()
    for tick in range(int(seconds * 100)):
        end = started + (tick + 1) * 10_000_000
        number = 0
        while number < rate // 100 if rate else clock() < end:
            line = HEAD + timer_value(number / 1e5) + TAIL
            begun = clock()
            send(line)
            took.append(clock() - begun)
            number += 1
        time.sleep(max(0.0, (end - clock()) / 1e9) if rate else 0.0)
    return took


def spread(took: Sequence[int]) -> dict[str, float]:
    """Microseconds."""
    ordered = sorted(took)
    at = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    found = {name: ordered[int(len(ordered) * part)] / 1000 for name, part in at.items()}
    return {**found, "max": ordered[-1] / 1000}


def measure(rate: int, seconds: float) -> dict[str, Any]:
    """One sender, one receiver, so many seconds."""
    guard.reset()
    ours, theirs = multiprocessing.Pipe()
    reader = multiprocessing.get_context("spawn").Process(target=read, args=(theirs,))
    reader.start()
    port = ours.recv()
    sender = Sender("127.0.0.1", port, max_queue=MAX_QUEUE)
    sender.send("warm:1|c")
    sender.flush()
    gc.collect()
    memory, queued, most = resident(), sender.state, 0

    def watch() -> None:
        nonlocal most
        most = max(most, int(str(queued()["queued"])))

    whole, own, started = time.process_time(), time.thread_time(), time.perf_counter()
    took = array("q")
    while time.perf_counter() - started < seconds:
        took += timed(sender.send, rate, 0.1)
        watch()
    lasted = time.perf_counter() - started
    own = time.thread_time() - own
    memory = resident() - memory - len(took) * 8 / 2**20
    sender.flush(10)
    whole = time.process_time() - whole
    sent = int(str(sender.state()["sent"]))
    sender.close(5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"stop", ("127.0.0.1", port))
    lines, packets = ours.recv()
    reader.join()
    return {
        "offered": len(took) + 1,
        "per second": len(took) / lasted,
        "sent": sent,
        "arrived": lines,
        "packets": packets,
        "dropped": guard.tally["dropped.statsd.lines"],
        "most queued": most,
        "MiB": memory,
        "caller us": own / len(took) * 1e6,
        "thread us": (whole - own) / max(sent, 1) * 1e6,
        "core": whole / lasted * 100,
        "send": spread(took),
    }


def send_alone(count: int = 100_000) -> float:
    """us of CPU of `send` while a thread is at it already, without the loop."""
    quiet = Sender("127.0.0.1", 9, max_queue=1 << 30)
    quiet.waiting = False  # no thread is woken
    started = time.thread_time()
    for _ in range(count):
        pass
    loop = time.thread_time() - started
    started = time.thread_time()
    for _ in range(count):
        quiet.send("shop.route.GET.hello.200:1|ms")
    return (time.thread_time() - started - loop) / count * 1e6


def verdict(met: bool) -> str:
    return "met" if met else "NOT MET"


def table(nothing: dict[str, float], found: dict[str, dict[str, Any]]) -> str:
    names = ["offered/s", "sent", "arrived", "dropped", "most queued", "MiB", "% of a core", "caller us", "thread us"]
    times = list(nothing)
    lines = [f"| {' | '.join(['statsd', *names, *(f'send {name} us' for name in times)])} |"]
    lines.append(f"| --- |{' ---: |' * (len(names) + len(times))}")
    lines.append(f"| only the clock |{' |' * len(names)} {' | '.join(f'{nothing[name]:.1f}' for name in times)} |")
    for label, one in found.items():
        cells = [f"{one[name]:,}" for name in ("sent", "arrived", "dropped", "most queued")]
        cells = [f"{one['per second']:,.0f}", *cells, f"{one['MiB']:.1f}", f"{one['core']:.0f}"]
        cells += [f"{one[name]:.2f}" for name in ("caller us", "thread us")]
        cells += [f"{one['send'][name]:.1f}" for name in times]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def goals(rate: int, paced: dict[str, Any], beyond: dict[str, Any]) -> dict[str, bool]:
    kept = paced["arrived"] == paced["sent"] == paced["offered"] and not paced["dropped"]
    return {
        f"{rate:,} events a second all arrive": kept and paced["per second"] > rate * 0.95,
        "on one core": paced["core"] <= GOAL_CORE,
        f"99 of 100 calls take at most {GOAL_P99_US:g} us": paced["send"]["p99"] <= GOAL_P99_US,
        "beyond, lines are dropped": beyond["dropped"] > 0,
        "and each of them is counted": beyond["sent"] + beyond["dropped"] == beyond["offered"],
        f"with {MAX_QUEUE:,} lines in the queue at most": beyond["most queued"] <= MAX_QUEUE + 1,
        f"in at most {GOAL_MIB:g} MiB": beyond["MiB"] <= GOAL_MIB,
        f"and 99 of 100 calls still take at most {GOAL_P99_US:g} us": beyond["send"]["p99"] <= GOAL_P99_US,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_statsd")
    parser.add_argument("--rate", type=int, default=RATE)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)
    nothing = spread(timed(lambda line: None, options.rate, options.seconds / 3))
    found = {
        f"{options.rate:,} a second": measure(options.rate, options.seconds),
        "as many as possible": measure(0, options.seconds),
    }
    judged = goals(options.rate, *found.values())
    alone = send_alone()
    print(table(nothing, found))
    print(f"\n`send` alone: {alone:.2f} us of CPU\n")
    print("\n".join(f"- {goal}: {verdict(met)}" for goal, met in judged.items()))
    if options.json is not None:
        options.json.write_text(json.dumps({"clock": nothing, "send alone": alone, **found, "goals": judged}, indent=1))


if __name__ == "__main__":
    main()
