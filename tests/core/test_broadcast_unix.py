"""Unix sockets: several nodes in one process, forked ones, stopped, killed and hostile ones."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from c2c_otel.broadcast import messages, unix_address, unix_listener, unix_round
from c2c_otel.broadcast.messages import MAX_ANSWER_BYTES, MAX_QUESTION_BYTES, Question
from c2c_otel.broadcast.node import Node
from c2c_otel.broadcast.unix import UnixTransport
from c2c_otel_exporters import guard
from tests.servers import wait_until

KEY = messages.key_of("secret")


class Named(Node):
    """A node that shares its process with others."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._name = f"host/{number}"

    @property
    def name(self) -> str:
        return self._name


def stop(pid: int) -> None:
    """SIGSTOP, and wait until it has reached each thread: they may run on for a moment."""
    os.kill(pid, signal.SIGSTOP)
    states = [path / "stat" for path in Path(f"/proc/{pid}/task").iterdir()]
    wait_until("all to stop", lambda: {one.read_text().rpartition(")")[2].split()[0] for one in states} == {"T"})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "sockets"


@pytest.fixture
def nodes(directory: Path) -> Iterator[Callable[..., list[Named]]]:
    """Makes that many nodes that answer ``who`` with their numbers."""
    made: list[Named] = []

    def make(count: int, key: bytes | None = KEY, first: int = 1) -> list[Named]:
        new = [Named(number) for number in range(first, first + count)]
        for number, node in enumerate(new, first):
            node.subscribe("who", lambda number=number: number)
            node.join(UnixTransport(directory), key)
        made.extend(new)
        return new

    yield make
    for node in made:
        node.leave()


@contextmanager
def forked(directory: Path, **callbacks: Callable[..., Any]) -> Iterator[int]:
    """A process with a node of its own, once it listens: its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            node = Node()
            for channel, callback in callbacks.items():
                node.subscribe(channel, callback)
            node.join(UnixTransport(directory), KEY)
            signal.pause()
        finally:
            os._exit(0)
    try:
        wait_until("the child", lambda: any(file.startswith(f"{pid}-") for file in unix_address.members(directory)))
        yield pid
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(pid, 0)


def ask(node: Node, channel: str = "who", timeout: float = 20, **params: Any) -> tuple[list[Any], tuple[str, ...]]:
    """The answers in order, None last; and who is missing."""
    answers = node.broadcast(channel, params, True, timeout)
    assert answers is not None
    return sorted(answers, key=lambda answer: (answer is None, str(answer))), answers.missing


def wait_for_end(pid: int) -> None:
    """Until all of its threads have ended; it stays a zombie."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def own_name(pid: int) -> str:
    return f"{socket.gethostname()}/{pid}"


# -- each answers once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, KEY], ids=["unsigned", "signed"])
def test_everybody_answers_once(nodes: Callable[..., list[Named]], directory: Path, key: bytes | None) -> None:
    three = nodes(3, key)
    for node in three:
        assert ask(node) == ([1, 2, 3], ())
        assert node.broadcast("nobody", {}, True, 20) == []
    assert directory.stat().st_mode & 0o777 == 0o700
    assert three[0].transport is not None
    assert three[0].transport.members() == ("host/2", "host/3")
    three[1].leave()
    assert ask(three[0]) == ([1, 3], ())
    nodes(1, key, first=4)
    assert ask(three[0]) == ([1, 3, 4], ())
    assert sorted(map(unix_address.member, os.listdir(directory))) == ["host/1", "host/3", "host/4"]
    assert not guard.tally


def test_64_members(nodes: Callable[..., list[Named]]) -> None:
    many = nodes(64)
    assert ask(many[5]) == (sorted(range(1, 65), key=str), ())
    results: list[Any] = []
    threads = [threading.Thread(target=lambda node=node: results.append(ask(node))) for node in many[:8]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(sorted(range(1, 65), key=str), ())] * 8
    for node in many[::2]:
        node.leave()
    assert ask(many[1])[0] == sorted(range(2, 65, 2), key=str)


