from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from c2c_otel import shared, shared_files
from c2c_otel.settings import Settings
from c2c_otel.shared_files import FileBackend
from tests import pyramid_kit
from tests.shared_kit import Clock, FakeBroadcast, clock, network, process, settings, state_file

__all__ = ["clock", "network", "process", "settings"]


def entry(value: Any, expires: float | None = None) -> dict[str, Any]:
    return {"value": value, "expires": expires}


@pytest.fixture
def backend(settings: Settings) -> FileBackend:
    return FileBackend(settings)


def test_what_is_written_is_read_by_another_one(settings: Settings, backend: FileBackend) -> None:
    assert backend.read("levels") == {}
    assert backend.write("levels", "a", entry("é\n")) is None
    assert backend.write("levels", "a", entry(2)) == entry("é\n")
    assert backend.write("levels", "b", None) is None
    assert FileBackend(settings).read("levels") == {"a": entry(2)}
    assert backend.read("other") == {}
    assert FileBackend(settings).write("levels", "a", None) == entry(2)
    assert backend.read("levels") == {}


def test_the_files_are_this_users_alone(settings: Settings, backend: FileBackend) -> None:
    before = os.umask(0)
    try:
        backend.write("levels", "a", entry(1))
        backend.count("tries", "a", 60)
    finally:
        os.umask(before)
    directory = state_file(settings, "levels").parent
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == dict.fromkeys(
        ["levels.json", ".levels.json.lock", "tries.count.json", ".tries.count.json.lock"], 0o600
    )
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert json.loads((directory / "levels.json").read_text()) == {"a": entry(1)}


def test_no_descriptor_is_kept(backend: FileBackend) -> None:
    before = os.listdir("/proc/self/fd")
    backend.write("levels", "a", entry(1))
    backend.read("levels")
    backend.count("tries", "a", 60)
    assert os.listdir("/proc/self/fd") == before


def test_names_of_topics_stay_in_the_directory(settings: Settings, backend: FileBackend) -> None:
    backend.write("../../x/é", "a", entry(1))
    assert backend.read("../../x/é") == {"a": entry(1)}
    assert [path.name for path in state_file(settings, "x").parent.glob("*.json")] == ["______x__.json"]


def test_what_has_expired_is_forgotten_with_the_next_change(
    settings: Settings, backend: FileBackend, clock: Clock
) -> None:
    backend.write("levels", "a", entry(1, clock.now + 10))
    clock.now += 10
    assert backend.write("levels", "b", entry(2)) is None
    assert json.loads(state_file(settings, "levels").read_text()) == {"b": entry(2)}


def test_counters(settings: Settings, backend: FileBackend, clock: Clock) -> None:
    assert backend.count("tries", "a", 10, increment=0) == 0
    assert not state_file(settings, "tries.count").exists()
    assert [backend.count("tries", "a", 10) for _ in range(3)] == [1, 2, 3]
    clock.now += 9
    assert backend.count("tries", "b", 10, 5) == 5
    assert FileBackend(settings).count("tries", "a", 10, increment=0) == 3
    clock.now += 1
    assert backend.count("tries", "a", 10, increment=0) == 0
    assert backend.count("tries", "a", 10) == 1
    assert backend.count("tries", "b", 10, increment=0) == 5
    assert backend.read("tries") == {}


# -- files that are not what they should be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"a": {"value": 1, "expires": nul',
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"\0" * 100,
        b"[" * 100_000,
        b"1" * 5000,
        b" " * (shared_files.MAX_FILE_BYTES + 1),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_a_corrupt_file_is_kept_aside_and_counts_as_empty(
    settings: Settings, backend: FileBackend, content: bytes, caplog: Any
) -> None:
    path = state_file(settings, "levels")
    path.write_bytes(content)
    assert backend.read("levels") == {}
    assert backend.read("levels") == {}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.messages[0] and "levels.corrupt" in caplog.messages[0]
    assert path.with_name("levels.corrupt").read_bytes() == content
    assert not path.exists()
    backend.write("levels", "a", entry(1))
    assert backend.read("levels") == {"a": entry(1)}
    path.write_bytes(content)
    assert backend.write("levels", "b", entry(2)) is None
    assert backend.read("levels") == {"b": entry(2)}
    assert len(caplog.records) == 1


