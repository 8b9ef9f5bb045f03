"""One process's part: in the process alone, and over a transport that loses, delays and repeats as the test says."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from c2c_otel import broadcast
from c2c_otel.broadcast import lanes, messages
from c2c_otel.broadcast.messages import NOTHING, Question, decode_answer, encode_answer, encode_question
from c2c_otel.broadcast.node import Answers, Node
from c2c_otel.broadcast.transport import Accept, Deliver
from c2c_otel_exporters import guard

ME = {"hostname": socket.gethostname(), "pid": os.getpid()}


class Wire:
    """A transport with no other member than the test: it keeps what was asked, answers with ``answers``."""

    prefix = "p_"

    def __init__(self) -> None:
        self.asked: list[tuple[str, Question]] = []
        self.answers: list[Any] = []
        self.away: tuple[str, ...] = ()
        self.channels: tuple[str, ...] = ()
        self.state = ""
        self.skew = 0.0
        self.key: bytes | None = None
        self.listens_at_once = True

    def open(self, name: str, deliver: Deliver, listening: Callable[[], None], channels: Iterable[str]) -> None:
        self.name, self.deliver, self.listening, self.state = name, deliver, listening, "open"
        self.channels = tuple(channels)
        if self.listens_at_once:
            listening()

    def subscriptions_changed(self, channels: Iterable[str]) -> None:
        self.channels = tuple(channels)

    def ask(
        self, channel: str, question: bytes, answer_channel: str | None, timeout: float, accept: Accept
    ) -> tuple[str, ...]:
        asked = messages.decode_question(question, channel, self.key, self.now())
        assert asked.answer_channel == answer_channel
        self.asked.append((channel, asked))
        for number, value in enumerate(self.answers):
            assert accept(encode_answer(asked, f"other/{number}", value, self.key)) == f"other/{number}"
        return self.away if answer_channel else ()

    def members(self) -> tuple[str, ...]:
        return self.away

    def now(self) -> float:
        return time.time() + self.skew

    def close(self) -> None:
        self.state = "closed"

    def abandon(self) -> None:
        self.state = "abandoned"

    def question(self, channel: str, params: dict[str, Any] | None = None, **changes: Any) -> bytes:
        """A question of another member's."""
        asked = Question(channel, params or {}, "p_a", messages.new_id(), self.now() + 5, "other/1")
        return encode_question(asked._replace(**changes), self.key)

    def send(self, channel: str, message: bytes) -> tuple[bool, Replies]:
        replies = Replies()
        return self.deliver(channel, message, replies), replies


class Replies:
    """What was answered to one question."""

    def __init__(self) -> None:
        self.came: list[tuple[str, bytes]] = []
        self._one = threading.Event()

    def __call__(self, answer_channel: str, answer: bytes) -> None:
        self.came.append((answer_channel, answer))
        self._one.set()

    def value(self, key: bytes | None = None) -> Any:
        """The answer, once it is there."""
        assert self._one.wait(10)
        [(answer_channel, answer)] = self.came
        assert answer_channel == "p_a"
        return decode_answer(answer, _id_of(answer), key).value


def _id_of(answer: bytes) -> str:
    import json

    return str(json.loads(answer)["id"])


def joined(wire: Wire | None = None) -> tuple[Node, Wire]:
    node, wire = Node(), wire or Wire()
    node.join(wire, wire.key)
    return node, wire


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


# -- in the process alone ---------------------------------------------------------------------------------------------


def test_without_a_transport_a_callback_runs_here() -> None:
    node, before = Node(), names()
    seen: list[Any] = []

    def callback(**params: Any) -> dict[str, int]:
        seen.append((params, threading.current_thread().name))
        return {"n": len(seen)}

    node.subscribe("c", callback)
    assert node.broadcast("c", {"a": (1, 2)}, True, 5) == [{"n": 1, **ME}]
    assert node.broadcast("c", None, False, 5) is None
    assert seen == [({"a": [1, 2]}, "MainThread"), ({}, "MainThread")]  # parameters as they arrive elsewhere
    assert node.broadcast("other", {}, True, 5) == []
    node.unsubscribe("c")
    node.unsubscribe("c")
    answers = node.broadcast("c", {}, True, 5)
    assert answers == []
    assert isinstance(answers, Answers)
    assert answers.missing == ()
    assert names() == before


