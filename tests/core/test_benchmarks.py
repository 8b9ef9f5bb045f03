"""``make bench``: what is computed from its figures. Nothing is measured here."""

from __future__ import annotations

import pytest

from tests.benchmarks import compare, environments, features, figures, goals, throughput
from tests.benchmarks.application import PATHS
from tests.benchmarks.figures import Figures, Spread


def measured(**added: list[float]) -> Figures:
    """Each peer's rounds over bare applications that cost 100, in each scenario."""
    rounds = len(next(iter(added.values())))
    bare = {name: {scenario: [100.0] * rounds for scenario in PATHS} for name in set(figures.BARE.values())}
    return bare | {
        peer: {scenario: [100.0 + value for value in values] for scenario in PATHS} for peer, values in added.items()
    }


def verdict(times: list[float] | None, instructions: float | None, bound: float = 0.25) -> goals.Verdict:
    return goals.Verdict("a / b", "json", bound, figures.spread(times) if times else None, instructions)


def test_what_is_added_is_paired_round_by_round() -> None:
    found: Figures = {"bare": {"json": [10, 40]}, "ours": {"json": [15, 46]}, "contrib": {"json": [30, 52]}}
    assert figures.rows(found) == ["contrib", "ours"]
    assert figures.added(found, "ours", "json") == [5, 6]
    assert figures.ratios(found, "ours", "contrib", "json") == [0.25, 0.5]


def test_a_row_over_another_bare_application() -> None:
    found: Figures = {"bare": {"json": [10]}, "bare-include": {"json": [14]}, "ours-include": {"json": [15]}}
    assert figures.rows(found) == ["ours-include", "ours-include over its includes"]
    assert figures.added(found, "ours-include over its includes", "json") == [1]


def test_a_ratio_to_nothing_is_none_that_meets_a_goal() -> None:
    found: Figures = {"bare": {"json": [10, 10]}, "ours": {"json": [15, 5]}, "contrib": {"json": [10, 9]}}
    assert figures.ratios(found, "ours", "contrib", "json") == [figures.BEYOND, figures.BEYOND]


def test_quartiles() -> None:
    assert figures.spread([4, 1, 2, 3, 5]) == Spread(1.5, 3, 4.5)
    assert figures.spread([7]) == Spread(7, 7, 7)
    assert (Spread(1.5, 3, 4.5).show(0), Spread(7, 7, 7).show(2)) == ("3 (2 to 4)", "7.00")


def test_the_table() -> None:
    text = figures.table(measured(ours=[20.0], contrib=[80.0]), "us", ["json", "mix"], goals.COMPARED)
    assert text.splitlines()[:2] == ["| us | json | mix |", "| --- | ---: | ---: |"]
    assert text.splitlines()[-3:] == [
        "| + contrib | 80 | 80 |",
        "| + ours | 20 | 20 |",
        "| ours / contrib | 0.25 | 0.25 |",
    ]


@pytest.mark.parametrize(
    ("times", "instructions", "decides", "met"),
    [
        ([0.2, 0.2, 0.2], 0.9, "time", True),
        ([0.3, 0.3, 0.3], 0.1, "time", False),
        ([0.1, 0.2, 0.9], 0.3, "instructions", False),
        ([0.1, 0.4, 0.9], 0.2, "instructions", True),
        ([0.1, 0.4, 0.9], None, "time", False),
        ([0.25, 0.25, 0.25], None, "time", True),
        (None, 0.25, "instructions", True),
    ],
)
def test_time_decides_unless_its_quartiles_straddle_the_bound(
    times: list[float] | None, instructions: float | None, decides: str, met: bool
) -> None:
    found = verdict(times, instructions)
    assert (found.decides, found.met) == (decides, met)


def test_goals_are_judged_where_both_rows_are_known() -> None:
    times = measured(ours=[20.0, 20.0], contrib=[200.0, 200.0])
    found = goals.judge(times, {}, list(PATHS))
    assert [(each.name, each.scenario, each.met) for each in found] == [
        ("ours / contrib", scenario, True) for scenario in ("json", "select", "redis", "mix", "call")
    ]
    assert goals.judge({}, {}, list(PATHS)) == []