def test_without_answers_it_reaches_everybody_too(nodes: Callable[..., list[Named]]) -> None:
    three, came = nodes(3), threading.Semaphore(0)
    for node in three:
        node.subscribe("tell", lambda size: came.release())
    for size in (1, MAX_QUESTION_BYTES - 1000):
        assert three[0].broadcast("tell", {"size": "x" * size}, False, 20) is None
        for _ in three:
            assert came.acquire(timeout=20)
    assert not came.acquire(timeout=0.02)


def test_large_answers(nodes: Callable[..., list[Named]]) -> None:
    two = nodes(2)
    for node in two:
        node.subscribe("dump", lambda size: "x" * size)
    size = MAX_ANSWER_BYTES - 1000
    assert [len(answer) for answer in two[0].broadcast("dump", {"size": size}, True, 60) or ()] == [size] * 2
    answers, missing = ask(two[0], "dump", size=MAX_ANSWER_BYTES)
    assert [answer["status"] for answer in answers] == [500, 500]
    assert not missing


def test_a_broadcast_inside_of_a_callback_reaches_everybody(nodes: Callable[..., list[Named]]) -> None:
    three = nodes(3)
    for node in three:
        node.subscribe("more", lambda node=node: [node.name, *ask(node)[0]])
    answers, missing = ask(three[0], "more")
    assert answers == [["host/1", 1, 2, 3], ["host/2", 1, 2, 3], ["host/3", 1, 2, 3]]
    assert not missing


def test_a_path_longer_than_an_address_may_be(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120) / "sockets"
    directory.parent.mkdir()
    two = [Named(1), Named(2)]
    for node in two:
        node.subscribe("who", lambda node=node: node.name)
        node.join(UnixTransport(directory), None)
    try:
        assert len(os.fsencode(directory)) > 108
        assert ask(two[0]) == (["host/1", "host/2"], ())
    finally:
        for node in two:
            node.leave()
    assert os.listdir(directory) == []


def test_names_of_files_and_members() -> None:
    for name in ("web-1.example.com/17", "a-b@c/1", "/1", "x" * 64 + "/4194304"):
        file = unix_address.file_name(name)
        assert len(file) <= 91  # /proc/self/fd/N/ before it and a dot still fit
        assert unix_address.member(file) == name
        assert unix_address.file_name(name) != file
    assert unix_address.members(Path("/nowhere")) == []


# -- who does not answer ----------------------------------------------------------------------------------------------


def test_a_stopped_process_is_missing_and_holds_up_nobody(nodes: Callable[..., list[Named]], directory: Path) -> None:
    [one, two] = nodes(2)
    with forked(directory, who=lambda: 9) as pid:
        assert ask(one) == ([1, 2, 9], ())
        stop(pid)
        for timeout in (0.2, 0.05):
            assert ask(one, timeout=timeout) == ([1, 2, None], (own_name(pid),))
        for _ in range(unix_listener._BACKLOG + 10):  # until it can take no connection any more
            two.broadcast("who", {"size": "x"}, False, 0.1)
        assert ask(one, timeout=0.2) == ([1, 2, None], (own_name(pid),))
        os.kill(pid, signal.SIGCONT)
        assert ask(one) == ([1, 2, 9], ())


def test_a_large_question_to_a_stopped_process_does_not_wait(
    nodes: Callable[..., list[Named]], directory: Path
) -> None:
    [one] = nodes(1)
    with forked(directory, tell=lambda size: None) as pid:
        stop(pid)
        assert one.broadcast("tell", {"size": "x" * 900_000}, False, 0.3) is None
        assert "c2c_broadcast_sender" in [thread.name for thread in threading.enumerate()]
        assert ask(one, "tell", 0.2, size="x" * 900_000) == ([None], (own_name(pid),))
        wait_until("the thread's end", lambda: guard.tally["broadcast.untold"] == 1)
        wait_until("it", lambda: "c2c_broadcast_sender" not in [thread.name for thread in threading.enumerate()])


def test_late_questions_are_not_acted_upon(nodes: Callable[..., list[Named]], directory: Path, tmp_path: Path) -> None:
    [one] = nodes(1)
    seen = tmp_path / "seen"

    def write(n: int) -> None:
        with seen.open("a") as file:
            file.write(f"{n} ")

    with forked(directory, write=write) as pid:
        ask(one, "write", n=1)
        stop(pid)
        assert ask(one, "write", 0.1, n=2) == ([None], (own_name(pid),))
        one.broadcast("write", {"n": 3}, False, 0.1)
        time.sleep(0.2)  # until both are late
        os.kill(pid, signal.SIGCONT)
        ask(one, "write", n=4)
        assert seen.read_text() == "1 4 "


