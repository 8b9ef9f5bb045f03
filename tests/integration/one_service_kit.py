"""What the tests of the whole service share: its ways of being one, all of its views, and what their answers have."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from tests.integration.worker_kit import GTHREAD
from tests.servers import Answer, Gunicorn, Redis, Sentinel, wait_until
from tests.servers.fixtures import running

__all__ = [
    "APP",
    "FLAGS",
    "FORM",
    "KEY",
    "SECRET",
    "VERSIONS",
    "VIEWS",
    "WAYS",
    "Load",
    "Service",
    "View",
    "another_client",
    "as_error",
    "assert_not_kept",
    "serving",
    "started",
]

APP = "tests.apps.one_service:main()"
SECRET = "Ada's 12 sheep & a goat"
KEY = {"X-API-Key": SECRET}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
VERSIONS = {"main": {"git_hash": "0123abc", "git_tag": "7.1"}, "packages": {"c2c-otel": "1.0"}}
WAYS = ("sockets", "preload", "redis", "sentinel")
FLAGS = {
    "C2C_LOG_VIEW_ENABLED": "1",
    "C2C_DB_MAINTENANCE_VIEW_ENABLED": "true",
    "C2C_SQL_PROFILER_ENABLED": "yes",
    "C2C_DEBUG_VIEW_ENABLED": "on",
}

JSON = "application/json"
HTML = "text/html; charset=UTF-8"

_addresses = itertools.count(1)


class View(NamedTuple):
    """A path, and how it is asked so that it answers with this status and content type."""

    path: str
    query: str = ""
    protected: bool = True
    content_type: str = JSON
    status: int = 200
    methods: tuple[str, ...] = ("GET", "HEAD")
    flag: str = "C2C_DEBUG_VIEW_ENABLED"

    @property
    def url(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


_POST = ("GET", "HEAD", "POST")

VIEWS = (
    View("/c2c", protected=False, content_type=HTML, methods=_POST),
    View("/c2c/", protected=False, content_type=HTML, methods=_POST),
    View("/c2c/versions.json", protected=False),
    View("/c2c/stats.json", protected=False, methods=_POST),
    View("/metrics", protected=False, content_type="text/plain; version=0.0.4; charset=utf-8"),
    View("/c2c/debug/time", protected=False),
    View("/c2c/logging/level", methods=("DELETE", *_POST), flag="C2C_LOG_VIEW_ENABLED"),
    View("/c2c/db/maintenance", methods=_POST, flag="C2C_DB_MAINTENANCE_VIEW_ENABLED"),
    View("/c2c/sql_profiler", methods=_POST, flag="C2C_SQL_PROFILER_ENABLED"),
    View("/c2c/debug/stacks"),
    View("/c2c/debug/memory", "limit=3"),
    View("/c2c/debug/memory_diff", "path=/state&limit=5"),
    View("/c2c/debug/memory_diff/state", "limit=5"),
    View("/c2c/debug/memory_maps"),
    View(
        "/c2c/debug/show_refs.dot",
        "analyze_type=tests.apps.one_service.Planted",
        content_type="text/vnd.graphviz; charset=utf-8",
    ),
    View("/c2c/debug/sleep", "time=0", status=204, content_type=""),
    View("/c2c/debug/headers"),
    View("/c2c/debug/error", "status=503", status=503),
)
"""Every endpoint of the predecessor but health_check and the profiler's, with all the answers that they share."""


