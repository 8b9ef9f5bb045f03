"""Timers, counters and gauges of the application's own."""

from __future__ import annotations

import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import StatusCode

from c2c_otel import stats, testing
from c2c_otel.settings import Settings
from c2c_otel.testing import Captured
from c2c_otel_exporters import guard


def test_a_timer_that_is_stopped_with_its_final_key(c2c_telemetry: Captured) -> None:
    timer = stats.timer()
    assert timer.stop(["done", "late"], {"n": 2}) > 0
    assert c2c_telemetry.statsd == ["done.late:1|ms|#n:2"]
    assert dict(c2c_telemetry.span("done.late").attributes or {}) == {"n": "2"}


def test_a_timer_without_any_key_says_so() -> None:
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
    with testing.capture(Settings(statsd_use_tags=True)) as captured:
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
