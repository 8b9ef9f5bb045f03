"""The test kit, as an application's tests use it."""

from __future__ import annotations

import logging
import threading

import pytest
from opentelemetry import trace

from c2c_otel import stats, telemetry, testing
from c2c_otel.settings import Settings
from c2c_otel.testing import Captured


def test_a_timer_is_seen_by_every_exporter() -> None:
    with testing.capture(Settings(statsd_prefix="pre", stats_view=True)) as captured:
        with stats.timer_context(["a", "b/c"], {"x": 1}):
            pass
        assert captured.tree() == [("a.b/c", [])]
        assert captured.statsd == ["pre.a.b_c:1|ms|#x:1"]
        assert captured.value("c2c_otel_timer_duration_seconds_count", key="a/b_c", x="1") == 1
        assert captured.stats()["timers"]["a/b_c/x=1"]["nb"] == 1


def test_each_capture_starts_empty(c2c_telemetry: Captured) -> None:
    assert c2c_telemetry.spans == []
    assert c2c_telemetry.statsd == []
    assert c2c_telemetry.value("c2c_otel_counter_total", key="n") is None
    stats.increment_counter(["n"], 2)
    assert c2c_telemetry.value("c2c_otel_counter_total", key="n") == 2


def test_what_was_there_before_comes_back() -> None:
    before = telemetry.get().sink, telemetry.get().parts
    with testing.capture(), pytest.raises(RuntimeError, match="captures do not nest"), testing.capture():
        pass
    assert (telemetry.get().sink, telemetry.get().parts) == before


def test_logs_have_the_ids_of_their_span(c2c_telemetry: Captured) -> None:
    with telemetry.get().tracer("test").start_as_current_span("outer"):
        logging.getLogger("test").warning("hello %s", "you")
    line = c2c_telemetry.logs[0]
    context = c2c_telemetry.span("outer").context
    assert context is not None
    assert (line["msg"], line["level_name"]) == ("hello you", "WARNING")
    assert line["trace_id"] == trace.format_trace_id(context.trace_id)
    assert line["span_id"] == trace.format_span_id(context.span_id)


def test_clear_forgets_all_but_metrics(c2c_telemetry: Captured) -> None:
    stats.set_gauge(["g"], 4)
    with stats.timer_context(["t"]):
        pass
    c2c_telemetry.clear()
    assert (c2c_telemetry.spans, c2c_telemetry.statsd) == ([], [])
    assert c2c_telemetry.value("c2c_otel_gauge", key="g") == 4


def test_a_missing_span_is_told_with_those_there_are(c2c_telemetry: Captured) -> None:
    with stats.timer_context(["there"]):
        pass
    with pytest.raises(AssertionError, match=r"expected one span 'here'; ended were \['there'\]"):
        c2c_telemetry.span("here")


def test_no_thread_is_left() -> None:
    before = set(threading.enumerate())
    with testing.capture() as captured:
        stats.increment_counter(["n"])
        assert captured.value("c2c_otel_counter_total", key="n") == 1
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(2)
    assert not [thread.name for thread in left if thread.is_alive()]
