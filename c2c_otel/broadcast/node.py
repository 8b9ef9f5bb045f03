"""One process's part in the broadcast: its subscriptions, what it asks and what it answers.

With a transport, a callback runs on its channel's thread; without one (before `Node.join`, or where there is nobody
else) on the caller's, and no thread is started.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from c2c_otel.broadcast import messages
from c2c_otel.broadcast.lanes import Lanes
from c2c_otel.broadcast.messages import NOTHING, Question, Refused
from c2c_otel.broadcast.transport import Reply, Transport
from c2c_otel_exporters import guard

__all__ = ["Answers", "Node"]

_MAX_REMEMBERED = 10_000  # questions that are still valid; nobody asks that many within their time

_logger = logging.getLogger("c2c_otel.broadcast")
_via: ContextVar[tuple[str, ...]] = ContextVar("c2c_broadcast_via", default=())
"""The channels whose callbacks are being run, here or where the question came from. A question never goes round: on
one of these channels it stays in the process."""


class Answers(list[Any]):
    """One for each process that was asked, None for one that did not answer. ``missing``: the names of those, as
    ``hostname/pid``, empty for one that cannot be named."""

    missing: tuple[str, ...] = ()


class _Own:
    """What this process itself answers to its question."""

    def __init__(self) -> None:
        self.value: Any = NOTHING
        self.done = threading.Event()


class Node:
    """The subscriptions of this process. Thread-safe."""

    def __init__(self) -> None:
        self._callbacks: dict[str, Callable[..., Any]] = {}
        self._on_join: list[Callable[[], None]] = []
        self._transport: Transport | None = None
        self._renew()

    def _renew(self) -> None:
        """Become one that has not joined, with locks nobody holds."""
        self._lock = threading.Lock()
        self._joining = threading.RLock()
        self._lanes = Lanes()
        self._token = os.urandom(8).hex()
        self._seen: dict[str, float] = {}
        self._key: bytes | None = None
        self.joined = self._listens = False

    @property
    def name(self) -> str:
        """``hostname/pid``."""
        return f"{socket.gethostname()}/{os.getpid()}"

    @property
    def transport(self) -> Transport | None:
        """What carries the questions; None where they stay in the process."""
        return self._transport

    # -- taking part --------------------------------------------------------------------------------------------------

    def join(self, transport: Transport | None = None, key: bytes | None = None) -> None:
        """Begin to listen, then call those of `on_join`. Idempotent. ``key`` signs the messages.

        Raises OSError where the transport cannot listen here: the process has not joined then.
        """
        with self._joining:
            if self.joined:
                return
            self._key = key
            if transport is not None:
                transport.open(
                    self.name,
                    lambda channel, message, reply: self._deliver(transport, channel, message, reply),
                    lambda: self._listening(transport),
                    tuple(self._callbacks),
                )
                transport.subscriptions_changed(tuple(self._callbacks))  # those of meanwhile
            self._transport = transport
            self.joined = True
            self._listens = self._listens or transport is None
            callbacks = list(self._on_join) if self._listens else []
        self._tell_joined(callbacks)

    def _listening(self, transport: Transport) -> None:
        """The transport listens: now, in `join` (which sees to the rest), or again."""
        with self._lock:
            self._listens = True
            again = self._transport is transport
        if again:
            again_telling = threading.Thread(
                target=self._tell_joined, args=(list(self._on_join),), name="c2c_broadcast_join", daemon=True
            )
            try:
                again_telling.start()
            except RuntimeError:  # the interpreter ends
                guard.count("failed.broadcast.on_join")

    @staticmethod
    def _tell_joined(callbacks: list[Callable[[], None]]) -> None:
        for callback in callbacks:
            try:
                callback()
            except Exception:
                guard.failed("broadcast.on_join")

    def on_join(self, callback: Callable[[], None]) -> None:
        """See `c2c_otel.broadcast.on_join`."""
        with self._joining:
            self._on_join.append(callback)
            now = self.joined and self._listens
        if now:
            self._tell_joined([callback])

    def leave(self) -> None:
        """Take no further part; what waits to be done is forgotten. Idempotent."""
        with self._joining:
            transport, self._transport = self._transport, None
            self.joined = self._listens = False
            self._lanes.clear()
        if transport is not None:
            transport.close()

    def after_fork(self) -> None:
        """In a forked child: the subscriptions stay, the rest is the parent's."""
        transport, self._transport = self._transport, None
        self._renew()
        if transport is not None:
            transport.abandon()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Until the block ends, the process asks nobody else, and has not joined; others can still ask it."""
        before = self._transport, self.joined, self._listens, self._key
        self._transport, self.joined, self._listens = None, False, False
        try:
            yield
        finally:
            self._transport, self.joined, self._listens, self._key = before

    # -- subscriptions ------------------------------------------------------------------------------------------------

    def subscribe(self, channel: str, callback: Callable[..., Any]) -> None:
        """See `c2c_otel.broadcast.subscribe`."""
        self._callbacks[channel] = callback
        self._subscriptions_changed()

    def unsubscribe(self, channel: str) -> None:
        """See `c2c_otel.broadcast.unsubscribe`."""
        if self._callbacks.pop(channel, None) is not None:
            self._subscriptions_changed()

    def _subscriptions_changed(self) -> None:
        transport = self._transport
        if transport is not None:
            transport.subscriptions_changed(tuple(self._callbacks))

    # -- asking -------------------------------------------------------------------------------------------------------

    def broadcast(
        self, channel: str, params: Mapping[str, Any] | None, expect_answers: bool, timeout: float
    ) -> Answers | None:
        """See `c2c_otel.broadcast.broadcast`."""
        transport = self._transport
        if transport is None or channel in _via.get():
            return self._ask_oneself(channel, params, expect_answers)
        timeout = min(timeout, messages.MAX_SECONDS)
        identity = messages.new_id(self._token)
        answer_channel = f"{transport.prefix}{channel}{identity}" if expect_answers else None
        deadline = transport.now() + timeout
        question = Question(channel, dict(params or {}), answer_channel, identity, deadline, self.name, _via.get())
        message = messages.encode_question(question, self._key)
        end = time.monotonic() + timeout
        own = self._ask_own(transport, question._replace(params=json.loads(json.dumps(question.params))))
        came: list[Any] = []
        try:
            missing = transport.ask(channel, message, answer_channel, timeout, self._accept(identity, came))
        except Exception:  # no descriptor left, say: what came is still an answer
            guard.failed("broadcast.ask")
            missing = ("",)
        if not expect_answers:
            return None
        own.done.wait(max(0.0, end - time.monotonic()))
        return self._answers(channel, timeout, own, list(came), missing)

    def _ask_oneself(self, channel: str, params: Mapping[str, Any] | None, expect_answers: bool) -> Answers | None:
        question = Question(channel, json.loads(json.dumps(dict(params or {}))), None, "", 0.0, "", _via.get())
        value = _as_json(self._call(question))
        if not expect_answers:
            return None
        return Answers([] if value is NOTHING else [value])

    def _ask_own(self, transport: Transport, question: Question) -> _Own:
        own = _Own()
        if question.channel not in self._callbacks:
            own.done.set()
            return own

        def job() -> None:
            if self._in_time(transport, question):
                own.value = _as_json(self._call(question))
                own.done.set()

        if not self._lanes.put(question.channel, job):
            guard.dropped("broadcast.question")
        return own

    def _accept(self, identity: str, came: list[Any]) -> Callable[[bytes], str | None]:
        key = self._key

        def accept(message: bytes) -> str | None:
            try:
                answer = messages.decode_answer(message, identity, key)
            except Refused as refused:
                self._refused(refused)
                return None
            if answer.value is not NOTHING:
                came.append(answer.value)
            return answer.sender

        return accept

    def _answers(self, channel: str, timeout: float, own: _Own, came: list[Any], missing: tuple[str, ...]) -> Answers:
        if not own.done.is_set():
            missing = (self.name, *missing)
        elif own.value is not NOTHING:
            came.insert(0, own.value)
        answers = Answers([*came, *(None for _ in missing)])
        answers.missing = missing
        if missing:
            names = ", ".join(name or "unknown" for name in missing)
            _logger.warning("broadcast %s: no answer within %g s from %s", channel, timeout, names)
        return answers

    # -- answering ----------------------------------------------------------------------------------------------------

    def _deliver(self, transport: Transport, channel: str, message: bytes, reply: Reply) -> bool:
        """See `c2c_otel.broadcast.transport.Deliver`."""
        try:
            question = messages.decode_question(message, channel, self._key, transport.now())
            if question.id.startswith(self._token):  # our own, come back
                return False
            if not self._is_new(question, transport.now()):
                raise Refused("repeated")
        except Refused as refused:
            self._refused(refused)
            return False
        if channel not in self._callbacks:
            return self._reply(question, NOTHING, reply)

        def job() -> None:
            if self._in_time(transport, question):
                self._reply(question, self._call(question), reply)

        if not self._lanes.put(channel, job):
            guard.dropped("broadcast.question", reason=f"too many wait for the callback of {channel}")
            return False
        return question.answer_channel is not None

    def _is_new(self, question: Question, now: float) -> bool:
        """Whether it has not come before: a copy of a signed question is not acted upon."""
        if not question.id:
            return True
        with self._lock:
            if question.id in self._seen:
                return False
            if len(self._seen) >= _MAX_REMEMBERED:
                self._seen = {identity: until for identity, until in self._seen.items() if until >= now}
            if len(self._seen) >= _MAX_REMEMBERED:
                del self._seen[next(iter(self._seen))]
            self._seen[question.id] = question.deadline
            return True

    def _in_time(self, transport: Transport, question: Question) -> bool:
        if question.deadline >= transport.now():
            return True
        guard.count("broadcast.refused.late")
        return False

    def _reply(self, question: Question, value: Any, reply: Reply) -> bool:
        if question.answer_channel is None or (value is NOTHING and not question.id):
            return False
        reply(question.answer_channel, messages.encode_answer(question, self.name, value, self._key))
        return True

    def _call(self, question: Question) -> Any:
        """What the channel's callback answers; a status 500 where it raises."""
        callback = self._callbacks.get(question.channel)
        if callback is None:
            return NOTHING
        before = _via.set((*question.via, question.channel))
        try:
            value = callback(**question.params)
        except Exception as error:
            _logger.exception("The callback of the broadcast channel %s failed", question.channel)
            value = {"status": 500, "message": str(error)}
        finally:
            _via.reset(before)
        if isinstance(value, dict):
            value = {**value, "hostname": socket.gethostname(), "pid": os.getpid()}
        return value

    @staticmethod
    def _refused(refused: Refused) -> None:
        guard.count(f"broadcast.refused.{refused}")
        if str(refused) in ("unsigned", "forged"):
            guard.warn_once(
                f"broadcast.{refused}",
                "A broadcast message was refused: it is %s. All processes of a service need the same C2C_SECRET and "
                "C2C_BROADCAST_PREFIX. Further ones are only counted.",
                refused,
            )


def _as_json(value: Any) -> Any:
    """The value as it would arrive elsewhere: this process's own answer is like that of the others."""
    if value is NOTHING:
        return value
    plain = Question("", {}, None, "", 0.0, "")  # without an id: the bare answer
    return json.loads(messages.encode_answer(plain, "", value, None))
