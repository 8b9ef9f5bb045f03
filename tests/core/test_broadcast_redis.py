"""The transport over a real Redis: who is asked, who is named, and what happens when Redis goes, hangs or moves."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from c2c_otel.broadcast import redis as transport_module
from c2c_otel.broadcast import redis_listener, redis_round
from c2c_otel.broadcast.node import Node
from c2c_otel.broadcast.redis import RedisTransport
from c2c_otel.broadcast.redis_clock import Clock
from c2c_otel.broadcast.redis_names import Listed, Names
from c2c_otel.broadcast.transport import Reply, Transport
from c2c_otel.settings import Settings
from c2c_otel.shared_redis import RedisBackend
from c2c_otel_exporters import guard
from tests import servers
from tests.servers import wait_until
from tests.servers.fixtures import running

PREFIX = "test_[b]*_"
TOKEN = "0123456789abcdef"


def load(url: str, **environ: str) -> Settings:
    return Settings.load({"C2C_REDIS_URL": url, "C2C_BROADCAST_PREFIX": PREFIX, **environ})


class Member:
    """A process: its transport, what it heard, and how often it has begun to listen. It answers with its name."""

    def __init__(self, settings: Settings, name: str, answers: bool = True) -> None:
        self.name, self.answers = name, answers
        self.transport = RedisTransport(settings)
        self.heard: list[tuple[str, bytes]] = []
        self.listened: list[str] = []
        self.asked: list[bytes] = []
        self.more, self.received = "", 0

    def open(self, *channels: str) -> None:
        self.transport.open(self.name, self.deliver, self.listening, channels)

    def deliver(self, channel: str, question: bytes, reply: Reply) -> bool:
        self.heard.append((channel, question))
        if not self.answers or question in self.asked:
            return False
        answer = {"name": self.name, "more": self.more}
        reply(json.loads(question)["answer_channel"], json.dumps(answer).encode())
        return True

    def listening(self) -> None:
        self.listened.append(threading.current_thread().name)

    def ask(self, channel: str, timeout: float = 10, said: str = "") -> tuple[list[str], tuple[str, ...]]:
        """Who has answered, and who has not."""
        came: list[str] = []

        def accept(answer: bytes) -> str | None:
            found = json.loads(answer)
            if found["more"] == "refused":
                return None
            self.received += len(found["more"])
            came.append(found["name"])
            return str(found["name"])

        answer_channel = f"{self.transport.prefix}{channel}{os.urandom(4).hex()}"
        question = json.dumps({"params": said, "answer_channel": answer_channel}).encode()
        self.asked.append(question)
        missing = self.transport.ask(channel, question, answer_channel, timeout, accept)
        return sorted(came), tuple(sorted(missing))

    def others(self) -> list[str]:
        return sorted(self.transport.members())


@contextmanager
def service(settings: Settings, count: int, *channels: str) -> Iterator[list[Member]]:
    """So many members that hear these channels."""
    members = [Member(settings, f"host/{number}") for number in range(1, count + 1)]
    with ExitStack() as stack:
        for member in members:
            stack.callback(member.transport.close)
            member.open(*channels)
        yield members


@pytest.fixture
def shared(redis_server: servers.Redis) -> Settings:
    return load(redis_server.url)


@pytest.fixture
def own_redis() -> Iterator[servers.Redis]:
    with running(servers.Redis()) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at every few seconds is looked at several times a second."""
    monkeypatch.setattr(redis_listener, "PING_SECONDS", 0.1)
    monkeypatch.setattr(redis_listener, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr("c2c_otel.redis_clients.TIMEOUT_SECONDS", 0.3)


def static(transport: RedisTransport) -> Transport:
    return transport  # for the type checker: it is one


# -- names and clock --------------------------------------------------------------------------------------------------

NAME = st.text(st.characters(codec="utf-8"), max_size=20)


@given(NAME, NAME, NAME, NAME)
def test_a_presence_is_read_back_and_no_other_channel_is_taken_for_one(
    prefix: str, name: str, channel: str, other: str
) -> None:
    names = Names(prefix)
    channels = [names.presence(name, TOKEN, channel), names.presence(name, TOKEN), names.question(other), b"node:x"]
    found = names.listed(channels, channel)
    assert Listed(name, TOKEN, channel) in found
    assert all(one.channel == channel for one in found)
    assert names.channel(names.question(channel)) == channel


@how(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(NAME, NAME)
def test_redis_finds_by_the_pattern_what_is_meant_and_nothing_else(
    redis_server: servers.Redis, prefix: str, channel: str
) -> None:
    names = Names(prefix)
    wanted = names.presence("host.example.org/1", TOKEN, channel)
    with redis.Redis.from_url(redis_server.url) as client, client.pubsub() as pubsub:
        pubsub.subscribe(wanted, b"x" + wanted, wanted + b"x", names.question(channel) or b"-")
        for _ in range(4):
            pubsub.get_message(timeout=5)
        assert wanted in client.pubsub_channels(names.pattern(channel))
        found = names.listed(client.pubsub_channels(names.pattern(channel)), channel)
    assert found == [Listed("host.example.org/1", TOKEN, channel)]


def test_the_clock_of_redis_goes_on_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    assert abs(clock.now() - time.time()) < 5
    clock.measure(lambda: (b"1000", b"500000"))
    first = clock.now()
    assert 1000.5 <= first < 1060
    monkeypatch.setattr(time, "time", lambda: 0.0)  # this host's clock is set
    assert first <= clock.now() < 1060


# -- asking -----------------------------------------------------------------------------------------------------------


def test_all_others_answer_and_nobody_is_missing(shared: Settings) -> None:
    with service(shared, 3, "who", "é:x") as (one, two, three):
        assert one.ask("who") == (["host/2", "host/3"], ())
        assert three.ask("é:x") == (["host/1", "host/2"], ())
        assert one.others() == ["host/2", "host/3"]
        assert [member.listened for member in (one, two, three)] == [["MainThread"]] * 3
        assert {channel for channel, _ in two.heard} == {"who", "é:x"}
        assert len(one.heard) == 2  # its own question comes back to it; the node ignores that


def test_without_an_answer_channel_it_is_only_sent_in_order(shared: Settings) -> None:
    with service(shared, 2, "log") as (one, two):
        one.answers = two.answers = False
        for number in range(50):
            assert one.transport.ask("log", str(number).encode(), None, 10, lambda answer: "") == ()
        wait_until("the questions", lambda: len(two.heard) == 50)
        assert [int(question) for _, question in two.heard] == list(range(50))


def test_what_waits_to_be_sent_is_sent_before_a_process_leaves(shared: Settings) -> None:
    with service(shared, 2, "log") as (one, two):
        one.answers = two.answers = False
        one.transport.ask("log", b"bye", None, 10, lambda answer: "")
        one.transport.close()
        wait_until("the question", lambda: two.heard == [("log", b"bye")])
        wait_until("the end of its subscription", lambda: two.others() == [])


def test_who_does_not_answer_is_named(shared: Settings) -> None:
    with service(shared, 3, "who") as (one, two, _):
        two.answers = False
        assert one.ask("who", 0.3) == (["host/3"], ("host/2",))


def test_who_dies_is_not_waited_for(shared: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_round, "LOOK_SECONDS", 0.05)
    with service(shared, 3, "who") as (one, two, three):
        two.answers = three.answers = False
        begun = threading.Event()
        three.deliver = lambda *question: begun.set() or False  # type: ignore[method-assign] # it hears, and dies
        three.transport.close()
        three.open("who")
        killer = threading.Thread(target=lambda: begun.wait(20) and three.transport.close())
        killer.start()
        threading.Timer(1, lambda: two.transport.close()).start()
        assert one.ask("who", 100) == ([], ("host/2", "host/3"))
        killer.join()


def test_only_those_who_hear_the_channel_are_waited_for(shared: Settings) -> None:
    with service(shared, 2, "who") as (one, _):
        deaf = Member(shared, "host/deaf")
        deaf.open("other")
        try:
            assert one.ask("who") == (["host/2"], ())
            assert deaf.ask("who") == (["host/1", "host/2"], ())
            assert one.ask("nobody") == ([], ())
            assert one.others() == ["host/2", "host/deaf"]
        finally:
            deaf.transport.close()


def test_two_processes_of_the_same_name_are_two(shared: Settings) -> None:
    with service(shared, 1, "who") as (one,), service(shared, 1, "who") as (same,):
        same.answers = False
        assert one.ask("who", 0.3) == ([], ("host/1",))
        same.answers = True
        assert one.ask("who") == (["host/1"], ())


def test_subscriptions_that_change(shared: Settings) -> None:
    with service(shared, 2, "who") as (one, two):
        two.transport.subscriptions_changed(["what"])
        wait_until("the new subscription", lambda: one.ask("what") == (["host/2"], ()))
        assert one.ask("who") == ([], ())
        assert {channel for channel, _ in two.heard} == {"what"}


def test_an_answer_that_is_refused_does_not_count(shared: Settings) -> None:
    with service(shared, 2, "who") as (one, two):
        two.more = "refused"
        assert one.ask("who", 0.3) == ([], ("host/2",))


def test_another_service_on_the_same_redis_is_not_asked(redis_server: servers.Redis) -> None:
    other = load(redis_server.url, C2C_BROADCAST_PREFIX="other_")
    with service(load(redis_server.url), 2, "who") as (one, _), service(other, 1, "who") as (theirs,):
        assert one.ask("who") == (["host/2"], ())
        assert theirs.ask("who") == ([], ())
        wait_until("its own question", lambda: [channel for channel, _ in theirs.heard] == ["who"])
        assert len(theirs.heard) == 1  # its own


def test_c2cwsgiutils_asks_and_is_asked(redis_server: servers.Redis, shared: Settings) -> None:
    with service(shared, 1, "who") as (one,), redis.Redis.from_url(redis_server.url) as old, old.pubsub() as pubsub:
        pubsub.subscribe(f"{PREFIX}who", f"{PREFIX}whoabcdefghij")
        wait_until("the subscription", lambda: old.pubsub_numsub(f"{PREFIX}who")[0][1] == 2)
        question = {"params": {}, "answer_channel": f"{PREFIX}whoabcdefghij"}
        assert old.publish(f"{PREFIX}who", json.dumps(question)) == 2

        def answer() -> Any:
            message = pubsub.get_message(ignore_subscribe_messages=True, timeout=1)
            return message["data"] if message and message["channel"].endswith(b"j") else None

        assert b'"host/1"' in wait_until("the answer", answer)
        assert one.ask("who", 0.3) == ([], ("",))  # it hears, and cannot be named


def test_who_only_looks_on_is_not_waited_for(redis_server: servers.Redis, shared: Settings) -> None:
    with (
        service(shared, 2, "who") as (one, _),
        redis.Redis.from_url(redis_server.url) as client,
        client.pubsub() as log,
    ):
        log.psubscribe("*")
        wait_until("the monitor", lambda: client.pubsub_numpat() == 1)
        assert one.ask("who") == (["host/2"], ())


def test_nothing_is_sent_to_where_nobody_of_us_listens(redis_server: servers.Redis, shared: Settings) -> None:
    with (
        service(shared, 1, "who") as (one,),
        redis.Redis.from_url(redis_server.url) as client,
        client.pubsub() as pubsub,
    ):
        pubsub.subscribe("victim")
        wait_until("the subscription", lambda: client.pubsub_numsub("victim")[0][1] == 1)
        client.publish(f"{PREFIX}who", json.dumps({"answer_channel": "victim"}))
        client.publish(f"{PREFIX}who", json.dumps({"answer_channel": f"{PREFIX}mine"}))
        wait_until("both", lambda: len(one.heard) == 2)
        client.publish("victim", "end")
        found = [pubsub.get_message(timeout=5) for _ in range(2)]
        assert [message and message["data"] for message in found] == [1, b"end"]
        assert guard.tally["broadcast.refused.astray"] == 1


def test_large_answers(shared: Settings) -> None:
    with service(shared, 3, "dump") as (one, two, three):
        two.more, three.more = "x" * 4_000_000, "y" * 4_000_000
        assert one.ask("dump", 60) == (["host/2", "host/3"], ())
        assert one.received == 8_000_000


def test_the_time_of_redis_is_agreed_on(
    redis_server: servers.Redis, shared: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service(shared, 2, "who") as (one, two):
        before = time.time()
        monkeypatch.setattr(time, "time", lambda: 0.0)
        assert abs(one.transport.now() - before) < 5
        assert abs(one.transport.now() - two.transport.now()) < 1


def test_a_transport_that_is_not_open_asks_nobody(shared: Settings) -> None:
    member = Member(shared, "host/1")
    assert member.ask("who") == ([], ())
    assert member.others() == []
    member.transport.subscriptions_changed(["x"])
    member.transport.close()
    member.transport.abandon()
    assert static(member.transport).prefix == PREFIX


def test_settings_that_make_no_client_can_never_work() -> None:
    member = Member(load("unix:///s", C2C_REDIS_OPTIONS="ssl_cert_reqs=none"), "host/1")
    with pytest.raises(OSError, match="C2C_REDIS_OPTIONS"):
        member.open("who")


def test_no_redis_no_transport() -> None:
    assert transport_module.make(Settings.load({})) is None


# -- nodes ------------------------------------------------------------------------------------------------------------


class NamedNode(Node):
    """Several in one process."""

    def __init__(self, name: str) -> None:
        self._given = name
        super().__init__()

    @property
    def name(self) -> str:
        return self._given


def test_nodes_with_a_secret_answer_each_other_and_nobody_else(redis_server: servers.Redis, shared: Settings) -> None:
    one, two, foreign = (NamedNode(f"host/{number}") for number in range(3))
    for node, key in ((one, b"k"), (two, b"k"), (foreign, None)):
        node.subscribe("add", lambda a, b: a + b)
        node.join(RedisTransport(shared), key)
    try:
        answers = one.broadcast("add", {"a": 1, "b": 2}, True, 0.5)
        assert answers == [3, 3, None]
        assert answers.missing == ("host/2",)
        with redis.Redis.from_url(redis_server.url) as client:
            client.publish(f"{PREFIX}add", json.dumps({"params": {"a": 1, "b": 2}, "answer_channel": f"{PREFIX}x"}))
        wait_until("the refusals", lambda: guard.tally["broadcast.refused.unsigned"] >= 2)
    finally:
        for node in (one, two, foreign):
            node.leave()


# -- Redis is away ----------------------------------------------------------------------------------------------------


def test_down_at_the_start_and_up_later(own_redis: servers.Redis, caplog: pytest.LogCaptureFixture) -> None:
    own_redis.kill()
    with service(load(own_redis.url), 2, "who") as (one, two):
        assert (one.listened, two.listened) == ([], [])
        assert one.ask("who") == ([], (own_redis.url,))
        assert one.transport.ask("who", b"{}", None, 10, lambda answer: "") == ()
        assert one.others() == []
        assert abs(one.transport.now() - time.time()) < 5
        own_redis.restart()
        wait_until("both to listen", lambda: one.listened and two.listened)
        assert one.listened == two.listened == ["c2c_broadcast_listener"]
        assert one.ask("who") == (["host/2"], ())
    said = [record.getMessage() for record in caplog.records if "reached" in record.getMessage()]
    assert len([line for line in said if "until it can, a broadcast reaches this process alone" in line]) == 2
    assert len([line for line in said if line.endswith("can be reached again")]) == 2


def test_who_reaches_redis_before_its_thread_does_wakes_it(
    own_redis: servers.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_listener, "FIRST_PAUSE", 1000.0)
    monkeypatch.setattr(redis_listener, "LONGEST_PAUSE", 1000.0)
    own_redis.kill()
    with service(load(own_redis.url), 1, "who") as (one,):
        own_redis.restart()
        assert one.ask("who") == ([], ())
        wait_until("it to listen", lambda: one.listened)


def test_killed_and_restarted(own_redis: servers.Redis) -> None:
    with service(load(own_redis.url), 3, "who") as (one, two, three):
        assert one.ask("who") == (["host/2", "host/3"], ())
        own_redis.kill()
        came, _ = wait_until("the news", lambda: found if own_redis.url in (found := one.ask("who"))[1] else None)
        assert came == []
        own_redis.restart()
        members = (one, two, three)
        wait_until("all to listen again", lambda: all(len(member.listened) == 2 for member in members))
        assert one.ask("who") == (["host/2", "host/3"], ())
        assert three.ask("who") == (["host/1", "host/2"], ())


@pytest.mark.usefixtures("impatient")
def test_those_who_were_there_are_missing_while_redis_is_away(own_redis: servers.Redis) -> None:
    with service(load(own_redis.url), 3, "who") as (one, _, _):
        assert one.transport._listener is not None
        wait_until("a look", lambda: one.transport._listener.others)
        own_redis.kill()
        expected = ("host/2", "host/3", own_redis.url)
        wait_until("the news", lambda: one.ask("who") == ([], expected))
        assert one.others() == ["host/2", "host/3"]


def test_redis_dies_while_answers_are_awaited(own_redis: servers.Redis) -> None:
    with service(load(own_redis.url), 2, "who") as (one, two):
        two.answers = False
        killer = threading.Timer(0.2, own_redis.kill)
        killer.start()
        assert one.ask("who", 60) == ([], ("host/2", own_redis.url))
        killer.join()


@pytest.mark.usefixtures("impatient")
def test_a_stopped_redis_is_found_out_and_heals(own_redis: servers.Redis) -> None:
    with service(load(own_redis.url), 2, "who") as (one, two):
        own_redis.signal(signal.SIGSTOP)
        wait_until("both to find out", lambda: not any(m.transport._listener.connected for m in (one, two)))
        assert one.ask("who", 0.3)[1][-1] == own_redis.url
        late = Member(load(own_redis.url), "host/late")
        late.open("who")  # a start is not held up
        try:
            assert late.listened == []
            own_redis.signal(signal.SIGCONT)
            wait_until("all to listen", lambda: len(one.listened) == len(two.listened) == 2 and late.listened)
            wait_until("all to answer", lambda: one.ask("who") == (["host/2", "host/late"], ()))
        finally:
            late.transport.close()


@pytest.mark.usefixtures("impatient")
def test_a_subscription_that_the_master_has_lost_is_renewed(own_redis: servers.Redis) -> None:
    with service(load(own_redis.url), 2, "who") as (one, two):
        listener = two.transport._listener
        assert listener is not None and listener._connection is not None
        # as with a connection that ends at a server which is no longer the master: alive, and in no list of the master
        listener._names = Names("elsewhere_")
        wait_until("the look", lambda: guard.tally["broadcast.interrupted"])
        listener._names = Names(PREFIX)
        wait_until("it to listen again", lambda: len(two.listened) > 1)
        wait_until("the answer", lambda: one.ask("who") == (["host/2"], ()))


def test_a_wrong_password_is_said_without_it_and_heals(
    own_redis: servers.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis.command("CONFIG", "SET", "requirepass", "right")
    settings = load(own_redis.url.replace("//", "//:hush@"))
    with service(settings, 1, "who") as (one,):
        assert one.listened == []
        assert one.ask("who") == ([], (own_redis.url,))
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "invalid username-password pair" in said
    assert "hush" not in said


def test_the_rights_that_the_documentation_names_suffice(own_redis: servers.Redis) -> None:
    page = (Path(__file__).parents[2] / "docs" / "broadcast.md").read_text()
    rights = re.findall(r"\+@?[a-z]+", page[page.index("needs `+@") :].partition(" on")[0])
    assert len(rights) > 5
    own_redis.command("ACL", "SETUSER", "shop", "on", ">pw", "~shop_*", "resetchannels", "&shop_*", "-@all", *rights)
    own_redis.command("ACL", "SETUSER", "default", "off")
    settings = load(own_redis.url.replace("//", "//shop:pw@"), C2C_BROADCAST_PREFIX="shop_")
    with service(settings, 2, "who") as (one, _):
        assert one.ask("who") == (["host/2"], ())
        assert one.transport._listener is not None
        one.transport._listener._check()
        backend = RedisBackend(settings)
        assert backend.write("levels", "a", {"value": 1, "expires": None}) is None
        assert backend.read("levels") == {"a": {"value": 1, "expires": None}}
        assert backend.write("levels", "a", None) == {"value": 1, "expires": None}
        assert backend.count("tries", "a", 60) == 1
        assert guard.tally["broadcast.check"] == 0


def test_a_failover() -> None:
    with running(servers.Sentinel()) as sentinel:
        settings = Settings.load({"C2C_REDIS_SENTINELS": f"127.0.0.1:{sentinel.port}", "C2C_BROADCAST_PREFIX": PREFIX})
        with service(settings, 3, "who") as members:
            one = members[0]
            assert one.ask("who") == (["host/2", "host/3"], ())
            sentinel.kill_master()
            begun = time.monotonic()
            came, missing = one.ask("who", 10)
            assert came == []
            assert missing[-1].startswith("sentinel://")
            assert time.monotonic() - begun < 30
            sentinel.wait_for_failover()
            wait_until("all to listen again", lambda: all(len(member.listened) == 2 for member in members))
            assert one.ask("who") == (["host/2", "host/3"], ())


@pytest.mark.usefixtures("impatient")
def test_a_failover_while_the_old_master_lives() -> None:
    with running(servers.Sentinel()) as sentinel:
        settings = Settings.load({"C2C_REDIS_SENTINELS": f"127.0.0.1:{sentinel.port}", "C2C_BROADCAST_PREFIX": PREFIX})
        with service(settings, 3, "who") as members:
            sentinel.failover()
            sentinel.wait_for_failover()
            wait_until("all to move", lambda: members[0].ask("who", 1) == (["host/2", "host/3"], ()))
            assert all(len(member.listened) >= 2 for member in members)


def test_redis_away_holds_up_neither_start_nor_end(own_redis: servers.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    own_redis.signal(signal.SIGSTOP)
    monkeypatch.setattr(transport_module, "OPEN_SECONDS", 0.05)
    member = Member(load(own_redis.url), "host/1")
    begun = time.monotonic()
    member.open("who")
    member.transport.close()
    assert time.monotonic() - begun < 10  # of seconds nothing else is said: the machine may be busy


# -- processes --------------------------------------------------------------------------------------------------------


def test_a_forked_child_leaves_the_parents_subscription_alone(shared: Settings) -> None:
    with service(shared, 2, "who") as (one, two):
        pid = os.fork()
        if not pid:
            two.transport.abandon()
            child = Member(shared, "host/child")
            child.open("who")
            ok = child.ask("who") == (["host/1", "host/2"], ())
            child.transport.close()
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        wait_until("the child's end", lambda: one.ask("who") == (["host/2"], ()))
        assert two.listened == ["MainThread"]


def test_one_thread_and_no_socket_are_left(shared: Settings) -> None:
    before = set(threading.enumerate())
    with service(shared, 2, "who") as (one, _):
        one.ask("who")
        names = sorted(thread.name for thread in set(threading.enumerate()) - before)
        assert names == ["c2c_broadcast_listener"] * 2
    wait_until("the threads' end", lambda: set(threading.enumerate()) <= before)


def test_no_spans(shared: Settings, c2c_telemetry: Any) -> None:
    from c2c_otel.instrumentation.redis import RedisInstrumentor

    instrumentor = RedisInstrumentor()
    instrumentor.instrument()
    try:
        with service(shared, 2, "who") as (one, _):
            assert one.ask("who") == (["host/2"], ())
            one.others()
    finally:
        instrumentor.uninstrument()
    assert c2c_telemetry.spans == []


def test_trouble_is_said_once_however_long_it_lasts(
    own_redis: servers.Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_listener, "LONGEST_PAUSE", 0.02)
    own_redis.kill()
    with service(load(own_redis.url), 1, "who"):
        wait_until("some attempts", lambda: guard.tally["broadcast.interrupted"] > 5)
    assert [record.levelno for record in caplog.records if "reached" in record.getMessage()] == [logging.WARNING]
