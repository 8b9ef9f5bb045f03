"""One measurement reaches statsd, the store and stats.json; none of them can break who measures."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from c2c_otel_exporters import guard, names, sink
from c2c_otel_exporters.model import Kind
from c2c_otel_exporters.null_sink import NULL_SINK
from c2c_otel_exporters.sink import Sink
from c2c_otel_exporters.statsd import Names
from c2c_otel_exporters.statsd import Sender as RealSender
from c2c_otel_exporters.store import Store


class Sender:
    """A statsd sender that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.send = self.lines.append


class Made:
    """A sink with what it writes to."""

    def __init__(self, *, use_tags: bool = False, stats: bool = True, max_series: int = 2000) -> None:
        self.sender: Any = Sender()
        self.store = Store(None, max_series)
        self.sink = Sink(self.store, Names("", use_tags, {}), self.sender, stats=stats)

    def values(self, kind: Kind) -> dict[str, tuple[float, ...]]:
        """What the store has of a kind: metric name and label values -> its numbers."""
        return {
            " ".join([family.metric.name, *(value for _, value in labels)]): tuple(sample.values)
            for family in self.store.families()
            if family.metric.kind is kind
            for labels, sample in family.series.items()
        }


@pytest.fixture(autouse=True)
def clean_guard() -> Iterator[None]:
    guard.reset()
    yield
    guard.strict(None)
    guard.reset()


def span(trace_id: int, *, sampled: bool = True) -> NonRecordingSpan:
    return NonRecordingSpan(SpanContext(trace_id, 7, False, TraceFlags(sampled)))


def test_a_timer_reaches_all_three() -> None:
    made = Made()
    made.sink.timer(names.timer, ("a", "b"), (("x", "1"),)).observe(0.012)
    assert made.sender.lines == ["a.b:12|ms|#x:1"]
    assert list(made.values(Kind.STAT_TIMER)) == ["stats.timers a/b/x=1"]
    (numbers,) = made.values(Kind.HISTOGRAM).values()
    assert sum(numbers[:-1]) == 1
    assert numbers[-1] == pytest.approx(0.012)


def test_without_stats_json_there_are_no_entries_for_it() -> None:
    made = Made(stats=False)
    made.sink.counter(names.counter, ("n",), ()).add()
    assert made.values(Kind.STAT_COUNTER) == {}
    assert made.sender.lines == ["n:1|c"]


def test_without_statsd_the_store_still_counts() -> None:
    store = Store(None)
    Sink(store, Names("", False, {})).counter(names.counter, ("n",), ()).add(3)
    assert [sample.values[0] for family in store.families() for sample in family.series.values()] == [3]


def test_what_is_named_once_is_not_named_again() -> None:
    made, calls = Made(), []

    def namer(key: tuple[str, ...], tags: Any) -> names.Series:
        calls.append(key)
        return names.counter(key, tags)

    first = made.sink.counter(namer, ("n",), ())
    assert made.sink.counter(namer, ("n",), ()) is first
    assert calls == [("n",)]


def test_an_event_with_two_names_has_two_lines() -> None:
    made = Made()
    made.sink.timer(names.redis, "GET", True, "0", "localhost", 6379, None).observe(0.001)
    assert sorted(made.sender.lines) == ["redis.GET.success:1|ms", "redis.GET:1|ms"]
    assert sum(sum(numbers[:-1]) for numbers in made.values(Kind.HISTOGRAM).values()) == 1


def test_a_negative_increment_is_for_statsd_and_stats_json() -> None:
    guard.strict(False)
    made = Made()
    counter = made.sink.counter(names.counter, ("n",), ())
    counter.add(5)
    counter.add(-2)
    assert made.sender.lines == ["n:5|c", "n:-2|c"]
    assert made.values(Kind.COUNTER) == {"c2c_otel.events n": (5.0,)}
    assert made.values(Kind.STAT_COUNTER)["stats.counters n"][-1] == 3
    assert guard.tally["dropped.metrics.counter"] == 1


@given(st.sampled_from([math.nan, math.inf, -math.inf]))
def test_what_is_no_number_changes_nothing(value: float) -> None:
    guard.strict(False)
    made = Made()
    made.sink.counter(names.counter, ("n",), ()).add(value)
    made.sink.gauge(names.gauge, ("g",), ()).set(value)
    assert made.sender.lines == []
    assert made.values(Kind.COUNTER) in ({}, {"c2c_otel.events n": (0.0,)})


@pytest.mark.parametrize("value", ["text", None, object()])
def test_what_cannot_be_counted_is_not_the_applications_problem(value: Any) -> None:
    guard.strict(False)
    made = Made()
    made.sink.counter(names.counter, ("n",), ()).add(value)
    made.sink.gauge(names.gauge, ("g",), ()).set(value)
    made.sink.timer(names.timer, ("t",), ()).observe(value)
    assert guard.tally["dropped.statsd.values"] == 2
    assert guard.tally["failed.sink.timer"] == 1
    assert made.sender.lines == []


def test_an_exemplar_is_a_sampled_trace_and_one_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000_000_000]
    monkeypatch.setattr(sink, "time_ns", lambda: now[0])
    made = Made()
    timer = made.sink.timer(names.timer, ("t",), ())
    timer.observe(0.01, span(1, sampled=False))
    timer.observe(0.01, span(2))
    timer.observe(0.01, span(3))
    assert exemplars(made) == {2}
    now[0] += 1_500_000_000
    timer.observe(0.01, span(4))
    assert exemplars(made) == {4}


