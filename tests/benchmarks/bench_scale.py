"""What /metrics, stats.json and a broadcast cost with many workers: ``python -m tests.benchmarks.bench_scale``.

Each worker is a process with a metric file of its own. Whoever scrapes is one more process, forked for each figure, so
that its first scrape knows nothing yet. Milliseconds of CPU time of the thread that scrapes, unless said otherwise.

[--rounds N] [--recycles N] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import gzip
import json
import os
import random
import signal
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import opentelemetry.sdk.metrics  # noqa: F401 - as in a worker, whose first scrape does not import it

from c2c_otel.broadcast.node import Node
from c2c_otel.broadcast.unix import UnixTransport
from c2c_otel_exporters import guard, merge, prometheus, stats_json
from c2c_otel_exporters.model import Exemplar, Kind, Labels, Metric
from c2c_otel_exporters.store import Store

WORKERS = 16
SERIES = 1000
"""Of each worker, a tenth of them histograms."""

FORMATS = {"text": "text/plain", "OpenMetrics": "application/openmetrics-text;version=1.0.0"}
COUNTS = (1, 2, 4, 8, 16, 32, 64)

GOAL_MS = 50.0
GOAL_GROWTH = 1.5
"""A worker more may cost so many times, with 64 workers, what it costs with 16."""
GOAL_MEMORY = 8.0
"""MiB that a thousand recycled workers may add to who scrapes."""
GOAL_FILES = 10
"""Metric files beside those of living workers, after a thousand recycled ones."""


# -- processes --------------------------------------------------------------------------------------------------------

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TIME = Metric("http.server.request.duration", Kind.HISTOGRAM, "s", "Duration of requests.", _BOUNDS)
_COUNTS = tuple(Metric(f"shop.orders.{number}", Kind.COUNTER, "", "Orders.") for number in range(9))


def fill(store: Store, seed: int, timers: int = 0) -> None:
    """A worker's series, in the order in which it happens to need them; so many entries of stats.json on top."""
    shuffled = random.Random(seed)
    numbers = list(range(SERIES))
    shuffled.shuffle(numbers)
    for number in numbers:
        kind, route = number % 10, number // 10
        labels: Labels = (("http.request.method", "GET"), ("http.route", f"/orders/{{id}}/parts/{route}"))
        if kind == 9:
            labels = (labels[0], ("http.response.status_code", "200"), labels[1], ("url.scheme", "http"))
            store.histogram(_TIME, labels).observe(shuffled.random(), Exemplar(0.3, time.time(), number + 1, 5))
        else:
            store.counter(_COUNTS[kind], labels).add(shuffled.randrange(1000))
    for number in range(timers):
        store.stat_timer(f"route/GET/order{number}/200").observe(shuffled.random())


