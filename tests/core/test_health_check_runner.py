"""Threads of checks: deadlines, what hangs, what is shared, what is kept, and how many there are."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from pyramid.testing import DummyRequest

from c2c_otel.health_check import runner
from c2c_otel.health_check.runner import MAX_AT_ONCE, Check, Result, Runner
from c2c_otel.testing import Captured, capture
from tests.servers import wait_until

SECONDS = 20.0
"""What is longer than any test."""


@pytest.fixture
def captured() -> Iterator[Captured]:
    with capture() as captured:
        yield captured


class Hanging:
    """A check that hangs until it is `released`; ``calls`` counts."""

    def __init__(self, name: str = "hangs", deadline: float = 0.05) -> None:
        self.entered = threading.Semaphore(0)
        self.released = threading.Event()
        self.calls = 0
        self.check = Check(name, 1, self, deadline)

    def __call__(self, request: Any) -> str:
        self.calls += 1
        self.entered.release()
        assert self.released.wait(SECONDS)
        return "late"


@contextmanager
def hanging(count: int = 1, deadline: float = 0.05) -> Iterator[list[Hanging]]:
    made = [Hanging(f"hangs{number}", deadline) for number in range(count)]
    try:
        yield made
    finally:
        for one in made:
            one.released.set()
        wait_until("the threads' end", lambda: not threads())


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("c2c_health_check")]


def fine(name: str = "fine", call: Callable[[Any], Any] = lambda request: "ok", deadline: float = SECONDS) -> Check:
    return Check(name, 1, call, deadline)


def ask(runner: Runner, *checks: Check, once: bool = False) -> list[Result]:
    return [result for _, result in runner.run(DummyRequest(), checks, once=once)]


def test_results_are_in_the_order_of_the_checks() -> None:
    found = ask(Runner(0, SECONDS), *(fine(str(number), lambda request, number=number: number) for number in range(20)))
    assert [result.value for result in found] == list(range(20))
    assert all(result.ok for result in found)
    assert ask(Runner(0, SECONDS)) == []


def test_they_run_at_the_same_time() -> None:
    together = threading.Barrier(MAX_AT_ONCE, timeout=SECONDS)
    checks = [fine(str(number), lambda request: together.wait() >= 0) for number in range(MAX_AT_ONCE)]
    assert all(result.ok for result in ask(Runner(0, SECONDS), *checks))


def test_no_more_than_so_many_run_at_the_same_time() -> None:
    lock = threading.Lock()
    now, most = 0, 0
    gate = threading.Event()

    def check(request: Any) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == MAX_AT_ONCE:
                gate.set()
        assert gate.wait(SECONDS)
        with lock:
            now -= 1

    checks = [fine(str(number), check) for number in range(3 * MAX_AT_ONCE)]
    with ThreadPoolExecutor(2) as two:  # two applications
        for found in [two.submit(ask, Runner(0, SECONDS), *checks) for _ in range(2)]:
            assert all(result.ok for result in found.result(SECONDS))
    assert most == MAX_AT_ONCE


def test_one_that_hangs_has_failed_and_is_not_started_again(captured: Captured) -> None:
    with hanging() as (one,):
        asked = Runner(0, SECONDS)
        first, other = ask(asked, one.check, fine())
        assert (first.ok, first.message) == (False, "no answer within 0.05 s")
        assert (first.seconds, other.ok) == (0.05, True)
        for _ in range(3):
            again, other = ask(asked, one.check, fine())
            assert again.message.startswith("still running since 20")
            assert again.seconds > 0.05
            assert other.ok
        assert one.calls == 1
        assert len(threads()) == 1
        one.released.set()
        wait_until("its end", lambda: not threads())
        (back,) = ask(asked, one.check)
        assert (back.ok, back.value, one.calls) == (True, "late", 2)
    assert captured.value("c2c_otel_health_check_runs_total", check="hangs0", outcome="failure") == 4
    assert captured.value("c2c_otel_health_check_runs_total", check="hangs0", outcome="success") == 1


def test_those_that_hang_leave_threads_to_others() -> None:
    with hanging(2 * MAX_AT_ONCE) as many:
        asked = Runner(0, SECONDS)
        found = ask(asked, *(one.check for one in many), fine())
        assert [result.ok for result in found] == [False] * len(many) + [True]
        found = ask(asked, *(one.check for one in many), fine())
        assert [result.ok for result in found] == [False] * len(many) + [True]
        assert [one.calls for one in many] == [1] * len(many)
        assert len(threads()) == len(many)


def test_all_of_them_have_a_deadline() -> None:
    with hanging(MAX_AT_ONCE + 1, SECONDS) as many:
        found = ask(Runner(0, 0.1), *(one.check for one in many))
        assert {result.message for result in found[:-1]} == {"no answer within the 0.1 s that there are for all checks"}
        assert found[-1].message == "not run: too many other checks are running"
        assert many[-1].calls == 0


def test_a_late_result_is_not_believed(captured: Captured) -> None:
    with hanging() as (one,):
        asked = Runner(SECONDS, SECONDS)
        assert not ask(asked, one.check)[0].ok
        one.released.set()
        wait_until("its end", lambda: not threads())
        assert not ask(asked, one.check, once=True)[0].ok
        assert captured.value("c2c_otel_health_check_success", check="hangs0") == 0


def test_requests_share_a_run() -> None:
    with hanging(1, SECONDS) as (one,):
        asked = Runner(0, SECONDS)
        waiting = threading.Semaphore(0)
        with ThreadPoolExecutor(16) as pool:
            futures: list[Future[list[Result]]] = [pool.submit(ask, asked, one.check)]
            one.entered.acquire()
            futures += [pool.submit(lambda: (waiting.release(), ask(asked, one.check))[1]) for _ in range(15)]
            for _ in range(15):
                waiting.acquire()
            run = asked._states[one.check].run
            assert run is not None
            wait_until("all to wait", lambda: len(run.done._cond._waiters) == 16)  # type: ignore[attr-defined] # of a Condition
            one.released.set()
            results = [future.result(SECONDS)[0] for future in futures]
        assert one.calls == 1
        assert len({id(result) for result in results}) == 1


def test_a_result_is_kept_for_a_while() -> None:
    calls: list[int] = []
    check = fine("counted", lambda request: calls.append(1))
    kept = Runner(SECONDS, SECONDS)
    assert ask(kept, check) == ask(kept, check) == ask(kept, check)
    assert len(calls) == 1
    for asked in (Runner(0, SECONDS), Runner(1e-9, SECONDS)):
        calls.clear()
        ask(asked, check)
        ask(asked, check)
        assert len(calls) == 2


def test_many_requests_cannot_overload_a_database() -> None:
    calls: list[int] = []
    check = fine("counted", lambda request: calls.append(1))
    asked = Runner(SECONDS, SECONDS)
    with ThreadPoolExecutor(16) as pool:
        assert all(found[0].ok for found in pool.map(lambda _: ask(asked, check), range(500)))
    assert len(calls) == 1


def test_a_failure_is_kept_too() -> None:
    calls: list[int] = []

    def check(request: Any) -> None:
        calls.append(1)
        raise ValueError

    asked = Runner(SECONDS, SECONDS)
    assert not ask(asked, fine("bad", check), once=True)[0].ok
    bad = fine("bad", check)
    assert not ask(asked, bad)[0].ok and not ask(asked, bad)[0].ok
    assert len(calls) == 2


def test_the_context_reaches_the_check() -> None:
    variable: ContextVar[str] = ContextVar("mine", default="")
    token = variable.set("seen")
    try:
        (found,) = ask(Runner(0, SECONDS), fine("looks", lambda request: (variable.get(), variable.set("changed"))[0]))
    finally:
        variable.reset(token)
    assert (found.value, variable.get()) == ("seen", "")


def test_no_thread_can_be_started(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    asked = Runner(0, SECONDS)
    check = fine()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        assert ask(asked, check)[0].message == "not run: there is no thread to be had"
    assert ask(asked, check)[0].ok


def test_a_forked_child_begins_anew() -> None:
    with hanging(1) as (one,):
        asked = Runner(SECONDS, SECONDS)
        ask(asked, one.check)
        asked._lock.acquire()
        runner._threads._changed.acquire()
        pid = os.fork()
        if pid == 0:
            try:
                one.released.set()
                one.check.deadline = SECONDS
                found = ask(asked, one.check, fine())
                os._exit(0 if [result.ok for result in found] == [True, True] else 1)
            except BaseException:
                os._exit(2)
        runner._threads._changed.release()
        asked._lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_ages_are_of_runners_that_live(captured: Captured, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    one, other = Runner(0, SECONDS), Runner(0, SECONDS)
    ask(one, fine("of_one"))
    ask(other, fine("of_other"))
    assert captured.value("c2c_otel_health_check_age_seconds", check="of_one") is not None
    del other
    assert captured.value("c2c_otel_health_check_age_seconds", check="of_other") is None