def test_what_is_missed_is_named() -> None:
    times, counted = measured(ours=[30.0, 30.0], contrib=[200.0, 200.0]), measured(ours=[50.0], contrib=[200.0])
    found = goals.judge(times, counted, ["json", "call", "404"])
    assert goals.missed(found) == ["ours / contrib, json"]
    assert goals.table(found).splitlines()[2:] == [
        "| ours / contrib | json | 0.125 | 0.150 | 0.250 | time | NO |",
        "| ours / contrib | call | 0.200 | 0.150 | 0.250 | time | yes |",
    ]


def test_every_peer_has_its_place_everywhere() -> None:
    peers = {*compare.MEASURED, *compare.FLOOR}
    assert peers == set(environments.ENVIRONMENT) == set(features.CHECKS)
    assert set(environments.ENVIRONMENT.values()) <= set(environments.WANTED)
    assert {row.partition(" ")[0] for row in figures.BARE} | set(figures.BARE.values()) == peers
    assert {row for pair in goals.COMPARED for row in pair} <= set(figures.BARE)


SAID = """Running 2s test @ http://127.0.0.1:8080/json
  Latency Distribution
     50%  900.00us
     75%    1.10ms
     90%    2.00ms
     99%    1.25s
  4006 requests in 2.00s, 0.87MB read
Requests/sec:   2001.61
"""


def test_what_wrk_says() -> None:
    assert throughput.read(SAID) == (4006, throughput.Load(2001.61, 0.9, 1250.0))
    with pytest.raises(AssertionError, match="Non-2xx"):
        throughput.read(SAID + "  Non-2xx or 3xx responses: 3\n")


def test_a_server_is_compared_with_its_own_bare_application() -> None:
    def load(per_second: float) -> dict[str, list[throughput.Load]]:
        return {scenario: [throughput.Load(per_second, 1, 2)] for scenario in throughput.SCENARIOS}

    loads = {"bare": load(1000), "ours": load(900), "bare-4.1.1": load(500), "4.1.1": load(250)}
    lines = throughput.table(loads).splitlines()[2:]
    assert [line.split(" | ")[:3] for line in lines] == [
        ["| bare", "1000", "1.00"],
        ["| ours", "900", "0.90"],
        ["| bare-4.1.1", "500", "1.00"],
        ["| 4.1.1", "250", "0.50"],
    ]


@pytest.mark.parametrize(("spans", "requests"), [(19, 10), (20, 9), (28, 14)])
def test_a_server_that_lost_something_is_found_out(spans: int, requests: int) -> None:
    features.under_load("ours", "json", 10, 3, {"spans": 26, "requests": 13})
    features.under_load("bare", "json", 10, 3, {})
    with pytest.raises(AssertionError, match="ours"):
        features.under_load("ours", "json", 10, 3, {"spans": spans, "requests": requests})


def test_a_feature_with_nothing_to_show_is_found_out() -> None:
    headers = [{"x-request-id": str(number), "server-timing": "route;dur=1"} for number in range(2)]
    found = {"headers": headers, "spans": 4, "requests": 2, "sent": {}, "line": ""}
    lines = ["route.GET.json.200:1|ms", "render.GET.json.200:1|ms"] * 2
    features.CHECKS["ours"]("json", 2, found, lines)
    for missing in ({"spans": 3}, {"requests": 1}, {"headers": [headers[0]] * 2}):
        with pytest.raises(AssertionError):
            features.CHECKS["ours"]("json", 2, found | missing, lines)
    with pytest.raises(AssertionError, match="statsd lines"):
        features.CHECKS["ours"]("json", 2, found, lines[:3])
    for peer in ("contrib", "6.1.10", "ddtrace", "sentry-sdk"):
        with pytest.raises((AssertionError, KeyError)):
            features.CHECKS[peer]("json", 2, {"headers": headers, "spans": 0, "requests": 0}, [])
