"""The Pyramid side with the real telemetry behind it."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response

from c2c_otel.pyramid_logging import log_context
from c2c_otel.testing import Captured
from tests.pyramid_kit import assert_left_nothing, get


@pytest.fixture
def app(c2c_telemetry: Captured) -> Any:
    def missing(request: Any) -> Response:
        raise HTTPNotFound

    config = Configurator(settings={"c2c.stats_view": "1"})
    config.include("c2c_otel")
    for name, view in {"hello": lambda request: {"a": 1}, "missing": missing, "boom": lambda request: 1 / 0}.items():
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name, renderer="json")
    yield config.make_wsgi_app()
    assert_left_nothing()


def test_spans_and_every_measurement(app: Any, c2c_telemetry: Captured) -> None:
    get(app, "/hello")
    get(app, "/missing")
    get(app, "/nowhere")
    with pytest.raises(ZeroDivisionError):
        get(app, "/boom")
    assert c2c_telemetry.tree() == [
        ("GET /hello", [("render json", [])]),
        ("GET /missing", []),
        ("GET", []),
        ("GET /boom", []),
    ]
    assert c2c_telemetry.statsd_names() == [
        "route.GET.hello.200",
        "render.GET.hello.200",
        "route.GET.missing.404",
        "route.GET._not_found.404",
        "route.GET.boom.500",
    ]
    count = "http_server_request_duration_seconds_count"
    assert c2c_telemetry.value(count, http_route="/hello", http_response_status_code="200") == 1
    assert c2c_telemetry.value(count, http_route="/boom", error_type="ZeroDivisionError") == 1


def test_the_views(app: Any, c2c_telemetry: Captured) -> None:
    get(app, "/hello")
    metrics = get(app, "/metrics")
    assert (metrics.header("Content-Type") or "").startswith("text/plain; version=0.0.4")
    assert b'http_route="/hello"' in metrics.body
    openmetrics = get(app, "/metrics", HTTP_ACCEPT="application/openmetrics-text; version=1.0.0")
    assert (openmetrics.header("Content-Type") or "").startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.body.endswith(b"# EOF\n")
    stats = json.loads(get(app, "/c2c/stats.json").body)
    assert stats["timers"]["route/GET/hello/200"]["nb"] == 1
    assert get(app, "/c2c/stats.json?reset=1").status == 403
    assert json.loads(get(app, "/c2c/stats.json").body)["timers"]["route/GET/hello/200"]["nb"] == 1


def test_the_request_id_of_every_span(app: Any, c2c_telemetry: Captured) -> None:
    get(app, "/hello", HTTP_X_REQUEST_ID="mine")
    assert {(span.attributes or {})["c2c.request_id"] for span in c2c_telemetry.spans} == {"mine"}
    c2c_telemetry.clear()
    answer = get(app, "/hello")
    identity = answer.header("X-Request-ID")
    assert {(span.attributes or {})["c2c.request_id"] for span in c2c_telemetry.spans} == {identity}


def test_a_caller_that_does_not_sample_is_measured(app: Any, c2c_telemetry: Captured) -> None:
    get(app, "/hello", HTTP_TRACEPARENT="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
    assert c2c_telemetry.spans == []
    assert c2c_telemetry.statsd_names() == ["route.GET.hello.200", "render.GET.hello.200"]


def test_the_servers_line_about_an_exception_has_the_ids_of_its_request(app: Any, c2c_telemetry: Captured) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        get(app, "/boom", HTTP_X_REQUEST_ID="mine")
    record = logging.LogRecord("server", logging.ERROR, "", 0, "", (), raised._excinfo)
    fields = log_context(record)
    context = c2c_telemetry.spans[0].get_span_context()
    assert fields["request_id"] == "mine"
    assert (fields["path"], fields["matched_route"]) == ("/boom", "boom")
    assert (fields["trace_id"], fields["span_id"]) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
