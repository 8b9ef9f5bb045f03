"""What several sources have becomes one, whatever the order in which each has it."""

from __future__ import annotations

import random

import pytest

from c2c_otel_exporters import merge
from c2c_otel_exporters.layout import (
    HEADER_BYTES,
    CorruptError,
    encode_key,
    encode_merged,
    encode_record,
    read_records,
)
from c2c_otel_exporters.mapped import LocalSource
from c2c_otel_exporters.model import Exemplar, Kind, Metric, Sample
from c2c_otel_exporters.series import Keys, Layout, Totals
from c2c_otel_exporters.store import Store

COUNT = Metric("a.count", Kind.COUNTER)
TIME = Metric("a.time", Kind.HISTOGRAM, "s", "", (0.1, 1.0))
LAST = Metric("a.last", Kind.GAUGE_LAST)


def test_each_file_has_its_own_order_and_its_own_part_of_the_series(tmp_path):
    expected: dict[str, float] = {}
    stores = []
    for worker in range(5):
        store = Store(tmp_path, capacity=256 * 1024)
        stores.append(store)
        names = [str(number) for number in range(20) if number % (worker + 1) == 0]
        random.Random(worker).shuffle(names)
        for name in names:
            store.counter(COUNT, (("n", name),)).add(worker + 0.5)
            store.histogram(TIME, (("n", name),)).observe(0.5, Exemplar(0.5, 1000.0 + worker, worker + 1, 7))
            expected[name] = expected.get(name, 0) + worker + 0.5
        store.gauge(LAST, ()).set(worker)
    scraper = merge.Scraper(tmp_path)
    for _ in range(2):
        found = {family.metric.name: family.series for family in scraper.families()}
        assert {labels[0][1]: sample.values for labels, sample in found["a.count"].items()} == {
            name: (total,) for name, total in expected.items()
        }
        times = {labels[0][1]: sample for labels, sample in found["a.time"].items()}
        assert sum(sample.values[1] for sample in times.values()) == 20 + 10 + 7 + 5 + 4
        assert times["0"].exemplar == Exemplar(0.5, 1004.0, 5, 7)
        assert times["1"] == Sample((0, 1, 0, 0.5), Exemplar(0.5, 1000.0, 1, 7))
        assert found["a.last"] == {(): Sample((4.0, found["a.last"][()].values[1]))}
        for store in stores[:-1]:
            store.close()
        merge.compact(tmp_path)


def test_a_series_that_one_process_has_twice(tmp_path):
    """By two modules, which do not agree on what it is."""
    store = Store(tmp_path)
    for help_ in ("one", "other"):
        store.counter(COUNT._replace(help=help_), ()).add(2)
        store.histogram(TIME._replace(help=help_), ()).observe(0.5)
    count, time = merge.scrape(tmp_path)
    assert count == (COUNT._replace(help="one"), {(): Sample((4,))})
    assert time.series == {(): Sample((0, 2, 0, 1))}


def test_a_metric_is_as_old_as_its_oldest_series_in_any_source():
    keys, totals = Keys(), Totals(0.0)
    young, old = LocalSource(), LocalSource()
    old.append(encode_key(COUNT, ()), 1)
    young.append(encode_key(LAST, ()), 2)
    young.append(encode_key(COUNT, ()), 1)
    young.data[1] = 1.0  # the gauge was written
    for source in (young, old):
        totals.add(Layout(keys, source.reader()), alive=True)
    assert [family.metric for family in totals.families(10)] == [COUNT, LAST]


def test_what_is_no_series_is_refused():
    source = LocalSource()
    source.append(encode_key(COUNT, ()), 1)
    source.append(encode_merged(["x.metrics"]), 0)
    with pytest.raises(CorruptError):
        Layout(Keys(), source.reader())
    for key, doubles in ((encode_key(COUNT, ()), 0), (encode_key(COUNT, ()), 2), (encode_key(TIME, ()), 4)):
        source = LocalSource()
        source.append(key, doubles)
        with pytest.raises(CorruptError):
            Layout(Keys(), source.reader())


@pytest.mark.parametrize("doubles", [0, 2])
def test_a_record_is_read_once_it_is_whole_and_within_its_area(doubles):
    one = encode_record((encode_key(COUNT, ()), 1, 1, 7))
    data = bytes(HEADER_BYTES) + one + bytes(len(one))
    start, end = HEADER_BYTES, len(data)
    if doubles == 0:
        with pytest.raises(CorruptError):
            read_records(data, start, end, doubles)
        return
    found, after = read_records(data, start, end, doubles)
    assert found == ([encode_key(COUNT, ())], [1], [1], [7])
    assert (found.end, after) == (2, start + len(one))
    assert read_records(data, after, end, doubles) == (([], [], [], []), after)
    for cut in (1, 8, len(one) - 8):
        with pytest.raises(CorruptError):
            read_records(data, start, start + len(one) - cut, doubles)
