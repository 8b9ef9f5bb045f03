"""The profiler in a real gunicorn of three workers: one page switches all of them, and shows what all have seen."""

from __future__ import annotations

import itertools
import json
import signal
from typing import Any

import pytest

from tests.core.test_profiler_export import check_speedscope
from tests.integration.worker_kit import GTHREAD, json_lines, pids_of, send
from tests.servers import Gunicorn, wait_until

APP = "tests.apps.profiler:main()"
SECRET = "s3cret-of-the-service"
KEY = {"X-API-Key": SECRET}
ENV = {
    "C2C_SECRET": SECRET,
    "C2C_PROFILER_PATH": "/__profiler",
    "C2C_PROFILER_MODULES": "tests.apps.profiler_alpha tests.apps.profiler_beta",
    "LOG_TYPE": "json",
    "LOG_LEVEL": "INFO",
}


def ask(gunicorn: Gunicorn, path: str, status: int = 200) -> bytes:
    answer = gunicorn.get(f"/c2c/profiler{path}", KEY)
    assert answer.status == status, answer
    return answer.body


def state(gunicorn: Gunicorn) -> Any:
    found = json.loads(ask(gunicorn, "/sessions.json"))
    assert found["missing"] == []
    return found


def seen(gunicorn: Gunicorn) -> dict[str, list[dict[str, Any]]]:
    """Worker -> its sessions."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in state(gunicorn)["sessions"]:
        found.setdefault(one["worker"], []).append(one)
    return found


def ask_until_all_have_seen(gunicorn: Gunicorn) -> dict[str, list[dict[str, Any]]]:
    def done() -> dict[str, list[dict[str, Any]]] | None:
        send(gunicorn, range(8), "/busy?ms=20")
        found = seen(gunicorn)
        there = {int(worker.rpartition("/")[2]) for worker in found}
        return found if set(gunicorn.worker_pids()) <= there else None

    return wait_until("a session of each worker", done, 60)


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])
@pytest.mark.parametrize("transport", ["sockets", "redis"])
def test_all_workers(request: pytest.FixtureRequest, preload: tuple[str, ...], transport: str) -> None:
    env = dict(ENV)
    if transport == "redis":
        env["C2C_REDIS_URL"] = request.getfixturevalue("redis_server").url
        env["C2C_BROADCAST_PREFIX"] = f"where_time_goes_{len(preload)}_"
    with Gunicorn(APP, "-w", "3", *GTHREAD, *preload, env=env) as gunicorn:
        gunicorn.wait_for_workers(3)
        wait_until("all workers", lambda: len(state(gunicorn)["workers"]) == 3)
        assert len(pids_of(send(gunicorn, range(8), "/busy?ms=1"))) >= 1
        assert state(gunicorn)["enabled"] is False and seen(gunicorn) == {}

        ask(gunicorn, "?enable=1&duration=300", 303)
        for _ in range(6):
            found = state(gunicorn)
            assert found["enabled"] and all(worker["on"] for worker in found["workers"])
        assert len(ask_until_all_have_seen(gunicorn)) == 3
        _look_at_each(gunicorn)

        old = gunicorn.worker_pids()
        gunicorn.kill_worker(old[0], signal.SIGKILL)
        gunicorn.wait_for_workers(3, without=old[0])
        ask_until_all_have_seen(gunicorn)

        ask(gunicorn, "?enable=0", 303)
        before = len(state(gunicorn)["sessions"])
        send(gunicorn, range(12), "/busy?ms=1")
        assert len(state(gunicorn)["sessions"]) == before

        victim = state(gunicorn)["sessions"][0]["id"]
        ask(gunicorn, f"?delete={victim}", 303)
        assert victim not in [one["id"] for one in state(gunicorn)["sessions"]]
        ask(gunicorn, "?delete=all", 303)
        assert state(gunicorn)["sessions"] == []
        said = [line["msg"] for line in json_lines(gunicorn.stdout) if line["msg"].startswith("Profiler: ")]
        assert [" -> off" in line for line in said] == [False, True]
        assert all("X-API-Key" in line for line in said)


def _look_at_each(gunicorn: Gunicorn) -> None:
    """Whoever has it, whoever is asked."""
    listed = seen(gunicorn)
    for sessions in listed.values():
        one = sessions[0]
        assert (one["route"], one["status"]) == ("busy", 200)
        page = ask(gunicorn, f"/session?id={one['id']}").decode()
        assert one["request_id"] in page and one["worker"] in page
        check_speedscope(json.loads(ask(gunicorn, f"/speedscope?id={one['id']}")))
    together = json.loads(ask(gunicorn, "/speedscope"))
    check_speedscope(together)
    sampled = sum(one["sampled"] for sessions in listed.values() for one in sessions)
    assert together["profiles"][0]["endValue"] == pytest.approx(sampled, abs=0.01)
    text = ask(gunicorn, "/text").decode()
    assert "hot  tests/apps/profiler_alpha.py" in text and "Beta.warm" in text


def test_two_requests_of_one_worker_at_once() -> None:
    with Gunicorn(APP, "-w", "1", "-k", "gthread", "--threads", "4", env=ENV) as gunicorn:
        gunicorn.wait_for_workers(1)
        ask(gunicorn, "?enable=1", 303)
        send(gunicorn, range(12), "/busy?ms=60", threads=4)
        (sessions,) = seen(gunicorn).values()
        assert len(sessions) == 12
        spans = sorted((one["started"], one["started"] + one["seconds"], one["thread"]) for one in sessions)
        overlap = [(a, b) for a, b in itertools.pairwise(spans) if b[0] < a[1] and a[2] != b[2]]
        assert overlap, "no two requests were served at once"
        page = ask(gunicorn, "/session").decode()
        assert "tests.apps.profiler_alpha: " in page and "tests.apps.profiler_beta: " in page
        for one in sessions:
            stacks = json.loads(ask(gunicorn, f"/speedscope?id={one['id']}"))
            assert stacks["shared"]["frames"][0]["name"] == "TracedRouter.__call__"


def test_it_ends_by_itself_in_all_workers() -> None:
    with Gunicorn(APP, "-w", "3", *GTHREAD, env=ENV) as gunicorn:
        gunicorn.wait_for_workers(3)
        ask(gunicorn, "?enable=1&duration=2", 303)
        send(gunicorn, range(4), "/busy?ms=5")
        wait_until("the end", lambda: not any(one["on"] for one in state(gunicorn)["workers"]), 30)
        before = len(state(gunicorn)["sessions"])
        send(gunicorn, range(12), "/busy?ms=1")
        assert len(state(gunicorn)["sessions"]) == before > 0


def test_streams_and_failures() -> None:
    with Gunicorn(APP, "-w", "2", *GTHREAD, env=ENV) as gunicorn:
        gunicorn.wait_for_workers(2)
        ask(gunicorn, "?enable=1", 303)
        assert gunicorn.get("/stream").body == b"partpartpart"
        assert gunicorn.get("/broken").status == 500
        found = {one["path"]: one for one in state(gunicorn)["sessions"]}
        assert found.keys() == {"/stream", "/broken"}
        assert found["/broken"]["error"] == "ValueError"
        text = ask(gunicorn, f"/text?id={found['/stream']['id']}").decode()
        assert "body  tests/apps/profiler.py" in text
