"""The test kit, as an application's tests use it."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import pytest
from opentelemetry import metrics, trace

from c2c_otel import stats, telemetry, testing
from c2c_otel.settings import Settings
from c2c_otel.testing import Captured


def test_a_timer_is_seen_by_every_exporter() -> None:
    with testing.capture(Settings(statsd_prefix="pre", stats_view=True), deterministic=True) as captured:
        with stats.timer_context(["a", "b/c"], {"x": 1}):
            pass
        assert captured.tree() == [("a.b/c", [])]
        assert captured.statsd == ["pre.a.b_c:1|ms|#x:1"]
        assert captured.value("c2c_otel_timer_duration_seconds_count", key="a/b_c", x="1") == 1
        assert captured.stats()["timers"]["a/b_c/x=1"]["nb"] == 1


def test_each_capture_starts_empty(c2c_telemetry: Captured) -> None:
    assert c2c_telemetry.spans == []
    assert c2c_telemetry.statsd == []
    assert c2c_telemetry.value("c2c_otel_events_total", key="n") is None
    stats.increment_counter(["n"], 2)
    assert c2c_telemetry.value("c2c_otel_events_total", key="n") == 2


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
    assert c2c_telemetry.value("c2c_otel_value", key="g") == 4


def test_a_missing_span_is_told_with_those_there_are(c2c_telemetry: Captured) -> None:
    with stats.timer_context(["there"]):
        pass
    with pytest.raises(AssertionError, match=r"expected one span 'here'; ended were \['there'\]"):
        c2c_telemetry.span("here")


def test_no_thread_is_left() -> None:
    before = set(threading.enumerate())
    with testing.capture() as captured:
        stats.increment_counter(["n"])
        assert captured.value("c2c_otel_events_total", key="n") == 1
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(2)
    assert not [thread.name for thread in left if thread.is_alive()]


def test_a_deterministic_capture_has_the_same_ids_and_times_each_time() -> None:
    seen = []
    for _ in range(2):
        with testing.capture(deterministic=True) as captured:
            with stats.timer_context(["outer"]), stats.timer_context(["inner"]):
                captured.clock.advance(1.5)
            with stats.timer_context(["next"]):
                pass
            spans = [(s.name, s.context.trace_id, s.context.span_id, s.start_time, s.end_time) for s in captured.spans]  # type: ignore[union-attr] # it has ended
            seen.append((spans, captured.statsd, captured.metrics_text().partition("c2c_otel_internal")[0]))
    assert seen[0][:2] == seen[1][:2]
    spans, lines, _ = seen[0]
    assert lines == ["inner:1500|ms", "outer:1500|ms", "next:1|ms"]
    assert [span[:3] for span in spans] == [("inner", 1, 2), ("outer", 1, 1), ("next", 2, 3)]
    assert 1_500_000_000 <= spans[0][4] - spans[0][3] < 1_501_000_000


def test_after_a_deterministic_capture_ids_and_time_are_real_again() -> None:
    with testing.capture(deterministic=True):
        pass
    with testing.capture() as captured:
        with stats.timer_context(["t"]):
            pass
        span = captured.span("t")
        assert span.context is not None and span.start_time is not None
        assert span.context.trace_id > 2**64
        assert span.start_time > 1_500_000_000 * 10**9


def test_an_exception_ends_the_capture() -> None:
    before = telemetry.get().sink
    with pytest.raises(KeyError), testing.capture(deterministic=True):
        raise KeyError("theirs")
    assert telemetry.get().sink is before
    with testing.capture():
        pass


def test_threads_are_captured_too(c2c_telemetry: Captured) -> None:
    threads = [threading.Thread(target=lambda: [stats.increment_counter(["n"]) for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert c2c_telemetry.statsd == ["n:1|c"] * 400
    assert c2c_telemetry.value("c2c_otel_events_total", key="n") == 400


def test_each_capture_sees_the_instruments_of_the_application() -> None:
    counter = metrics.get_meter("app").create_counter("testing.own")
    active = metrics.get_meter("app").create_up_down_counter("testing.active")
    for number in (1, 2):
        with testing.capture() as captured:
            counter.add(number)
            active.add(1)
            assert captured.value("testing_own_total") == number
            assert captured.value("testing_active") == 1
            assert f"testing.own:{number}|c" in captured.statsd


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_spans_of_the_applications_own_provider_are_captured() -> None:
    done = run("""
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
theirs = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(theirs))
trace.set_tracer_provider(provider)
from c2c_otel import stats
from c2c_otel.testing import capture
for deterministic in (False, True):
    with capture(deterministic=deterministic) as captured:
        with trace.get_tracer("app").start_as_current_span("mine"), stats.timer_context(["ours"]):
            pass
    print(captured.tree())
with trace.get_tracer("app").start_as_current_span("outside"):
    pass
print([span.name for span in captured.spans], len(theirs.get_finished_spans()))
""")
    tree = "[('mine', [('ours', [])])]\n"
    assert (done.stdout, done.stderr) == (f"{tree}{tree}['ours', 'mine'] 5\n", "")


def test_without_pytest() -> None:
    done = run("""
import sys
sys.modules["pytest"] = None
from c2c_otel import stats
from c2c_otel.testing import capture
with capture() as captured:
    stats.set_gauge(["g"], 2)
print(captured.statsd)
""")
    assert (done.stdout, done.stderr) == ("['g:2|g']\n", "")


def test_a_reader_that_is_replaced_while_it_reads_gets_nothing() -> None:
    with testing.capture():
        counter = metrics.get_meter("app").create_counter("testing.replaced")
        parts = telemetry.get().parts
        assert parts is not None
    with testing.capture():
        counter.add(1)
        parts.publisher.reader.read()
    assert not [family for family in parts.store.families() if family.metric.name == "testing.replaced"]
