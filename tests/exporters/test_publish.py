"""What the application records with others' libraries, in the store, once, over forks and failures."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import prometheus_client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from c2c_otel_exporters import guard
from c2c_otel_exporters.model import Kind, Labels, Sample
from c2c_otel_exporters.otel_reader import POWERS_OF_TWO, labels_of
from c2c_otel_exporters.publish import Publisher
from c2c_otel_exporters.statsd import Names
from c2c_otel_exporters.store import Store

FORKS = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
INHERITED = prometheus_client.CollectorRegistry()


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store(None)
    yield made
    made.close()


@pytest.fixture
def registry() -> prometheus_client.CollectorRegistry:
    return prometheus_client.CollectorRegistry()


@pytest.fixture(autouse=True)
def clean_guard() -> Iterator[None]:
    guard.reset()
    yield
    guard.strict(None)
    guard.reset()


@pytest.fixture
def publisher(store: Store, registry: prometheus_client.CollectorRegistry) -> Iterator[Publisher]:
    made = Publisher(store, registry=registry)
    yield made
    made.stop()


def series(store: Store, name: str) -> dict[Labels, Sample]:
    found: dict[Labels, Sample] = {}
    for family in store.families():
        if family.metric.name == name:
            found |= family.series
    return found


def values(store: Store, name: str) -> dict[Labels, tuple[float, ...]]:
    return {labels: sample.values for labels, sample in series(store, name).items()}


def value(store: Store, name: str, **labels: str) -> float | None:
    found = values(store, name).get(tuple(sorted(labels.items())))
    return found[0] if found else None


def kind(store: Store, name: str) -> Kind:
    return next(family.metric.kind for family in store.families() if family.metric.name == name)


def in_child(work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a forked child, by way of JSON."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(text)


class FakeProvider:
    def __init__(self, name: str, get: Callable[[], list[tuple[Mapping[str, Any], float]]], type_: str = "gauge"):
        self.name, self.help, self.type, self.labelled = name, "Help", type_, get


# -- OpenTelemetry ------------------------------------------------------------------------------------------------


@pytest.fixture
def meter_provider(publisher: Publisher) -> Iterator[MeterProvider]:
    made = MeterProvider(metric_readers=[publisher.reader], shutdown_on_exit=False)
    yield made
    made.shutdown()


def test_counter_is_added_up_over_rounds(store: Store, publisher: Publisher, meter_provider: MeterProvider) -> None:
    counter = meter_provider.get_meter("m").create_counter("jobs", unit="{job}", description="Jobs")
    counter.add(2, {"queue": "mail", "retry": True})
    publisher.publish()
    counter.add(3, {"queue": "mail", "retry": True})
    publisher.publish()
    publisher.publish()
    assert values(store, "jobs") == {(("queue", "mail"), ("retry", "true")): (5.0,)}
    metric = store.families()[0].metric
    assert (metric.kind, metric.unit, metric.help, metric.exact) == (Kind.COUNTER, "{job}", "Jobs", False)


def test_histogram_has_the_instruments_bounds(
    store: Store, publisher: Publisher, meter_provider: MeterProvider
) -> None:
    histogram = meter_provider.get_meter("m").create_histogram("size", explicit_bucket_boundaries_advisory=[1, 10])
    for recorded in (0.5, 1, 5, 100):
        histogram.record(recorded)
    publisher.publish()
    histogram.record(7)
    publisher.publish()
    assert values(store, "size") == {(): (2.0, 2.0, 1.0, 113.5)}


def test_histogram_keeps_an_exemplar_and_counts_it_once(
    store: Store, publisher: Publisher, meter_provider: MeterProvider
) -> None:
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, False, TraceFlags(1)))
    histogram = meter_provider.get_meter("m").create_histogram("size", explicit_bucket_boundaries_advisory=[1, 10])
    histogram.record(0.5)
    with trace.use_span(span):
        histogram.record(5)
    publisher.publish()
    sample = series(store, "size")[()]
    assert sample.values == (1.0, 1.0, 0.0, 5.5)
    assert sample.exemplar is not None
    assert (sample.exemplar.value, sample.exemplar.trace_id, sample.exemplar.span_id) == (5.0, 0xABC, 0xDEF)


def test_exponential_histogram_becomes_powers_of_two(store: Store) -> None:
    publisher = Publisher(store, registry=prometheus_client.CollectorRegistry())
    provider = MeterProvider(
        metric_readers=[publisher.reader],
        shutdown_on_exit=False,
        views=[View(instrument_name="*", aggregation=ExponentialBucketHistogramAggregation())],
    )
    histogram = provider.get_meter("m").create_histogram("size")
    recorded = [0, 0.0001, 0.5, 0.51, 1, 1.5, 3, 1000, 5_000_000]
    for number in recorded:
        histogram.record(number)
    publisher.publish()
    counts = values(store, "size")[()][:-1]
    expected = [
        sum(1 for number in recorded if low < number <= high)
        for low, high in zip((-1.0, *POWERS_OF_TWO), (*POWERS_OF_TWO, float("inf")), strict=True)
    ]
    assert list(counts) == expected
    assert values(store, "size")[()][-1] == sum(recorded)
    publisher.stop()
    provider.shutdown()


def test_up_down_counters_and_observable_gauges_add_up_over_workers_and_go_when_not_observed(
    store: Store, publisher: Publisher, meter_provider: MeterProvider
) -> None:
    meter = meter_provider.get_meter("m")
    pools = {"a": 3, "b": 4}

    def observe(options: CallbackOptions) -> list[Observation]:
        return [Observation(size, {"pool": name}) for name, size in pools.items()]

    meter.create_observable_gauge("pool", [observe])
    meter.create_observable_up_down_counter("pool.updown", [observe])
    active = meter.create_up_down_counter("active")
    active.add(5)
    active.add(-2)
    publisher.publish()
    assert {name: kind(store, name) for name in ("pool", "pool.updown", "active")} == dict.fromkeys(
        ("pool", "pool.updown", "active"), Kind.GAUGE_SUM
    )
    assert (value(store, "pool", pool="a"), value(store, "pool.updown", pool="b")) == (3, 4)
    del pools["a"]
    publisher.publish()
    assert value(store, "active") == 3
    assert (value(store, "pool", pool="a"), value(store, "pool", pool="b")) == (None, 4)
    assert value(store, "pool.updown", pool="a") is None


def test_two_meters_with_a_gauge_of_one_name_add_up(
    store: Store, publisher: Publisher, meter_provider: MeterProvider
) -> None:
    for scope in ("one", "two"):
        meter_provider.get_meter(scope).create_up_down_counter("active").add(2)
    publisher.publish()
    assert value(store, "active") == 4


def test_synchronous_gauge_is_written_when_it_was_set_and_not_again(
    store: Store, publisher: Publisher, meter_provider: MeterProvider
) -> None:
    """So the worker that set it last is the one that counts."""
    gauge = meter_provider.get_meter("m").create_gauge("limit")
    gauge.set(7)
    publisher.publish()
    first = values(store, "limit")[()]
    publisher.publish()
    assert kind(store, "limit") is Kind.GAUGE_LAST
    assert first[0] == 7 and values(store, "limit")[()] == first
    gauge.set(7)
    publisher.publish()
    assert values(store, "limit")[()][1] > first[1]


def test_observable_counter_counts_what_its_total_grew_by(
    store: Store, publisher: Publisher, meter_provider: MeterProvider
) -> None:
    total = [10]
    meter_provider.get_meter("m").create_observable_counter("io", [lambda options: [Observation(total[0])]])
    publisher.publish()
    total[0] = 14
    publisher.publish()
    assert value(store, "io") == 14
    total[0] = 3
    publisher.publish()
    assert value(store, "io") == 14
    assert guard.tally["dropped.observable_counter"] == 1


def test_a_callback_that_fails_is_logged_once_and_costs_itself_alone(
    store: Store, publisher: Publisher, meter_provider: MeterProvider, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(options: CallbackOptions) -> list[Observation]:
        raise OSError("no pool")

    meter = meter_provider.get_meter("m")
    meter.create_observable_gauge("pool", [fail])
    meter.create_counter("jobs").add(2)
    for _ in range(3):
        publisher.publish()
    assert value(store, "jobs") == 2
    assert [record.getMessage() for record in caplog.records] == ["Callback failed for instrument pool."]
    assert guard.tally["failed.callback.pool"] == 3


def test_statsd_gets_the_deltas(store: Store) -> None:
    sent: list[str] = []

    class FakeSender:
        def send(self, line: str) -> None:
            sent.append(line)

    publisher = Publisher(store, sender=FakeSender(), names=Names("p", False, {}))  # type: ignore[arg-type] # a fake
    provider = MeterProvider(metric_readers=[publisher.reader], shutdown_on_exit=False)
    counter = provider.get_meter("m").create_counter("jobs")
    for amount in (2, 3):
        counter.add(amount)
        publisher.publish()
    publisher.publish()
    publisher.stop()
    provider.shutdown()
    assert [line for line in sent if "jobs" in line] == ["p.jobs:2|c", "p.jobs:3|c"]


@given(
    st.dictionaries(
        st.text(min_size=1),
        st.one_of(st.text(), st.booleans(), st.integers(), st.floats(), st.lists(st.integers())),
    )
)
def test_any_attributes_are_labels(attributes: dict[str, Any]) -> None:
    labels = labels_of(attributes)
    assert [name for name, _ in labels] == sorted(attributes)
    assert all(isinstance(text, str) for _, text in labels)


# -- prometheus_client --------------------------------------------------------------------------------------------


def test_prometheus_client_counters_histograms_and_summaries(
    store: Store, registry: prometheus_client.CollectorRegistry, publisher: Publisher
) -> None:
    counter = prometheus_client.Counter("shop_orders", "Orders", ["kind"], registry=registry)
    histogram = prometheus_client.Histogram("shop_size", "Size", buckets=[1, 10], registry=registry)
    summary = prometheus_client.Summary("shop_wait_seconds", "Wait", registry=registry)
    for _ in range(2):
        counter.labels("new").inc(1.5)
        histogram.observe(0.5)
        histogram.observe(50)
        summary.observe(2)
        publisher.publish()
    publisher.publish()
    assert values(store, "shop_orders_total") == {(("kind", "new"),): (3.0,)}
    assert values(store, "shop_size") == {(): (2.0, 0.0, 2.0, 101.0)}
    assert values(store, "shop_wait_seconds") == {(): (2.0, 4.0)}
    assert all(family.metric.exact for family in store.families() if family.metric.name.startswith("shop_"))
    assert not [family.metric.name for family in store.families() if "_created" in family.metric.name]


def test_prometheus_client_counter_that_is_reset_goes_on(
    store: Store, registry: prometheus_client.CollectorRegistry, publisher: Publisher
) -> None:
    counter = prometheus_client.Counter("resets", "Resets", registry=registry)
    counter.inc(5)
    publisher.publish()
    counter.reset()
    counter.inc(2)
    publisher.publish()
    assert value(store, "resets_total") == 7


def test_prometheus_client_exemplar_is_kept(
    store: Store, registry: prometheus_client.CollectorRegistry, publisher: Publisher
) -> None:
    histogram = prometheus_client.Histogram("h", "H", buckets=[1, 10], registry=registry)
    histogram.observe(5, {"trace_id": f"{0xABC:032x}", "span_id": f"{0xDEF:016x}"})
    histogram.observe(0.5, {"user": "no trace"})
    publisher.publish()
    sample = series(store, "h")[()]
    assert sample.values == (1.0, 1.0, 0.0, 5.5)
    assert sample.exemplar is not None
    assert (sample.exemplar.value, sample.exemplar.trace_id, sample.exemplar.span_id) == (5.0, 0xABC, 0xDEF)
    publisher.publish()
    assert values(store, "h")[()] == (1.0, 1.0, 0.0, 5.5)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("all", (Kind.GAUGE_LAST, {"pid": str(os.getpid())})),
        ("liveall", (Kind.GAUGE_LAST, {"pid": str(os.getpid())})),
        ("sum", (Kind.GAUGE_SUM, {})),
        ("livesum", (Kind.GAUGE_SUM, {})),
        ("min", (Kind.GAUGE_MIN, {})),
        ("livemax", (Kind.GAUGE_MAX, {})),
        ("mostrecent", (Kind.GAUGE_LAST, {})),
    ],
)
def test_prometheus_client_gauges_by_their_mode(
    store: Store,
    registry: prometheus_client.CollectorRegistry,
    publisher: Publisher,
    mode: Any,
    expected: tuple[Kind, dict[str, str]],
) -> None:
    gauge = prometheus_client.Gauge("g", "G", ["a"], registry=registry, multiprocess_mode=mode)
    gauge.labels("x").set(4)
    publisher.publish()
    assert kind(store, "g") is expected[0]
    assert values(store, "g").keys() == {tuple(sorted({"a": "x", **expected[1]}.items()))}
    assert value(store, "g", a="x", **expected[1]) == 4


def test_most_recent_gauge_is_written_when_it_changes(
    store: Store, registry: prometheus_client.CollectorRegistry, publisher: Publisher
) -> None:
    gauge = prometheus_client.Gauge("g", "G", registry=registry, multiprocess_mode="mostrecent")
    publisher.publish()
    assert values(store, "g") == {}, "a worker that has not set it has nothing to say"
    gauge.set(4)
    publisher.publish()
    before = values(store, "g")[()]
    publisher.publish()
    assert values(store, "g")[()] == before
    gauge.set(0)
    publisher.publish()
    assert value(store, "g") == 0


def test_label_sets_and_collectors_that_go_are_gone(
    store: Store, registry: prometheus_client.CollectorRegistry, publisher: Publisher
) -> None:
    gauge = prometheus_client.Gauge("g", "G", ["a"], registry=registry, multiprocess_mode="sum")
    other = prometheus_client.Gauge("o", "O", registry=registry, multiprocess_mode="sum")
    gauge.labels("x").set(1)
    gauge.labels("y").set(2)
    other.set(3)
    publisher.publish()
    gauge.remove("x")
    registry.unregister(other)
    publisher.publish()
    assert values(store, "g").keys() == {(("a", "y"),)}
    assert values(store, "o") == {}
    gauge.labels("x").set(5)
    publisher.publish()
    assert value(store, "g", a="x") == 5


def test_info_enum_and_collectors_of_ones_own(
    store: Store, registry: prometheus_client.CollectorRegistry, publisher: Publisher
) -> None:
    prometheus_client.Info("build", "Build", registry=registry).info({"version": "1"})
    prometheus_client.Enum("state", "State", states=["idle", "busy"], registry=registry).state("busy")

    class Custom:
        def collect(self) -> Iterator[Any]:
            yield GaugeMetricFamily("rows", "Rows", value=12)
            yield CounterMetricFamily("reads", "Reads", value=3)

    registry.register(Custom())
    publisher.publish()
    publisher.publish()
    assert values(store, "build_info").keys() == {(("version", "1"),)}
    assert (value(store, "state", state="idle"), value(store, "state", state="busy")) == (0, 1)
    assert (value(store, "rows"), value(store, "reads_total")) == (12, 3)


def test_prometheus_clients_own_collectors_are_left_out(
    store: Store, registry: prometheus_client.CollectorRegistry, publisher: Publisher
) -> None:
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.PlatformCollector(registry=registry)
    prometheus_client.GCCollector(registry=registry)
    publisher.publish()
    assert store.families() == []


def test_default_registry_is_taken_once_it_is_there(store: Store) -> None:
    counter = prometheus_client.Counter("c2c_test_default_registry", "Default")
    publisher = Publisher(store)
    try:
        counter.inc(2)
        publisher.publish()
        assert value(store, "c2c_test_default_registry_total") == 2
    finally:
        publisher.stop()
        prometheus_client.REGISTRY.unregister(counter)


# -- fork ---------------------------------------------------------------------------------------------------------


@FORKS
def test_what_a_fork_copied_does_not_count_again() -> None:
    counter = prometheus_client.Counter("before", "Before", ["a"], registry=INHERITED)
    counter.labels("x").inc(5)
    histogram = prometheus_client.Histogram("before_h", "Before", buckets=[1], registry=INHERITED)
    histogram.observe(0.5)
    summary = prometheus_client.Summary("before_s", "Before", registry=INHERITED)
    summary.observe(3)

    def worker() -> list[Any]:
        time.sleep(0.03)  # more than a clock tick, so that what follows is told from what was there
        made_here = prometheus_client.Counter("after", "After", registry=INHERITED)
        made_here.inc(7)
        store = Store(None)
        publisher = Publisher(store, registry=INHERITED)
        publisher.publish()
        first = [
            value(store, "before_total", a="x"),
            values(store, "before_h").get(()),
            values(store, "before_s").get(()),
        ]
        counter.labels("x").inc(2)
        counter.labels("y").inc(1)
        histogram.observe(2)
        publisher.publish()
        return [
            *first,
            value(store, "before_total", a="x"),
            value(store, "before_total", a="y"),
            values(store, "before_h")[()],
            value(store, "after_total"),
        ]

    for _ in range(2):
        assert in_child(worker) == [None, None, None, 2, 1, [0, 1, 2], 7]


@FORKS
def test_a_forked_childs_sdk_counts_start_at_nothing() -> None:
    parents_store = Store(None)
    parent = Publisher(parents_store, registry=prometheus_client.CollectorRegistry())
    provider = MeterProvider(metric_readers=[parent.reader], shutdown_on_exit=False)
    provider.get_meter("m").create_counter("jobs").add(5)
    parent.start()
    parent.publish()

    def worker() -> float | None:
        store = Store(None)
        publisher = Publisher(store, registry=prometheus_client.CollectorRegistry())
        own = MeterProvider(metric_readers=[publisher.reader], shutdown_on_exit=False)
        publisher.publish()
        assert store.families() == []
        own.get_meter("m").create_counter("jobs").add(1)
        publisher.publish()
        return value(store, "jobs")

    assert in_child(worker) == 1
    assert value(parents_store, "jobs") == 5
    parent.stop()
    provider.shutdown()


# -- providers, failures, threads ---------------------------------------------------------------------------------


def test_providers_and_label_sets_that_are_told_no_more(store: Store) -> None:
    data: list[tuple[Mapping[str, Any], float]] = [({"a": 1}, 2), ({"a": "x"}, 3)]
    gauge = FakeProvider("my_metric", lambda: data)
    providers = [gauge, FakeProvider("my_count", lambda: [({}, 40)], "counter")]
    publisher = Publisher(store, registry=prometheus_client.CollectorRegistry(), providers=providers)
    publisher.publish()
    publisher.publish()
    assert values(store, "my_metric").keys() == {(("a", "1"),), (("a", "x"),)}
    assert (value(store, "my_count"), kind(store, "my_count")) == (40, Kind.COUNTER)
    del data[0]
    publisher.publish()
    assert values(store, "my_metric").keys() == {(("a", "x"),)}
    providers.remove(gauge)
    publisher.publish()
    assert values(store, "my_metric") == {}
    publisher.stop()


def test_a_source_that_fails_costs_itself_alone(
    store: Store, registry: prometheus_client.CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    guard.strict(False)

    def fail() -> list[Any]:
        raise OSError("no database")

    class Broken:
        def collect(self) -> Iterator[Any]:
            raise RuntimeError("broken collector")

    registry.register(Broken())
    prometheus_client.Counter("fine", "Fine", registry=registry).inc()
    providers = [FakeProvider("bad", fail), FakeProvider("good", lambda: [({}, 1)])]
    publisher = Publisher(store, registry=registry, providers=providers)
    for _ in range(3):
        assert publisher.publish()
    publisher.stop()
    assert (value(store, "fine_total"), value(store, "good")) == (1, 1)
    assert value(store, "c2c_otel.internal.events", place="failed.publish.provider.bad") == 4
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "c2c-otel failed at publish.prometheus_client.Broken",
        "c2c-otel failed at publish.provider.bad",
    ]


def test_under_pytest_a_failure_is_raised(store: Store, registry: prometheus_client.CollectorRegistry) -> None:
    def fail() -> list[Any]:
        raise OSError("no database")

    publisher = Publisher(store, registry=registry, providers=[FakeProvider("bad", fail)])
    with pytest.raises(OSError, match="no database"):
        publisher.publish()
    publisher._rounds.close()


def test_a_source_that_hangs_is_left_out_until_it_returns(
    store: Store, registry: prometheus_client.CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    calls: list[int] = []

    def hang() -> list[Any]:
        calls.append(1)
        release.wait(30)
        return [({}, 1)]

    counter = prometheus_client.Counter("fine", "Fine", registry=registry)
    last = [5.0]
    providers = [FakeProvider("hangs", hang), FakeProvider("after", lambda: [({}, last[0])])]
    publisher = Publisher(store, registry=registry, providers=providers, patience=0.2)
    counter.inc()
    assert not publisher.publish()
    assert (value(store, "fine_total"), value(store, "after")) == (1, 5), "another thread has read the others"
    counter.inc()
    last[0] = 6
    assert publisher.publish()
    assert (value(store, "fine_total"), value(store, "after"), len(calls)) == (2, 6, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "Metrics are incomplete: provider.hangs did not answer in time; it is left out until it does."
    ]
    release.set()
    while publisher._busy:
        time.sleep(0.01)
    publisher.publish()
    assert (value(store, "hangs"), len(calls)) == (1, 2)
    publisher.stop()


def test_those_who_ask_together_share_a_round_that_began_after_they_asked(
    store: Store, registry: prometheus_client.CollectorRegistry
) -> None:
    rounds = 0

    def slow() -> list[Any]:
        nonlocal rounds
        rounds += 1
        time.sleep(0.05)
        return []

    counter = prometheus_client.Counter("seen", "Seen", registry=registry)
    publisher = Publisher(store, registry=registry, providers=[FakeProvider("slow", slow)])
    seen: list[float | None] = []
    together = threading.Barrier(20)

    def scrape() -> None:
        counter.inc()
        together.wait(30)
        publisher.publish()
        seen.append(value(store, "seen_total"))

    threads = [threading.Thread(target=scrape) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    publisher.stop()
    assert seen == [20] * 20
    assert rounds < 15


def test_nothing_runs_before_it_is_started_and_nothing_after_it_has_stopped(
    store: Store, registry: prometheus_client.CollectorRegistry
) -> None:
    before = set(threading.enumerate())
    counter = prometheus_client.Counter("seen", "Seen", registry=registry)
    publisher = Publisher(store, registry=registry, interval=0.01)
    assert set(threading.enumerate()) <= before
    publisher.start()
    publisher.start()
    counter.inc()
    while not value(store, "seen_total"):
        time.sleep(0.01)
    made = set(threading.enumerate()) - before
    assert sorted(thread.name for thread in made) == ["c2c_otel_publish", "c2c_otel_publish_round"]
    counter.inc()
    publisher.stop()
    assert value(store, "seen_total") == 2
    for thread in made:
        thread.join(5)
        assert not thread.is_alive()
    counter.inc()
    assert publisher.publish()
    assert value(store, "seen_total") == 2
    assert set(threading.enumerate()) <= before


# -- totals -------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 20), max_size=6), max_size=6), st.booleans())
def test_histogram_adds_up_to_what_was_observed(rounds: list[list[int]], traced: bool) -> None:
    store = Store(None)
    registry = prometheus_client.CollectorRegistry()
    histogram = prometheus_client.Histogram("h", "H", buckets=[5, 10], registry=registry)
    publisher = Publisher(store, registry=registry)
    for observed in rounds:
        for number in observed:
            histogram.observe(number, {"trace_id": "1", "span_id": "2"} if traced else None)
        publisher.publish()
    publisher.publish()
    publisher.stop()
    flat = [number for observed in rounds for number in observed]
    low, middle = sum(n <= 5 for n in flat), sum(5 < n <= 10 for n in flat)
    expected = (low, middle, len(flat) - low - middle, sum(flat))
    assert values(store, "h")[()] == pytest.approx(expected)
    store.close()
