"""OTLP when the collector is away: what is refused comes again, and one that is absent costs one warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.collectors_demo import demo, internal_failures, metric
from tests.servers import OtlpReceiver, free_port

FAST = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_BLRP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "300"}


def test_a_collector_that_refuses_for_a_while_loses_nothing(tmp_path: Path) -> None:
    with OtlpReceiver() as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_LOGS_EXPORTER": "otlp", **FAST}
        with demo("-w", "1", sqlite=tmp_path, env=env) as server:
            receiver.wait_for(lambda: any(point["name"] for point in receiver.metrics))
            receiver.clear()
            receiver.fail_next(5, 503)
            ids = [f"refused {number}" for number in range(10)]
            for request_id in ids:
                server.get("/api/log", {"X-Request-ID": request_id})

            def arrived() -> bool:
                spans = [s["attributes"]["c2c.request_id"] for s in receiver.spans if s["kind"] == "SERVER"]
                logs = [record["attributes"].get("c2c.request_id") for record in receiver.logs]
                points = [p["count"] for p in receiver.metrics if p["attributes"].get("http.route") == "/api/log"]
                return sorted(spans) == ids == sorted(i for i in logs if i in ids) and 10 in points

            receiver.wait_for(arrived, timeout=30)
            assert sum(request.status == 503 for request in receiver.requests) == 5
            assert receiver.errors == []


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:{port}", "http://no-such-host.invalid:{port}"])
def test_a_collector_that_is_absent_costs_one_warning(tmp_path: Path, endpoint: str) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint.format(port=free_port()), "OTEL_LOGS_EXPORTER": "otlp", **FAST}
    env |= {"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "STATSD_ADDRESS": f"no-such-host.invalid:{free_port()}"}
    with demo("-w", "1", sqlite=tmp_path, env=env) as server:
        failed = 0.0
        while failed < 3:  # several exports have been given up
            assert server.get("/api/hello").status == 200
            scrape = server.get("/metrics").body.decode()
            failed = metric(scrape, "c2c_otel_internal_events_total", place="failed.otlp.export")
        server.stop()
        said = (server.stdout.read_text() + server.stderr.read_text()).splitlines()
    assert internal_failures(scrape) == ["failed.otlp.export"]
    warnings = [line for line in said if "OpenTelemetry collector" in line]
    assert len(warnings) == 1, said
    assert "It is tried again" in warnings[0]
    assert [line for line in said if "Traceback" in line or "opentelemetry.exporter" in line] == []
    assert sum("cannot be reached" in line for line in said) == 1
