"""statsd: the contract's lines byte for byte, text that cannot break them, and packets that all arrive."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import socket
import threading
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from c2c_otel_exporters import guard, names, statsd
from c2c_otel_exporters.statsd import (
    MAX_PACKET,
    Line,
    Names,
    Sender,
    gauge_line,
    next_packet,
    number,
    number_value,
    timer_value,
)
from tests.servers import wait_until
from tests.servers.udp import UdpSink

ROUTE = names.route("GET", "hello", "/hello", 200, "http", None)
REDIS = names.redis("GET", True, None, "r", 6379, None)


@pytest.fixture(autouse=True)
def fresh_guard() -> Iterator[None]:
    guard.reset()
    yield
    guard.reset()


def written(lines: tuple[Line, ...], value: str = "1") -> list[str]:
    return [head + value + tail for head, tail in lines]


# -- lines -----------------------------------------------------------------------------------------------------------


def test_the_lines_of_the_contract() -> None:
    plain = Names("acceptance", False, {})
    tagged = Names("acceptance", True, {"xyz": "zyx"})
    assert written(plain.lines(ROUTE, "ms"), "18") == ["acceptance.route.GET.hello.200:18|ms"]
    assert written(tagged.lines(ROUTE, "ms"), "7") == [
        "acceptance.route:7|ms|#group:2,method:GET,route:hello,status:200,xyz:zyx"
    ]
    user = names.timer(("a/b", "c.d", "1"), (("x", "p,r|o#d"),))
    assert written(Names("pre", False, {}).lines(user, "ms")) == ["pre.a_b.c_d.1:1|ms|#x:p_r_o_d"]


def test_redis_has_two_names_without_tags_and_one_with() -> None:
    assert written(Names("", False, {}).lines(REDIS, "ms")) == ["redis.GET.success:1|ms", "redis.GET:1|ms"]
    assert written(Names("", True, {}).lines(REDIS, "ms")) == ["redis:1|ms|#cmd:GET,success:1"]


def test_global_and_user_tags_are_sent_in_both_modes_sorted_and_the_users_win() -> None:
    series = names.counter(("n",), (("b", "user"), ("d", "user")))
    for use_tags in (False, True):
        there = Names("", use_tags, {"a": "all", "b": "all", "c": "x:y z"})
        assert written(there.lines(series, "c")) == ["n:1|c|#a:all,b:user,c:x:y z,d:user"]


@pytest.mark.parametrize(
    ("prefix", "shown"),
    [("", ""), ("a", "a."), ("a.", "a."), ("a-b.c", "a-b.c."), ("é:1|c\nx", "__1_c_x."), (".", ".")],
)
def test_the_prefix_keeps_its_dots_and_ends_with_one(prefix: str, shown: str) -> None:
    assert Names(prefix, False, {}).line(["n"], [], "c").head == f"{shown}n:"


def test_a_name_is_cut() -> None:
    head = Names("pre", False, {}).line(["x" * 1000], [], "c").head
    assert head == "pre." + "x" * 446 + ":"


def test_a_name_that_is_empty_is_still_a_name() -> None:
    assert written((Names("", False, {}).line([], [], "c"),)) == ["_:1|c"]
    assert written((Names("", False, {}).line(["n"], [("", "x")], "c"),)) == ["n:1|c|#_:x"]


def test_a_line_that_is_too_long_loses_its_tags_and_is_counted() -> None:
    there = Names("", False, {})
    room = MAX_PACKET - len("n:1|c|#t:")
    fits, too_long = (
        there.line(["n"], [("t", "é" * half + "x" * odd)], "c")
        for half, odd in ((room // 2, room % 2), (room // 2, room % 2 + 1))
    )
    assert len("".join((fits.head, "1", fits.tail)).encode()) == MAX_PACKET
    assert guard.tally["dropped.statsd.tags"] == 1
    assert too_long == ("n:", "|c")
    assert there.line(["n"], [("t", "x" * 10_000_000)], "c") == ("n:", "|c")


LINE = re.compile(r"[A-Za-z0-9_.-]+:1\|c(\|#[A-Za-z0-9_]*:[^,#|\n]*(,[A-Za-z0-9_]*:[^,#|\n]*)*)?")
TEXT = st.text(max_size=30) | st.text(alphabet="a:|#,\n\r\x00\x85\u2028\ud800é.@", max_size=10)


@given(TEXT, st.lists(TEXT), st.dictionaries(TEXT, TEXT), st.dictionaries(TEXT, TEXT), st.booleans())
def test_no_text_can_break_or_forge_a_line(
    prefix: str, key: list[str], tags: dict[str, str], global_tags: dict[str, str], use_tags: bool
) -> None:
    series = names.counter(tuple(key), tuple(tags.items()))
    (line,) = written(Names(prefix, use_tags, global_tags).lines(series, "c"))
    assert LINE.fullmatch(line)
    assert len(line.splitlines()) == 1
    assert len(line.encode()) <= MAX_PACKET  # strict UTF-8: no half character
    shown = line.partition("|#")[2]
    assert (shown.count(",") + 1 if shown else 0) == len({**global_tags, **tags})


# -- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1"),
        (0.0005, "1"),
        (0.0015, "2"),
        (0.0025, "2"),
        (0.0035, "4"),
        (1.0, "1000"),
        (-5.0, "1"),
        (1e9, "1" + "0" * 12),
    ],
)
def test_timers_are_rounded_half_to_even_and_at_least_1(seconds: float, text: str) -> None:
    assert timer_value(seconds) == text


@given(st.floats(0, 1e6))
def test_timers_are_within_half_a_millisecond_or_1(seconds: float) -> None:
    text = timer_value(seconds)
    assert text.isdigit()
    assert abs(int(text) - seconds * 1000) <= 0.5 or text == "1"


@pytest.mark.parametrize("seconds", [math.nan, math.inf])
def test_a_timer_that_is_no_time_raises(seconds: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        timer_value(seconds)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (True, "1"),
        (-3, "-3"),
        (2.0, "2.0"),
        (0.1, "0.1"),
        (1e-07, "0.0000001"),
        (-1e22, "-10000000000000000000000"),
        (-0.0, "0"),
        (Decimal("1.5"), "1.5"),
        (10**30, "1" + "0" * 30),
    ],
)
def test_numbers_are_plain_decimals(value: Any, text: str) -> None:
    assert number_value(value) == number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_numbers_keep_their_value(value: float) -> None:
    text = number_value(value)
    assert re.fullmatch(r"-?\d+(\.\d+)?", text)
    assert float(text) == float(value)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        None,
        "x",
        [],
        pytest.param(10**5000, id="huge"),
        pytest.param(-(10**400), id="beyond a float"),
    ],
)
def test_what_is_no_number_is_dropped_and_counted(value: Any) -> None:
    with pytest.raises(ValueError):
        number_value(value)
    assert number(value) is None
    assert gauge_line(Line("n:", "|g"), value) is None
    assert guard.tally["dropped.statsd.values"] == 2


def test_a_negative_gauge_is_set_to_0_first() -> None:
    line = Names("pre", False, {}).line(["g"], [("k", "v")], "g")
    assert gauge_line(line, -3) == "pre.g:0|g|#k:v\npre.g:-3|g|#k:v"
    assert gauge_line(line, 3) == "pre.g:3|g|#k:v"
    assert gauge_line(line, -0.0) == "pre.g:0|g|#k:v"


# -- packets ---------------------------------------------------------------------------------------------------------


def packets(entries: list[str], max_packet: int = MAX_PACKET) -> list[bytes]:
    queue = deque(entries)
    return list(iter(lambda: next_packet(queue, max_packet), b""))


def test_packets_are_as_full_as_they_can_be() -> None:
    assert packets(["a:1|c", "b:1|c", "c:1|c"], 11) == [b"a:1|c\nb:1|c", b"c:1|c"]
    assert packets(["a:1|c", "b:1|c", "c:1|c"], 10) == [b"a:1|c", b"b:1|c", b"c:1|c"]
    assert packets([]) == []


def test_entries_of_several_lines_are_not_split() -> None:
    assert packets(["a:1|c", "g:0|g\ng:-3|g", "b:1|c"], 17) == [b"a:1|c", b"g:0|g\ng:-3|g", b"b:1|c"]


def test_an_entry_that_is_too_long_loses_its_tags_or_is_dropped_and_counted() -> None:
    entries = ["a:1|c", "g:0|g|#k:vvvvv\ng:-3|g|#k:vvvvv", "x" * 30, "b:1|c"]
    assert packets(entries, 20) == [b"a:1|c", b"g:0|g\ng:-3|g", b"b:1|c"]
    assert guard.tally["dropped.statsd.tags"] == 1
    assert guard.tally["dropped.statsd.lines"] == 1


@given(st.lists(st.text(alphabet="aé€|#:,", min_size=1, max_size=60)), st.integers(20, 200))
def test_each_entry_is_in_one_packet_in_order(entries: list[str], max_packet: int) -> None:
    sent = packets(entries, max_packet)
    assert all(0 < len(packet) <= max_packet for packet in sent)
    lines = [line for packet in sent for line in packet.decode().split("\n")]
    kept = [entry if len(entry.encode()) <= max_packet else entry.partition("|#")[0] for entry in entries]
    assume(all(kept))
    assert lines == [entry for entry in kept if len(entry.encode()) <= max_packet]


# -- the sender ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sink() -> Iterator[UdpSink]:
    with UdpSink() as started:
        yield started


@pytest.fixture
def senders() -> Iterator[list[Sender]]:
    """Those that are put into the list are closed at the end."""
    made: list[Sender] = []
    yield made
    for sender in made:
        sender.close()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "c2c-otel-statsd"]


def closed_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nothing_is_made_before_the_first_line(senders: list[Sender]) -> None:
    before = threads()
    sender = Sender("does-not-resolve.invalid", 1)
    senders.append(sender)
    assert sender.flush(0)
    assert threads() == before
    sender.close()
    assert threads() == before


def test_lines_are_packed_and_leave_by_themselves(sink: UdpSink, senders: list[Sender]) -> None:
    sender = Sender(sink.host, sink.port)
    senders.append(sender)
    for n in range(10):
        sender.send(f"a.b:{n}|c")
    assert sink.wait_for(10) == [f"a.b:{n}|c" for n in range(10)]
    assert len(sink.packets) == 1
    sender.send("later:1|c")  # the thread was idle
    assert sink.wait_for(11)[-1] == "later:1|c"


def test_every_line_of_many_threads_arrives_in_its_order(sink: UdpSink, senders: list[Sender]) -> None:
    sender = Sender(sink.host, sink.port)
    senders.append(sender)

    def work(number: int) -> None:
        for n in range(5000):
            sender.send(f"t{number}:{n}|c")

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = sink.wait_for(20_000)
    for thread in range(4):
        assert [line for line in lines if line.startswith(f"t{thread}:")] == [f"t{thread}:{n}|c" for n in range(5000)]
    assert max(map(len, sink.packets)) <= MAX_PACKET
    assert len(sink.packets) < 2000


def test_close_sends_the_rest_and_what_comes_later_is_counted(sink: UdpSink) -> None:
    sender = Sender(sink.host, sink.port, flush_interval=60)
    sender.send("a:1|c")
    sender.close()
    assert sink.wait_for(1) == ["a:1|c"]
    assert not threads()
    sender.send("b:1|c")
    sender.send("c:1|c")
    assert guard.tally["dropped.statsd.lines"] == 2
    sender.close()


def test_flush_waits_until_it_is_sent(sink: UdpSink, senders: list[Sender]) -> None:
    sender = Sender(sink.host, sink.port, flush_interval=60)
    senders.append(sender)
    for n in range(3):
        sender.send(f"a:{n}|c")
        assert sender.flush(10)
        sink.wait_for(n + 1)
    assert len(sink.packets) == 3


@pytest.mark.skipif(not socket.has_ipv6, reason="Python was built without IPv6")
def test_ipv6(senders: list[Sender]) -> None:
    try:
        ipv6 = UdpSink("::1").start()
    except OSError:
        pytest.skip("this host has no IPv6 loopback")
    try:
        sender = Sender("::1", ipv6.port)
        senders.append(sender)
        sender.send("a:1|c")
        assert ipv6.wait_for(1) == ["a:1|c"]
    finally:
        ipv6.stop()


def test_names_are_tried_on_all_their_addresses(
    sink: UdpSink, senders: list[Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", closed_port()))
    alive = (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", sink.port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [dead, alive])
    sender = Sender("collector", sink.port)
    senders.append(sender)
    sender.send("a:1|c")
    assert sink.wait_for(1) == ["a:1|c"]


def test_a_name_that_cannot_be_resolved_is_warned_of_once_and_tried_again(
    sink: UdpSink, senders: list[Sender], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, failures = socket.getaddrinfo, 3

    def resolve(host: str, port: int, **kwargs: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(sink.host, port, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    sender = Sender("collector.invalid", sink.port)
    senders.append(sender)
    with caplog.at_level(logging.WARNING, "c2c_otel"):
        sender.send("a:1|c")
        assert sink.wait_for(1) == ["a:1|c"]
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 1
    assert f"statsd at collector.invalid:{sink.port} cannot be reached" in warned[0]


def test_lines_wait_for_a_server_that_is_down(senders: list[Sender], caplog: pytest.LogCaptureFixture) -> None:
    port = closed_port()
    sender = Sender("127.0.0.1", port)
    senders.append(sender)
    with caplog.at_level(logging.WARNING, "c2c_otel"):
        for n in range(3):
            sender.send(f"a:{n}|c")
        wait_until("a refusal", lambda: guard.tally[f"statsd.127.0.0.1.{port}"] >= 2)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.settimeout(10)
            server.bind(("127.0.0.1", port))
            sender.send("b:1|c")
            assert server.recv(2000).split(b"\n")[:3] == [b"a:0|c", b"a:1|c", b"a:2|c"]
    assert len(caplog.records) == 1


def test_the_queue_is_bounded_and_keeps_the_newest(
    sink: UdpSink, senders: list[Sender], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def resolve(*args: Any, **kwargs: Any) -> Any:
        asked.set()
        answer.wait(10)
        return real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    sender = Sender(sink.host, sink.port, max_queue=10)
    senders.append(sender)
    sender.send("first:1|c")
    assert asked.wait(10)  # the thread holds the first line, and waits
    for n in range(25):
        sender.send(f"a:{n}|c")
    assert guard.tally["dropped.statsd.lines"] == 15
    answer.set()
    assert sink.wait_for(11) == ["first:1|c", *(f"a:{n}|c" for n in range(15, 25))]


def test_close_gives_up_on_a_server_that_is_down() -> None:
    sender = Sender("127.0.0.1", closed_port())
    sender.send("a:1|c")
    sender.send("b:1|c")
    sender.close(10)
    assert not threads()
    assert guard.tally["dropped.statsd.lines"] == 2


def test_a_packet_that_is_too_long_for_the_way_is_dropped(sink: UdpSink, senders: list[Sender]) -> None:
    sender = Sender(sink.host, sink.port, max_packet=1 << 20)
    senders.append(sender)
    sender.send("x" * 70_000)
    assert sender.flush(10)
    assert guard.tally["dropped.statsd.lines"] == 1
    sender.send("a:1|c")
    assert sink.wait_for(1) == ["a:1|c"]


def test_a_forked_child_begins_anew(sink: UdpSink, senders: list[Sender]) -> None:
    sender = Sender(sink.host, sink.port, flush_interval=0.3)
    senders.append(sender)
    sender.send("parent:1|c")
    pid = os.fork()
    if not pid:
        status = 1
        try:
            sender.send("child:1|c")
            sender.close(5)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    sink.wait_for(lambda lines: len(lines) >= 2)
    sender.close()
    assert sorted(sink.lines()) == ["child:1|c", "parent:1|c"]


def test_an_idle_thread_does_not_poll(sink: UdpSink, senders: list[Sender]) -> None:
    sender = Sender(sink.host, sink.port)
    senders.append(sender)
    sender.send("a:1|c")
    assert sender.flush(10)
    waits: list[float | None] = []
    wait_until("the thread to wait", lambda: sender.waiting)
    real = sender._hurry.wait
    sender._hurry.wait = lambda timeout=None: (waits.append(timeout), real(timeout))[1]  # type: ignore[method-assign] # a spy
    threading.Event().wait(0.2)  # four intervals
    assert waits == []
    sender.send("b:1|c")
    sink.wait_for(2)
    assert len(waits) == 1


def test_a_full_socket_buffer_is_waited_for() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += bool(ours.send(b"full"))
    target = statsd._Target("127.0.0.1", 9)
    target._socket = ours
    drain = threading.Timer(0.05, theirs.recv, [100])
    drain.start()
    target._send(b"last")
    drain.join()
    received = [theirs.recv(100) for _ in range(filled)]
    assert received[-1] == b"last" and received[0] == b"full"
    target.close()
    theirs.close()