def test_a_killed_process_is_forgotten(nodes: Callable[..., list[Named]], directory: Path) -> None:
    [one] = nodes(1)
    with forked(directory, who=lambda: 9) as pid:
        assert ask(one) == ([1, 9], ())
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        assert len(os.listdir(directory)) == 2
        assert ask(one) == ([1], ())
        assert len(os.listdir(directory)) == 1


def test_who_joins_removes_the_sockets_of_the_dead(nodes: Callable[..., list[Named]], directory: Path) -> None:
    [one] = nodes(1)
    with forked(directory) as pid:
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
        nodes(1, first=2)
        assert sorted(map(unix_address.member, os.listdir(directory))) == ["host/1", "host/2"]
        assert ask(one) == ([1, 2], ())


def test_who_dies_of_the_question_is_missing_at_once(nodes: Callable[..., list[Named]], directory: Path) -> None:
    [one] = nodes(1)
    with forked(directory, die=lambda: os.kill(os.getpid(), signal.SIGKILL)) as pid:
        assert ask(one, "die", 100) == ([None], (own_name(pid),))  # pytest would not wait for it
        wait_for_end(pid)
        assert ask(one, "die", 100) == ([], ())


def test_who_leaves_meanwhile_is_not_missing(nodes: Callable[..., list[Named]]) -> None:
    [one, two] = nodes(2)
    begun, go = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go.wait(20)

    two.subscribe("slow", slow)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(ask(one, "slow", 100)))
    thread.start()
    assert begun.wait(20)
    two.leave()
    thread.join(20)
    assert answers == [([], ())]
    go.set()


def test_other_secrets(nodes: Callable[..., list[Named]]) -> None:
    [one] = nodes(1)
    [two] = nodes(1, messages.key_of("other"), 2)
    nodes(1, None, 3)
    assert ask(one, timeout=100) == ([1, None, None], ("host/2", "host/3"))  # at once: both refuse and answer nothing
    assert guard.tally["broadcast.refused.forged"] == 1
    assert guard.tally["broadcast.refused.unsigned"] == 1
    assert ask(two, timeout=100)[0] == [2, None, None]


# -- after a fork -----------------------------------------------------------------------------------------------------


def test_a_forked_child_leaves_its_parents_socket_alone(nodes: Callable[..., list[Named]], directory: Path) -> None:
    [one, two] = nodes(2)
    wait_until("the end of what their joining has opened", lambda: len([*filter(_is_unix, _sockets())]) == 2)
    before = set(Path("/proc/self/fd").iterdir())
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        report: dict[str, Any] = {}
        try:
            for node in (one, two):
                node.after_fork()
            report["sockets"] = [link for link in _sockets() if _is_unix(link)]
            report["threads"] = threading.active_count()
            report["joined"] = one.joined
            report["alone"] = ask(one)[0]
            one._name = "host/child"
            one.subscribe("who", lambda: 3)
            one.join(UnixTransport(directory), KEY)
            report["all"] = ask(one)
            one.leave()
        except BaseException as error:
            report["error"] = repr(error)
        finally:
            os.write(write, json.dumps(report).encode())
            os._exit(0)
    try:
        report = json.loads(os.read(read, 65536))
    finally:
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)
    assert report == {"sockets": [], "threads": 1, "joined": False, "alone": [1], "all": [[1, 2, 3], []]}
    assert ask(one) == ([1, 2], ())
    wait_until("its connections' end", lambda: set(Path("/proc/self/fd").iterdir()) <= before)


def _sockets() -> Iterator[str]:
    for path in Path("/proc/self/fd").iterdir():
        try:
            link = os.readlink(path)
        except FileNotFoundError:  # of this very listing
            continue
        if link.startswith("socket:"):
            yield link


def _is_unix(link: str) -> bool:
    inode = link.removeprefix("socket:[").removesuffix("]")
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return any(inode in line and "sockets" in line[-1] for line in lines)


# -- hostile and broken peers -----------------------------------------------------------------------------------------


