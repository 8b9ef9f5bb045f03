"""What /metrics answers: names, formats, and the same bytes as prometheus_client would write."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.prometheus._mapping import map_unit, sanitize_attribute, sanitize_full_name
from prometheus_client import Metric as ClientMetric
from prometheus_client.exposition import generate_latest as client_text
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.openmetrics.exposition import generate_latest as client_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Exemplar as ClientExemplar
from prometheus_client.utils import floatToGoString

from c2c_otel_exporters import guard, prometheus
from c2c_otel_exporters.model import Exemplar, Family, Kind, Labels, Metric, Sample

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(autouse=True)
def _fresh_guard():
    guard.reset()
    yield
    guard.reset()


def lines(*families: Family, accept: str = "", **options: object) -> list[str]:
    return prometheus.render(families, accept, **options)[1].decode().splitlines()  # type: ignore[arg-type]  # options are of several types


def counter(name: str, unit: str = "", labels: Labels = (), value: float = 1, exact: bool = False) -> Family:
    return Family(Metric(name, Kind.COUNTER, unit, "", (), exact), {labels: Sample((value,))})


def gauge(name: str, unit: str = "", labels: Labels = (), value: float = 1, exact: bool = False) -> Family:
    return Family(Metric(name, Kind.GAUGE_LAST, unit, "", (), exact), {labels: Sample((value, 1.0))})


def test_a_histogram_as_prometheus_shows_it():
    metric = Metric("http.server.request.duration", Kind.HISTOGRAM, "s", "Duration.", (0.1, 1.0))
    exemplar = Exemplar(0.1, 1000.5, 0xABC, 0xDEF)
    family = Family(metric, {(("http.route", 'a"\\\n'),): Sample((1, 2, 3, 4.5), exemplar)})
    label = r'http_route="a\"\\\n"'
    name = "http_server_request_duration_seconds"
    samples = [
        f'{name}_bucket{{{label},le="0.1"}} 1.0',
        f'{name}_bucket{{{label},le="1.0"}} 3.0',
        f'{name}_bucket{{{label},le="+Inf"}} 6.0',
        f"{name}_count{{{label}}} 6.0",
        f"{name}_sum{{{label}}} 4.5",
    ]
    assert lines(family) == [f"# HELP {name} Duration.", f"# TYPE {name} histogram", *samples]
    # a value on a bound belongs to its bucket
    samples[0] += ' # {span_id="0000000000000def",trace_id="00000000000000000000000000000abc"} 0.1 1000.5'
    head = [f"# HELP {name} Duration.", f"# TYPE {name} histogram", f"# UNIT {name} seconds"]
    assert lines(family, accept=OPENMETRICS) == [*head, *samples, "# EOF"]


@pytest.mark.parametrize(
    "family, sample",
    [
        (counter("http.requests"), "http_requests_total 1.0"),
        (counter("http.requests.total"), "http_requests_total 1.0"),
        (counter("sent", "By"), "sent_bytes_total 1.0"),
        (counter("busy_seconds", "s"), "busy_seconds_total 1.0"),
        (counter("hits", "{request}"), "hits_total 1.0"),
        (counter("my_own", "By", exact=True), "my_own_total 1.0"),
        (counter("my_own_total", exact=True), "my_own_total 1.0"),
        (counter("mine:é", exact=True), "mine:__total 1.0"),
        (gauge("pod_process_smap_pss_kb", "x", exact=True), "pod_process_smap_pss_kb 1.0"),
        (gauge("speed", "m/s"), "speed_meters_per_second 1.0"),
        (gauge("3d"), "_d 1.0"),
        (gauge(""), "_ 1.0"),
        (gauge("g", labels=(("a.b", "1"), ("a_b", "2"))), 'g{a_b="1;2"} 1.0'),
        (gauge("g", labels=(("", "1"),)), 'g{_="1"} 1.0'),
        (gauge("g", labels=(("a__b", "1"),), exact=True), 'g{a__b="1"} 1.0'),
        (gauge("g", labels=(("a__b", "1"),)), 'g{a_b="1"} 1.0'),
        (gauge("g", value=float("nan")), "g NaN"),
        (gauge("g", value=1e16), "g 1e+16"),
        (gauge("g", labels=(("a", "x\udc80"),)), 'g{a="x?"} 1.0'),
    ],
)
def test_names(family, sample):
    assert lines(family)[2] == sample


def test_le_is_no_label_of_a_histogram():
    family = Family(Metric("h", Kind.HISTOGRAM), {(("le", "x"),): Sample((2, 3.0))})
    assert lines(family)[2:] == [
        'h_bucket{exported_le="x",le="+Inf"} 2.0',
        'h_count{exported_le="x"} 2.0',
        'h_sum{exported_le="x"} 3.0',
    ]


def test_stats_are_not_shown():
    assert lines(Family(Metric("stats.timers", Kind.STAT_TIMER), {(("key", "a"),): Sample((0, 1, 1, 1, 1))})) == []


def test_target_info_and_comments():
    shown = lines(gauge("g"), target={"service.name": "shop"}, comments=["one\nline"])
    assert shown[0] == "# one line"
    assert shown[-3:] == [
        "# HELP target_info Target metadata",
        "# TYPE target_info gauge",
        'target_info{service_name="shop"} 1.0',
    ]
    shown = lines(gauge("g"), target={"service.name": "shop"}, comments=["one"], accept=OPENMETRICS)
    assert shown[-4:] == [
        "# HELP target Target metadata",
        "# TYPE target info",
        'target_info{service_name="shop"} 1.0',
        "# EOF",
    ]
    assert "# one" not in shown


def test_two_names_that_become_one(caplog):
    """Equal types are one family and equal series added; another type gets a suffix, which the younger bears."""
    families = [
        counter("a.b", labels=(("x", "1"),)),
        counter("a_b", labels=(("x", "1"),), value=4),
        counter("a-b", labels=(("x", "2"),)),
        gauge("a.b"),
        gauge("a_b_total"),
    ]
    for _ in range(2):
        shown = lines(*families)
    assert [line for line in shown if not line.startswith("# HELP")] == [
        "# TYPE a_b_total counter",
        'a_b_total{x="1"} 5.0',
        'a_b_total{x="2"} 1.0',
        "# TYPE a_b_gauge gauge",
        "a_b_gauge 1.0",
        "# TYPE a_b_total_gauge gauge",
        "a_b_total_gauge 1.0",
    ]
    assert len(caplog.records) == 2
    assert len(list(parse_openmetrics(prometheus.render(families, OPENMETRICS)[1].decode()))) == 3


def test_samples_of_a_histogram_and_another_metric_do_not_clash():
    histogram = Family(Metric("h", Kind.HISTOGRAM), {(): Sample((2, 3.0))})
    assert [line for line in lines(histogram, gauge("h.count")) if line.startswith("# TYPE")] == [
        "# TYPE h histogram",
        "# TYPE h_count_gauge gauge",
    ]


def test_histograms_of_other_bounds_keep_what_is_exact():
    old = Family(Metric("h", Kind.HISTOGRAM, "", "", (1.0, 2.0, 5.0)), {(): Sample((1, 2, 4, 8, 50.0))})
    new = Family(Metric("h", Kind.HISTOGRAM, "", "", (2.0, 3.0)), {(): Sample((1, 1, 1, 10.0))})
    assert lines(old, new)[2:] == ['h_bucket{le="2.0"} 4.0', 'h_bucket{le="+Inf"} 18.0', "h_count 18.0", "h_sum 60.0"]


PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    "accept, content_type",
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html,*/*;q=0.8", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (PROMETHEUS_2, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (PROMETHEUS_3, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text;version=abc", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=2.0.0", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;q=0.1,text/plain;q=0.9", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;q=0", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;q=much", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_negotiation(accept, content_type):
    assert prometheus.render([], accept)[0] == content_type


@given(st.text(max_size=60))
def test_no_header_breaks_it(accept):
    assert prometheus.negotiate(accept).startswith(("text/plain; version=", "application/openmetrics-text; version="))


# Against prometheus_client and the names of OpenTelemetry's exporter, on random families.
words = st.from_regex(re.compile(r"[a-z][a-z0-9._]{0,12}[a-z0-9]", re.ASCII), fullmatch=True)
texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.text('\\"\n{},= a', max_size=6)
units = st.sampled_from(["", "s", "By", "1", "{request}", "ms", "By/s"])
counts = st.integers(0, 10**15).map(float)
amounts = counts | st.floats(0, 1e300)
anything = st.floats() | st.integers(-(10**9), 10**9).map(float)
label_sets = st.dictionaries(words, texts, max_size=3).map(lambda pairs: tuple(sorted(pairs.items())))
exemplars = st.none() | st.builds(
    Exemplar,
    value=st.floats(-1, 100),
    time=st.floats(0, 2e9),
    trace_id=st.integers(0, 2**128 - 1),
    span_id=st.integers(0, 2**64 - 1),
)


@st.composite
def families(draw: st.DrawFn) -> Family:
    kind = draw(st.sampled_from([Kind.COUNTER, Kind.HISTOGRAM, Kind.SUMMARY, Kind.GAUGE_SUM, Kind.GAUGE_MAX]))
    bounds = st.lists(st.floats(-10, 1e9), max_size=5, unique=True).map(lambda found: tuple(sorted(found)))
    buckets = draw(bounds) if kind is Kind.HISTOGRAM else ()
    values = {
        Kind.COUNTER: st.tuples(amounts),
        Kind.HISTOGRAM: st.tuples(*[counts] * (len(buckets) + 1), amounts),
        Kind.SUMMARY: st.tuples(counts, amounts),
    }.get(kind, st.tuples(anything, amounts))
    sample = st.builds(Sample, values, exemplars if kind is Kind.HISTOGRAM else st.none())
    series = draw(st.dictionaries(label_sets, sample, max_size=3))
    metric = Metric(draw(words), kind, draw(units), draw(texts), buckets)
    return Family(metric, series)


class _Registry:
    def __init__(self, metrics: list[ClientMetric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[ClientMetric]:
        return self._metrics


_CLASSES = {Kind.COUNTER: CounterMetricFamily, Kind.HISTOGRAM: HistogramMetricFamily, Kind.SUMMARY: SummaryMetricFamily}


def as_client(family: Family) -> ClientMetric:
    metric = family.metric
    kind = _CLASSES.get(metric.kind, GaugeMetricFamily)
    name = sanitize_full_name(metric.name)
    made = None
    for labels, (values, exemplar) in family.series.items():
        keys, texts_ = [sanitize_attribute(key) for key, _ in labels], [value for _, value in labels]
        one = kind(name, metric.help, labels=keys, unit=map_unit(metric.unit))
        if metric.kind is Kind.HISTOGRAM:
            one.add_metric(texts_, _buckets(metric, values, exemplar), values[-1])
        elif metric.kind is Kind.SUMMARY:
            one.add_metric(texts_, *values)
        else:
            one.add_metric(texts_, values[0])
        if made is None:
            made = one
        else:
            made.samples += one.samples
    return made or kind(name, metric.help, labels=[], unit=map_unit(metric.unit))


def _buckets(metric: Metric, values: tuple[float, ...], exemplar: Exemplar | None) -> list[tuple]:
    found, total, placed = [], 0.0, exemplar is None
    for bound, count in zip((*metric.buckets, float("inf")), values[:-1], strict=True):
        total += count
        bucket: tuple = (floatToGoString(bound), total)
        if not placed and exemplar.value <= bound:
            ids = {"trace_id": f"{exemplar.trace_id:032x}", "span_id": f"{exemplar.span_id:016x}"}
            bucket, placed = (*bucket, ClientExemplar(ids, exemplar.value, exemplar.time)), True
        found.append(bucket)
    return found


def _comparable(family: Family) -> bool:
    """What the client's classes would do differently on purpose: see test_names for these."""
    for labels in family.series:
        names = [sanitize_attribute(name) for name, _ in labels]
        if len(set(names)) < len(names) or "le" in names or "__" in "".join(names):
            return False
    shown = [tuple(sorted((sanitize_attribute(name), value) for name, value in labels)) for labels in family.series]
    return len(set(shown)) == len(shown)


