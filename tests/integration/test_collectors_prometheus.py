"""A real Prometheus scrapes the demo application: negotiation, exemplars, quantiles, what promtool says."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.integration.collectors_demo import LINT, counted, demo, internal_failures, metric
from tests.servers import Gunicorn, Prometheus, free_port, wait_until

REQUESTS = 20
TRACES = [f"{number + 1:032x}" for number in range(REQUESTS + 4)]
"""Of the requests that the test sends; a call to /api/call passes its own on to /api/hello."""
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.fixture(scope="module")
def own_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, own_port: int) -> Iterator[Gunicorn]:
    env = {"OTEL_EXPORTER_PROMETHEUS_PORT": str(own_port)}
    with demo(sqlite=tmp_path_factory.mktemp("demo"), env=env) as server:
        paths = ["/api/hello"] * REQUESTS + ["/api/order", "/api/call", "/api/error", "/nowhere"]
        for path, trace in zip(paths, TRACES, strict=True):
            server.get(path, {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
        yield server


def scrape(server: Gunicorn, accept: str = "") -> str:
    return server.get("/metrics", {"Accept": accept} if accept else {}).body.decode()


def test_promtool_has_nothing_but_documented_names_against_it(
    server: Gunicorn, promtool: Callable[[str], tuple[int, str]]
) -> None:
    text = scrape(server)
    code, lint = promtool(text)
    assert (code, set(lint.splitlines())) == (3, LINT)
    names = "|".join(line.split(" ")[0].removesuffix("_total") for line in LINT)
    clean = "".join(line for line in text.splitlines(True) if not re.match(rf"(# \w+ )?({names})", line))
    assert promtool(clean) == (0, "")
    assert internal_failures(text) == []


def test_the_format_is_negotiated(server: Gunicorn) -> None:
    plain = server.get("/metrics")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"# EOF" not in plain.body
    openmetrics = server.get("/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"] == OPENMETRICS
    assert openmetrics.body.endswith(b"# EOF\n")
    assert "Accept" in openmetrics.headers["vary"]
    assert b"trace_id=" in openmetrics.body
    assert b"trace_id=" not in plain.body


def test_another_port_says_the_same(server: Gunicorn, own_port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{own_port}/metrics", timeout=10) as answer:
        other = answer.read().decode()
    name = "http_server_request_duration_seconds_count"
    assert metric(other, name, http_route="/api/hello") == metric(scrape(server), name, http_route="/api/hello")


def test_prometheus_scrapes_it(server: Gunicorn, prometheus: Prometheus) -> None:
    own = json.dumps("/api/hello")
    prometheus.scrape(f"127.0.0.1:{server.port}", who="demo")
    try:
        count = f"http_server_request_duration_seconds_count{{http_route={own},who='demo'}}"
        samples = prometheus.wait_for(count)
        assert [value for _, value in samples] == [REQUESTS + 1]  # /api/call calls it
        (labels,) = [labels for labels, _ in samples]
        assert (labels["http_request_method"], labels["http_response_status_code"]) == ("GET", "200")
        (target,) = prometheus.targets()
        assert (target["health"], target["lastError"]) == ("up", "")
        quantile = (
            f"histogram_quantile(0.9, http_server_request_duration_seconds_bucket{{http_route={own},who='demo'}})"
        )
        ((_, seconds),) = prometheus.query(quantile)
        assert 0 < seconds <= 10
        kinds = prometheus.query("count({__name__=~'.+',who='demo'}) by (__name__)")
        assert {labels["__name__"] for labels, _ in kinds} >= {
            "c2c_otel_events_total",
            "c2c_otel_value",
            "c2c_otel_timer_duration_seconds_bucket",
            "db_client_operation_duration_seconds_sum",
            "demo_order_size_count",
            "demo_orders_total",
            "http_client_request_duration_seconds_bucket",
            "pod_process_smap_pss_kb",
            "pyramid_render_duration_seconds_count",
        }
        exemplars = prometheus.exemplars(f"http_server_request_duration_seconds_bucket{{http_route={own}}}")
        traces = {exemplar["labels"]["trace_id"] for exemplar in exemplars}
        assert traces & set(TRACES)
        assert all(len(exemplar["labels"]["span_id"]) == 16 for exemplar in exemplars)
    finally:
        prometheus.forget()


def test_no_scrape_shows_a_counter_that_fell(server: Gunicorn) -> None:
    before: dict[str, float] = {}
    for _ in range(12):
        server.get("/api/hello")
        now = counted(scrape(server))
        assert len(now) > 50
        assert [(name, value, now.get(name)) for name, value in before.items() if now.get(name, 0) < value] == []
        before = now


def test_the_workers_own_processes_are_shown(server: Gunicorn) -> None:
    expected = {str(pid) for pid in [server.arbiter_pid, *server.worker_pids()]}

    def shown() -> bool:
        return set(re.findall(r'pod_process_smap_pss_kb\{[^}]*pid="(\d+)"', scrape(server))) == expected

    wait_until("the processes, which are published once a second", shown)
