"""Stacks: a thread that is blocked is found, with the line at which it is; nothing is kept of the source."""

from __future__ import annotations

import json
import linecache
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from c2c_otel import broadcast, debug
from c2c_otel.debug import stacks
from tests.servers import wait_until


def wait_for_ever(lock: threading.Lock) -> None:
    with lock:  # here it is blocked
        pass


@contextmanager
def blocked(*names: str) -> Iterator[None]:
    """Threads of these names that wait for a lock."""
    lock = threading.Lock()
    lock.acquire()
    threads = [threading.Thread(target=wait_for_ever, args=(lock,), name=name, daemon=True) for name in names]
    for thread in threads:
        thread.start()
    wait_until("the threads", lambda: all("wait_for_ever" in functions(thread) for thread in threads))
    try:
        yield
    finally:
        lock.release()
        for thread in threads:
            thread.join(10)


def functions(thread: threading.Thread) -> list[str]:
    for stack in stacks.dump_stacks()["stacks"]:
        if f"{thread.name}({thread.ident})" in stack["threads"]:
            return [frame["function"] for frame in stack["frames"]]
    return []


def test_a_blocked_thread_is_found() -> None:
    with blocked("stuck", "stuck too"):
        found = stacks.dump_stacks()["stacks"]
    (stack,) = [one for one in found if one["frames"][-1]["function"] == "wait_for_ever"]
    assert {thread.partition("(")[0] for thread in stack["threads"]} == {"stuck", "stuck too"}
    last = stack["frames"][-1]
    assert last["file"] == __file__
    assert last["code"] == "with lock:  # here it is blocked"
    assert Path(__file__).read_text().splitlines()[last["line"] - 1].strip() == last["code"]
    assert stack["frames"][0]["function"] == "_bootstrap"  # outermost first


def test_the_own_thread_is_there() -> None:
    found = [frame["function"] for stack in stacks.dump_stacks()["stacks"] for frame in stack["frames"]]
    assert "test_the_own_thread_is_there" in found


def test_no_source_is_kept() -> None:
    linecache.clearcache()
    assert any("code" in frame for stack in stacks.dump_stacks()["stacks"] for frame in stack["frames"])
    assert not linecache.cache


@pytest.mark.parametrize("name", ["<string>", "/nowhere/x.py", "/tmp", "/nowhere/\udc80.py"])
def test_code_without_a_source(name: str) -> None:
    scope: dict[str, Any] = {"stacks": stacks}
    exec(compile("def odd():\n    return stacks.dump_stacks()", name, "exec"), scope)
    answer = scope["odd"]()
    (frame,) = [one for stack in answer["stacks"] for one in stack["frames"] if one["function"] == "odd"]
    assert frame == {"file": name.encode("utf-8", "backslashreplace").decode(), "line": 2, "function": "odd"}
    json.dumps(answer).encode()


def test_a_source_that_is_not_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    scope: dict[str, Any] = {"stacks": stacks}
    exec(compile("def odd():\n    return stacks.dump_stacks()", str(path), "exec"), scope)
    for content in (b"# -*- coding: nonsense -*-\n\n", b"\xff\xfe\n\n", b"one line\n", b"\n" * 5_000_000):
        path.write_bytes(content)
        (frame,) = [one for stack in scope["odd"]()["stacks"] for one in stack["frames"] if one["function"] == "odd"]
        assert "code" not in frame
    path.write_bytes(b"\n" + b"x" * 1000)
    (frame,) = [one for stack in scope["odd"]()["stacks"] for one in stack["frames"] if one["function"] == "odd"]
    assert frame["code"] == "x" * 300


def test_a_deep_recursion_is_cut() -> None:
    def recurse(depth: int) -> Any:
        return recurse(depth - 1) if depth else stacks.dump_stacks()

    frames = max((stack["frames"] for stack in recurse(500)["stacks"]), key=len)
    assert len(frames) == 200
    assert frames[-1]["function"] == "dump_stacks"


def test_all_answers_together() -> None:
    frames = [{"file": "a.py", "line": 1, "function": "f", "code": "x"}]
    others = [{"file": "a.py", "line": 2, "function": "f"}]
    answers = [
        {"hostname": "a", "pid": 1, "stacks": [{"frames": others, "threads": ["z(9)"]}]},
        {"hostname": "a", "pid": 2, "stacks": [{"frames": frames, "threads": ["x(1)", "y(2)"]}]},
        {"hostname": "b", "pid": 2, "stacks": [{"frames": frames, "threads": ["x(1)"]}]},
        {"hostname": "c", "pid": 3, "status": 500, "message": "failed"},
    ]
    assert stacks.merged(answers) == [
        {"frames": frames, "threads": ["a/2/x(1)", "a/2/y(2)", "b/2/x(1)"]},
        {"frames": others, "threads": ["a/1/z(9)"]},
    ]


# -- taking part ------------------------------------------------------------------------------------------------------


@pytest.fixture
def unsubscribed(monkeypatch: Any) -> Iterator[list[Any]]:
    """The configurations with which the broadcast was begun."""
    begun: list[Any] = []
    monkeypatch.setattr(broadcast, "init", begun.append)
    for channel in (debug.STACKS, debug.MEMORY):
        broadcast.unsubscribe(channel)
    yield begun
    for channel in (debug.STACKS, debug.MEMORY):
        broadcast.unsubscribe(channel)


@pytest.mark.parametrize("init", [debug.init, debug.init_daemon])
def test_a_daemon_takes_part_where_the_views_are_on(init: Any, unsubscribed: list[Any], monkeypatch: Any) -> None:
    monkeypatch.delenv("C2C_DEBUG_VIEW_ENABLED", raising=False)
    init()
    assert broadcast.broadcast(debug.STACKS, {}, True, 5) == []
    assert unsubscribed == []
    monkeypatch.setenv("C2C_DEBUG_VIEW_ENABLED", "1")
    init()
    assert unsubscribed == [None]
    (answer,) = broadcast.broadcast(debug.STACKS, {}, True, 5) or ()
    assert answer["hostname"] == socket.gethostname() and answer["stacks"]
    (answer,) = broadcast.broadcast(debug.MEMORY, {"limit": 2}, True, 30) or ()
    assert len(answer["most_common_types"]) == 2


def test_a_daemon_with_an_ini_file(unsubscribed: list[Any]) -> None:
    from pyramid.config import Configurator

    config = Configurator(settings={"c2c.debug_view_enabled": "true"})
    debug.init_daemon(config)
    assert unsubscribed == [config]
    assert broadcast.broadcast(debug.STACKS, {}, True, 5)