@contextmanager
def connected(directory: Path) -> Iterator[socket.socket]:
    """To the one node there is."""
    [file] = unix_address.members(directory)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect(str(directory / file))
        yield connection


def refused(connection: socket.socket) -> bool:
    """Whether the other end hangs up without a word."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (struct.pack(">HI", 3, MAX_QUESTION_BYTES + 1), "oversized"),
        (struct.pack(">HI", 2000, 1), "oversized"),
        (struct.pack(">HI", 3, 0) + b"who", "unsigned"),
        (struct.pack(">HI", 3, 2) + b"who{}", "unsigned"),
        (struct.pack(">HI", 2, 2) + b"\xff\xfe{}", "garbage"),
        (bytes(6), "unsigned"),
    ],
)
def test_garbage(nodes: Callable[..., list[Named]], directory: Path, sent: bytes, reason: str) -> None:
    [one] = nodes(1)
    with connected(directory) as connection:
        connection.sendall(sent)
        assert refused(connection)
    assert guard.tally == {f"broadcast.refused.{reason}": 1}
    assert ask(one) == ([1], ())


def test_a_question_in_small_pieces_and_its_copy(nodes: Callable[..., list[Named]], directory: Path) -> None:
    nodes(1)
    question = Question("who", {}, "a", messages.new_id(), time.time() + 60, "host/9")
    frame = unix_round.frame("who", messages.encode_question(question, KEY))
    with connected(directory) as connection:
        for byte in frame:
            connection.send(bytes([byte]))
        (size,) = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
        answer = connection.recv(size, socket.MSG_WAITALL)
        assert messages.decode_answer(answer, question.id, KEY) == ("host/1", 1)
        assert refused(connection)
    with connected(directory) as connection:
        connection.sendall(frame)
        assert refused(connection)
    assert guard.tally == {"broadcast.refused.repeated": 1}


def test_who_connects_and_says_nothing(
    nodes: Callable[..., list[Named]], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_listener, "_READ_SECONDS", 0.05)
    [one] = nodes(1)
    with connected(directory) as silent, connected(directory) as half:
        half.send(b"\0")
        assert refused(silent)
        assert refused(half)
    with connected(directory) as talkative:  # says more than a question
        question = Question("slow", {}, "a", messages.new_id(), time.time() + 60, "host/9")
        one.subscribe("slow", lambda: time.sleep(0.2))
        talkative.sendall(unix_round.frame("slow", messages.encode_question(question, KEY)))
        time.sleep(0.05)
        talkative.sendall(b"more")
        assert refused(talkative)
    assert ask(one) == ([1], ())


def test_connections_are_bounded(
    nodes: Callable[..., list[Named]], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_listener, "_MAX_CONNECTIONS", 2)
    [one] = nodes(1)
    with connected(directory), connected(directory), connected(directory) as third:
        assert refused(third)
    nodes(1, first=2)
    wait_until("their end", lambda: ask(one)[1] == ())
    assert guard.tally["broadcast.refused.connection"] >= 1


def test_peers_of_other_users(
    nodes: Callable[..., list[Named]], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes(2)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    own = socket.socketpair()
    try:
        monkeypatch.setattr(unix_address, "_PEER", _Peer(54321))
        assert not unix_address.is_ours(own[0])
        monkeypatch.setattr(unix_address, "_PEER", _Peer(0))
        assert unix_address.is_ours(own[0])
        monkeypatch.setattr(unix_address, "_PEER", _Peer(12345))
        assert unix_address.is_ours(own[0])
    finally:
        for end in own:
            end.close()


class _Peer:
    """struct ucred of somebody else's process."""

    size = 12

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def unpack(self, data: bytes) -> tuple[int, int, int]:
        pid, _, gid = struct.unpack("3i", data)
        assert pid == os.getpid()
        return pid, self._uid, gid


