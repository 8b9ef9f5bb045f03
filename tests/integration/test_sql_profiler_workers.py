"""The profiler's switch reaches all workers of a real gunicorn, and one that is born later."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.integration.worker_kit import GTHREAD, json_lines, pids_of, send
from tests.servers import Gunicorn, OtlpReceiver, Postgres, wait_until

APP = "tests.apps.sql_profiler:main()"
SECRET = "s3cret-of-the-service"
KEY = {"X-API-Key": SECRET}
LOGGER = "c2c_otel.sql_profiler"


def profiler(gunicorn: Gunicorn, query: str = "") -> dict[str, Any]:
    answer = gunicorn.get(f"/c2c/sql_profiler{query}", KEY)
    assert answer.status == 200, answer
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


def explained(gunicorn: Gunicorn) -> dict[int, list[str]]:
    """Worker -> what its profiler has logged."""
    found: dict[int, list[str]] = {}
    for line in json_lines(gunicorn.stdout):
        if line["logger_name"] == LOGGER:
            found.setdefault(line["pid"], []).append(line["msg"])
    return found


def ask_until_all_explain(gunicorn: Gunicorn) -> dict[int, list[str]]:
    """The slow query, until each living worker has told its plan."""

    def done() -> dict[int, list[str]] | None:
        send(gunicorn, range(8), "/slow")
        found = explained(gunicorn)
        return found if set(gunicorn.worker_pids()) <= found.keys() else None

    return wait_until("each worker's plan", done, 60)


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])
@pytest.mark.parametrize("transport", ["sockets", "redis"])
def test_the_switch(
    request: pytest.FixtureRequest,
    postgres: Postgres,
    otlp_receiver: OtlpReceiver,
    preload: tuple[str, ...],
    transport: str,
) -> None:
    env = {
        "APP_SQL": postgres.dsn(driver="psycopg"),
        "C2C_SECRET": SECRET,
        "C2C_SQL_PROFILER_ENABLED": "1",
        "C2C_SQL_PROFILER_MIN_SECONDS": "0.0001",
        "LOG_TYPE": "json",
        "LOG_LEVEL": "INFO",
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_receiver.url,
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    if transport == "redis":
        env["C2C_REDIS_URL"] = request.getfixturevalue("redis_server").url
        env["C2C_BROADCAST_PREFIX"] = f"profiler_{len(preload)}_"
    with Gunicorn(APP, "-w", "3", *GTHREAD, *preload, env=env) as gunicorn:
        gunicorn.wait_for_workers(3)
        wait_until("all workers", lambda: len(pids_of(send(gunicorn, range(8), "/pid"))) >= 1)
        assert profiler(gunicorn) == {"status": 200, "enabled": False}
        send(gunicorn, range(8), "/slow")
        assert explained(gunicorn) == {}

        answer = profiler(gunicorn, "?enable=1&analyze=1&duration=300")
        assert answer.pop("seconds_left") > 290
        assert answer == {"status": 200, "enabled": True, "analyze": True, "min_seconds": 0.0001}
        found = ask_until_all_explain(gunicorn)
        assert len(found) >= 3
        for messages in found.values():
            assert "Nested Loop" in messages[0] and "Execution Time" in messages[0]
        _check_spans(otlp_receiver)

        old = gunicorn.worker_pids()
        gunicorn.kill_worker(old[0], signal.SIGKILL)
        new = (set(gunicorn.wait_for_workers(3, without=old[0])) - set(old)).pop()
        assert new in ask_until_all_explain(gunicorn)

        assert profiler(gunicorn, "?enable=0") == {"status": 200, "enabled": False}
        said = [line["msg"] for line in json_lines(gunicorn.stdout) if line["msg"].startswith("SQL profiler: ")]
        assert [" by " in line and "X-API-Key" in line for line in said] == [True, True]
        assert said[0].startswith("SQL profiler: off -> on (EXPLAIN ANALYZE")
        _stays_silent(gunicorn)
        assert SECRET not in gunicorn.stdout.read_text() + gunicorn.stderr.read_text()


def test_it_ends_by_itself_in_all_workers(postgres: Postgres) -> None:
    env = {
        "APP_SQL": postgres.dsn(driver="psycopg2"),
        "C2C_SECRET": SECRET,
        "C2C_SQL_PROFILER_ENABLED": "1",
        "C2C_SQL_PROFILER_SECONDS": "2",
        "LOG_TYPE": "json",
        "LOG_LEVEL": "INFO",
    }
    with Gunicorn(APP, "-w", "3", *GTHREAD, env=env) as gunicorn:
        gunicorn.wait_for_workers(3)
        assert profiler(gunicorn, "?enable=1")["enabled"] is True
        send(gunicorn, range(4), "/slow")
        wait_until("the first plan", lambda: explained(gunicorn))
        wait_until("the end", lambda: not any(profiler(gunicorn)["enabled"] for _ in range(12)), 30)
        _stays_silent(gunicorn)


def _stays_silent(gunicorn: Gunicorn) -> None:
    """A worker of which nobody has asked the slow query for a minute would explain it again; one that is born now
    would do so at once."""
    old = gunicorn.worker_pids()
    gunicorn.kill_worker(old[0], signal.SIGKILL)
    new = (set(gunicorn.wait_for_workers(3, without=old[0])) - set(old)).pop()
    before = explained(gunicorn)
    wait_until("the new worker", lambda: new in pids_of(send(gunicorn, range(8), "/slow")), 60)
    assert explained(gunicorn) == before


def _check_spans(receiver: OtlpReceiver) -> None:
    """The plan is on the statement's span, which has the statement's own end, and the request's trace."""

    receiver.wait_for(lambda: [span for span in receiver.spans if "db.query.plan" in span["attributes"]])
    for span in [span for span in receiver.spans if "db.query.plan" in span["attributes"]]:
        assert span["name"].startswith("SELECT")
        assert "Nested Loop" in span["attributes"]["db.query.plan"]
        assert span["parent_span_id"]
