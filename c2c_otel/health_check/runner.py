"""Runs checks: each on a thread of its own, none twice at a time, and nobody waits for one that hangs.

A request asks for checks and gets a `Result` for each: what was found a moment ago, what another request's run of it
finds, or what a run of its own does. A run that exceeds its deadline has failed; its thread is left behind and the
check is not started again until it returns. So there are never more threads than `MAX_AT_ONCE` and one for each check
that hangs.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextvars import copy_context
from time import monotonic, perf_counter
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from c2c_otel import telemetry
from c2c_otel.health_check import isolation, measures, wording
from c2c_otel_exporters import guard, plain

__all__ = ["LEVEL", "MAX_AT_ONCE", "NAME", "Check", "JsonCheckException", "Result", "Runner"]

MAX_AT_ONCE = 8
"""Checks that run at a time in one process, all of its applications together."""

NAME: Final = "c2c.health_check.name"
LEVEL: Final = "c2c.health_check.level"
"""Attributes of the spans of checks."""

_SCOPE = "c2c_otel.health_check"

_logger = logging.getLogger("c2c_otel.health_check")


class JsonCheckException(Exception):  # noqa: N818 - the name that applications know
    """Raised by a check that has something to show where it fails: ``json`` becomes its ``result``."""

    def __init__(self, message: str, json: Any) -> None:
        super().__init__(message)
        self.json = json


@dataclasses.dataclass(eq=False)
class Check:
    """``call(request)`` returns the result or raises. ``deadline``: seconds. ``private``: the result is not for
    everybody. ``automatic``: added without being asked for, and replaced by one of the same name."""

    name: str
    level: int
    call: Callable[[Any], Any]
    deadline: float
    private: bool = False
    automatic: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """``value`` is what JSON can hold. The texts are of a failure; `wording.Said` tells them apart."""

    ok: bool
    seconds: float
    value: Any = None
    message: str = ""
    detailed: str = ""
    stacktrace: str = ""


class _Run:
    """One run of a check, which any number of requests may wait for. ``ends``: by `time.monotonic`; not before it has
    a thread."""

    __slots__ = ("began", "check", "done", "ends", "result", "since")

    def __init__(self, check: Check) -> None:
        self.check = check
        self.done = threading.Event()
        self.result: Result | None = None
        self.since = self.began = 0.0
        self.ends = math.inf

    def begin(self) -> None:
        self.since, self.began = time.time(), monotonic()
        self.ends = self.began + self.check.deadline


class _Threads:
    """Who runs. Those that are over their deadline no longer count."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._changed = threading.Condition()
        self._running: set[_Run] = set()

    def start(self, run: _Run, work: Callable[[], None], end: float) -> str:
        """Why it could not be started before ``end``; empty where it was."""
        with self._changed:
            while True:
                now = monotonic()
                busy = [other.ends for other in self._running if other.ends > now]
                if len(busy) < MAX_AT_ONCE:
                    break
                if now >= end:
                    return "too many other checks are running"
                self._changed.wait(min(*busy, end) - now)
            run.begin()
            self._running.add(run)
        try:
            threading.Thread(target=work, name=f"c2c_health_check {run.check.name}", daemon=True).start()
        except RuntimeError:  # the interpreter is ending, or the system has no thread left
            self.ended(run)
            return "there is no thread to be had"
        return ""

    def ended(self, run: _Run) -> None:
        with self._changed:
            self._running.discard(run)
            self._changed.notify_all()


_threads = _Threads()


@dataclasses.dataclass
class _State:
    """What is known of a check. ``at``: `time.monotonic` of ``last``; ``on``: the same by `time.time`."""

    run: _Run | None = None
    last: Result | None = None
    at: float = 0.0
    on: float = 0.0
    succeeded: Result | None = None