@given(
    st.lists(
        families().filter(_comparable), max_size=3, unique_by=lambda family: sanitize_full_name(family.metric.name)
    )
)
def test_the_same_bytes_as_prometheus_client(found):
    found = [family for number, family in enumerate(found) if not _clashes(family, found[:number])]
    registry = _Registry(sorted(map(as_client, found), key=lambda metric: metric.name))
    assert prometheus.render(found, "")[1] == client_text(registry)
    assert prometheus.render(found, OPENMETRICS)[1] == client_openmetrics(registry)


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1, 1e-5, 0.1, 999999.5, 999999.9999999999, 1e6, 1234567.0, 1e15, 1e16, 1e300, -1e6, -0.5]
)
def test_a_number_as_prometheus_client_writes_it(value):
    assert lines(gauge("g", value=value))[-1] == f"g {floatToGoString(value)}"


def _clashes(family: Family, others: list[Family]) -> bool:
    name = as_client(family).name
    return any(other.startswith(name) or name.startswith(other) for other in (as_client(o).name for o in others))


@settings(max_examples=60, deadline=None)
@given(st.lists(families(), max_size=4))
def test_whatever_is_shown_can_be_read(found):
    """By prometheus_client's parsers, every series once."""
    for parse, accept in ((parse_text, ""), (parse_openmetrics, OPENMETRICS)):
        read = list(parse(prometheus.render(found, accept)[1].decode()))
        samples = [(s.name, tuple(sorted(s.labels.items()))) for metric in read for s in metric.samples]
        assert len(set(samples)) == len(samples)


def test_target_info_as_prometheus_client_writes_it():
    registry = _Registry([InfoMetricFamily("target", "Target metadata", value={"service_name": "a", "x": "b"})])
    for accept, write in (("", client_text), (OPENMETRICS, client_openmetrics)):
        assert prometheus.render([], accept, target={"x": "b", "service.name": "a"})[1] == write(registry)
