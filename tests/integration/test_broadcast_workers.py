"""The workers of a real gunicorn ask each other: each living one answers exactly once, however it came to live."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.integration.worker_kit import GTHREAD, run_directories
from tests.servers import Gunicorn, wait_until

APP = "tests.apps.broadcast:main()"
PRELOADS = pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])


def get(gunicorn: Gunicorn, path: str) -> dict[str, Any]:
    answer = gunicorn.get(path)
    assert answer.status == 200, answer
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


def who(gunicorn: Gunicorn, path: str = "/ask/who") -> list[int]:
    """The pids of those who answer."""
    found = get(gunicorn, path)
    assert found["missing"] == []
    return sorted(answer["pid"] for answer in found["answers"])


def sockets(gunicorn: Gunicorn) -> list[Path]:
    return [path for run in run_directories(gunicorn) for path in (run / "sockets").iterdir()]


def wait_for_all(gunicorn: Gunicorn, expected: Callable[[], list[int]]) -> list[int]:
    """Until those who answer are the living workers: one that was just forked joins when it has its application."""

    def all_of_them() -> list[int] | None:
        found = who(gunicorn)
        return found if found == expected() else None

    return wait_until("all workers", all_of_them, 30, gunicorn.stderr.read_text)


_SECRET = {"C2C_SECRET": "a secret"}
_OFF = {"OTEL_SDK_DISABLED": "true"}


@pytest.mark.parametrize(
    ("preload", "launcher", "env"),
    [
        ((), True, _SECRET),
        (("--preload",), True, {}),
        (("--preload",), False, {}),
        (("--preload",), True, _OFF),
        ((), False, _OFF),
        (("--preload",), False, {"APP_INIT": "1", **_SECRET}),
    ],
    ids=["launcher", "launcher-preload", "include-preload", "launcher-off-preload", "include-off", "init-preload"],
)
def test_each_worker_answers_once(preload: tuple[str, ...], launcher: bool, env: dict[str, str]) -> None:
    with Gunicorn(APP, "-w", "3", *GTHREAD, *preload, env=env, launcher=launcher) as gunicorn:
        gunicorn.wait_for_workers(3)
        workers = wait_for_all(gunicorn, gunicorn.worker_pids)
        with ThreadPoolExecutor(6) as pool:  # at the same time, each asks the others
            assert list(pool.map(lambda _: who(gunicorn), range(30))) == [workers] * 30
        threads = {answer["thread"] for answer in get(gunicorn, "/ask/who")["answers"]}
        assert threads == {"c2c_broadcast_who"}
        assert sorted(get(gunicorn, "/tell/hello")["answers"]) == [1, 1, 1]
        assert sorted(get(gunicorn, "/tell/again")["answers"]) == [2, 2, 2]
        assert who(gunicorn, "/ask/nobody") == []
        assert {path.name.partition("-")[0] for path in sockets(gunicorn)} == set(map(str, workers))
        held = [os.readlink(path) for path in Path(f"/proc/{gunicorn.arbiter_pid}/fd").iterdir()]
        assert len([path for path in held if path.startswith("socket:")]) <= 1  # that on which it serves
        assert len(list(Path(f"/proc/{gunicorn.arbiter_pid}/task").iterdir())) == 1
        gunicorn.stop()
        assert sockets(gunicorn) == []
        assert "Traceback" not in gunicorn.stderr.read_text()


@PRELOADS
def test_workers_that_come_and_go(preload: tuple[str, ...]) -> None:
    with Gunicorn(APP, "-w", "3", *GTHREAD, *preload) as gunicorn:
        gunicorn.wait_for_workers(3)
        wait_for_all(gunicorn, gunicorn.worker_pids)
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            killed = gunicorn.worker_pids()[0]
            gunicorn.kill_worker(killed, number)
            gunicorn.wait_for_workers(3, without=killed)
            assert killed not in wait_for_all(gunicorn, gunicorn.worker_pids)
        gunicorn.hup()
        wait_for_all(gunicorn, gunicorn.worker_pids)
        assert len(sockets(gunicorn)) == 3


@PRELOADS
def test_an_upgrade_is_one_service(preload: tuple[str, ...]) -> None:
    with Gunicorn(APP, "-w", "3", *GTHREAD, *preload) as gunicorn:
        gunicorn.wait_for_workers(3)
        new = gunicorn.usr2()

        def both() -> list[int]:
            return sorted([*gunicorn.worker_pids(), *gunicorn.worker_pids(new)])

        wait_until("six workers", lambda: len(both()) == 6, 30)
        assert len(wait_for_all(gunicorn, both)) == 6
        gunicorn.finish_upgrade()
        assert len(wait_for_all(gunicorn, gunicorn.worker_pids)) == 3


@PRELOADS
def test_recycling(preload: tuple[str, ...]) -> None:
    """No answer comes twice and none is given up on, while workers serve a few requests each."""
    args = ("-w", "3", *GTHREAD, *preload, "--max-requests", "4")
    with Gunicorn(APP, *args) as gunicorn:
        gunicorn.wait_for_workers(3)
        seen: set[int] = set()
        asked = 0
        while len(seen) < 9:
            try:
                found = get(gunicorn, "/ask/who?timeout=20")
            except (OSError, HTTPException):  # its worker was just leaving
                continue
            asked += 1
            pids = [answer["pid"] for answer in found["answers"]]
            assert found["pid"] in pids
            assert len(set(pids)) == len(pids)
            assert found["missing"] == []
            seen.update(pids)
            assert asked < 500
        assert len(sockets(gunicorn)) <= 6
        assert "no answer within" not in gunicorn.stderr.read_text()


@PRELOADS
def test_a_worker_listens_and_knows_before_its_first_request(preload: tuple[str, ...], tmp_path: Path) -> None:
    """What was stored when it began is what its first request sees, and what is told later it is told."""
    state = tmp_path / "state"
    state.write_text("one")
    with Gunicorn(APP, "-w", "3", *GTHREAD, *preload, env={"APP_STATE": str(state)}) as gunicorn:
        gunicorn.wait_for_workers(3)
        old = wait_for_all(gunicorn, gunicorn.worker_pids)
        state.write_text("two")
        gunicorn.kill_worker(old[0])
        gunicorn.wait_for_workers(3, without=old[0])
        wait_for_all(gunicorn, gunicorn.worker_pids)
        born = {answer["pid"]: answer["joined"] for answer in get(gunicorn, "/ask/born")["answers"]}
        [new] = born.keys() - set(old)
        assert born == {
            pid: [{"pid": pid, "served": 0, "state": "two" if pid == new else "one"}] for pid in [new, *old[1:]]
        }


@PRELOADS
def test_a_stopped_worker_is_named_and_holds_up_nobody(preload: tuple[str, ...]) -> None:
    with Gunicorn(APP, "-w", "3", *GTHREAD, "-t", "600", *preload) as gunicorn:
        gunicorn.wait_for_workers(3)
        workers = wait_for_all(gunicorn, gunicorn.worker_pids)
        stopped = workers[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            found = get(gunicorn, "/ask/who?timeout=0.3")
            assert [name.rpartition("/")[2] for name in found["missing"]] == [str(stopped)]
            assert sorted(answer["pid"] for answer in found["answers"] if answer) == workers[1:]
            assert found["answers"].count(None) == 1
            log = [line for line in gunicorn.stderr.read_text().splitlines() if "no answer within 0.3 s from" in line]
            assert len(log) == 1
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert who(gunicorn) == workers


def test_a_slow_channel_holds_up_no_other() -> None:
    with Gunicorn(APP, "-w", "3", "-k", "gthread", "--threads", "4") as gunicorn, ThreadPoolExecutor(1) as pool:
        gunicorn.wait_for_workers(3)
        workers = wait_for_all(gunicorn, gunicorn.worker_pids)
        slow = pool.submit(get, gunicorn, "/ask/slow?seconds=2&timeout=20")
        began = time.monotonic()
        assert who(gunicorn) == workers
        assert not slow.done(), f"{time.monotonic() - began} s"
        assert [answer["slept"] for answer in slow.result(30)["answers"]] == [2, 2, 2]


def test_a_service_of_several_threads_in_one_process() -> None:
    """One worker: its own callback is the only answer."""
    with Gunicorn(APP, "-w", "1", *GTHREAD) as gunicorn:
        assert who(gunicorn) == gunicorn.worker_pids()


def test_without_a_place_to_meet_each_worker_is_alone_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    env = {"C2C_RUNTIME_DIR": str(tmp_path / "file" / "below")}
    with Gunicorn(APP, "-w", "2", *GTHREAD, env=env) as gunicorn:
        gunicorn.wait_for_workers(2)
        for _ in range(5):
            found = get(gunicorn, "/ask/who")
            assert [answer["pid"] for answer in found["answers"]] == [found["pid"]]
        said = "Broadcasts reach this process alone"
        wait_until("one of each worker", lambda: gunicorn.stderr.read_text().count(said) == 2)


def test_workers_without_the_secret_are_not_listened_to() -> None:
    """Another process of the same account, in the same directory, that does not know the secret."""
    import secrets

    from c2c_otel.broadcast.node import Node
    from c2c_otel.broadcast.unix import UnixTransport

    secret = secrets.token_hex()
    with Gunicorn(APP, "-w", "2", *GTHREAD, env={"C2C_SECRET": secret}) as gunicorn:
        gunicorn.wait_for_workers(2)
        workers = wait_for_all(gunicorn, gunicorn.worker_pids)
        stranger = Node()
        asked: list[str] = []
        stranger.subscribe("tell", lambda **params: asked.append(str(params)))
        [run] = run_directories(gunicorn)
        stranger.join(UnixTransport(run / "sockets"), None)
        try:
            answers = stranger.broadcast("who", {}, True, 20)
            assert answers == [None, None]
            assert [int(name.rpartition("/")[2]) for name in answers.missing] == workers
        finally:
            stranger.leave()
        assert who(gunicorn) == workers
        assert gunicorn.stderr.read_text().count("A broadcast message was refused: it is unsigned") == 2
