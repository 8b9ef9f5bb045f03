"""gunicorn as users run it: two workers, with and without a preloaded application, report to a real endpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.apps.sentry import PLANTED, plant
from tests.servers import Gunicorn, Sentry, wait_until

APP = "tests.apps.sentry:main()"
GTHREAD = ("-w", "2", "-k", "gthread", "--threads", "2")
WAYS = [(launcher, preload) for launcher in (True, False) for preload in ((), ("--preload",))]


@contextmanager
def gunicorn(server: Sentry, *args: str, launcher: bool = True, **environ: str) -> Iterator[Gunicorn]:
    environ = {"SENTRY_URL": server.dsn, "C2C_SECRET": plant("secret"), **environ}
    with Gunicorn(APP, *GTHREAD, *args, env=environ, launcher=launcher) as running:
        yield running
    assert server.errors == []


def each_worker(running: Gunicorn) -> dict[int, str]:
    """The threads of each of the two workers, by their pids."""
    found: dict[int, str] = {}

    def both() -> bool:
        pid, _, names = running.get("/threads").body.decode().partition(" ")
        found[int(pid)] = names
        return len(found) == 2

    wait_until("both workers", both)
    return found


@pytest.mark.parametrize(("launcher", "preload"), WAYS)
def test_workers_report_and_arbiters_do_not(sentry_server: Sentry, launcher: bool, preload: tuple[str, ...]) -> None:
    with gunicorn(sentry_server, *preload, launcher=launcher, APP_LOG_AT_START="1") as running:
        names = each_worker(running)
        assert running.arbiter_pid not in names
        # an event of its start has each worker begun with, where it has made the application
        assert all(("sentry-sdk" in found) == (not preload) for found in names.values())
        threads = Path(f"/proc/{running.arbiter_pid}/task")
        if threads.exists():
            assert len(list(threads.iterdir())) == 1
        at_start = 0 if preload else 2
        sent = 12
        for number in range(sent):
            assert running.get(f"/fail?n={number}", {"Cookie": f"a={plant('cookie')}"}).status == 500
        failed = sentry_server.wait_for(sent, lambda event: event.get("transaction") == "fail")
        assert {event["request"]["query_string"] for event in failed} == {f"n={number}" for number in range(sent)}
        assert len({event["tags"]["request_id"] for event in failed}) == sent
        assert all(event["contexts"]["trace"]["trace_id"] for event in failed)
    # also when the workers have ended, and have sent what they had: each once
    assert len(sentry_server.events) == sent + at_start
    assert PLANTED.encode() not in sentry_server.raw


def test_what_a_body_raises_is_the_servers_to_log(sentry_server: Sentry) -> None:
    with gunicorn(sentry_server) as running:
        with pytest.raises(HTTPException):
            running.get("/stream")
        (event,) = sentry_server.wait_for(1)
        assert event["transaction"] == "stream"
        assert event["tags"]["request_id"]
        assert event["contexts"]["trace"]
    assert len(sentry_server.events) == 1


def test_a_worker_that_ends_sends_what_it_has(sentry_server: Sentry) -> None:
    with gunicorn(sentry_server) as running:
        sentry_server.gate.clear()
        assert running.get("/fail").status == 500
        wait_until("the report", lambda: sentry_server.waiting == 1)
        assert running.get("/fail").status == 500
        for pid in running.worker_pids():
            os.kill(pid, 15)
        sentry_server.gate.set()
        sentry_server.wait_for(2)
    assert len(sentry_server.events) == 2


def test_sentry_that_never_answers_holds_nobody(sentry_server: Sentry) -> None:
    sentry_server.gate.clear()
    with gunicorn(sentry_server, SENTRY_CLIENT_TRANSPORT_QUEUE_SIZE="2") as running:
        for _ in range(10):
            assert running.get("/fail").status == 500
        assert sentry_server.events == []
        full = b'place="dropped.sentry.full_queue"'
        wait_until("the other worker's count, published once a second", lambda: full in running.get("/metrics").body)
    sentry_server.gate.set()  # it has ended before, or would have been killed


def test_a_server_that_is_down(sentry_server: Sentry) -> None:
    sentry_server.stop()
    with gunicorn(sentry_server) as running:
        for _ in range(6):
            assert running.get("/fail").status == 500
        said = "c2c-otel dropped sentry.network"
        wait_until("the log", lambda: said in running.stderr.read_text())
        sentry_server.start()
        assert running.get("/fail?up=1").status == 500
        sentry_server.wait_for(1, lambda event: event["request"].get("query_string") == "up=1")
        assert running.stderr.read_text().count(said) <= 2  # once a worker
        assert "Retrying" not in running.stderr.read_text()


def test_the_launcher_alone_reports_what_the_server_logs(sentry_server: Sentry) -> None:
    """An application that does not know of us: what it raises reaches gunicorn, which logs it."""
    with gunicorn(sentry_server, APP_INCLUDE="false") as running:
        assert running.get("/fail?n=1").status == 500
        sentry_server.wait_for(1, lambda event: "ValueError" in str(event.get("exception")))
    assert len(sentry_server.events) == 1
    assert PLANTED.encode() not in sentry_server.raw
