"""Families -> stats.json, in the shape that operators know."""

from __future__ import annotations

import json

from c2c_otel_exporters import stats_json
from c2c_otel_exporters.model import OVERFLOW, Family, Kind, Metric, Sample
from c2c_otel_exporters.store import STAT_COUNTERS, STAT_GAUGES, STAT_TIMERS, Store


def test_the_shape():
    store = Store(None)
    for seconds in (0.0104, 0.0297, 0.5):
        store.stat_timer("route/GET/hello/200").observe(seconds)
    store.stat_timer("a/b").observe(0.0001)
    store.stat_counter("hits").add(2)
    store.stat_counter("ratio").add(0.5)
    store.stat_gauge("queue/length").set(-3)
    store.counter(Metric("other", Kind.COUNTER), ()).add()
    assert json.dumps(stats_json.body(store.families())) == json.dumps(
        {
            "timers": {
                "a/b": {"nb": 1, "avg_ms": 0, "min_ms": 0, "max_ms": 0},
                "route/GET/hello/200": {"nb": 3, "avg_ms": 180, "min_ms": 10, "max_ms": 500},
            },
            "gauges": {"queue/length": -3},
            "counters": {"hits": 2, "ratio": 0.5},
        }
    )


def test_nothing_at_all():
    assert stats_json.body([]) == {"timers": {}, "gauges": {}, "counters": {}}


def test_what_was_never_written_is_not_shown():
    store = Store(None)
    store.stat_timer("t")
    store.stat_gauge("g")
    assert stats_json.body(store.families()) == {"timers": {}, "gauges": {}, "counters": {}}


def test_entries_over_the_limit():
    store = Store(None, max_series=1)
    store.stat_timer("first").observe(1)
    store.stat_timer("second").observe(2)
    store.stat_timer("third").observe(4)
    timers = stats_json.body(store.families())["timers"]
    assert timers[OVERFLOW[0][0]] == {"nb": 2, "avg_ms": 3000, "min_ms": 2000, "max_ms": 4000}
    assert timers.keys() == {"first", OVERFLOW[0][0]}


def test_json_has_no_infinity():
    families = [
        Family(STAT_GAUGES, {(("key", "g"),): Sample((0, float("inf"), 1.0))}),
        Family(STAT_COUNTERS, {(("key", "c"),): Sample((0, float("nan")))}),
        Family(STAT_TIMERS, {(("key", "t"),): Sample((0, 0, 0, 0, 0))}),
    ]
    assert stats_json.body(families) == {"timers": {}, "gauges": {"g": None}, "counters": {"c": None}}