@pytest.mark.parametrize("with_transport", [False, True])
def test_what_a_callback_raises_is_its_answer(with_transport: bool, caplog: pytest.LogCaptureFixture) -> None:
    node = joined()[0] if with_transport else Node()
    node.subscribe("c", lambda: 1 / 0)
    node.subscribe("json", lambda: {1, 2})
    assert node.broadcast("c", {}, True, 5) == [{"status": 500, "message": "division by zero", **ME}]
    assert caplog.records[0].exc_info
    wrong = (node.broadcast("c", {"unknown": 1}, True, 5) or Answers())[0]
    assert "unexpected keyword argument 'unknown'" in wrong["message"]
    no_json = (node.broadcast("json", {}, True, 5) or Answers())[0]
    assert no_json["status"] == 500
    assert "set is not JSON" in no_json["message"]
    node.leave()


@pytest.mark.parametrize("with_transport", [False, True])
def test_parameters_that_are_not_json_are_the_callers_fault(with_transport: bool) -> None:
    node = joined()[0] if with_transport else Node()
    with pytest.raises(TypeError, match="not JSON serializable"):
        node.broadcast("c", {"a": {1}}, True, 5)
    node.leave()


@pytest.mark.parametrize("with_transport", [False, True])
def test_a_question_never_goes_round(with_transport: bool) -> None:
    """On its own channel, also by way of another one, a broadcast inside of a callback stays here."""
    node, wire = joined() if with_transport else (Node(), Wire())
    depth: list[str] = []

    def round_about(channel: str, other: str) -> Any:
        def callback() -> Any:
            depth.append(channel)
            return node.broadcast(other, {}, True, 5) if len(depth) < 5 else None

        return callback

    node.subscribe("self", round_about("self", "self"))
    assert node.broadcast("self", {}, True, 5) == [[[[[None]]]]]
    assert depth == ["self"] * 5
    depth.clear()
    node.subscribe("a", round_about("a", "b"))
    node.subscribe("b", round_about("b", "a"))
    assert node.broadcast("a", {}, True, 5) == [[[[[None]]]]]
    assert depth == ["a", "b", "a", "b", "a"]
    if with_transport:
        assert [(channel, asked.via) for channel, asked in wire.asked] == [("self", ()), ("a", ()), ("b", ("a",))]
        depth.clear()
        will, replies = wire.send("b", wire.question("b", via=("a",)))  # somebody's callback of a has asked this
        assert will
        assert replies.value() == [[[[None]]]]
        assert len(wire.asked) == 3
    node.leave()


# -- over a transport -------------------------------------------------------------------------------------------------


def test_the_senders_own_callback_is_one_of_the_answers() -> None:
    node, wire = joined()
    node.subscribe("c", lambda a: {"a": a, "thread": threading.current_thread().name})
    wire.answers = [{"other": 1}, NOTHING, None]
    answers = node.broadcast("c", {"a": 1}, True, 5)
    assert answers == [{"a": 1, "thread": "c2c_broadcast_c", **ME}, {"other": 1}, None]
    assert answers.missing == ()
    [(channel, asked)] = wire.asked
    assert (channel, asked.params, asked.sender) == ("c", {"a": 1}, f"{ME['hostname']}/{ME['pid']}")
    assert asked.answer_channel == f"p_c{asked.id}"
    assert 4 < asked.deadline - time.time() <= 5
    assert node.broadcast("c", {"a": 2}, False, 5) is None
    assert wire.asked[1][1].answer_channel is None
    node.unsubscribe("c")
    assert node.broadcast("c", {}, True, 5) == [{"other": 1}, None]
    node.leave()
    assert wire.state == "closed"


def test_who_does_not_answer_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    node, wire = joined()
    wire.away = ("other/7", "")
    wire.answers = [1]
    answers = node.broadcast("c", {}, True, 2)
    assert answers == [1, None, None]
    assert answers.missing == ("other/7", "")
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "broadcast c: no answer within 2 s from other/7, unknown"
    node.broadcast("c", {}, False, 2)
    assert len(caplog.records) == 1


