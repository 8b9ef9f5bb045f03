"""Datagrams on their way to syslog, helper threads, and the host's name."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from c2c_otel_exporters import background, guard, hostname, syslog

NewSender = Callable[[str, int], syslog.Sender]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    background.allow(False)
    hostname.reset()
    guard.reset()


# -- the host's name --------------------------------------------------------------------------------------------------


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    def refuse(*_: object) -> str:
        raise AssertionError("asked a name server")

    monkeypatch.setattr(socket, "getfqdn", refuse)
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n")
    monkeypatch.setattr(hostname, "_HOSTS", path)
    hostname.reset()
    return path


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("127.0.1.1 box.example.org box # us\n", "box.example.org"),
        ("10.1.2.3\tbox\n", "box"),
        ("# 10.1.2.3 box.example.org box\n", "box"),
        ("10.1.2.3 other.example.org other\n", "box"),
    ],
)
def test_the_hosts_file_knows_the_full_name(hosts: Any, text: str, name: str) -> None:
    hosts.write_text(text)
    assert hostname.host_name() == name


def test_no_name_server_is_asked_before_threads_are_allowed(hosts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.unlink()
    assert hostname.host_name() == "box"
    asked = threading.Event()
    monkeypatch.setattr(socket, "getfqdn", lambda: asked.set() or "box.example.org")
    assert hostname.host_name() == "box" and not asked.is_set()
    background.allow()
    hostname.host_name()
    assert asked.wait(10)
    for thread in threading.enumerate():
        if thread.name == "c2c-otel-host-name":
            thread.join(10)
    assert hostname.host_name() == "box.example.org"


def test_a_full_host_name_is_taken_as_it_is(hosts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box.example.net")
    assert hostname.host_name() == "box.example.net"


def test_importing_asks_for_no_name_and_starts_nothing() -> None:
    code = """
import socket, threading
def refuse(*_): raise SystemExit("looked something up")
socket.getfqdn = socket.gethostname = socket.getaddrinfo = socket.gethostbyaddr = socket.socket = refuse
import c2c_otel_exporters.logs
from c2c_otel.pyramid_logging import PyramidCeeSysLogHandler, JsonLogHandler
JsonLogHandler()
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- syslog -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def new_sender() -> Iterator[NewSender]:
    made: list[syslog.Sender] = []

    def make_sender(host: str, port: int) -> syslog.Sender:
        made.append(syslog.Sender(host, port))
        return made[-1]

    yield make_sender
    for sender in made:
        sender.close()


@pytest.fixture
def sink() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        yield server


def test_a_datagram_arrives_byte_for_byte(sink: socket.socket, new_sender: NewSender) -> None:
    sender = new_sender("127.0.0.1", sink.getsockname()[1])
    sender.send(b"<14>: @cee: {}\0")
    assert sink.recv(99) == b"<14>: @cee: {}\0"


def test_ipv6_and_unix_sockets(tmp_path: Any, new_sender: NewSender) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        server.settimeout(10)
        new_sender(str(tmp_path / "log"), 514).send(b"unix")
        assert server.recv(99) == b"unix"
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        try:
            server.bind(("::1", 0))
        except OSError:
            return  # a container without IPv6
        server.settimeout(10)
        new_sender("::1", server.getsockname()[1]).send(b"six")
        assert server.recv(99) == b"six"


def test_a_name_is_resolved_in_line_where_threads_are_not_allowed(sink: socket.socket, new_sender: NewSender) -> None:
    new_sender("localhost", sink.getsockname()[1]).send(b"named")
    assert sink.recv(99) == b"named"
    assert not [thread for thread in threading.enumerate() if thread.name == "c2c-otel-syslog-name"]


def test_lines_wait_for_a_name_that_a_thread_resolves(
    sink: socket.socket, monkeypatch: pytest.MonkeyPatch, new_sender: NewSender
) -> None:
    answer, port = threading.Event(), sink.getsockname()[1]
    real = socket.getaddrinfo

    def slow(host: str, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("flags"):
            return real(host, *args, **kwargs)
        assert answer.wait(10)
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    background.allow()
    sender = new_sender("syslog.example", port)
    for number in range(syslog.MAX_WAITING + 3):
        sender.send(b"%d" % number)
    answer.set()
    sender.close(10)
    assert [sink.recv(99) for _ in range(3)] == [b"0", b"1", b"2"]
    assert guard.tally["dropped.logs.syslog"] == 3


def test_a_name_that_cannot_be_resolved_is_said_once_and_tried_again(
    sink: socket.socket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], new_sender: NewSender
) -> None:
    found: list[str] = []
    real = socket.getaddrinfo

    def lookup(host: str, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("flags"):
            found.append(host)
            if len(found) < 3:
                raise socket.gaierror(-2, "Name or service not known")
            host = "127.0.0.1"
        return real(host, *args, **kwargs)

    now = [1000.0]
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(syslog.time, "monotonic", lambda: now[0])
    sender = new_sender("nowhere.example", sink.getsockname()[1])
    for _ in range(5):
        sender.send(b"lost")
    assert len(found) == 1, "asked once a minute, not once a line"
    now[0] += syslog.RETRY_SECONDS
    sender.send(b"lost")
    now[0] += syslog.RETRY_SECONDS
    sender.send(b"kept")
    assert sink.recv(99) == b"kept"
    assert guard.tally["dropped.logs.syslog"] == 6
    assert capsys.readouterr().err.count("'nowhere.example' cannot be resolved") == 1


def test_a_receiver_that_restarts_loses_nothing_that_is_sent_afterwards(
    sink: socket.socket, new_sender: NewSender
) -> None:
    port = sink.getsockname()[1]
    sender = new_sender("127.0.0.1", port)
    sink.close()
    for _ in range(3):
        sender.send(b"refused")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))
        again.settimeout(10)
        sender.send(b"back")
        assert again.recv(99) == b"back"


def test_where_one_address_refuses_the_next_is_taken(sink: socket.socket, new_sender: NewSender) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.2", 0))
        dead = closed.getsockname()
    sender = new_sender("127.0.0.1", sink.getsockname()[1])
    sender._own().targets = [(socket.AF_INET, dead), (socket.AF_INET, sink.getsockname())]
    sender.send(b"first, which finds out")
    sender.send(b"second")
    sender.send(b"third")
    assert {sink.recv(99), sink.recv(99)} == {b"second", b"third"}


def test_a_child_has_a_socket_of_its_own(sink: socket.socket, new_sender: NewSender) -> None:
    sender = new_sender("127.0.0.1", sink.getsockname()[1])
    sender.send(b"parent")
    parents = sender._state.socket
    child = os.fork()
    if child == 0:
        sender.send(b"child")
        os._exit(0 if sender._state.socket is not parents else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [sink.recv(99), sink.recv(99)] == [b"parent", b"child"]


def test_threads_allowed_in_a_parent_are_not_in_its_child() -> None:
    background.allow()
    assert background.allowed()
    child = os.fork()
    if child == 0:
        os._exit(1 if background.allowed() or background.run(print, "x") else 0)
    assert os.waitpid(child, 0)[1] == 0
