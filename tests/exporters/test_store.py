"""One process: what is written is read back, in a file and in memory, and nothing breaks the writer."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel_exporters import guard, mapped, merge
from c2c_otel_exporters.layout import (
    HEADER_BYTES,
    CorruptError,
    decode_key,
    decode_texts,
    encode_key,
    encode_merged,
    exemplar_from,
    exemplar_words,
)
from c2c_otel_exporters.model import OVERFLOW, Exemplar, Family, Kind, Labels, Metric
from c2c_otel_exporters.store import Store

COUNT = Metric("a.count", Kind.COUNTER, "", "things")
TIME = Metric("a.time", Kind.HISTOGRAM, "s", "", (0.1, 1.0))
SIZE = Metric("a.size", Kind.SUMMARY, "By")
NOW = Metric("a.now", Kind.GAUGE_LAST)
UP = Metric("a.up", Kind.GAUGE_SUM)
X: Labels = (("x", "1"),)


@pytest.fixture(autouse=True)
def _fresh_guard():
    guard.reset()
    yield
    guard.reset()


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    made = Store(tmp_path if request.param == "file" else None)
    yield made
    made.close()


def values(families: list[Family], metric: Metric, labels: Labels = ()) -> tuple[float, ...]:
    (family,) = (family for family in families if family.metric.name == metric.name)
    return family.series[labels].values


def test_every_kind_is_read_back(store):
    store.counter(COUNT, X).add()
    store.counter(COUNT, X).add(2.5)
    for value in (0.1, 0.100001, 1.0, 7):
        store.histogram(TIME, ()).observe(value)
    store.summary(SIZE, ()).observe(10)
    store.summary(SIZE, ()).observe(20)
    store.gauge(NOW, ()).set(-3)
    store.gauge(UP, ()).add(5)
    store.gauge(UP, ()).add(-1)
    families = store.families()
    assert values(families, COUNT, X) == (3.5,)
    assert values(families, TIME) == (1, 2, 1, pytest.approx(8.200001))  # a bound belongs to its bucket
    assert values(families, SIZE) == (2, 30)
    assert values(families, NOW)[0] == -3
    assert values(families, UP)[0] == 4
    assert next(family.metric for family in families) == COUNT  # the oldest first


def test_stats_and_their_reset(store):
    timer, counter, gauge = store.stat_timer("a/b"), store.stat_counter("c"), store.stat_gauge("g")
    for seconds in (0.2, 0.1, 0.4):
        timer.observe(seconds)
    counter.add(3)
    counter.add(-1)
    gauge.set(7)

    def read() -> dict[str, tuple[float, ...]]:
        return {labels[0][1]: s.values for f in store.families() for labels, s in f.series.items()}

    assert read()["a/b"] == (0, 3, pytest.approx(0.7), 0.1, 0.4)
    assert read()["c"] == (0, 2)
    assert read()["g"][:2] == (0, 7)
    store.reset_stats()
    assert read() == {}
    timer.observe(0.3)
    counter.add(1)
    assert read() == {"a/b": (1, 1, 0.3, 0.3, 0.3), "c": (1, 1)}


def test_nothing_is_made_before_the_first_series(tmp_path):
    store = Store(tmp_path)
    assert store.families() == []
    assert list(tmp_path.iterdir()) == []
    store.counter(COUNT, ()).add()
    assert len(list(tmp_path.glob("*.metrics"))) == 1


def test_a_counter_takes_no_negative_and_no_non_number(store):
    counter, histogram = store.counter(COUNT, ()), store.histogram(TIME, ())
    counter.add(2)
    for value in (-1, float("nan"), float("inf"), -float("inf")):
        counter.add(value)
    for value in (float("nan"), float("inf")):
        histogram.observe(value)
    assert values(store.families(), COUNT) == (2,)
    assert values(store.families(), TIME) == (0, 0, 0, 0)
    assert guard.tally == {"dropped.metrics.counter": 4, "dropped.metrics.histogram": 2}


def test_what_is_no_number_is_not_taken_over(store):
    nan = float("nan")
    for total in (3, nan, -1):
        store.counter(COUNT, ()).set(total)
    store.histogram(TIME, ()).set([1, nan, 0], 1)
    store.histogram(TIME, ()).set([1, -1, 0], 1)
    store.histogram(TIME, ()).set([1, 0, 0], nan)
    store.summary(SIZE, ()).set(-1, 1)
    store.summary(SIZE, ()).observe(nan)
    store.histogram(TIME, ()).set([1, 0, 0], 0.5)
    store.counter(COUNT, ()).set(4)
    shown = store.families()
    assert values(shown, COUNT) == (4,)
    assert values(shown, TIME) == (1, 0, 0, 0.5)
    assert values(shown, SIZE) == (0, 0)
    assert sum(guard.tally.values()) == 7


def test_published_totals_never_lower_a_counter(store):
    counter = store.counter(COUNT, ())
    counter.set(10)
    counter.set(12)
    assert values(store.families(), COUNT) == (12,)
    counter.set(3)  # the source was reset
    assert values(store.families(), COUNT) == (15,)
    counter.set(4)
    assert values(store.families(), COUNT) == (16,)
    histogram = store.histogram(TIME, ())
    histogram.set([1, 2, 3], 10)
    histogram.set([1, 2, 4], 15)
    assert values(store.families(), TIME) == (1, 2, 4, 15)
    histogram.set([0, 1, 0], 0.5)
    assert values(store.families(), TIME) == (1, 3, 4, 15.5)
    with pytest.raises(ValueError, match="3 buckets"):
        histogram.set([1], 1)
    summary = store.summary(SIZE, ())
    summary.set(2, 20)
    summary.set(1, 5)
    assert values(store.families(), SIZE) == (3, 25)


def test_series_over_the_limit_are_counted_in_one(tmp_path, caplog):
    for directory in (tmp_path, None):
        guard.reset()
        caplog.clear()
        store = Store(directory, max_series=3)
        for number in range(10):
            store.counter(COUNT, (("n", str(number)),)).add(number)
            store.counter(COUNT, (("n", str(number)),)).set(100)  # absolute values are told apart
        (family,) = store.families()
        shown = {labels: sample.values[0] for labels, sample in family.series.items()}
        assert shown == {
            (("n", "0"),): 100,
            (("n", "1"),): 101,
            (("n", "2"),): 102,
            OVERFLOW: sum(100 + n for n in range(3, 10)),
        }
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        for number in range(3, 10):  # nor do they count anew
            store.counter(COUNT, (("n", str(number)),)).set(100)
        assert values(store.families(), COUNT, OVERFLOW) == (sum(100 + n for n in range(3, 10)),)


def test_overflow_is_bounded_and_up_down_counters_add_up_there():
    store = Store(None, max_series=2)
    for number in range(6):
        store.gauge(UP, (("n", str(number)),)).set(10)
        store.gauge(UP, (("n", str(number)),)).set(7)
    assert values(store.families(), UP, OVERFLOW)[0] == 4 * 7
    for number in range(100):
        store.counter(COUNT, (("n", str(number)),)).add()
    assert values(store.families(), COUNT, OVERFLOW) == (98,)
    assert len(store._overflowed) <= 10 * 2 + 2
    store.counter(COUNT, (("n", "99"),)).set(5)  # too many to be told apart
    assert values(store.families(), COUNT, OVERFLOW) == (98,)
    assert guard.tally["dropped.metrics.set"] == 1


def test_a_key_that_is_too_long_goes_to_the_overflow_series(store):
    store.counter(COUNT, (("q", "x" * 70_000),)).add(2)
    store.counter(COUNT, (("q", "y"),)).add(1)
    assert values(store.families(), COUNT, OVERFLOW) == (2,)
    assert guard.tally["dropped.metrics.series"] == 1


def test_a_removed_gauge_is_gone_and_makes_room(tmp_path):
    store = Store(tmp_path, max_series=2)
    for number in range(10):
        labels = (("pid", str(number)),)
        store.gauge(NOW, labels).set(number)
        assert list(store.families()[0].series) == [labels]
        store.remove_gauge(NOW, labels)
        assert store.families() == []
    store.remove_gauge(NOW, X)  # was never there


def test_an_instrument_of_another_kind_is_an_error(store):
    with pytest.raises(ValueError, match="COUNTER"):
        store.histogram(COUNT, ())
    store.counter(COUNT, ())
    with pytest.raises(ValueError, match="COUNTER"):
        store.gauge(COUNT, ())


def test_an_exemplar_a_second_and_never_a_torn_one(store):
    histogram = store.histogram(TIME, ())

    def shown() -> Exemplar | None:
        return store.families()[0].series[()].exemplar

    histogram.observe(0.5)
    assert shown() is None
    first = Exemplar(0.5, 1000.25, 2**128 - 1, 2**64 - 3)
    histogram.observe(0.5, first)
    assert shown() == first
    histogram.observe(0.7, Exemplar(0.7, 1000.75, 1, 1))
    assert shown() == first
    later = Exemplar(0.7, 1001.25, 5, 6)
    histogram.observe(0.7, later)
    assert shown() == later
    histogram._view[histogram._exemplar_at] += 1  # as if it were being written
    assert shown() is None
    assert values(store.families(), TIME) == (0, 4, 0, pytest.approx(2.4))


def test_a_full_disk_makes_it_local_and_says_so(tmp_path, monkeypatch, caplog):
    store = Store(tmp_path)
    before = store.counter(COUNT, (("n", "before"),))
    before.add()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mapped, "_CHUNK", 1)
    monkeypatch.setattr(os, "posix_fallocate", full)
    for number in range(3000):
        store.counter(COUNT if number < 1000 else COUNT._replace(name=f"m{number}"), (("n", str(number)),)).add()
    assert not store.shared
    assert store.reason == "No space left on device"
    assert len(caplog.records) == 1
    before.add()
    shown = sum(sample.values[0] for family in store.families() for sample in family.series.values())
    assert shown == 3002
    scraper = merge.Scraper(tmp_path, store)
    assert "No space left" in scraper.comments()[0]
    families = {family.metric.name: family for family in scraper.families()}
    assert "No space left" in families["c2c_otel.metrics.unshared"].metric.help
    del families["c2c_otel.metrics.unshared"]
    assert sum(sample.values[0] for family in families.values() for sample in family.series.values()) == 3002
    assert 0 < sum(len(family.series) for family in merge.scrape(tmp_path)) < 3001  # what others see of it


def test_a_full_file_makes_it_local(tmp_path):
    store = Store(tmp_path, capacity=64 * 1024)
    for number in range(2000):
        store.counter(COUNT, (("n", str(number)),)).add()
    assert not store.shared
    assert len(store.families()[0].series) == 2000
    assert sum(os.stat(path).st_size for path in tmp_path.glob("*.metrics")) == 64 * 1024


def test_no_directory_makes_it_local(tmp_path, caplog):
    store = Store(tmp_path / "missing")
    store.counter(COUNT, ()).add()
    assert not store.shared
    assert "No such file" in store.reason
    assert len(caplog.records) == 1
    assert values(store.families(), COUNT) == (1,)


def test_a_file_system_without_fallocate_is_written_with_zeros(tmp_path, monkeypatch):
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    store = Store(tmp_path)
    for number in range(1500):
        store.counter(COUNT, (("n", str(number)),)).add(number)
    assert store.shared
    assert sum(sample.values[0] for sample in merge.scrape(tmp_path)[0].series.values()) == sum(range(1500))


def test_space_is_taken_as_it_is_needed(tmp_path):
    store = Store(tmp_path)
    store.counter(COUNT, ()).add()
    (path,) = tmp_path.glob("*.metrics")
    assert path.stat().st_blocks * 512 < 256 * 1024 < path.stat().st_size


def test_threads_lose_nothing(store):
    def work() -> None:
        for number in range(2000):
            store.counter(COUNT, (("n", str(number % 7)),)).add()
            store.histogram(TIME, ()).observe(0.5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = next(family for family in store.families() if family.metric == COUNT)
    assert sum(sample.values[0] for sample in counted.series.values()) == 8000
    assert values(store.families(), TIME)[1] == 8000


def test_a_re_entered_lock_does_not_hang(store):
    counter = store.counter(COUNT, ())
    with store._lock:  # as a signal handler would find it
        counter.add()
        store.counter(COUNT, X).add()
    assert values(store.families(), COUNT) == (1,)


def test_after_close_writes_go_nowhere_and_the_file_is_dead(tmp_path):
    store = Store(tmp_path)
    counter, histogram, timer = store.counter(COUNT, ()), store.histogram(TIME, ()), store.stat_timer("t")
    counter.add(5)
    histogram.observe(0.5)
    (path,) = tmp_path.glob("*.metrics")
    assert mapped.is_alive(path)
    store.close()
    store.close()
    assert not mapped.is_alive(path)
    counter.add(1)
    histogram.observe(0.5, Exemplar(0.5, time.time(), 1, 1))
    timer.observe(1)
    store.counter(COUNT, X).add(1)
    assert values(merge.scrape(tmp_path), COUNT) == (5,)


def test_a_forked_child_abandons_without_a_trace(tmp_path):
    """The owner is dead when it is dead, although its child, which inherited everything, lives on."""
    told, tell = os.pipe()
    release, hold = os.pipe()
    owner = os.fork()
    if owner == 0:
        store = Store(tmp_path)
        counter = store.counter(COUNT, ())
        counter.add(5)
        child = os.fork()
        if child == 0:
            store.abandon()
            counter.add(100)
            store.counter(COUNT, X).add(100)
            os.write(tell, b"c")
            os.close(hold)
            os.read(release, 1)
            os._exit(0)
        os.read(told, 1)
        (path,) = tmp_path.glob("*.metrics")
        os.write(tell, b"+" if mapped.is_alive(path) else b"-")
        os._exit(0)
    os.waitpid(owner, 0)
    try:
        assert os.read(told, 1) == b"+"
        (path,) = tmp_path.glob("*.metrics")
        assert not mapped.is_alive(path)
        assert values(merge.scrape(tmp_path), COUNT) == (5,)
        assert [len(family.series) for family in merge.scrape(tmp_path)] == [1]
    finally:
        for end in (told, tell, release, hold):
            os.close(end)


def test_a_child_that_forgets_to_abandon_does_not_keep_a_closed_owner_alive(tmp_path):
    store = Store(tmp_path)
    store.counter(COUNT, ()).add()
    release, hold = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hold)
        os.read(release, 1)
        os._exit(0)
    store.close()
    (path,) = tmp_path.glob("*.metrics")
    alive = mapped.is_alive(path)
    os.close(hold)
    os.waitpid(child, 0)
    os.close(release)
    assert not alive


def test_descriptors_and_mappings_are_given_back(tmp_path):
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for how in (Store.close, Store.abandon):
        store = Store(tmp_path)
        store.counter(COUNT, ()).add()
        store.stat_timer("t").observe(1)
        merge.scrape(tmp_path, store)
        how(store)
    assert descriptors() == before


def test_the_lock_is_not_inherited_by_programs(tmp_path):
    store = Store(tmp_path)
    store.counter(COUNT, ()).add()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith(str(tmp_path)):
                assert not os.get_inheritable(int(name))
        except FileNotFoundError:
            pass


names = st.text(st.characters(codec=None), max_size=20)


@given(
    st.builds(
        Metric,
        name=names,
        kind=st.sampled_from(Kind),
        unit=names,
        help=names,
        buckets=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4).map(tuple),
        exact=st.booleans(),
    ),
    st.lists(st.tuples(names, names), max_size=4).map(tuple),
)
def test_keys_round_trip(metric, labels):
    """Whatever text: unpaired surrogates come from undecodable bytes."""
    assert decode_key(encode_key(metric, labels)) == (metric, labels)


@given(st.lists(names, max_size=4))
def test_lists_of_files_round_trip(found):
    assert decode_texts(encode_merged(found)) == found


@given(
    st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=30).map(lambda data: encode_key(Metric("a", Kind.COUNTER), ())[:-2] + data),
        st.sampled_from([b'["a"]', b'["a","b","c"]', b'"', b'["', b"[]x", b"{}", b"7", b'["a",1]', b'["\\u12"]']).map(
            lambda labels: encode_key(Metric("a", Kind.COUNTER), ())[:-2] + labels
        ),
    )
)
def test_no_bytes_break_the_key_decoder(data):
    try:
        decode_key(data)
    except CorruptError:
        pass


@given(
    st.builds(
        Exemplar,
        value=st.floats(allow_nan=False),
        time=st.floats(0, 1e11),
        trace_id=st.integers(0, 2**128 - 1),
        span_id=st.integers(0, 2**64 - 1),
    )
)
def test_exemplars_round_trip(exemplar):
    assert exemplar_from(exemplar_words(exemplar)) == exemplar


def test_a_dead_child_of_a_creation_is_cleaned(tmp_path: Path):
    """A hidden file whose maker died is removed, one that is being made is not."""
    (tmp_path / ".new-dead").write_bytes(bytes(HEADER_BYTES))
    (tmp_path / ".archive-dead").write_bytes(b"x")
    alive = tmp_path / ".new-alive"
    alive.write_bytes(b"x")
    with alive.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        merge.compact(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [".new-alive", "compact.lock"]
