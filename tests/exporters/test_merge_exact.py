"""No total falls by its last bit because its parts are added in another order: to Prometheus that is a restart."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from c2c_otel_exporters import merge
from c2c_otel_exporters.model import OVERFLOW, Family, Kind, Labels, Metric
from c2c_otel_exporters.series import exact_sum
from c2c_otel_exporters.store import Store

COUNT = Metric("a.count", Kind.COUNTER)
TIME = Metric("a.time", Kind.HISTOGRAM, "s", "", (0.1, 1.0))
SUM = Metric("a.sum", Kind.SUMMARY)

amounts = st.just(0.0) | st.floats(1e-6, 1e6)
"""Sums of them fit into two doubles, as the archive keeps them: 2**24 above, 2**-73 below."""


def shown(families: list[Family]) -> dict[tuple[str, Labels], float]:
    return {(f.metric.name, labels): sample.values[-1] for f in families for labels, sample in f.series.items()}


def record(store: Store, amount: float, labels: Labels = ()) -> None:
    store.counter(COUNT, labels).add(amount)
    store.histogram(TIME, labels).observe(amount)
    store.summary(SUM, labels).observe(amount)


@settings(max_examples=60, deadline=None)
@given(st.lists(amounts, min_size=3, max_size=12), st.randoms(use_true_random=False))
def test_neither_ends_nor_compactions_change_a_sum(tmp_path_factory, parts, random):
    directory = tmp_path_factory.mktemp("metrics")
    stores = [Store(directory, capacity=256 * 1024) for _ in parts]
    for store, amount in zip(stores, parts, strict=True):
        record(store, amount)
    before = shown(merge.scrape(directory))
    exact = float(sum(map(Fraction, parts)))
    assert before == {(metric.name, ()): exact for metric in (COUNT, TIME, SUM)}
    random.shuffle(stores)
    while stores:
        stores.pop().close()
        if random.random() < 0.6:
            merge.compact(directory)
        assert shown(merge.scrape(directory)) == before
    merge.compact(directory)
    assert shown(merge.scrape(directory)) == before


def test_the_overflow_series_is_exact_too(tmp_path):
    parts = [0.1, 0.2, 0.3, 1e16, 0.7, 0.9]
    stores = [Store(tmp_path, 2, capacity=256 * 1024) for _ in parts]
    for number, (store, amount) in enumerate(zip(stores, parts, strict=True)):
        record(store, amount, (("n", str(number)),))
    scraper = merge.Scraper(tmp_path, max_series=2)
    before = shown(scraper.families())
    assert before["a.time", OVERFLOW] == float(sum(map(Fraction, parts[2:])))
    for store in reversed(stores):
        store.close()
        merge.compact(tmp_path, 2)
        assert shown(scraper.families()) == before
    scraper.close()


def test_what_no_double_holds():
    assert exact_sum([1e308, 1e308]) == (float("inf"), 0.0)
    assert exact_sum([float("inf"), 1.0]) == (float("inf"), 0.0)
    assert exact_sum([1.0, 1e-30]) == (1.0, 1e-30)


def test_what_the_archive_keeps_adds_up_to_what_was_shown():
    parts = [1.953051715361653, 262142.15335903823, 3.712367458046288e-68]  # a half of the last bit, and a little
    total, lost = exact_sum(parts)
    assert total == float(sum(map(Fraction, parts)))
    assert exact_sum([total, lost])[0] == total
