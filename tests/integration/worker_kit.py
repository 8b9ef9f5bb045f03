"""What the tests of several workers share: a scrape as a dictionary, a watch over falling totals, many requests."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from tests.servers import Gunicorn, wait_until

__all__ = [
    "APP",
    "GTHREAD",
    "Callee",
    "Sent",
    "Watch",
    "access_log",
    "answering",
    "json_lines",
    "metric_files",
    "parse",
    "pids_of",
    "run_directories",
    "send",
    "series",
    "value",
]

APP = "tests.apps.workers:main()"
GTHREAD = ("-k", "gthread", "--threads", "2")

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')

Scrape = dict[tuple[str, str], float]


def parse(text: str) -> tuple[Scrape, Scrape]:
    """(what may not fall, all other samples) of the Prometheus text format; keyed by name and label text."""
    kinds: dict[str, str] = {}
    growing: Scrape = {}
    others: Scrape = {}
    for line in text.splitlines():
        if line.startswith("#"):
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                kinds[name] = kind
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        name, labels, number = match.groups()
        family = name if name in kinds else re.sub(r"_(bucket|count|sum|total)$", "", name)
        kind = kinds[family]
        target = growing if kind in ("counter", "histogram", "summary") else others
        assert (name, labels or "") not in target, f"twice in one scrape: {line}"
        target[name, labels or ""] = float(number)
    return growing, others


def series(gunicorn: Gunicorn, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """One scrape's samples of this name: sorted label pairs -> value."""
    answer = gunicorn.get("/metrics")
    assert answer.status == 200
    growing, others = parse(answer.body.decode())
    return {
        tuple(sorted(_LABEL.findall(labels))): number
        for (sample, labels), number in (growing | others).items()
        if sample == name
    }


def value(gunicorn: Gunicorn, name: str, **labels: str) -> float:
    """The sum of the samples with at least these labels; 0 where there is none."""
    wanted = set(labels.items())
    return sum(number for found, number in series(gunicorn, name).items() if wanted <= set(found))


class Watch:
    """Scrapes all the time over fresh connections; `falls` says which total was lower than before."""

    def __init__(self, gunicorn: Gunicorn, pause: float = 0.05) -> None:
        self._gunicorn = gunicorn
        self._pause = pause
        self._end = threading.Event()
        self._one = threading.Lock()
        self._last: Scrape = {}
        self.scrapes = 0
        self.refused = 0
        self.falls: list[str] = []
        self.errors: list[str] = []

    def look(self) -> Scrape:
        """Scrape once, not at the same time as the thread: of two that overlap, none is the earlier one."""
        with self._one:
            return self._look()

    def _look(self) -> Scrape:
        answer = self._gunicorn.get("/metrics")
        assert answer.status == 200, answer
        growing, _ = parse(answer.body.decode())
        for key, before in self._last.items():
            if growing.get(key, -1.0) < before:
                self.falls.append(f"{key}: {before} -> {growing.get(key)} in scrape {self.scrapes}")
        self._last = growing
        self.scrapes += 1
        return growing

    def _run(self) -> None:
        while not self._end.wait(self._pause):
            try:
                self.look()
            except (OSError, HTTPException):  # its worker was killed
                self.refused += 1
            except Exception as error:
                self.errors.append(repr(error))
                raise

    def __enter__(self) -> Watch:
        self.look()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.set()
        self._thread.join(40)
        assert not self.errors, self.errors


class Sent(NamedTuple):
    """A request's number and what came back; `answer` is None where the connection broke."""

    number: int
    status: int
    headers: Mapping[str, str]
    answer: Any


def send(
    gunicorn: Gunicorn,
    numbers: Iterable[int],
    path: str,
    *,
    headers: Callable[[int], dict[str, str]] = lambda number: {},
    threads: int = 4,
    seen: Callable[[Sent], None] = lambda sent: None,
) -> list[Sent]:
    """GET ``path.format(number)`` for each number, over fresh connections; ``seen`` is told of each answer."""

    def one(number: int) -> Sent:
        try:
            got = gunicorn.get(path.format(number), headers(number))
            sent = Sent(number, got.status, got.headers, json.loads(got.body) if got.status == 200 else got.body)
        except (OSError, HTTPException):
            sent = Sent(number, 0, {}, None)
        seen(sent)
        return sent

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, numbers))


def pids_of(sent: Iterable[Sent]) -> set[int]:
    """Who has answered."""
    return {one.answer["pid"] for one in sent if one.answer is not None}


def answering(
    gunicorn: Gunicorn, log: Path, path: str = "/metrics", *, count: int | None = None, limit: int = 100
) -> dict[int, list[str]]:
    """Ask over fresh connections until every living worker (or ``count`` of them) has answered: pid -> its answers,
    for a server with `access_log`.

    Several at a time: of workers that all wait, the kernel likes to wake the same one.
    """
    answers: dict[int, list[str]] = {}

    def ask(name: str) -> tuple[str, str]:
        answer = gunicorn.get(path, {"X-Request-ID": name})
        assert answer.status == 200
        return name, answer.body.decode()

    with ThreadPoolExecutor(4) as pool:
        for _ in range(limit):
            bodies = dict(pool.map(ask, [uuid.uuid4().hex for _ in range(4)]))
            for name, pid in wait_until("the access log", lambda names=set(bodies): _who_answered(log, names)):  # type: ignore[misc] # mypy cannot infer a lambda with a default
                answers.setdefault(pid, []).append(bodies[name])
            if len(answers) >= count if count else set(gunicorn.worker_pids()) <= answers.keys():
                return answers
    raise AssertionError(f"only {sorted(answers)} of {gunicorn.worker_pids()} answered {limit} times 4 requests")


def access_log(path: Path) -> tuple[str, ...]:
    """gunicorn's arguments for a log of who answered what."""
    return ("--access-logfile", str(path), "--access-logformat", "%(p)s %({x-request-id}i)s")


def _who_answered(log: Path, names: set[str]) -> list[tuple[str, int]] | None:
    """The pids behind these request ids, once all are there."""
    lines = [line.partition(" ") for line in log.read_text().splitlines()]
    found = [(name, int(pid.strip("<>"))) for pid, _, name in lines if name in names]
    return found if len(found) == len(names) else None


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log; each must be JSON."""
    for line in path.read_text().splitlines():
        found = json.loads(line)
        assert isinstance(found, dict)
        yield found


def run_directories(gunicorn: Gunicorn) -> list[Path]:
    """The runs in the default runtime directory of a test's gunicorn."""
    return sorted(gunicorn.directory.glob("c2c-otel-*/run/*"))


def metric_files(gunicorn: Gunicorn) -> list[str]:
    """What is in the metrics directories of all runs, hidden files too."""
    return sorted(path.name for run in run_directories(gunicorn) for path in (run / "metrics").iterdir())


class Callee:
    """The service that the application calls: keeps the headers of each call by its path."""

    def __init__(self) -> None:
        self.calls: dict[str, list[dict[str, str]]] = defaultdict(list)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Its URL."""
        calls = self.calls

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                calls[self.path].append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(5)
            server.server_close()
