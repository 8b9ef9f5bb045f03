"""Many processes: nothing is lost, nothing counts twice, no total falls, whoever dies whenever."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2c_otel_exporters import archive, guard, layout, merge, stats_json
from c2c_otel_exporters.layout import HEADER_BYTES
from c2c_otel_exporters.mapped import FileSource
from c2c_otel_exporters.model import OVERFLOW, Exemplar, Family, Kind, Labels, Metric
from c2c_otel_exporters.store import Store

COUNT = Metric("a.count", Kind.COUNTER, "", "things")
TIME = Metric("a.time", Kind.HISTOGRAM, "s", "", (0.1, 1.0))
GAUGES = {kind: Metric(f"a.{kind.name}", kind) for kind in Kind if kind.name.startswith("GAUGE")}
X: Labels = (("x", "1"),)


@pytest.fixture(autouse=True)
def _fresh_guard():
    guard.reset()
    yield
    guard.reset()


def totals(families: list[Family]) -> dict[tuple[str, Labels], tuple[float, ...]]:
    return {(f.metric.name, labels): sample.values for f in families for labels, sample in f.series.items()}


def value(families: list[Family], metric: Metric, labels: Labels = ()) -> float | None:
    values = totals(families).get((metric.name, labels))
    return None if values is None else values[0]


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.metrics"))


def test_the_living_and_the_dead_are_added(tmp_path):
    stores = [Store(tmp_path) for _ in range(3)]
    for number, store in enumerate(stores):
        store.counter(COUNT, X).add(10**number)
        store.histogram(TIME, ()).observe(number)
        for metric in GAUGES.values():
            store.gauge(metric, ()).set((5, 9, 7)[number])
    stores[1].gauge(GAUGES[Kind.GAUGE_LAST], ()).set(4)  # the latest write
    scraper = merge.Scraper(tmp_path, stores[0])

    def gauges() -> dict[str, float | None]:
        return {kind.name: value(scraper.families(), metric) for kind, metric in GAUGES.items()}

    expected_sums = {("a.count", X): (111,), ("a.time", ()): (1, 1, 1, 3)}
    assert totals(scraper.families()).items() >= expected_sums.items()
    assert gauges() == {"GAUGE_SUM": 18, "GAUGE_LAST": 4, "GAUGE_MIN": 4, "GAUGE_MAX": 7} | {
        "GAUGE_SUM": 5 + 9 + 7,
        "GAUGE_MIN": 5,
        "GAUGE_MAX": 9,
    }
    stores[1].close()
    assert totals(scraper.families()).items() >= expected_sums.items()
    assert gauges() == {"GAUGE_SUM": 12, "GAUGE_LAST": 7, "GAUGE_MIN": 5, "GAUGE_MAX": 7}
    assert merge.compact(tmp_path) == 1
    assert len(files(tmp_path)) == 2
    assert totals(scraper.families()).items() >= expected_sums.items()
    assert totals(merge.scrape(tmp_path)) == totals(scraper.families())
    for store in stores:
        store.close()
    assert merge.compact(tmp_path) == 2
    assert merge.compact(tmp_path) == 0
    assert totals(scraper.families()) == expected_sums
    assert files(tmp_path) == []


def test_series_and_processes_that_come_later_are_seen(tmp_path):
    scraper = merge.Scraper(tmp_path)
    assert scraper.families() == []
    first = Store(tmp_path)
    first.counter(COUNT, ()).add()
    assert value(scraper.families(), COUNT) == 1
    first.counter(COUNT, X).add(4)
    second = Store(tmp_path)
    second.counter(COUNT, X).add(5)
    assert value(scraper.families(), COUNT, X) == 9


def test_a_store_without_directory_is_scraped_alone():
    store = Store(None, reason="it was asked for")
    store.counter(COUNT, ()).add(2)
    store.stat_timer("t").observe(1)
    scraper = merge.Scraper(None, store)
    assert value(scraper.families(), COUNT) == 2
    store.counter(COUNT, X).add(3)
    assert value(scraper.families(), COUNT, X) == 3
    assert "it was asked for" in scraper.comments()[0]
    assert stats_json.body(scraper.families())["timers"] == {
        "t": {"nb": 1, "avg_ms": 1000, "min_ms": 1000, "max_ms": 1000}
    }
    scraper.reset_stats()
    assert stats_json.body(scraper.families())["timers"] == {}
    assert merge.scrape(None) == []


def test_the_exemplar_is_the_latest_and_outlives_its_process(tmp_path):
    early, late = Exemplar(0.5, 1000.0, 1, 2), Exemplar(0.6, 2000.0, 3, 4)
    for exemplar in (late, early):
        store = Store(tmp_path)
        store.histogram(TIME, ()).observe(exemplar.value, exemplar)
        store.close()
    torn = Store(tmp_path)
    histogram = torn.histogram(TIME, X)
    histogram.observe(0.5, early)
    histogram._view[histogram._exemplar_at] += 1  # died while writing it
    torn.close()
    scraper = merge.Scraper(tmp_path)

    def shown(labels: Labels) -> Exemplar | None:
        return scraper.families()[0].series[labels].exemplar

    assert (shown(()), shown(X)) == (late, None)
    merge.compact(tmp_path)
    assert (shown(()), shown(X)) == (late, None)
    assert totals(scraper.families())[("a.time", X)] == (0, 1, 0, 0.5)


def test_stats_over_processes_and_their_reset(tmp_path):
    living, dead = Store(tmp_path), Store(tmp_path)
    for store, seconds in ((living, 0.2), (dead, 0.4), (dead, 0.6)):
        store.stat_timer("a/b").observe(seconds)
        store.stat_counter("c").add(2)
        store.stat_gauge("g").set(seconds)
    dead.close()
    merge.compact(tmp_path)
    body = stats_json.body(merge.scrape(tmp_path))
    assert body == {
        "timers": {"a/b": {"nb": 3, "avg_ms": 400, "min_ms": 200, "max_ms": 600}},
        "gauges": {"g": 0.2},
        "counters": {"c": 6},
    }
    merge.reset_stats(tmp_path)
    assert stats_json.body(merge.scrape(tmp_path)) == {"timers": {}, "gauges": {}, "counters": {}}
    living.stat_counter("c").add(1)
    assert stats_json.body(merge.scrape(tmp_path))["counters"] == {"c": 1}
    living.close()
    merge.compact(tmp_path)
    assert stats_json.body(merge.scrape(tmp_path))["counters"] == {"c": 1}
    newcomer = Store(tmp_path)
    newcomer.stat_counter("c").add(1)
    merge.Scraper(tmp_path, newcomer).reset_stats()
    assert stats_json.body(merge.scrape(tmp_path))["counters"] == {}


def test_a_scrape_compacts_more_than_a_few(tmp_path):
    for number in range(20):
        store = Store(tmp_path)
        store.counter(COUNT, ()).add(number)
        store.close()
        assert value(merge.scrape(tmp_path), COUNT) == sum(range(number + 1))
        assert len(files(tmp_path)) <= 5
    assert sum(path.stat().st_size for path in tmp_path.iterdir() if path.name == "archive") < 8192


def test_the_limit_holds_over_processes_and_admits_by_age(tmp_path):
    """The overflow series and each admitted one only grow, whoever dies, and the archive stays bounded."""
    shown: dict[tuple[str, Labels], float] = {}
    added = 0.0
    for generation in range(8):
        stores = [Store(tmp_path, max_series=4) for _ in range(3)]
        for number, store in enumerate(stores):
            for series in range(3):
                store.counter(COUNT, (("n", f"{(generation * 5 + number * 2 + series) % 17}"),)).add(1)
                added += 1
            families = merge.Scraper(tmp_path, store).families()
            now = {key: values[0] for key, values in totals(families).items()}
            assert shown.keys() <= now.keys()
            assert all(now[key] >= shown[key] for key in shown)
            assert len(now) <= 5
            assert sum(now.values()) == added
            shown = now
        for store in stores:
            store.close()
        merge.compact(tmp_path, 4)
    assert ("a.count", OVERFLOW) in shown
    assert len(merge.scrape(tmp_path)[0].series) == 5


def test_histograms_of_other_bounds_and_another_help(tmp_path):
    one, two = Store(tmp_path), Store(tmp_path)
    one.histogram(TIME, ()).observe(0.5)
    two.histogram(TIME._replace(buckets=(0.2,)), ()).observe(0.5)
    two.histogram(TIME._replace(help="newer"), ()).observe(0.5)
    families = merge.scrape(tmp_path)
    assert [(family.metric.buckets, family.series[()].values) for family in families] == [
        ((0.1, 1.0), (0, 2, 0, 1.0)),
        ((0.2,), (0, 1, 0.5)),
    ]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"garbage" * 3000,
        lambda data: data[:4000],
        lambda data: data[: HEADER_BYTES + 8],
        lambda data: data.replace(b"a.other", b'a.o"her'),
        lambda data: data[:64] + b"\xff" * 8 + data[72:],
        lambda data: data[:8] + b"\x09" + data[9:],
        lambda data: data[:8] + b"\x01" + data[9:],
    ],
    ids=["empty", "foreign", "half a header", "no records", "bad json", "bad length", "newer version", "older version"],
)
def test_a_spoilt_file_is_left_out_with_one_warning(tmp_path, caplog, spoil):
    good = Store(tmp_path)
    good.counter(COUNT, ()).add(3)
    other = tmp_path / "other"
    other.mkdir()
    bad = Store(other, capacity=64 * 1024)
    bad.counter(COUNT, ()).add(5)
    bad.counter(COUNT._replace(name="a.other"), ()).add(5)
    bad.close()
    (path,) = other.glob("*.metrics")
    for name in ("spoilt.metrics", "archive"):
        (tmp_path / name).write_bytes(spoil(path.read_bytes()))
    scraper = merge.Scraper(tmp_path)
    for _ in range(3):
        assert value(scraper.families(), COUNT) == 3
    assert value(merge.scrape(tmp_path), COUNT) == 3
    assert sorted(record.args[0].name for record in caplog.records) == ["archive", "spoilt.metrics"]
    good.close()
    assert merge.compact(tmp_path) == 1
    assert value(scraper.families(), COUNT) == 3


def test_a_file_cut_off_while_mapped_is_left_out(tmp_path):
    good, bad = Store(tmp_path), Store(tmp_path)
    for store in (good, bad):
        store.counter(COUNT, ()).add(3)
    scraper = merge.Scraper(tmp_path)
    assert value(scraper.families(), COUNT) == 6
    os.truncate(bad._file.path, 5000)
    assert value(scraper.families(), COUNT) == 3


def test_names_that_are_not_files_are_left_out(tmp_path):
    (tmp_path / "directory.metrics").mkdir()
    (tmp_path / "link.metrics").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.metrics")
    (tmp_path / "note.txt").write_text("x")
    assert merge.scrape(tmp_path) == []
    assert merge.compact(tmp_path) == 0


def test_no_space_for_the_archive_changes_nothing(tmp_path, monkeypatch):
    for _ in range(6):
        store = Store(tmp_path)
        store.counter(COUNT, ()).add()
        store.close()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "_replace", full)
        scraper = merge.Scraper(tmp_path)
        assert value(scraper.families(), COUNT) == 6
        assert guard.tally["dropped.metrics.compaction"] == 1
        assert len(files(tmp_path)) == 6
    assert value(scraper.families(), COUNT) == 6
    assert len(files(tmp_path)) == 0


def test_a_compactor_that_dies_between_rename_and_removal(tmp_path):
    """The files it has taken in are still there: they neither count twice now nor after the next compaction."""
    for _ in range(3):
        store = Store(tmp_path)
        store.counter(COUNT, ()).add()
        store.close()
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in files(tmp_path):
        shutil.copy(tmp_path / name, kept)
    scraper = merge.Scraper(tmp_path)
    merge.compact(tmp_path)
    for path in kept.iterdir():
        shutil.copy(path, tmp_path)
    assert value(merge.scrape(tmp_path), COUNT) == 3
    assert value(scraper.families(), COUNT) == 3
    store = Store(tmp_path)
    store.counter(COUNT, ()).add()
    store.close()
    assert merge.compact(tmp_path) == 1
    assert files(tmp_path) == []
    assert value(scraper.families(), COUNT) == 4


def test_an_archive_replaced_while_reading_is_read_again(tmp_path, monkeypatch):
    for _ in range(2):
        store = Store(tmp_path)
        store.counter(COUNT, ()).add()
        store.close()
    scraper = merge.Scraper(tmp_path)
    update, left = merge.Scraper._update_archive, [2]

    def replaced(self: merge.Scraper) -> None:
        update(self)
        if left[0]:  # right after the old one was read
            left[0] -= 1
            store = Store(tmp_path)
            store.counter(COUNT, ()).add()
            store.close()
            merge.compact(tmp_path)

    monkeypatch.setattr(merge.Scraper, "_update_archive", replaced)
    assert value(scraper.families(), COUNT) == 4


def test_one_compactor_at_a_time(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.counter(COUNT, ()).add()
    store.close()
    inner: list[int] = []
    encode = archive._encode

    def compact_again(*args):  # type: ignore[no-untyped-def]  # as _encode
        inner.append(merge.compact(tmp_path))
        return encode(*args)

    monkeypatch.setattr(archive, "_encode", compact_again)
    assert merge.compact(tmp_path) == 1
    assert inner == [0]


def test_descriptors_do_not_grow_with_recycling(tmp_path):
    own = Store(tmp_path)
    own.counter(COUNT, ()).add()
    scraper = merge.Scraper(tmp_path, own)
    scraper.families()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        store = Store(tmp_path)
        store.counter(COUNT, ()).add()
        scraper.families()
        store.close()
        merge.compact(tmp_path)
    assert value(scraper.families(), COUNT) == 31
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the archive
    assert len(scraper._keys.known) == 1


def test_keys_of_the_past_are_forgotten(tmp_path):
    scraper = merge.Scraper(tmp_path)
    for generation in range(6):
        store = Store(tmp_path)
        for number in range(400):
            store.gauge(GAUGES[Kind.GAUGE_SUM], (("n", f"{generation} {number}"),)).set(1)
        assert len(scraper.families()[0].series) == 400
        store.close()
        merge.compact(tmp_path)
    scraper.families()
    assert len(scraper._keys.known) < 1400


# What several processes did, against a model that adds it up. Every operation is one of:
# (process, "count", label, n), (process, "observe", label, value), (process, "die"), ("compact",)
numbers = st.integers(0, 2)
operations = st.lists(
    st.one_of(
        st.tuples(numbers, st.just("count"), numbers, st.integers(0, 100)),
        st.tuples(numbers, st.just("observe"), numbers, st.sampled_from([0.05, 0.1, 0.5, 1.0, 3.0])),
        st.tuples(numbers, st.just("gauge"), numbers, st.integers(-5, 5)),
        st.tuples(numbers, st.just("die"), st.just(0), st.just(0)),
        st.tuples(numbers, st.just("compact"), st.just(0), st.just(0)),
        st.tuples(numbers, st.just("scrape"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(operations)
def test_merge_equals_a_model(tmp_path_factory, done):
    directory = tmp_path_factory.mktemp("metrics")
    stores: dict[int, Store] = {}
    counts: dict[Labels, float] = defaultdict(float)
    times: dict[Labels, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    gauges: dict[int, dict[Labels, float]] = defaultdict(dict)
    scraper = merge.Scraper(directory)
    for process, what, label, amount in [*done, (0, "scrape", 0, 0)]:
        labels = (("label", f'"{label}\n\udc80'),)
        if process not in stores:
            stores[process] = Store(directory, capacity=256 * 1024)
        store = stores[process]
        if what == "count":
            store.counter(COUNT, labels).add(amount)
            counts[labels] += amount
        elif what == "observe":
            store.histogram(TIME, labels).observe(amount)
            times[labels][(amount > 0.1) + (amount > 1.0)] += 1
            times[labels][3] += amount
        elif what == "gauge":
            store.gauge(GAUGES[Kind.GAUGE_SUM], labels).set(amount)
            gauges[process][labels] = amount
        elif what == "die":
            stores.pop(process).close()
            gauges.pop(process, None)
        elif what == "compact":
            merge.compact(directory)
        else:
            ups: dict[Labels, float] = defaultdict(float)
            for values in gauges.values():
                for key, number in values.items():
                    ups[key] += number
            expected = {("a.count", key): (number,) for key, number in counts.items()}
            expected |= {("a.time", key): pytest.approx(tuple(row)) for key, row in times.items()}
            shown = totals(scraper.families())
            assert {key[1]: values[0] for key, values in shown.items() if key[0] == "a.GAUGE_SUM"} == ups
            assert {key: values for key, values in shown.items() if key[0] != "a.GAUGE_SUM"} == expected
    scraper.close()
    for store in stores.values():
        store.close()


def spawn(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def test_sigkill_at_any_moment(tmp_path):
    """Writers and compactors are killed at random while this process scrapes: nothing is lost, counts twice or falls.

    Each writer tells through a pipe what it is about to count and what it has counted, a byte each, so that the
    truth is known to within one increment a kill.
    """
    random.seed(7)
    told, tell = os.pipe()
    os.set_blocking(told, False)

    def writer() -> None:
        store = Store(tmp_path)
        counters = [store.counter(COUNT, (("n", str(number)),)) for number in range(3)]
        histogram = store.histogram(TIME, ())
        store.gauge(GAUGES[Kind.GAUGE_SUM], ()).set(1)
        turn = 0
        while True:
            turn += 1
            os.write(tell, b"<")
            counters[turn % 3].add()
            histogram.observe(0.5, Exemplar(0.5, time.time(), 7, 8))
            store.counter(COUNT, (("new", f"{os.getpid() % 5} {turn % 50}"),)).add()
            os.write(tell, b">")
            time.sleep(0.0005)

    def compactor() -> None:
        while True:
            merge.compact(tmp_path)

    scraper = merge.Scraper(tmp_path)
    writers, compactors = [spawn(writer) for _ in range(3)], [spawn(compactor)]
    seen: dict[tuple[str, Labels], tuple[float, ...]] = {}
    begun = finished = kills = 0
    try:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            group, work = (writers, writer) if random.random() < 0.5 else (compactors, compactor)
            if random.random() < 0.5:
                victim = group.pop(random.randrange(len(group)))
                os.kill(victim, signal.SIGKILL)
                os.waitpid(victim, 0)
                group.append(spawn(work))
                kills += 1
            begun, finished = _drained(told, begun, finished)
            now = totals((scraper if random.random() < 0.8 else merge.Scraper(tmp_path)).families())
            now.pop(("a.GAUGE_SUM", ()), None)
            for key, values in seen.items():
                assert key in now
                assert all(new >= old for new, old in zip(now[key], values, strict=True)), key
            seen = now
            if ("a.time", ()) in now:
                assert now["a.time", ()][1] >= finished  # what was finished before the scrape is in it
        for victim in (*writers, *compactors):
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
        kills += len(writers)
    finally:
        os.close(tell)
    begun, finished = _drained(told, begun, finished)
    os.close(told)
    for _ in range(2):
        end = totals(scraper.families())
        observed = end["a.time", ()]
        fixed = sum(values[0] for (name, labels), values in end.items() if name == "a.count" and labels[0][0] == "n")
        assert finished <= observed[1] <= begun
        assert finished <= fixed <= begun
        assert observed[3] == pytest.approx(observed[1] * 0.5, abs=kills)
        assert ("a.GAUGE_SUM", ()) not in end
        merge.compact(tmp_path)
    assert files(tmp_path) == []
    assert kills > 10
    assert finished > 100


def _drained(pipe: int, begun: int, finished: int) -> tuple[int, int]:
    while True:
        try:
            data = os.read(pipe, 65536)
        except BlockingIOError:
            return begun, finished
        if not data:
            return begun, finished
        begun += data.count(b"<")
        finished += data.count(b">")


def test_the_archive_reads_as_a_metric_file(tmp_path):
    store = Store(tmp_path)
    store.counter(COUNT, X).add(3)
    store.close()
    (name,) = files(tmp_path)
    merge.compact(tmp_path)
    data = (tmp_path / "archive").read_bytes()
    header = layout.Header.decode(data, len(data))
    assert header.generation == 1
    source = FileSource.open(tmp_path / "archive")
    start, identities, firsts, created = source.entries()
    assert (start, len(identities), firsts) == (0, 2, [0, 0]) and all(created)
    assert list(map(layout.doubles_of, identities)) == [0, 1]
    assert layout.decode_texts(source.key(0)) == [name]
    assert layout.decode_key(source.key(1)) == (COUNT, X)
    assert source.block(0, 1) == [3]
    source.close()