def forked(work: Callable[[], Any]) -> Any:
    """What it returns (JSON), from a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with os.fdopen(writing, "w") as file:
                json.dump(work(), file)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(pid, 0)
    assert text, "the process has failed"
    return json.loads(text)


@contextmanager
def workers(count: int, directory: Path, timers: int = 0) -> Iterator[list[int]]:
    """So many processes with filled files, which answer broadcasts if there is a directory for sockets: their pids."""
    pids: list[int] = []
    reading, writing = os.pipe()
    try:
        for number in range(count):
            pid = os.fork()
            if pid == 0:
                try:
                    _worker(number, directory, writing, timers)
                finally:
                    os._exit(0)
            pids.append(pid)
        for _ in range(count):
            assert os.read(reading, 1)
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


def _worker(number: int, directory: Path, ready: int, timers: int) -> None:
    store = Store(directory)
    fill(store, number, timers)
    node = _node(directory)
    os.write(ready, b".")
    while node.joined:
        signal.pause()


def _node(directory: Path) -> Node:
    node = Node()
    node.subscribe("bench", lambda: {"requests": 7})
    node.join(UnixTransport(directory / "sockets"), b"k" * 32)
    return node


# -- what is measured -------------------------------------------------------------------------------------------------


def cpu_ms(work: Callable[[], Any]) -> float:
    started = time.thread_time()
    work()
    return (time.thread_time() - started) * 1000


def scrapes(directory: Path, accept: str, again: int = 7) -> dict[str, list[float]]:
    """In the process that scrapes: its first scrape, and the parts of later ones."""
    store = Store(directory)
    fill(store, -1)
    scraper = merge.Scraper(directory, store)
    body = b""

    def scrape() -> None:
        nonlocal body
        body = prometheus.render(scraper.families(), accept)[1]

    gc.collect()
    found = {"first": [cpu_ms(scrape)], "later": [cpu_ms(scrape) for _ in range(again)]}
    found["of which merging"] = [cpu_ms(scraper.families) for _ in range(again)]
    found["gzip on top"] = [cpu_ms(lambda: gzip.compress(body, 1)) for _ in range(again)]
    assert body.count(b"\n") > SERIES, body[:1000]
    return found


def sixteen(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Format -> what of a scrape -> ms; the processes that scrape take turns."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in FORMATS}
    with tempfile.TemporaryDirectory() as place, workers(WORKERS - 1, Path(place)):
        for _ in range(rounds):
            for name, accept in FORMATS.items():
                one = forked(lambda accept=accept: scrapes(Path(place), accept))
                for what, values in one.items():
                    found[name].setdefault(what, []).append(statistics.median(values))
    return found


class Usage(NamedTuple):
    """``resident``: MiB of the process. ``traced``: MiB that Python has allocated since the first of them."""

    resident: float
    traced: float
    descriptors: int
    files: int
    disk: float
    series: int


def usage(directory: Path, series: int) -> Usage:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    found = [path for path in directory.iterdir() if path.is_file()]
    return Usage(
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        tracemalloc.get_traced_memory()[0] / 2**20,
        len(os.listdir("/proc/self/fd")),
        len(found),
        sum(path.stat().st_blocks for path in found) * 512 / 2**20,
        series,
    )


def recycled(directory: Path, recycles: int) -> dict[str, Any]:
    """In the process that scrapes, while one worker after the other ends and another takes its place.

    It is scraped at every eighth of them, which is more often than a service would be: the longest of these scrapes
    has compacted, too.
    """
    living = [Store(directory) for _ in range(WORKERS)]
    for number, store in enumerate(living):
        fill(store, number)
    scraper = merge.Scraper(directory, living[0])
    accept = FORMATS["OpenMetrics"]

    def scrape() -> int:
        families = scraper.families()
        prometheus.render(families, accept)
        return sum(len(family.series) for family in families)

    first = scrape()
    before = [cpu_ms(scrape) for _ in range(9)]
    started = usage(directory, first)
    during = []
    for number in range(recycles):
        victim = 1 + number % (WORKERS - 1)
        living[victim].close()
        living[victim] = Store(directory)
        fill(living[victim], number)
        if number % 8 == 7:
            during.append(cpu_ms(scrape))
    scrape()
    after = [cpu_ms(scrape) for _ in range(9)]
    newcomer = cpu_ms(lambda: prometheus.render(merge.Scraper(directory, living[1]).families(), accept))
    ended = usage(directory, scrape())
    assert not guard.tally, guard.tally
    return {
        "before": before,
        "during": during,
        "after": after,
        "first scrape after": newcomer,
        "start": started._asdict(),
        "end": ended._asdict(),
    }


def traced(directory: Path, recycles: int) -> dict[str, Any]:
    """The same with every allocation traced, which makes it slow: for the figures of memory alone."""
    tracemalloc.start()
    return recycled(directory, recycles)


def many(directory: Path, asked: int = 15) -> dict[str, float]:
    """In a process that is one of many: what it costs to ask for everything."""
    store = Store(directory)
    fill(store, -1, 100)
    scraper = merge.Scraper(directory, store)
    accept = FORMATS["OpenMetrics"]
    gc.collect()
    first = cpu_ms(lambda: prometheus.render(scraper.families(), accept))
    later = [cpu_ms(lambda: prometheus.render(scraper.families(), accept)) for _ in range(7)]
    stats = [cpu_ms(lambda: json.dumps(stats_json.body(scraper.families()))) for _ in range(7)]
    node = _node(directory)
    walls, own, threads = [], [], []
    others = len(node.transport.members()) if node.transport is not None else 0
    for _ in range(asked):
        wall, cpu, whole = time.perf_counter(), time.thread_time(), time.process_time()
        answers = node.broadcast("bench", {}, True, 30)
        walls.append((time.perf_counter() - wall) * 1000)
        own.append((time.thread_time() - cpu) * 1000)
        threads.append((time.process_time() - whole) * 1000)
        assert answers is not None and len(answers) == others + 1 and not answers.missing, answers
    node.leave()
    return {
        "first scrape": first,
        "later scrape": statistics.median(later),
        "stats.json": statistics.median(stats),
        "broadcast, asking thread": statistics.median(own),
        "broadcast, asking process": statistics.median(threads),
        "broadcast, ms until answered": statistics.median(walls),
        "longest ms": max(walls),
    }


def growing(rounds: int) -> dict[int, dict[str, float]]:
    """Number of workers, who asks included -> what -> ms."""
    found = {}
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as place, workers(count - 1, Path(place), 100):
            measured = [forked(lambda: many(Path(place))) for _ in range(rounds)]
        found[count] = {what: statistics.median(one[what] for one in measured) for what in measured[0]}
    return found


# -- telling ----------------------------------------------------------------------------------------------------------


def verdict(met: bool) -> str:
    return "met" if met else "NOT MET"


def row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def quartiles(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def table_sixteen(found: dict[str, dict[str, list[float]]]) -> str:
    columns = list(next(iter(found.values())))
    lines = [row([f"{WORKERS} workers, {SERIES:,} series each, ms of CPU", *columns, f"goal {GOAL_MS:g}"])]
    lines.append(row(["---", *["---:"] * len(columns), "---"]))
    for name, figures in found.items():
        met = {what: statistics.median(figures[what]) <= GOAL_MS for what in ("first", "later")}
        judged = ", ".join(f"{what}: {verdict(value)}" for what, value in met.items())
        lines.append(row([name, *(quartiles(figures[what]) for what in columns), judged]))
    return "\n".join(lines)


def table_recycled(found: dict[str, Any], memory: dict[str, Any], recycles: int) -> str:
    start, end = Usage(**found["start"]), Usage(**found["end"])
    allocated = memory["end"]["traced"] - memory["start"]["traced"]
    longest = max(found["during"])
    before, after = statistics.median(found["before"]), statistics.median(found["after"])
    lines = [
        row([f"{recycles:,} recycled workers", "before", "after", "goal", ""]),
        row(["---", "---:", "---:", "---", "---"]),
    ]
    lines += [
        row(["a scrape, ms of CPU", f"{before:.1f}", f"{after:.1f}", f"{GOAL_MS:g}", verdict(after <= GOAL_MS)]),
        row(["the first of a new worker", "", f"{found['first scrape after']:.1f}", f"{GOAL_MS:g}",
             verdict(found["first scrape after"] <= GOAL_MS)]),
        row(["meanwhile, compacting each time: median, longest", "",
             f"{statistics.median(found['during']):.1f}, {longest:.1f}", "", ""]),
        row(["Python's allocations of who scrapes, MiB", "", f"+{allocated:.2f}", f"+{GOAL_MEMORY:g}",
             verdict(allocated <= GOAL_MEMORY)]),
        row(["its descriptors", start.descriptors, end.descriptors, "", ""]),
        row(["files", start.files, end.files, f"+{GOAL_FILES}", verdict(end.files <= start.files + GOAL_FILES)]),
        row(["MiB they take on disk", f"{start.disk:.1f}", f"{end.disk:.1f}", "", ""]),
        row(["series shown", start.series, end.series, "", verdict(end.series == start.series)]),
    ]  # fmt: skip
    return "\n".join(lines)


def table_growing(found: dict[int, dict[str, float]]) -> str:
    columns = list(next(iter(found.values())))
    lines = [row(["workers", *columns]), row(["---:"] * (len(columns) + 1))]
    lines += [row([count, *(f"{figures[what]:.1f}" for what in columns)]) for count, figures in found.items()]
    judged = []
    for what in columns[:-1]:
        value = found[64][what] / 64 / (found[16][what] / 16)
        judged.append(
            f"- {what}: of 64 workers each costs {value:.2f} of what each of 16 does: {verdict(value <= GOAL_GROWTH)}"
        )
    return "\n".join([*lines, "", *judged])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_scale")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--recycles", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args(arguments)
    figures: dict[str, Any] = {"sixteen": sixteen(options.rounds)}
    print(f"{table_sixteen(figures['sixteen'])}\n", flush=True)
    with tempfile.TemporaryDirectory() as place:
        figures["recycled"] = forked(lambda: recycled(Path(place), options.recycles))
    with tempfile.TemporaryDirectory() as place:
        figures["memory"] = forked(lambda: traced(Path(place), options.recycles // 4))
    print(f"{table_recycled(figures['recycled'], figures['memory'], options.recycles)}\n", flush=True)
    figures["growing"] = growing(max(1, options.rounds // 2))
    print(table_growing(figures["growing"]))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