def test_strangers_are_neither_answered_nor_believed(
    nodes: Callable[..., list[Named]], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [one, _] = nodes(2)
    monkeypatch.setattr(unix_address, "is_ours", lambda connection: False)
    assert ask(one) == ([1, None], ("host/2",))
    one.leave()
    with connected(directory) as connection:
        assert refused(connection)
    assert guard.tally["broadcast.refused.connection"] >= 1


def _impostor(directory: Path, answer: bytes) -> threading.Thread:
    """A member that answers every question with the same bytes."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(directory / "66-aaaa@host"))
    listening.listen()

    def serve() -> None:
        with listening:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (struct.pack(">I", MAX_ANSWER_BYTES + 1), "oversized"),
        (struct.pack(">I", 2) + b"{}", "unsigned"),
        (b"\0\0", None),
        (b"", None),
        (struct.pack(">I", 20) + b"too short", None),
    ],
)
def test_answers_that_are_none(
    nodes: Callable[..., list[Named]], directory: Path, answer: bytes, reason: str | None
) -> None:
    [one] = nodes(1)
    impostor = _impostor(directory, answer)
    assert ask(one, timeout=100) == ([1, None], ("host/66",))
    impostor.join()
    assert guard.tally == ({f"broadcast.refused.{reason}": 1} if reason else {})


def test_files_that_are_no_sockets(nodes: Callable[..., list[Named]], directory: Path) -> None:
    [one] = nodes(1)
    (directory / "77-aaaa@host").write_text("")  # nobody listens there either
    (directory / "README").write_text("")
    (directory / ".78-aaaa@host").write_text("")
    assert ask(one) == ([1], ())
    assert sorted(map(unix_address.member, os.listdir(directory))) == ["/README", "host/.78", "host/1"]


# -- healing ----------------------------------------------------------------------------------------------------------


def test_a_socket_that_a_cleaner_has_removed_comes_back(
    nodes: Callable[..., list[Named]], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_listener, "_LOOK_SECONDS", 0.05)
    [one, _] = nodes(2)
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    wait_until("both", lambda: len(unix_address.members(directory)) == 2)
    assert ask(one) == ([1, 2], ())
    assert guard.tally["broadcast.socket_was_removed"] == 2


def test_the_directories_above_come_back_too(
    nodes: Callable[..., list[Named]], directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has emptied the whole runtime directory."""
    monkeypatch.setattr(unix_listener, "_LOOK_SECONDS", 0.05)
    top = tmp_path.with_name(f"{tmp_path.name}.moved")
    [one, _] = nodes(2)
    tmp_path.rename(top)
    try:
        wait_until("both", lambda: len(unix_address.members(directory)) == 2)
        assert ask(one) == ([1, 2], ())
        assert {path.stat().st_mode & 0o777 for path in (tmp_path, directory)} == {0o700}
    finally:
        shutil.rmtree(top)


def test_nothing_is_made_in_a_directory_of_another_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "taken", 12345, 12345)
    else:
        other = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(PermissionError, match="belongs to another account"):
        unix_address.make(tmp_path / "taken" / "run" / "sockets")
    assert os.listdir(tmp_path / "taken") == []


def test_without_its_directory_a_broadcast_still_ends(nodes: Callable[..., list[Named]], directory: Path) -> None:
    [one, _] = nodes(2)
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    assert ask(one) == ([1], ())


def test_no_descriptor_is_left(nodes: Callable[..., list[Named]], directory: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    three = nodes(3)
    listening = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        ask(three[0])
        three[1].broadcast("who", {}, False, 5)
    wait_until("all to be closed", lambda: len(os.listdir("/proc/self/fd")) <= listening)
    for node in three:
        node.leave()
    wait_until("all to be closed", lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_a_listener_that_cannot_start_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(threading.Thread, "start", start)
    node = Node()
    with pytest.raises(OSError, match="can't start"):
        node.join(UnixTransport(directory), None)
    assert os.listdir(directory) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_listener_survives_its_own_errors(
    nodes: Callable[..., list[Named]], monkeypatch: pytest.MonkeyPatch
) -> None:
    [one, _] = nodes(2)
    real, failures = selectors.DefaultSelector.select, iter([OSError("no more files")] * 2)

    def select(self: selectors.DefaultSelector, timeout: float | None = None) -> Any:
        if threading.current_thread().name == "c2c_broadcast_listener" and (failure := next(failures, None)):
            raise failure
        return real(self, timeout)

    guard.strict(False)
    try:
        monkeypatch.setattr(selectors.DefaultSelector, "select", select)
        assert ask(one) == ([1, 2], ())
        assert ask(one) == ([1, 2], ())
        assert ask(one) == ([1, 2], ())
        assert guard.tally["failed.broadcast.listener"] >= 1
    finally:
        guard.strict(None)
