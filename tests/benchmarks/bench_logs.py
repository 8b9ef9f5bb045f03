"""What a log line costs beside the plainest handler with the same fields: ``python -m tests.benchmarks.bench_logs``.

One record goes to each handler, made before the clock starts: a line is what the handler does with it. All write
to ``/dev/null`` or to a UDP socket that nobody reads; ours looks for a secret, as in production. First it is asserted
that they write the same fields.

[--rounds N] [--lines N] [--no-instructions] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import logging
import logging.handlers
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import orjson
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from c2c_otel import current_request
from c2c_otel.pyramid_logging import JsonLogHandler, PyramidCeeSysLogHandler
from c2c_otel_exporters import masking
from c2c_otel_exporters.hostname import host_name

GOAL = 1.2
"""At most so many times the plainest handler, with `json.dumps`."""

SEVERITY = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None)))
HOST = host_name()

PLAIN, PLAIN_ORJSON, OURS, PLAIN_UDP, OURS_UDP = "json.dumps", "orjson.dumps", "ours", "json.dumps, UDP", "ours, CEE"
PAIRS = ((OURS, PLAIN), (PLAIN_ORJSON, PLAIN), (OURS_UDP, PLAIN_UDP))
"""Whose cost is divided by whose; the first pair has the goal."""


class PlainFormatter(logging.Formatter):
    """The same fields in the fewest words: nothing masked, no route but a known one, no client behind a proxy, no
    value that JSON cannot hold, no length that is too much."""

    def __init__(self, dumps: Callable[[dict[str, object]], str]) -> None:
        super().__init__()
        self.dumps = dumps

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "host": HOST,
            "timestamp": record.created,
            "level": SEVERITY[record.levelno],
            "level_name": record.levelname,
            "source_facility": record.name,
            "logger_name": record.name,
            "file": record.pathname,
            "line": record.lineno,
            "function": record.funcName,
            "msg": record.getMessage(),
            "pid": record.process,
            "thread_name": record.threadName,
            "process_name": record.processName,
        }
        current = current_request.get()
        if current is not None:
            environ = current.environ
            fields["client_addr"] = environ["REMOTE_ADDR"]
            fields["method"] = environ["REQUEST_METHOD"]
            fields["matched_route"] = current.route_name
            fields["path"] = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
            fields["request_id"] = current.request_id
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            fields["trace_id"] = format(span.trace_id, "032x")
            fields["span_id"] = format(span.span_id, "016x")
        if record.exc_info:
            fields["full_message"] = self.formatException(record.exc_info)
            fields["full_msg"] = "true"
        for name, value in record.__dict__.items():
            if name not in STANDARD:
                fields[name.lstrip("_")] = value
        return self.dumps(fields)


class PlainSysLogHandler(logging.handlers.SysLogHandler):
    """The standard library's, with the prefix that rsyslog's mmjsonparse wants."""

    ident = ": @cee: "


def plain(handler: logging.Handler, dumps: Callable[[dict[str, object]], str] = json.dumps) -> logging.Handler:
    handler.setFormatter(PlainFormatter(dumps))
    return handler


def orjson_text(fields: dict[str, object]) -> str:
    return orjson.dumps(fields).decode()


def handlers(open_stream: Callable[[], Any], address: tuple[str, int]) -> dict[str, logging.Handler]:
    return {
        PLAIN: plain(logging.StreamHandler(open_stream())),
        PLAIN_ORJSON: plain(logging.StreamHandler(open_stream()), orjson_text),
        OURS: JsonLogHandler(open_stream()),
        PLAIN_UDP: plain(PlainSysLogHandler(address)),
        OURS_UDP: PyramidCeeSysLogHandler(address),
    }


def nowhere() -> IO[str]:
    """A text stream as ``sys.stdout`` is one: UTF-8 over a buffer over a file."""
    return open("/dev/null", "w", encoding="utf-8")  # the process closes it


# -- what is logged ---------------------------------------------------------------------------------------------------

LOGGER = logging.getLogger("shop.views.orders")


def message() -> logging.LogRecord:
    return LOGGER.makeRecord(LOGGER.name, logging.INFO, __file__, 42, "order received", (), None, "view")


def message_and_extra() -> logging.LogRecord:
    args = (7, "Ada")
    extra = {"customer": "Ada", "items": 3}
    return LOGGER.makeRecord(LOGGER.name, 20, __file__, 42, "order %d of %s received", args, None, "view", extra)


def an_exception() -> logging.LogRecord:
    try:
        int("seven")
    except ValueError:
        return LOGGER.makeRecord(LOGGER.name, 40, __file__, 42, "order failed", (), sys.exc_info(), "view")
    raise AssertionError


@contextmanager
def no_request() -> Iterator[None]:
    yield


@contextmanager
def a_traced_request() -> Iterator[None]:
    """As the instrumentor leaves it for a view: the request in the context, its span current."""
    span = TracerProvider(shutdown_on_exit=False).get_tracer("bench").start_span("GET /orders/{id}")
    environ = {
        "REMOTE_ADDR": "192.0.2.7",
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/orders/7",
        "QUERY_STRING": "limit=3",
    }
    current = current_request.CurrentRequest(environ, "af765191-6cd4-3dd8-448e-b211c80319c0", span, time.time_ns())
    current.route_name = "order"
    context = trace.set_span_in_context(span, otel_context.set_value(current_request.KEY, current))
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)


WHERE = {"no request": no_request, "traced request": a_traced_request}
WHAT = {"message": message, "%-message, extra": message_and_extra, "exception": an_exception}
SCENARIOS = {f"{what}, {where}": (WHAT[what], WHERE[where]) for where in WHERE for what in WHAT}


# -- measuring --------------------------------------------------------------------------------------------------------

Costs = dict[str, dict[str, list[float]]]
"""Scenario -> handler -> a cost of a line for each round."""


def check_same_fields(sink: socket.socket) -> None:
    """All handlers write the same values under the same names, for each scenario."""
    streams: list[io.StringIO] = []

    def open_stream() -> io.StringIO:
        streams.append(io.StringIO())
        return streams[-1]

    for name, (make, where) in SCENARIOS.items():
        streams.clear()
        with where():
            record = make()
            for handler in handlers(open_stream, sink.getsockname()).values():
                handler.handle(record)
                handler.close()
        found = [json.loads(stream.getvalue()) for stream in streams]
        found += [json.loads(sink.recv(70_000).partition(b": @cee: ")[2].rstrip(b"\0")) for _ in range(2)]
        assert len(found) == 5 and all(fields == found[0] for fields in found), (name, found)
        assert ("trace_id" in found[0] and "path" in found[0]) is ("traced" in name), found[0]


def lines(handler: logging.Handler, make: Callable[[], logging.LogRecord], count: int) -> float:
    """us of CPU time for each of so many lines."""
    records = [make() for _ in range(count)]
    handle = handler.handle
    started = time.thread_time_ns()
    for record in records:
        handle(record)
    return (time.thread_time_ns() - started) / count / 1000


def measure(found: Mapping[str, logging.Handler], rounds: int, count: int, blocks: int = 8) -> Costs:
    """In alternation; a round's figure is the lower quartile of its blocks."""
    costs: Costs = {name: {handler: [] for handler in found} for name in SCENARIOS}
    for _ in range(rounds):
        for name, (make, where) in SCENARIOS.items():
            taken: dict[str, list[float]] = {handler: [] for handler in found}
            with where():
                for _ in range(blocks):
                    for label, handler in found.items():
                        taken[label].append(lines(handler, make, count))
            for label, values in taken.items():
                costs[name][label].append(sorted(values)[blocks // 4])
    return costs


def count_instructions(rounds: int = 200) -> Costs:
    """Instructions (not thousands) of a line, by callgrind, in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "out")
        command = ["valgrind", "--tool=callgrind", "--quiet", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        command += [sys.executable, "-m", "tests.benchmarks.bench_logs", "--worker"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
            try:
                costs = {
                    name: {label: [_counted(worker, name, label, rounds, out)] for label in _labels()}
                    for name in SCENARIOS
                }
            finally:
                assert worker.stdin is not None
                worker.stdin.close()
    return costs


def _labels() -> tuple[str, ...]:
    return PLAIN, PLAIN_ORJSON, OURS, PLAIN_UDP, OURS_UDP


def _counted(worker: subprocess.Popen[str], scenario: str, label: str, count: int, out: Path) -> float:
    """The records are made while nothing is counted."""
    _tell(worker, [scenario, label, count])
    _control("--instr=on", worker.pid)
    _tell(worker, "go")
    before = set(out.parent.iterdir())
    _control("--dump", worker.pid)
    (dump,) = set(out.parent.iterdir()) - before
    _control("--instr=off", worker.pid)  # which forgets what was counted
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    assert found, dump.read_text()[:1000]
    return int(found[1]) / count


def _tell(worker: subprocess.Popen[str], what: object) -> None:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(f"{json.dumps(what)}\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == "done\n"


def _control(what: str, pid: int) -> None:
    subprocess.run(
        ["callgrind_control", what, str(pid)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def work(found: Mapping[str, logging.Handler]) -> None:
    """The process that callgrind counts: what to log, then ``go``."""
    gc.disable()
    for text in sys.stdin:
        scenario, label, count = json.loads(text)
        make, where = SCENARIOS[scenario]
        handle = found[label].handle
        with where():
            lines(found[label], make, 300)
            records = [make() for _ in range(count)]
            print("done", flush=True)
            assert json.loads(sys.stdin.readline()) == "go"
            for record in records:
                handle(record)
            print("done", flush=True)


# -- telling ----------------------------------------------------------------------------------------------------------


def ratio(costs: Costs, scenario: str, one: str, other: str) -> float:
    """The median over the rounds."""
    pairs = zip(costs[scenario][one], costs[scenario][other], strict=True)
    return statistics.median(first / second for first, second in pairs)


def table(costs: Costs, unit: str, digits: int) -> str:
    """Markdown, a row for each scenario."""
    labels = _labels()
    ratios = [f"{one} / {other}" for one, other in PAIRS]
    rows = [f"| {unit} | " + " | ".join([*labels, *ratios, f"goal {GOAL}"]) + " |"]
    rows.append("| --- |" + " ---: |" * (len(labels) + len(PAIRS)) + " --- |")
    for name in costs:
        cells = [f"{statistics.median(costs[name][label]):,.{digits}f}" for label in labels]
        cells += [f"{ratio(costs, name, *pair):.2f}" for pair in PAIRS]
        cells.append("met" if ratio(costs, name, *PAIRS[0]) <= GOAL else "NOT MET")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_logs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--lines", type=int, default=100, help="lines of a block")
    parser.add_argument("--no-instructions", action="store_true", help="leave out valgrind")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(10)
        masking.protect(["an application's secret, 9 of 10!"])
        found = handlers(nowhere, sink.getsockname())
        if options.worker:
            work(found)
            return
        check_same_fields(sink)
        figures = {"us": measure(found, options.rounds, options.lines)}
    print(table(figures["us"], "us of CPU per line", 1), flush=True)
    if not options.no_instructions:
        figures["instructions"] = count_instructions()
        print(f"\n{table(figures['instructions'], 'instructions per line', 0)}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