@dataclasses.dataclass
class Service:
    """Three workers that are one service in this way."""

    way: str
    gunicorn: Gunicorn
    redis: Redis | None = None
    sentinel: Sentinel | None = None

    def get(self, path: str, headers: Mapping[str, str] = KEY, **more: Any) -> Answer:
        """With the secret, unless the headers say otherwise."""
        return self.gunicorn.get(path, headers, **more)

    def json(self, path: str, status: int = 200) -> Any:
        answer = self.get(path)
        assert answer.status == status, answer
        return json.loads(answer.body)

    def workers(self, logger: str = "one_service") -> dict[int, Any]:
        """Each living worker -> its own ``/state``, whoever has told it. Waits for one that was just born."""
        found: dict[int, Any] = {}
        with ThreadPoolExecutor(4) as pool:

            def asked() -> dict[int, Any] | None:
                for answer in pool.map(self.get, [f"/state?logger={logger}"] * 8):
                    told = json.loads(answer.body)
                    found[told["pid"]] = told
                living = self.gunicorn.worker_pids()
                return {pid: found[pid] for pid in living} if found.keys() >= set(living) else None

            return wait_until("an answer of each worker", asked, 40, self.gunicorn.stderr.read_text)

    def told(self, name: str, logger: str = "one_service") -> list[Any]:
        """This part of each living worker's state: one value where they agree."""
        found: list[Any] = []
        for told in self.workers(logger).values():
            if told[name] not in found:
                found.append(told[name])
        return found

    def replace_worker(self) -> int:
        """Kill one, and wait until the one that takes its place is there; it need not answer yet."""
        old = self.gunicorn.worker_pids()
        self.gunicorn.kill_worker(old[1])
        (new,) = set(self.gunicorn.wait_for_workers(3, without=old[1])) - set(old)
        return new

    def stacks_of(self) -> set[int]:
        """The processes whose threads are shown: cheap to ask, and answered by all."""
        stacks = self.json("/c2c/debug/stacks")
        return {int(name.split("/")[1]) for stack in stacks for name in stack["threads"]}

    def wait_for_all(self) -> None:
        """Until each living worker listens and knows what is stored: all answer, whoever is asked."""

        def all_of_them() -> bool:
            pids = set(self.gunicorn.worker_pids())
            return len(pids) == 3 and all(self.stacks_of() == pids for _ in range(4))

        wait_until("all workers", all_of_them, 40, self.gunicorn.stderr.read_text)


class Load:
    """Requests of the application, all the time, over fresh connections. ``statuses``: of their answers; an exception
    where there was none."""

    def __init__(self, gunicorn: Gunicorn) -> None:
        self._gunicorn = gunicorn
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(2)]
        self.statuses: Counter[object] = Counter()

    def _run(self) -> None:
        while not self._end.wait(0.02):
            try:
                status: object = self._gunicorn.get("/state").status
            except (OSError, HTTPException) as error:
                status = repr(error)
            self.statuses[status] += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(40)


@contextmanager
def serving(way: str, tmp_path: Path, **env: str) -> Iterator[Service]:
    """A Redis or Sentinel of its own, and three workers with these settings, which run in ``tmp_path``."""
    with ExitStack() as stack:
        redis = stack.enter_context(running(Redis())) if way == "redis" else None
        sentinel = stack.enter_context(running(Sentinel())) if way == "sentinel" else None
        yield stack.enter_context(started(way, tmp_path, redis, sentinel, **env))


@contextmanager
def started(way: str, tmp_path: Path, redis: Redis | None, sentinel: Sentinel | None, **env: str) -> Iterator[Service]:
    """As `serving`, with a Redis that is there already."""
    versions = tmp_path / "versions.json"
    versions.write_text(json.dumps(VERSIONS))
    given = {
        "C2C_VERSIONS_FILE": str(versions),
        "C2C_RUNTIME_DIR": str(tmp_path / "run"),
        "OTEL_SERVICE_NAME": "one-service",
        "STATS_VIEW": "1",
        "LOG_TYPE": "json",
        "LOG_LEVEL": "INFO",
    }
    if redis:
        given["C2C_REDIS_URL"] = redis.url
    if sentinel:
        given |= {
            "C2C_REDIS_SENTINELS": f"127.0.0.1:{sentinel.port}",
            "C2C_REDIS_SERVICENAME": sentinel.master_name,
        }
    options = ("--preload",) if way == "preload" else ()
    with Gunicorn(APP, "-w", "3", *GTHREAD, *options, env={**given, **env}) as gunicorn:
        gunicorn.wait_for_workers(3)
        yield Service(way, gunicorn, redis, sentinel)


def another_client() -> dict[str, str]:
    """The header of one who has not tried any secret yet, as a trusted proxy tells it."""
    return {"X-Forwarded-For": f"192.0.2.{next(_addresses) % 250 + 1}"}


def assert_not_kept(answer: Answer) -> None:
    """By nobody, with the headers of the predecessor; and nothing else can be made of it."""
    wanted = {"max-age=0", "must-revalidate", "no-cache", "no-store"}
    assert set(answer.headers["cache-control"].split(", ")) == wanted
    assert answer.headers["pragma"] == "no-cache"
    assert {"expires", "last-modified"} <= answer.headers.keys()
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def as_error(answer: Answer, status: int) -> str:
    """The message of an error of ours."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == JSON
    assert_not_kept(answer)
    body = json.loads(answer.body)
    assert body.keys() == {"message", "status"}
    assert body["status"] == status
    message = body["message"]
    assert isinstance(message, str)
    return message
