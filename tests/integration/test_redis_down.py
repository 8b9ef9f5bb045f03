"""The workers of a real gunicorn, one service over Redis: Redis goes, comes back, moves, and no request notices."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any

import pytest

from tests.integration.worker_kit import GTHREAD
from tests.servers import Gunicorn, Redis, Sentinel, wait_until
from tests.servers.fixtures import running

APP = "tests.apps.broadcast:main()"
KEY = {"X-API-Key": "a secret"}
PRELOADS = pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])


def environ(**more: str) -> dict[str, str]:
    return {"C2C_SECRET": "a secret", "C2C_LOG_VIEW_ENABLED": "1", "C2C_BROADCAST_PREFIX": "down_", **more}


@contextmanager
def served(preload: tuple[str, ...], **where: str) -> Iterator[Gunicorn]:
    with Gunicorn(APP, "-w", "3", *GTHREAD, *preload, env=environ(**where)) as gunicorn:
        gunicorn.wait_for_workers(3)
        yield gunicorn
        gunicorn.stop()
        said = gunicorn.stderr.read_text()
        assert "Traceback" not in said
        assert "c2c-otel failed" not in said
        assert "a secret" not in said


def get(gunicorn: Gunicorn, path: str, status: int = 200) -> dict[str, Any]:
    answer = gunicorn.get(path, KEY)
    assert answer.status == status, answer
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


def wait_for_all(gunicorn: Gunicorn) -> None:
    """Until each living worker listens: two of them have had an answer from all others."""
    askers: set[int] = set()

    def asked() -> bool:
        found = get(gunicorn, "/ask/who?timeout=2")
        if not found["missing"] and sorted(answer["pid"] for answer in found["answers"]) == gunicorn.worker_pids():
            askers.add(found["pid"])
        return len(askers) > 1

    wait_until("all workers to answer", asked, 40, gunicorn.stderr.read_text)


def levels(gunicorn: Gunicorn, name: str, count: int = 12) -> Counter[str]:
    """What the workers that happen to answer say of a logger."""
    path = f"/c2c/logging/level?name={name}"
    return Counter(get(gunicorn, path)["effective_level"] for _ in range(count))


def set_level(gunicorn: Gunicorn, name: str) -> None:
    """In every worker."""
    found = get(gunicorn, f"/c2c/logging/level?name={name}&level=DEBUG")
    assert not {"missing", "failed"} & found.keys(), found
    assert levels(gunicorn, name) == {"DEBUG": 12}, (found, gunicorn.stderr.read_text()[-3000:])


class Load:
    """Requests of the application, all the time, over fresh connections."""

    def __init__(self, gunicorn: Gunicorn) -> None:
        self._gunicorn = gunicorn
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(3)]
        self.statuses: Counter[object] = Counter()
        self.longest = 0.0

    def _run(self) -> None:
        while not self._end.wait(0.01):
            begun = time.monotonic()
            try:
                status: object = self._gunicorn.get("/own").status
            except (OSError, HTTPException) as error:
                status = repr(error)
            self.statuses[status] += 1
            self.longest = max(self.longest, time.monotonic() - begun)

    def some(self) -> None:
        """Until some more were answered."""
        enough = self.statuses[200] + 30
        wait_until("requests", lambda: self.statuses[200] >= enough)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(40)


@PRELOADS
def test_redis_is_killed_and_comes_back_under_load(preload: tuple[str, ...]) -> None:
    with running(Redis()) as redis, served(preload, C2C_REDIS_URL=redis.url) as gunicorn:
        wait_for_all(gunicorn)
        set_level(gunicorn, "test.before")
        with Load(gunicorn) as load:
            load.some()
            redis.kill()
            alone = wait_until("the news", lambda: found if (found := get(gunicorn, "/ask/who"))["missing"] else None)
            assert redis.url in alone["missing"]
            assert [answer["pid"] for answer in alone["answers"] if answer] == [alone["pid"]]
            get(gunicorn, "/c2c/logging/level?name=test.during&level=DEBUG", 503)
            assert "DEBUG" not in levels(gunicorn, "test.during")
            assert levels(gunicorn, "test.before") == {"DEBUG": 12}  # what was there stays as it was
            load.some()
            redis.restart()
            wait_for_all(gunicorn)
            load.some()
        assert set(load.statuses) == {200}, load.statuses
        assert load.longest < 10  # no timeout of Redis' is anywhere near: the machine may be busy
        set_level(gunicorn, "test.after")
        gunicorn.kill_worker(gunicorn.worker_pids()[0])
        gunicorn.wait_for_workers(3)
        wait_for_all(gunicorn)
        assert levels(gunicorn, "test.after") == {"DEBUG": 12}  # in the one that was born since, too


@PRELOADS
def test_redis_is_down_at_the_start(preload: tuple[str, ...]) -> None:
    with running(Redis()) as redis:
        redis.kill()
        with served(preload, C2C_REDIS_URL=redis.url) as gunicorn, Load(gunicorn) as load:
            load.some()
            alone = get(gunicorn, "/ask/who")
            assert alone["missing"] == [redis.url]
            assert [answer["pid"] for answer in alone["answers"] if answer] == [alone["pid"]]
            redis.restart()
            wait_for_all(gunicorn)
            set_level(gunicorn, "test.after")
            load.some()
        assert set(load.statuses) == {200}, load.statuses


def test_redis_is_stopped_under_load() -> None:
    """Its connections stay, and nothing comes from them any more."""
    with running(Redis()) as redis, served((), C2C_REDIS_URL=redis.url) as gunicorn, Load(gunicorn) as load:
        wait_for_all(gunicorn)
        redis.signal(signal.SIGSTOP)
        try:
            load.some()
            assert redis.url in get(gunicorn, "/ask/who?timeout=2")["missing"]
            get(gunicorn, "/c2c/logging/level?name=test.during&level=DEBUG", 503)
            load.some()
        finally:
            redis.signal(signal.SIGCONT)
        wait_for_all(gunicorn)
        assert "DEBUG" not in levels(gunicorn, "test.during")  # nobody waited for it any more
        load.some()
    assert set(load.statuses) == {200}, load.statuses


def test_a_failover_under_load() -> None:
    with running(Sentinel()) as sentinel:
        where = {"C2C_REDIS_SENTINELS": f"127.0.0.1:{sentinel.port}", "C2C_REDIS_SERVICENAME": sentinel.master_name}
        with served((), **where) as gunicorn, Load(gunicorn) as load:
            wait_for_all(gunicorn)
            set_level(gunicorn, "test.before")
            load.some()
            sentinel.kill_master()
            get(gunicorn, "/ask/who?timeout=2")  # it answers, whatever it could reach
            sentinel.wait_for_failover()
            wait_for_all(gunicorn)
            load.some()
            assert levels(gunicorn, "test.before") == {"DEBUG": 12}
            set_level(gunicorn, "test.after")
        assert set(load.statuses) == {200}, load.statuses
