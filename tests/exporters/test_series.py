"""What several sources have becomes one, whatever the order in which each has it."""

from __future__ import annotations

import os
import random
import sys

import pytest

from c2c_otel_exporters import merge
from c2c_otel_exporters.layout import (
    EXEMPLAR_WORDS,
    HEADER_BYTES,
    ROW_BYTES,
    USED_AT,
    CorruptError,
    Header,
    doubles_of,
    encode_key,
    encode_merged,
    encode_row,
    identity,
    read_rows,
    width,
)
from c2c_otel_exporters.mapped import FileSource, LocalSource, Writer
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


def test_a_metric_of_which_no_series_could_be_read_has_no_age():
    keys, source = Keys(), LocalSource()
    source.append(encode_key(TIME, ()), 1)
    with pytest.raises(CorruptError):
        Layout(keys, source.reader())
    assert [group.metric for group in keys.groups()] == [TIME]
    good = LocalSource()
    good.append(encode_key(COUNT, ()), 1)
    totals = Totals(0.0)
    totals.add(Layout(keys, good.reader()), alive=True)
    assert [family.metric for family in totals.families(10)] == [COUNT]


def test_equal_series_have_the_same_identity_and_no_others_have():
    keys = [encode_key(metric, labels) for metric in (COUNT, LAST) for labels in ((), (("n", "1"),))]
    found = [identity(key, doubles) for key in keys for doubles in (1, 300)]
    assert found == [identity(bytes(key), doubles) for key in keys for doubles in (1, 300)]
    assert len(set(found)) == len(found)
    assert set(map(len, found)) == {20}
    assert list(map(doubles_of, found)) == [1, 300] * len(keys)


def test_rows_are_read_up_to_one_that_is_not_there_yet():
    """A signal handler may have added one while another was being written."""
    names = [identity(encode_key(COUNT, (("n", str(number)),)), 1) for number in range(4)]
    rows = [encode_row((name, number, 7.5 + number), 100, 10) for number, name in enumerate(names)]
    found = read_rows(b"".join(rows), 5)
    assert found == (5, names, [0, 1, 2, 3], [7.5, 8.5, 9.5, 10.5])
    rows[2] = rows[2][:-8] + bytes(8)
    assert read_rows(b"".join(rows), 5) == (5, names[:2], [0, 1], [7.5, 8.5])
    assert read_rows(b"", 5) == (5, [], [], [])


def test_a_reader_waits_at_a_row_that_is_not_there_yet(tmp_path):
    writer = Writer(tmp_path, 256 * 1024)
    places = [writer.append(encode_key(COUNT, (("n", str(number)),)), 1) for number in range(3)]
    header = Header.decode(writer.path.read_bytes()[:USED_AT], 256 * 1024)
    at = header.rows_at + 2 * ROW_BYTES - 8
    with open(writer.path, "r+b") as file:
        file.seek(at)
        created = file.read(8)
        file.seek(at)
        file.write(bytes(8))
    source = FileSource.open(writer.path)
    assert source.entries().firsts == places[:1]
    assert source.entries().firsts == []
    with open(writer.path, "r+b") as file:
        file.seek(at)
        file.write(created)
    later = source.entries()
    assert (later.start, later.firsts) == (1, places[1:])
    assert [source.key(number) for number in range(3)] == [
        encode_key(COUNT, (("n", str(number)),)) for number in range(3)
    ]
    assert source.entries() == (3, [], [], [])
    source.close()
    writer.close()


def _spoilt(tmp_path, at: int, word: bytes) -> FileSource:
    """A file of one histogram, of whose row the bytes from ``at`` on are others."""
    writer = Writer(tmp_path, 64 * 1024)
    writer.append(encode_key(TIME, ()), width(TIME) + EXEMPLAR_WORDS)
    writer.close()
    data = bytearray(writer.path.read_bytes())
    place = Header.decode(bytes(data), len(data)).rows_at + at
    data[place : place + len(word)] = word
    writer.path.write_bytes(data)
    return FileSource.open(writer.path)


@pytest.mark.parametrize(
    "at, number",
    [(16, 1), (20, (64 * 1024 // 4) // 8), (20, 0xFFFFFFFF), (24, HEADER_BYTES), (24, 64 * 1024), (28, 64 * 1024)],
    ids=["values it has not", "values in the rows", "values nowhere", "key in the values", "key nowhere", "long key"],
)
def test_a_row_that_points_outside_its_area_is_refused(tmp_path, at, number):
    source = _spoilt(tmp_path, at, number.to_bytes(4, sys.byteorder))
    with pytest.raises(CorruptError):
        Layout(Keys(), source)
    source.close()


@pytest.mark.parametrize("last, refused", [(0, False), (1, True)])
def test_values_may_go_up_to_the_end_of_their_area(tmp_path, last, refused):
    """The last of a histogram's doubles, with its exemplar, is the last of the area, or one too far."""
    doubles = width(TIME) + EXEMPLAR_WORDS
    room = (64 * 1024 // 4 // 4096 * 4096) // 8
    source = _spoilt(tmp_path, 20, (room - doubles + last).to_bytes(4, sys.byteorder))
    if refused:
        with pytest.raises(CorruptError, match="outside"):
            Layout(Keys(), source)
    else:
        assert Layout(Keys(), source).end == room
    source.close()


def test_keys_of_series_that_are_known_are_not_read(tmp_path, monkeypatch):
    writers = [Writer(tmp_path, 256 * 1024) for _ in range(3)]
    order = list(range(20))
    for writer in writers:
        random.shuffle(order)
        for number in order:
            writer.append(encode_key(COUNT, (("n", str(number)),)), 1)
    writers[1].append(encode_key(LAST, ()), 2)
    read = []
    key = FileSource.key

    def noted(source: FileSource, number: int) -> bytes:
        read.append(key(source, number))
        return read[-1]

    monkeypatch.setattr(FileSource, "key", noted)
    keys = Keys()
    layouts = [Layout(keys, writer.source()) for writer in writers]
    assert [layout.size() for layout in layouts] == [20, 21, 20]
    assert len(read) == len(set(read)) == 21
    for writer in writers:
        writer.close()


def test_a_series_that_a_signal_handler_adds_while_another_is_being_added(tmp_path, monkeypatch):
    writer = Writer(tmp_path, 256 * 1024)
    reserve, inner, outer = os.posix_fallocate, encode_key(LAST, ()), encode_key(COUNT, ())
    seen = []

    def interrupted(*arguments: int) -> None:
        if not seen:
            source = writer.source()
            seen.append(source)
            writer.append(inner, 2)
            assert source.entries().identities == []
        reserve(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", interrupted)
    assert writer.append(outer, 1) == 0
    (source,) = seen
    assert source.entries()[1:3] == ([identity(outer, 1), identity(inner, 2)], [0, 1])
    assert [source.key(0), source.key(1)] == [outer, inner]
    writer.close()


def test_a_series_for_which_there_is_no_room_leaves_its_place_to_others(tmp_path):
    writer = Writer(tmp_path, 64 * 1024)
    for doubles, key in ((16 * 1024, b"k"), (1, bytes(64 * 1024))):
        with pytest.raises(OSError, match="full"):
            writer.append(key, doubles)
    assert [writer.append(encode_key(COUNT, (("n", n),)), 1) for n in "ab"] == [0, 1]
    assert Layout(Keys(), writer.source()).size() == 2
    writer.close()