def test_a_slow_callback_holds_up_its_own_channel_alone() -> None:
    node, wire = joined()
    go = threading.Event()
    node.subscribe("slow", lambda: go.wait(20))
    node.subscribe("quick", lambda: "here")
    answers = node.broadcast("slow", {}, True, 0.05)
    assert answers == [None]
    assert answers.missing == (node.name,)
    assert node.broadcast("quick", {}, True, 10) == ["here"]
    waiting = [wire.send("slow", wire.question("slow")) for _ in range(lanes.LIMIT)]
    assert all(will for will, _ in waiting)
    assert wire.send("slow", wire.question("slow"))[0] is False  # one too many
    assert guard.tally["dropped.broadcast.question"] == 1
    answers = node.broadcast("slow", {}, True, 0.05)
    assert (answers, answers and answers.missing) == ([None], (node.name,))
    assert guard.tally["dropped.broadcast.question"] == 2
    assert wire.send("quick", wire.question("quick"))[1].value() == "here"
    go.set()
    assert [replies.value() for _, replies in waiting] == [True] * lanes.LIMIT  # one after the other, none lost
    assert names().count("c2c_broadcast_slow") == 1
    node.leave()


def test_an_idle_thread_ends_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "IDLE_SECONDS", 0.01)
    node, _ = joined()
    node.subscribe("idle", lambda: threading.get_ident())
    for _ in range(3):
        assert len(node.broadcast("idle", {}, True, 10) or ()) == 1
        end = time.monotonic() + 10
        while "c2c_broadcast_idle" in names():
            assert time.monotonic() < end
            time.sleep(0.005)


def test_what_exits_ends_its_own_job_alone() -> None:
    node, wire = joined()
    node.subscribe("c", lambda end: sys.exit(1) if end else "here")
    will, replies = wire.send("c", wire.question("c", {"end": True}))
    assert will
    assert wire.send("c", wire.question("c", {"end": False}))[1].value() == "here"
    assert replies.came == []
    assert guard.tally["broadcast.callback_exited"] == 1


def test_questions_of_others_are_answered() -> None:
    for key in (None, messages.key_of("secret")):
        wire = Wire()
        wire.key = key
        node, _ = joined(wire)
        node.subscribe("c", lambda a: {"a": a})
        will, replies = wire.send("c", wire.question("c", {"a": 1}))
        assert will
        assert replies.value(key) == {"a": 1, **ME}
        will, replies = wire.send("c", wire.question("c", {"a": 1}, answer_channel=None))
        assert not will
        will, replies = wire.send("nobody", wire.question("nobody"))
        assert will
        assert replies.value(key) is NOTHING
        will, replies = wire.send("nobody", wire.question("nobody", id="", deadline=float("inf")))
        assert (will, replies.came) == (False, [])
        node.leave()