def test_nanoseconds_are_measured_as_seconds_are() -> None:
    """The quick way and the other, into two stores: the same buckets and sums."""
    one, other = Store(None), Store(None)
    series = (names.redis, "GET", True, "0", "localhost", 6379, None)
    quick, plain = (Sink(store, Names("", False, {}), stats=True).timer(*series) for store in (one, other))
    edges = (999_999, 1_000_000, 1_000_001, 5_000_000, 5_000_001, 10_000_000, 10_499_999, 3_600_000_000_000)
    for nanoseconds in (*edges, *range(0, 60_000_000, 70_001)):
        for _ in range(2):  # remembered the second time
            quick.observe_ns(nanoseconds, span(1, sampled=False), time.time_ns())
            plain.observe(nanoseconds / 1e9)
    assert families(one) == families(other)


def test_nanoseconds_are_sent_as_seconds_are() -> None:
    """The same with the real sender: both names of a command in one entry."""
    queued = []
    for way in ("observe", "observe_ns"):
        sender = RealSender("127.0.0.1", 9)
        sender.waiting = False  # nobody takes them
        timer = Sink(Store(None), Names("", False, {}), sender).timer(names.redis, "GET", True, "0", "host", 1, None)
        for milliseconds in (0, 1, 2, 2, 3, 3, 70):
            if way == "observe":
                timer.observe(milliseconds / 1000)
            else:
                timer.observe_ns(milliseconds * 1_000_000, span(1), time.time_ns())
        queued.append(list(sender.queue))
    assert queued[0] == queued[1]
    assert queued[0][2] == "redis.GET.success:2|ms\nredis.GET:2|ms"


def test_nanoseconds_leave_an_exemplar_once_a_second() -> None:
    made = Made()
    timer = made.sink.timer(names.timer, ("t",), ())
    second = 1_000_000_000
    timer.observe_ns(1_000_000, span(1, sampled=False), 5 * second)
    now = time.time_ns()
    timer.observe_ns(1_000_000, span(2), now)
    timer.observe_ns(1_000_000, span(3), now + second // 2)
    assert exemplars(made) == {2}


def test_what_timers_remember_is_bounded_together_and_changes_nothing() -> None:
    one, other = Store(None), Store(None)
    quick, plain = Sink(one, Names("", False, {})), Sink(other, Names("", False, {}))
    remembered = []
    for number in range(60):
        series = (names.timer, (f"t{number}",), ())
        timer = quick.timer(*series)
        for milliseconds in range(1, 301):
            timer.observe_ns(milliseconds * 1_000_000, span(1, sampled=False), 0)
            plain.timer(*series).observe(milliseconds / 1000)
        remembered.append(len(timer._known))
    assert remembered[0] == sink._MOST_KNOWN  # the first ones found room
    assert remembered[-1] == sink._KNOWN  # and the last ones have what is theirs
    assert sum(remembered) == len(remembered) * sink._KNOWN + sink._ROOM
    assert families(one) == families(other)


def test_threads_lose_no_nanosecond() -> None:
    """What is written without a lock is written by one thread at a time."""
    store = Store(None)
    timer = Sink(store, Names("", False, {})).timer(names.timer, ("t",), ())
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def observe() -> None:
        for _ in range(20_000):
            timer.observe_ns(1_000_000, span(1, sampled=False), 0)

    try:
        threads = [threading.Thread(target=observe) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    ((sample,),) = (family.series.values() for family in store.families())
    assert sample.values[:2] == (80_000.0, 0.0)
    assert sample.values[-1] == pytest.approx(80.0)


def families(store: Store) -> list[object]:
    return [
        (family.metric, {labels: sample.values for labels, sample in family.series.items()})
        for family in store.families()
    ]


def exemplars(made: Made) -> set[int]:
    return {
        sample.exemplar.trace_id
        for family in made.store.families()
        for sample in family.series.values()
        if sample.exemplar is not None
    }


def test_endless_names_take_so_much_memory_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "_REMEMBERED", 50)
    made = Made(max_series=10)
    for number in range(300):
        made.sink.counter(names.counter, (f"n{number}",), ()).add()
    assert len(made.sink._counters) == 50
    assert len(made.sender.lines) == 300, "statsd has no limit"
    counters = made.values(Kind.COUNTER)
    assert len(counters) == 11
    assert sum(numbers[0] for numbers in counters.values()) == 300
    stats = made.values(Kind.STAT_COUNTER)
    assert len(stats) == 11
    assert sum(numbers[-1] for numbers in stats.values()) == 300


def test_threads_lose_nothing() -> None:
    made = Made()

    def work() -> None:
        for number in range(1_000):
            made.sink.counter(names.counter, (f"n{number % 7}",), ()).add()
            made.sink.timer(names.timer, ("t",), ()).observe(0.001)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(numbers[0] for numbers in made.values(Kind.COUNTER).values()) == 4_000
    (histogram,) = made.values(Kind.HISTOGRAM).values()
    assert sum(histogram[:-1]) == 4_000
    assert len(made.sender.lines) == 8_000


def test_what_is_measured_after_the_end_is_lost_in_silence() -> None:
    made = Made()
    counter = made.sink.counter(names.counter, ("n",), ())
    made.store.close()
    counter.add()
    made.sink.counter(names.counter, ("new",), ()).add()
    assert guard.tally == {}


def test_the_null_sink_takes_everything() -> None:
    NULL_SINK.timer(names.timer, ("t",), ()).observe(1, span(1))
    NULL_SINK.counter(names.counter, ("n",), ()).add()
    NULL_SINK.gauge(names.gauge, ("g",), ()).set(1)