class Runner:
    """``cache``: seconds for which a result is an answer. ``total``: seconds that a request waits. Thread-safe."""

    def __init__(self, cache: float, total: float) -> None:
        self._cache = cache
        self._total = total
        self.renew()
        _forkable.add(self)
        measures.show_ages(self)

    def renew(self) -> None:
        """Know nothing, with locks nobody holds."""
        self._lock = threading.Lock()
        self._states: dict[Check, _State] = {}

    def last_runs(self) -> list[tuple[str, float]]:
        """Names of checks, and when they were last run (unix time)."""
        with self._lock:
            return [(check.name, state.on) for check, state in self._states.items() if state.on]

    def run(self, request: Any, checks: Iterable[Check], *, once: bool = False) -> list[tuple[Check, Result]]:
        """A result for each. ``once``: a success of any time will do."""
        end = monotonic() + self._total
        asked = [(check, *self._ask(check, once)) for check in checks]
        for _, found, is_new in asked:
            if isinstance(found, _Run) and is_new:
                self._start(found, request, end)
        return [(check, self._wait(found, end) if isinstance(found, _Run) else found) for check, found, _ in asked]

    def _ask(self, check: Check, once: bool) -> tuple[Result | _Run, bool]:
        """A result, or a run, and whether that is to be started."""
        with self._lock:
            state = self._states.setdefault(check, _State())
            now = monotonic()
            if once and state.succeeded is not None:
                return state.succeeded, False
            if state.last is not None and now - state.at < self._cache:
                return state.last, False
            run = state.run
            if run is None:
                run = state.run = _Run(check)
                return run, True
            if run.result is None and now < run.ends:
                return run, False
            late = run.result is not None
        if not late:
            return self._expire(run), False
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(run.since))
        result = _failure(f"still running since {since}", now - run.began)
        self._note(check, result)
        return result, False

    def _start(self, run: _Run, request: Any, end: float) -> None:
        context = copy_context()
        try:
            trouble = _threads.start(run, lambda: context.run(self._work, run, request), end)
        except BaseException as error:
            self._finish(run, _failed(error, 0.0))
            raise
        if trouble:
            self._finish(run, _failure(f"not run: {trouble}", 0.0))

    def _wait(self, run: _Run, end: float) -> Result:
        while run.result is None:
            now = monotonic()
            if now >= run.ends:
                return self._expire(run)
            if now >= end:
                return _failure(f"no answer within the {self._total:g} s that there are for all checks", self._total)
            run.done.wait(min(run.ends, end) - now)
        return run.result

    # -- the thread of a run ------------------------------------------------------------------------------------------

    def _work(self, run: _Run, request: Any) -> None:
        result = _failure("not run", 0.0)
        try:
            result = _measured(run.check, request)
        except BaseException as error:
            result = _failed(error, 0.0)
        finally:
            _threads.ended(run)
            self._finish(run, result)

    def _finish(self, run: _Run, result: Result) -> None:
        """It is over. What is late is not believed: it was said to have failed."""
        with self._lock:
            state = self._states.setdefault(run.check, _State())
            if state.run is run:
                state.run = None
            if run.result is not None:
                return
            run.result = result
            before = self._keep(state, result)
        run.done.set()
        _tell(run.check, result, before)

    def _expire(self, run: _Run) -> Result:
        """It has exceeded its deadline, and goes on."""
        check = run.check
        with self._lock:
            if run.result is not None:
                return run.result
            result = run.result = _failure(f"no answer within {check.deadline:g} s", check.deadline)
            before = self._keep(self._states.setdefault(check, _State()), result)
        run.done.set()
        _tell(check, result, before)
        return result

    def _note(self, check: Check, result: Result) -> None:
        with self._lock:
            before = self._keep(self._states.setdefault(check, _State()), result)
        _tell(check, result, before)

    def _keep(self, state: _State, result: Result) -> Result | None:
        """What was known before."""
        before, state.last = state.last, result
        state.at, state.on = monotonic(), time.time()
        if result.ok:
            state.succeeded = result
        return before


def _measured(check: Check, request: Any) -> Result:
    """Run it, in a span of its own."""
    attributes: dict[str, Any] = {NAME: check.name, LEVEL: check.level}
    span = telemetry.get().tracer(_SCOPE).start_span(f"health_check {check.name}", attributes=attributes)
    started = perf_counter()
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            with isolation.isolated(request) as own:
                value = check.call(own)
            return Result(True, perf_counter() - started, wording.without_passwords(plain.plain(value)))
        except BaseException as error:
            result = _failed(error, perf_counter() - started)
            cause = getattr(error, "orig", None)
            span.record_exception(cause if isinstance(cause, BaseException) else error)
            span.set_status(Status(StatusCode.ERROR, result.message))
            return result


def _failed(error: BaseException, seconds: float) -> Result:
    said = wording.of(error)
    value = wording.without_passwords(plain.plain(error.json)) if isinstance(error, JsonCheckException) else None
    return Result(False, seconds, value, *said)


def _failure(message: str, seconds: float) -> Result:
    return Result(False, seconds, None, message, message)


def _tell(check: Check, result: Result, before: Result | None) -> None:
    """Count it; log what has changed."""
    try:
        measures.result(check.name, result.ok)
        if not result.ok and (before is None or before.ok):
            _logger.warning("Health check %s fails: %s", check.name, result.detailed)
        elif result.ok and before is not None and not before.ok:
            _logger.info("Health check %s succeeds again.", check.name)
    except Exception:
        guard.failed("health_check.result")


# -- forks --------------------------------------------------------------------------------------------------------


_forkable: weakref.WeakSet[Runner] = weakref.WeakSet()


def _forked() -> None:
    """In the child: threads are the parent's."""
    _threads.renew()
    for runner in list(_forkable):
        runner.renew()


os.register_at_fork(after_in_child=_forked)
