"""The names of section 7 of the contract, and the labels of OpenTelemetry's semantic conventions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel_exporters import names
from c2c_otel_exporters.model import Kind

ROUTE = names.route("GET", "hello", "/hello/{id}", 200, "http", None)
SQL = names.sql("postgresql", "db", "pg", 5432, "SELECT FROM hello", "SELECT", "SELECT hello", None)


def test_a_request_is_named_by_its_route() -> None:
    assert ROUTE.parts == ("route", "GET", "hello", "200")
    assert ROUTE.stem == ("route",)
    assert ROUTE.tags == (("group", "2"), ("method", "GET"), ("route", "hello"), ("status", "200"))
    assert ROUTE.metric.name == "http.server.request.duration"
    assert ROUTE.labels == (
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("http.route", "/hello/{id}"),
        ("url.scheme", "http"),
    )


def test_a_request_that_matches_no_route_has_no_route_label() -> None:
    series = names.route("GET", None, None, 404, "http", None)
    assert series.parts == ("route", "GET", "_not_found", "404")
    assert dict(series.tags)["route"] == "_not_found"
    assert "http.route" not in dict(series.labels)
    assert "error.type" not in dict(series.labels)


@pytest.mark.parametrize(("error", "shown"), [(None, "503"), ("ValueError", "ValueError")])
def test_a_server_error_has_a_type(error: str | None, shown: str) -> None:
    series = names.route("GET", "a", "/a", 503, "https", error)
    assert dict(series.labels)["error.type"] == shown
    assert dict(series.tags)["group"] == "5"


def test_rendering() -> None:
    series = names.render("POST", "hello", "/hello", 200)
    assert series.parts == ("render", "POST", "hello", "200")
    assert series.stem == ("render",)
    assert series.tags == (*ROUTE.tags[:1], ("method", "POST"), *ROUTE.tags[2:])
    assert series.metric.name == "pyramid.render.duration"


def test_a_method_of_a_client_makes_no_label_of_its_own() -> None:
    series = names.route("X" * 5000, "a", "/a", 405, "http", None)
    assert dict(series.labels)["http.request.method"] == "_OTHER"
    assert series.parts[1] == "X" * 20
    assert dict(names.route("get", "a", "/a", 200, "http", None).labels)["http.request.method"] == "_OTHER"


def test_sql() -> None:
    assert SQL.parts == ("sql", "SELECT FROM hello")
    assert SQL.stem == ("sql",)
    assert SQL.tags == (("query", "SELECT FROM hello"),)
    assert SQL.labels == (
        ("db.namespace", "db"),
        ("db.operation.name", "SELECT"),
        ("db.query.summary", "SELECT hello"),
        ("db.system.name", "postgresql"),
        ("server.address", "pg"),
        ("server.port", "5432"),
    )


def test_absent_attributes_are_left_out() -> None:
    series = names.sql("sqlite", "", None, None, "", "", None, None)
    assert series.labels == (("db.system.name", "sqlite"),)
    assert series.parts == ("sql", "_")


def test_commit() -> None:
    series = names.sql_commit("sqlite", None, None, None, "OperationalError")
    assert series.parts == series.stem == ("sql", "commit")
    assert series.tags == ()
    assert dict(series.labels) == {
        "db.operation.name": "COMMIT",
        "db.query.summary": "COMMIT",
        "db.system.name": "sqlite",
        "error.type": "OperationalError",
    }


def test_outgoing_requests() -> None:
    series = names.request("https", "api.example.com", None, "GET", 404, None)
    assert series.parts == ("requests", "https", "api.example.com", "443", "GET", "404")
    assert series.stem == ("requests",)
    assert [name for name, _ in series.tags] == ["host", "method", "port", "scheme", "status"]
    assert dict(series.labels) == {
        "error.type": "404",
        "http.request.method": "GET",
        "http.response.status_code": "404",
        "server.address": "api.example.com",
        "server.port": "443",
        "url.scheme": "https",
    }


def test_an_outgoing_request_that_ends_with_an_exception_has_status_999_and_no_status_label() -> None:
    series = names.request("http", "h", 8080, "GET", 999, "ConnectionError")
    assert series.parts[-1] == "999"
    assert "http.response.status_code" not in dict(series.labels)
    assert dict(series.labels)["error.type"] == "ConnectionError"
    assert dict(names.request("http", "h", 80, "GET", 999, None).labels)["error.type"] == "_OTHER"


def test_redis_has_both_names() -> None:
    series = names.redis("GET", True, 0, "r", 6379, None)
    assert series.parts == ("redis", "GET", "success")
    assert series.also == (("redis", "GET"),)
    assert series.stem == ("redis",)
    assert series.tags == (("cmd", "GET"), ("success", "1"))
    assert dict(series.labels)["db.namespace"] == "0"
    failed = names.redis("GET", False, None, "r", 6379, None)
    assert failed.parts == ("redis", "GET", "failure")
    assert dict(failed.tags)["success"] == "0"
    assert dict(failed.labels)["error.type"] == "_OTHER"


@pytest.mark.parametrize(
    ("namer", "metric", "kind"),
    [
        (names.timer, "c2c_otel.timer.duration", Kind.HISTOGRAM),
        (names.counter, "c2c_otel.events", Kind.COUNTER),
        (names.gauge, "c2c_otel.value", Kind.GAUGE_LAST),
    ],
)
def test_what_the_user_names(namer: object, metric: str, kind: Kind) -> None:
    series = namer(("a/b", "c"), (("z", 1), ("key", "mine"), ("y", "2")))  # type: ignore[operator] # one of three
    assert series.parts == series.stem == ("a/b", "c")
    assert series.tags == ()
    assert series.user_tags == (("key", "mine"), ("y", "2"), ("z", "1"))
    assert series.labels == (("key", "a_b/c"), ("tag_key", "mine"), ("y", "2"), ("z", "1"))
    assert (series.metric.name, series.metric.kind) == (metric, kind)


def test_durations_have_the_bounds_of_the_conventions() -> None:
    assert names.HTTP_SERVER.buckets[0] == 0.005
    assert names.HTTP_SERVER.buckets[-1] == 10
    assert len(names.HTTP_SERVER.buckets) == 14
    assert names.DB_CLIENT.buckets == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
    for metric in (names.HTTP_SERVER, names.RENDER, names.DB_CLIENT, names.HTTP_CLIENT, names.TIMER):
        assert metric.unit == "s"
        assert list(metric.buckets) == sorted(set(metric.buckets))


def test_keys_of_stats_json() -> None:
    assert names.stats_key(ROUTE) == "route/GET/hello/200"
    assert names.stats_key(ROUTE, use_tags=True) == "route/group=2/method=GET/route=hello/status=200"
    user = names.timer(("a/b", "c"), (("k", "x/y"),))
    assert names.stats_key(user) == names.stats_key(user, use_tags=True) == "a_b/c/k=x_y"


@given(
    st.lists(st.text(), min_size=1).map(tuple), st.dictionaries(st.text(), st.text()).map(lambda d: tuple(d.items()))
)
def test_a_key_of_stats_json_has_one_part_for_each_part_and_tag(
    key: tuple[str, ...], tags: tuple[tuple[str, str], ...]
) -> None:
    assert names.stats_key(names.counter(key, tags)).count("/") == len(key) + len(tags) - 1


@given(st.text(), st.none() | st.text(), st.none() | st.text(), st.integers(100, 599), st.text())
def test_labels_are_sorted_and_never_empty(
    method: str, name: str | None, pattern: str | None, status: int, scheme: str
) -> None:
    labels = names.route(method, name, pattern, status, scheme, None).labels
    assert list(labels) == sorted(labels)
    assert all(value for _, value in labels)