def test_a_corrupt_file_in_a_process_that_starts(process: FakeBroadcast, settings: Settings) -> None:
    applied: list[Any] = []
    topic = shared.Topic("levels", lambda entries: applied.append(entries))
    shared.backend()
    state_file(settings, "levels").write_text('{"a": ')
    process.join()
    assert applied == [{}]
    topic.set("b", 1)
    assert applied == [{}, {"b": 1}]


def test_one_entry_of_somebody_elses_making_does_not_hide_the_others(
    process: FakeBroadcast, settings: Settings
) -> None:
    shared.backend()
    stored = {"a": 1, "b": {"value": 2}, "c": entry(3, True), "d": entry(4, float("inf")), "e": entry(5)}
    state_file(settings, "levels").write_text(json.dumps(stored))
    topic = shared.Topic("levels", lambda entries: None)
    assert topic.entries() == {"e": 5}
    assert topic.set("b", 6).before is None
    assert topic.entries() == {"b": 6, "e": 5}


def test_a_good_file_that_came_meanwhile_is_not_put_aside(
    settings: Settings, backend: FileBackend, monkeypatch: Any
) -> None:
    """Somebody else writes between our reading and our putting it aside."""
    path = state_file(settings, "levels")
    path.write_text("{")
    contents = iter([b"{", json.dumps({"a": entry(1)}).encode()])
    monkeypatch.setattr(shared_files, "_content", lambda path: next(contents))
    assert backend.read("levels") == {}
    assert path.exists() and not path.with_name("levels.corrupt").exists()


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,avluexpirsn01.', max_size=60).map(str.encode))
def test_whatever_is_in_a_file_it_is_readable_and_writable(settings: Settings, content: bytes) -> None:
    backend = FileBackend(settings)
    state_file(settings, "any").write_bytes(content)
    state_file(settings, "any.count").write_bytes(content)
    shared.living(backend.read("any"), 0)
    assert backend.count("any", "b", 60) == 1
    backend.write("any", "b", entry(1))
    assert backend.read("any")["b"] == entry(1)


# -- what cannot be done ----------------------------------------------------------------------------------------------


def failing(number: int) -> Callable[..., Any]:
    def fail(*_args: Any, **_more: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "fdopen", "open"])
def test_a_change_that_cannot_be_stored_changes_nothing(
    process: FakeBroadcast, settings: Settings, monkeypatch: Any, call: str, number: int
) -> None:
    applied: list[Any] = []
    topic = shared.Topic("levels", lambda entries: applied.append(entries))
    topic.set("a", 1)
    with monkeypatch.context() as patch:
        patch.setattr(shared_files.os, call, failing(number))
        with pytest.raises(shared.Unavailable, match=os.strerror(number)):
            topic.set("a", 2)
    assert topic.entries() == {"a": 1}
    assert len(applied) == len(process.sent) == 1
    names = {path.name for path in state_file(settings, "levels").parent.iterdir()}
    assert names == {"levels.json", ".levels.json.lock"}


def test_a_disk_that_is_full(process: FakeBroadcast, settings: Settings, monkeypatch: Any) -> None:
    """A real one: /dev/full, which takes an open but no byte."""
    topic = shared.Topic("levels", lambda entries: None)
    topic.set("a", 1)
    real = os.open
    monkeypatch.setattr(
        shared_files.os,
        "open",
        lambda path, *args: real("/dev/full", os.O_WRONLY) if str(path).endswith(".new") else real(path, *args),
    )
    with pytest.raises(shared.Unavailable, match=r"levels\.json cannot be written: No space left on device"):
        topic.set("a", 2)
    monkeypatch.undo()
    pyramid_kit.install(monkeypatch, settings)
    assert topic.entries() == {"a": 1}


def test_a_directory_in_the_place_of_the_file(backend: FileBackend, settings: Settings) -> None:
    state_file(settings, "levels").mkdir()
    with pytest.raises(shared.Unavailable, match="Is a directory"):
        backend.read("levels")
    with pytest.raises(shared.Unavailable, match="Is a directory"):
        backend.write("levels", "a", entry(1))