def test_what_is_refused_is_counted_and_not_acted_upon(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire()
    wire.key = messages.key_of("secret")
    node, _ = joined(wire)
    seen: list[int] = []
    node.subscribe("c", lambda: seen.append(1))
    good = wire.question("c")
    other = encode_question(Question("c", {}, "p_a", "9", wire.now() + 5, ""), messages.key_of("other"))
    plain = encode_question(Question("c", {}, "p_a", "8", wire.now() + 5, ""), None)
    late = wire.question("c", deadline=wire.now() - 1)
    assert wire.send("c", good)[1].value(wire.key) is None
    for message in (good, good, other, plain, plain, late, b"", b"{", bytes(messages.MAX_QUESTION_BYTES + 1)):
        assert wire.send("c", message)[0] is False
    assert wire.send("d", wire.question("c"))[0] is False
    reasons = {"repeated": 2, "forged": 1, "unsigned": 4, "late": 1, "oversized": 1, "astray": 1}
    assert guard.tally == {f"broadcast.refused.{reason}": count for reason, count in reasons.items()}
    assert seen == [1]
    warned = [record.getMessage() for record in caplog.records]
    assert [("C2C_SECRET" in text, "forged" in text) for text in warned] == [(True, True), (True, False)]
    node.leave()


def test_what_has_waited_for_too_long_is_dropped() -> None:
    node, wire = joined()
    go, begun = threading.Event(), threading.Event()
    seen: list[int] = []

    def callback(n: int) -> None:
        begun.set()
        go.wait(20)
        seen.append(n)

    node.subscribe("c", callback)
    _, first = wire.send("c", wire.question("c", {"n": 1}))
    assert begun.wait(10)
    _, second = wire.send("c", wire.question("c", {"n": 2}, deadline=wire.now() + 3600))
    wire.skew = 7200  # the time that passes
    _, third = wire.send("c", wire.question("c", {"n": 3}))
    go.set()
    assert third.value() is None
    assert seen == [1, 3]
    assert second.came == []
    assert guard.tally["broadcast.refused.late"] == 1
    assert len(first.came) == 1


def test_the_transports_clock_counts() -> None:
    wire = Wire()
    wire.skew = -5000.0
    node, _ = joined(wire)
    node.subscribe("c", lambda: 1)
    assert node.broadcast("c", {}, True, 5) == [1]
    assert wire.asked[0][1].deadline < time.time() - 4000
    assert wire.send("c", wire.question("c"))[1].value() == 1


def test_ones_own_question_that_comes_back_is_no_other() -> None:
    node, wire = joined()
    seen: list[int] = []
    node.subscribe("c", lambda: seen.append(1))
    assert node.broadcast("c", {}, True, 5) == [None]
    assert wire.send("c", encode_question(wire.asked[0][1], None))[0] is False
    assert seen == [1]
    assert not guard.tally


def test_many_questions_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("c2c_otel.broadcast.node._MAX_REMEMBERED", 10)
    node, wire = joined()
    node.subscribe("c", lambda: 1)
    for number in range(40):
        deadline = wire.now() + (0.001 if number < 5 else 100)
        wire.send("c", wire.question("c", deadline=deadline))
    assert len(node._seen) <= 10
    repeated = wire.question("c")
    assert [wire.send("c", repeated)[0] for _ in range(2)] == [True, False]
    node.leave()


def test_answers_that_are_refused_do_not_count(caplog: pytest.LogCaptureFixture) -> None:
    class Liar(Wire):
        def ask(
            self, channel: str, question: bytes, answer_channel: str | None, timeout: float, accept: Accept
        ) -> tuple[str, ...]:
            asked = messages.decode_question(question, channel, self.key, self.now())
            assert accept(b"1") is None
            assert accept(encode_answer(asked, "liar/1", 1, messages.key_of("other"))) is None
            assert accept(encode_answer(asked._replace(id="another"), "liar/1", 1, self.key)) is None
            return ("liar/1",)

    wire = Liar()
    wire.key = messages.key_of("secret")
    node, _ = joined(wire)
    answers = node.broadcast("c", {}, True, 5)
    assert answers == [None]
    assert answers.missing == ("liar/1",)
    assert {name: guard.tally[f"broadcast.refused.{name}"] for name in ("unsigned", "forged", "astray")} == {
        "unsigned": 1,
        "forged": 1,
        "astray": 1,
    }


def test_a_transport_that_fails_is_not_the_callers_problem() -> None:
    class Broken(Wire):
        def ask(self, *args: Any) -> tuple[str, ...]:
            raise OSError("Too many open files")

    node, _ = joined(Broken())
    node.subscribe("c", lambda: 1)
    guard.strict(False)
    try:
        answers = node.broadcast("c", {}, True, 5)
    finally:
        guard.strict(None)
    assert answers == [1, None]
    assert answers.missing == ("",)
    assert guard.tally["failed.broadcast.ask"] == 1


# -- taking part ------------------------------------------------------------------------------------------------------


def test_joining_tells_those_who_want_to_know_afterwards() -> None:
    wire = Wire()
    node = Node()
    seen: list[tuple[str, str, bool]] = []

    free: list[bool] = []

    def take() -> None:
        """The lock is nobody's while a callback runs."""
        free.append(node._joining.acquire(timeout=5))
        node._joining.release()

    def tell(name: str) -> Callable[[], None]:
        def callback() -> None:
            thread = threading.Thread(target=take)
            thread.start()
            thread.join()
            seen.append((name, wire.state, free.pop()))
            node.subscribe(f"of {name}", lambda: None)  # what it may want to do

        return callback

    node.on_join(tell("first"))
    node.subscribe("c", lambda: None)
    assert seen == []
    node.join(wire, None)
    node.join(wire, None)
    node.on_join(tell("second"))
    expected = [("first", "open", True), ("second", "open", True)]
    assert seen == expected
    assert list(wire.channels) == ["c", "of first", "of second"]
    assert wire.name == node.name
    node.unsubscribe("c")
    assert list(wire.channels) == ["of first", "of second"]
    node.leave()
    node.leave()
    assert not node.joined
    assert node.transport is None
    node.join()
    assert [told for told, _, _ in seen] == ["first", "second"] * 2
    assert node.joined


def test_a_transport_that_listens_later_and_again() -> None:
    wire = Wire()
    wire.listens_at_once = False
    node, seen = Node(), threading.Semaphore(0)
    node.on_join(seen.release)
    node.join(wire, None)
    node.on_join(lambda: None)
    assert node.joined
    assert not seen.acquire(timeout=0.05)
    for _ in range(2):
        wire.listening()
        assert seen.acquire(timeout=10)
        assert not seen.acquire(timeout=0.01)


def test_one_that_fails_on_joining_does_not_keep_the_others_from_it(caplog: pytest.LogCaptureFixture) -> None:
    node, seen = Node(), []
    node.on_join(lambda: 1 / 0)  # type: ignore[arg-type]  # it returns nothing, indeed
    node.on_join(lambda: seen.append(1))
    guard.strict(False)
    try:
        node.join()
    finally:
        guard.strict(None)
    assert seen == [1]
    assert guard.tally["failed.broadcast.on_join"] == 1
    node.leave()
    with pytest.raises(ZeroDivisionError):  # a test sees it
        node.join()


def test_a_transport_that_cannot_listen_here() -> None:
    class Deaf(Wire):
        def open(self, *args: Any) -> None:
            raise OSError("no socket")

    node = Node()
    with pytest.raises(OSError, match="no socket"):
        node.join(Deaf(), None)
    assert not node.joined
    node.join()
    assert node.joined


def test_a_forked_child_starts_afresh() -> None:
    node, wire = joined()
    node.subscribe("c", lambda: "own")
    node.on_join(lambda: None)
    token, lock = node._token, node._joining
    lock.acquire()
    try:
        node.after_fork()
    finally:
        lock.release()
    assert wire.state == "abandoned"
    assert not node.joined
    assert node._token != token
    assert node.broadcast("c", {}, True, 1) == ["own"]


def test_alone_for_a_while() -> None:
    node, wire = joined()
    node.subscribe("c", lambda: "here")
    told: list[bool] = []
    with node.alone():
        assert not node.joined
        node.on_join(lambda: told.append(True))
        node.join()
        assert told == [True]
        assert node.broadcast("c", {}, True, 5) == ["here"]
        assert wire.asked == []
        assert wire.send("c", wire.question("c"))[1].value() == "here"
    assert node.joined
    node.broadcast("c", {}, True, 5)
    assert len(wire.asked) == 1


# -- the public functions ---------------------------------------------------------------------------------------------


def test_a_decorated_function_runs_everywhere() -> None:
    @broadcast.decorator(expect_answers=True)
    def add(a: int, b: int) -> dict[str, int]:
        """Adds."""
        return {"sum": a + b}

    @broadcast.decorator("named")
    def quiet(**params: int) -> None:
        seen.append(params)

    seen: list[dict[str, int]] = []
    try:
        assert add(a=1, b=2) == [{"sum": 3, **ME}]
        assert add.__doc__ == "Adds."
        with pytest.raises(TypeError, match="name its arguments"):
            add(1, 2)
        assert quiet(a=1) is None
        assert broadcast.broadcast("named", {"a": 2}) is None
        assert seen == [{"a": 1}, {"a": 2}]
        channel = f"c2c_decorated_{__name__}.add"
        assert broadcast.broadcast(channel, {"a": 1, "b": 1}, expect_answers=True) == [{"sum": 2, **ME}]
    finally:
        broadcast.unsubscribe("named")
        broadcast.unsubscribe(f"c2c_decorated_{__name__}.add")
