"""Timers, counters and gauges of the application's own."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from c2c_otel import stats, telemetry, testing
from c2c_otel.settings import Settings
from c2c_otel.testing import Captured
from c2c_otel_exporters import guard


def test_a_timer_that_is_stopped_with_its_final_key(c2c_telemetry: Captured) -> None:
    timer = stats.timer()
    assert timer.stop(["done", "late"], {"n": 2}) > 0
    assert c2c_telemetry.statsd == ["done.late:1|ms|#n:2"]
    assert dict(c2c_telemetry.span("done.late").attributes or {}) == {"n": "2"}


def test_a_timer_without_any_key_says_so(c2c_telemetry: Captured) -> None:
    with pytest.raises(ValueError, match=r"stop\(key_final\)"):
        stats.timer().stop()


def test_a_key_that_is_a_text_is_refused() -> None:
    with pytest.raises(TypeError, match=r"key is 'abc'; expected a list of parts such as \['abc'\]"):
        stats.increment_counter("abc")


def test_timer_context_records_success_only(c2c_telemetry: Captured) -> None:
    with pytest.raises(KeyError), stats.timer_context(["fails"]):
        raise KeyError("x")
    assert c2c_telemetry.statsd == []
    span = c2c_telemetry.span("fails")
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]


def test_outcomes_are_part_of_the_key(c2c_telemetry: Captured) -> None:
    with stats.outcome_timer_context(["job"]):
        pass
    with pytest.raises(KeyError), stats.outcome_timer_context(["job"], {"a": "b"}):
        raise KeyError("x")
    assert c2c_telemetry.statsd == ["job.success:1|ms", "job.failure:1|ms|#a:b"]


def test_outcomes_are_tags_where_tags_are_used() -> None:
    with testing.capture(Settings(statsd_use_tags=True), deterministic=True) as captured:
        with stats.outcome_timer_context(["job"]):
            pass
        with pytest.raises(KeyError), stats.outcome_timer_context(["job"], {"a": "b"}):
            raise KeyError("x")
        assert captured.statsd == ["job:1|ms|#success:1", "job:1|ms|#a:b,success:0"]


def test_timers_nest_as_spans(c2c_telemetry: Captured) -> None:
    with stats.timer_context(["outer"]), stats.timer_context(["inner"]):
        pass
    assert c2c_telemetry.tree() == [("outer", [("inner", [])])]


def test_gauges_below_zero_and_counters(c2c_telemetry: Captured) -> None:
    stats.set_gauge(["g"], -3)
    stats.set_gauge(["g"], 2.5)
    stats.increment_counter(["c"])
    stats.increment_counter(["c"], 41)
    assert c2c_telemetry.statsd == ["g:0|g", "g:-3|g", "g:2.5|g", "c:1|c", "c:41|c"]
    assert c2c_telemetry.value("c2c_otel_value", key="g") == 2.5
    assert c2c_telemetry.value("c2c_otel_events_total", key="c") == 42
    assert c2c_telemetry.stats()["counters"] == {"c": 42}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_dropped_and_counted(c2c_telemetry: Captured, value: float) -> None:
    before = guard.tally["dropped.statsd.values"]
    stats.set_gauge(["g"], value)
    stats.increment_counter(["c"], value)
    assert c2c_telemetry.statsd == []
    assert guard.tally["dropped.statsd.values"] == before + 2


@given(st.lists(st.text(), min_size=1, max_size=4), st.dictionaries(st.text(), st.text(), max_size=3))
def test_any_key_and_tags_give_one_line(key: list[str], tags: dict[str, str]) -> None:
    with testing.capture() as captured:
        stats.increment_counter(key, 1, tags)
        assert len(captured.statsd) == 1
        assert not [char for char in captured.statsd[0] if ord(char) < 32]
        assert captured.stats()["counters"]


def test_the_arbiter_of_a_fork_does_not_count_for_its_child(c2c_telemetry: Captured) -> None:
    stats.increment_counter(["n"])
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        from c2c_otel import telemetry

        os.write(write, str(telemetry.get().started).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 10) == b"False"


def test_parts_and_tags_may_be_anything(c2c_telemetry: Captured) -> None:
    stats.increment_counter(["a", 1, None, 2.5, b"x"], tags={1: None, "t": [1, 2]})
    assert c2c_telemetry.statsd == ["a.1.None.2_5.b_x_:1|c|#1:None,t:[1_ 2]"]


@pytest.mark.parametrize("raised", [GeneratorExit, KeyboardInterrupt, SystemExit])
def test_who_is_interrupted_has_neither_succeeded_nor_failed(
    c2c_telemetry: Captured, raised: type[BaseException]
) -> None:
    with pytest.raises(raised), stats.outcome_timer_context(["job"]):
        raise raised
    assert c2c_telemetry.statsd == []
    assert c2c_telemetry.span("job").status.status_code is not StatusCode.ERROR
    assert not trace.get_current_span().get_span_context().is_valid


def test_a_generator_that_is_not_finished_leaves_no_span_behind(c2c_telemetry: Captured) -> None:
    def rows() -> Iterator[int]:
        with stats.timer_context(["rows"]):
            yield from range(3)

    generator = rows()
    next(generator)
    generator.close()
    assert not trace.get_current_span().get_span_context().is_valid
    assert list(rows()) == [0, 1, 2]
    assert c2c_telemetry.statsd_names() == ["rows"]
    assert [span.name for span in c2c_telemetry.spans] == ["rows", "rows"]


def test_coroutines_have_their_own_timers(c2c_telemetry: Captured) -> None:
    async def work(name: str) -> None:
        with stats.timer_context([name]):
            await asyncio.sleep(0)
            with stats.timer_context([name, "inner"]):
                await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(work("a"), work("b"))

    asyncio.run(both())
    assert c2c_telemetry.tree() == [("a", [("a.inner", [])]), ("b", [("b.inner", [])])]


def test_the_contexts_decorate_functions(c2c_telemetry: Captured) -> None:
    @stats.timer_context(["f"])
    def function() -> int:
        return 1

    assert (function(), function()) == (1, 1)
    assert c2c_telemetry.statsd_names() == ["f", "f"]


def test_decrements_reach_statsd_and_stats_json(c2c_telemetry: Captured) -> None:
    guard.strict(False)
    try:
        stats.increment_counter(["n"], 5)
        stats.increment_counter(["n"], -2)
    finally:
        guard.strict(None)
    assert c2c_telemetry.statsd == ["n:5|c", "n:-2|c"]
    assert c2c_telemetry.stats()["counters"] == {"n": 3}


def test_what_our_own_code_cannot_count_is_not_the_applications_problem(
    c2c_telemetry: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(telemetry.get(), "sink", SimpleNamespace(timer=broken, counter=broken, gauge=broken))
    guard.strict(False)
    try:
        stats.increment_counter(["n"])
        stats.set_gauge(["g"], 1)
        stats.timer(["t"]).stop()
    finally:
        guard.strict(None)
    assert {place for place in guard.tally if place.startswith("failed.stats")} == {
        "failed.stats.counter",
        "failed.stats.gauge",
        "failed.stats.timer",
    }
    with pytest.raises(OSError, match="no"):
        stats.increment_counter(["n"])