def test_a_link_in_the_place_of_the_file_is_not_followed(
    backend: FileBackend, settings: Settings, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("{}")
    for name in ("levels.json", ".levels.json.new", ".levels.json.lock"):
        link = state_file(settings, "levels").with_name(name)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(shared.Unavailable):
            backend.write("levels", "a", entry(1))
        link.unlink(missing_ok=True)
    assert target.read_text() == "{}"


def test_a_directory_that_was_removed_is_made_again(backend: FileBackend, settings: Settings) -> None:
    backend.write("levels", "a", entry(1))
    directory = state_file(settings, "levels").parent
    directory.rename(directory.with_name("gone"))
    assert backend.read("levels") == {}
    backend.write("levels", "b", entry(2))
    assert backend.read("levels") == {"b": entry(2)}


def test_a_lock_that_another_process_holds(backend: FileBackend, settings: Settings, clock: Clock) -> None:
    backend.write("levels", "a", entry(1))
    holder = os.open(state_file(settings, "levels").with_name(".levels.json.lock"), os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    before = clock.now
    with pytest.raises(shared.Unavailable, match="locked by another process for 2 seconds"):
        backend.write("levels", "a", entry(2))
    assert 2 <= clock.now - before < 2.1
    assert backend.read("levels") == {"a": entry(1)}
    os.close(holder)
    assert backend.write("levels", "a", entry(2)) == entry(1)


# -- many processes ---------------------------------------------------------------------------------------------------


def forked(*jobs: Callable[[], object]) -> None:
    """Each in a child, all at once."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        barrier.wait(20)
        job()

    children = [context.Process(target=run, args=(job,)) for job in jobs]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * len(jobs)


def test_no_change_of_several_processes_is_lost(process: FakeBroadcast) -> None:
    topic = shared.Topic("levels", lambda entries: None)
    topic.set("first", 0)

    def job(number: int) -> Callable[[], None]:
        def change() -> None:
            for i in range(20):
                topic.set(f"{number}.{i}", i)
                topic.set(f"{number}.gone", i)
                topic.delete(f"{number}.gone")

        return change

    forked(*(job(number) for number in range(4)))
    assert topic.entries() == {"first": 0, **{f"{number}.{i}": i for number in range(4) for i in range(20)}}


def test_no_count_of_several_processes_and_threads_is_lost(backend: FileBackend) -> None:
    def job() -> None:
        threads = [
            threading.Thread(target=lambda: [backend.count("tries", "a", 60) for _ in range(15)]) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    forked(job, job, job)
    assert backend.count("tries", "a", 60, increment=0) == 90


def test_readers_see_an_old_or_a_new_file_never_half_of_one(backend: FileBackend, settings: Settings) -> None:
    values = ["x" * 50_000, "y" * 80_000]
    backend.write("levels", "a", entry(values[0]))

    def write() -> None:
        for i in range(60):
            backend.write("levels", "a", entry(values[i % 2]))

    def read() -> None:
        for _ in range(200):
            assert backend.read("levels")["a"]["value"] in values

    forked(write, read, read)
    assert not state_file(settings, "levels").with_name("levels.corrupt").exists()


def test_a_corrupt_file_found_by_several_loses_no_change(backend: FileBackend, settings: Settings) -> None:
    for round_ in range(5):
        state_file(settings, "levels").write_text("{")
        forked(
            lambda: backend.read("levels"),
            lambda: backend.write("levels", "a", entry(1)),
            lambda: backend.write("levels", "b", entry(2)),
        )
        assert backend.read("levels").keys() == {"a", "b"}, round_


def test_a_lock_that_was_held_at_a_fork_is_let_go_with_the_parents(
    backend: FileBackend, settings: Settings, clock: Clock
) -> None:
    """The child has the descriptor; that must not keep the others out until it ends."""
    context = multiprocessing.get_context("fork")
    go_on = context.Event()
    with backend._locked(state_file(settings, "levels")):
        child = context.Process(target=go_on.wait, args=(30,))
        child.start()
    try:
        assert backend.write("levels", "a", entry(1)) is None
    finally:
        go_on.set()
        child.join(10)


def test_a_forked_child_has_locks_that_nobody_holds_and_no_thread(process: FakeBroadcast) -> None:
    held, go_on = threading.Event(), threading.Event()

    def apply(entries: Any) -> None:
        if threading.current_thread().name == "slow":
            held.set()
            go_on.wait(30)

    topic = shared.Topic("levels", apply)
    slow = threading.Thread(target=topic.refresh, name="slow")
    slow.start()
    assert held.wait(10)
    with shared._choosing:
        forked(lambda: topic.set("a", 1), topic.refresh)
    go_on.set()
    slow.join(10)
    assert topic.entries() == {"a": 1}
