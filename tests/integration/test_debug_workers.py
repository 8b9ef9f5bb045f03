"""A real gunicorn of three workers, asked for its threads and its memory: one answers for all."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.worker_kit import GTHREAD
from tests.servers import Gunicorn, wait_until

APP = "tests.apps.debugging:main()"
SECRET = "a secret of these tests"
KEY = {"X-API-Key": SECRET}
ENV = {"C2C_SECRET": SECRET, "C2C_DEBUG_VIEW_ENABLED": "1"}


@pytest.fixture(scope="module", params=[(), ("--preload",)], ids=["plain", "preload"])
def gunicorn(request: pytest.FixtureRequest) -> Iterator[Gunicorn]:
    with Gunicorn(APP, "-w", "3", *GTHREAD, *request.param, env=ENV) as server:
        server.wait_for_workers(3)
        wait_until("all workers", lambda: {one["pid"] for one in memory(server)} == set(server.worker_pids()))
        yield server


def ask(gunicorn: Gunicorn, path: str) -> Any:
    answer = gunicorn.get(f"/c2c/debug/{path}", KEY)
    assert answer.status == 200, answer
    return json.loads(answer.body)


def memory(gunicorn: Gunicorn, query: str = "limit=1") -> list[Any]:
    found = ask(gunicorn, f"memory?{query}")
    assert isinstance(found, list)
    return found


def test_the_memory_of_each_worker(gunicorn: Gunicorn) -> None:
    found = memory(gunicorn, "limit=5&analyze_type=tests.apps.debugging.Planted")
    assert sorted(one["pid"] for one in found) == sorted(gunicorn.worker_pids())
    for one in found:
        assert one["hostname"] == socket.gethostname()
        assert len(one["nb_collected"]) == 3 and len(one["most_common_types"]) == 5
        (planted,) = one["tests.apps.debugging.Planted"]["biggest_objects"]
        assert planted["size_kb"] > 97
        assert planted["repr"].startswith("<tests.apps.debugging.Planted object at")


def test_a_thread_that_is_blocked_in_one_worker(gunicorn: Gunicorn) -> None:
    pid = int(gunicorn.get("/block").body)

    def waiting() -> list[Any]:
        return [
            stack
            for stack in ask(gunicorn, "stacks")
            if stack["frames"][-1]["function"] == "wait" and "blocked" in str(stack["threads"])
        ]

    (stack,) = wait_until("the thread", waiting)
    (thread,) = stack["threads"]
    assert thread.startswith(f"{socket.gethostname()}/{pid}/blocked(")
    assert "_gate.wait()" in [frame.get("code") for frame in stack["frames"]]


def test_the_same_stack_of_all_workers_is_one(gunicorn: Gunicorn) -> None:
    shared = max(ask(gunicorn, "stacks"), key=lambda stack: len({name.split("/")[1] for name in stack["threads"]}))
    assert {int(name.split("/")[1]) for name in shared["threads"]} == set(gunicorn.worker_pids())


def test_a_planted_leak(gunicorn: Gunicorn) -> None:
    answer = gunicorn.get("/c2c/debug/memory_diff?path=/leak%3Fcount%3D6", KEY)
    assert answer.headers["x-c2c-subrequest-status"] == "200"
    assert ["tests.apps.debugging.Leak", 12, 6] in json.loads(answer.body)


def test_maps_and_references(gunicorn: Gunicorn) -> None:
    assert {"[heap]", "[stack]"} <= {one["name"] for one in ask(gunicorn, "memory_maps")}
    graph = gunicorn.get("/c2c/debug/show_refs.dot?analyze_type=tests.apps.debugging.Planted&backrefs", KEY)
    assert graph.headers["content-type"].startswith("text/vnd.graphviz")
    assert "'planted'" in graph.body.decode()


def test_a_stopped_worker_is_named_and_the_others_answer(gunicorn: Gunicorn) -> None:
    stopped = max(gunicorn.worker_pids())
    os.kill(stopped, signal.SIGSTOP)
    try:
        answer = gunicorn.get("/c2c/debug/stacks", KEY)
        assert answer.headers["x-c2c-missing"] == f"{socket.gethostname()}/{stopped}"
        pids = {name.split("/")[1] for stack in json.loads(answer.body) for name in stack["threads"]}
        assert pids == set(map(str, gunicorn.worker_pids())) - {str(stopped)}
        if "--preload" not in gunicorn._args:  # it takes as long as an answer may
            answer = gunicorn.get("/c2c/debug/memory?limit=1", KEY)
            assert answer.headers["x-c2c-missing"] == f"{socket.gethostname()}/{stopped}"
            body = json.loads(answer.body)
            assert len(body) == 3 and body.count(None) == 1
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert {one["pid"] for one in memory(gunicorn)} == set(gunicorn.worker_pids())
