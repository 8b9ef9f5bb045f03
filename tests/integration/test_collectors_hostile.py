"""Names, statements, tags and keys that try to break each format: the real collectors take all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.apps.collectors import ROUTES, TAG_VALUES
from tests.integration.collectors_demo import LINT, demo, internal_failures, metric
from tests.servers import OtlpReceiver, Rsyslog, Statsd, Totals

APP = "tests.apps.collectors:main()"


@dataclass
class Run:
    tags: bool
    prefix: str
    statuses: dict[str, int]
    totals: Totals
    bad_lines: float
    packets: list[str]
    scrape: str
    logs: list[dict[str, Any]]
    unparsed: list[str]
    otlp: OtlpReceiver
    stderr: str


@pytest.fixture(scope="module", params=["untagged", "tagged"])
def run(request: pytest.FixtureRequest, statsd: Statsd, rsyslog: Rsyslog) -> Iterator[Run]:
    tags = request.param == "tagged"
    prefix = f"hostile_{request.param}"
    statsd.clear()
    rsyslog.clear()
    with OtlpReceiver() as receiver:
        env = {
            "STATSD_ADDRESS": statsd.address,
            "STATSD_PREFIX": prefix,
            "STATSD_USE_TAGS": str(int(tags)),
            "STATSD_TAG_ENV": "t|e:s#t,\n",
            "LOG_TYPE": "logstash",
            "LOG_HOST": rsyslog.host,
            "LOG_PORT": str(rsyslog.port),
            "OTEL_SERVICE_NAME": "hostile|:#\n",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_BLRP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "400",
        }
        with demo("-w", "1", "--threads", "2", app=APP, env=env) as server:
            paths = [f"/route/{number}" for number in range(len(ROUTES))] + ["/measure", "/sql", "/instruments"]
            statuses = {path: server.get(path).status for path in paths}
            receiver.wait_for(lambda: sum(span["kind"] == "SERVER" for span in receiver.spans) >= len(paths))
            receiver.wait_for(lambda: any(point["name"] == "hostile.sizes" for point in receiver.metrics))
            receiver.wait_for(lambda: any("line\nbreak" in record["body"] for record in receiver.logs))
            statsd.wait_for(lambda t: any("hostile.sizes.sum" in name for name in t.counters))
            statsd.wait_for(lambda t: sum(len(v) for n, v in t.timers.items() if ".route" in n) == len(paths))
            rsyslog.wait_for(lambda lines: any("line\nbreak" in line["msg"] for line in lines))
            scrape = server.get("/metrics").body.decode()
            stderr = server.stderr.read_text()
        yield Run(
            tags,
            prefix,
            statuses,
            statsd.totals(),
            statsd.bad_lines(),
            statsd.packets,
            scrape,
            rsyslog.parsed(),
            rsyslog.unparsed(),
            receiver,
            stderr,
        )


def test_every_request_is_served_and_nothing_of_ours_fails(run: Run) -> None:
    assert set(run.statuses.values()) == {200}
    assert internal_failures(run.scrape) == []
    assert "failed at" not in run.stderr


def test_statsd_takes_every_line(run: Run) -> None:
    assert run.bad_lines == 0
    assert max(len(packet.encode()) for packet in run.packets) <= 1432
    for line in "\n".join(run.packets).split("\n"):
        assert re.fullmatch(r"[A-Za-z0-9_.-]+:-?\d+(\.\d+)?\|(ms|c|g)(\|#[A-Za-z0-9_]+:[^\x00-\x1f,#|]*(,.*)?)?", line)


def test_statsd_counts_what_was_counted(run: Run) -> None:
    counts = {name: value for name, value in run.totals.counters.items() if name.startswith(f"{run.prefix}.count.")}
    assert sum(counts.values()) == 2 * len(TAG_VALUES)
    timers = {name: len(values) for name, values in run.totals.timers.items() if name.startswith(f"{run.prefix}.time.")}
    assert sum(timers.values()) == len(TAG_VALUES)
    routes = [len(v) for name, v in run.totals.timers.items() if f"{run.prefix}.route" in name and "c2c_" not in name]
    assert sum(routes) == len(ROUTES) + 3
    if run.tags:
        assert len(routes) == len(ROUTES) + 3  # no two routes share a line
    sql = [len(v) for name, v in run.totals.timers.items() if name.startswith(f"{run.prefix}.sql")]
    assert sum(sql) == 7


def test_gauges_below_zero_arrive(run: Run) -> None:
    named = {name.partition(";")[0].removeprefix(f"{run.prefix}."): v for name, v in run.totals.gauges.items()}
    assert named["below.zero"] == -12.5
    assert named["above.zero"] == 4
    assert named["tiny"] == 1e-9
    assert named["hostile.level"] == -5
    # each negative value is set, not subtracted: 0 first, in the same datagram
    (packet,) = [packet for packet in run.packets if ".below.zero:" in packet]
    lines = [line.partition("|g")[0] for line in packet.split("\n") if ".below.zero:" in line]
    assert lines == [f"{run.prefix}.below.zero:0", f"{run.prefix}.below.zero:-12.5"]


def test_a_line_that_is_too_long_loses_its_tags_and_is_counted(run: Run) -> None:
    assert run.totals.counters[f"{run.prefix}.long"] == 1
    assert metric(run.scrape, "c2c_otel_internal_events_total", place="dropped.statsd.tags") >= 1


def test_prometheus_takes_every_name(run: Run, promtool: Callable[[str], tuple[int, str]]) -> None:
    code, lint = promtool(run.scrape)
    assert code == 3
    assert set(lint.splitlines()) <= LINT
    for text in TAG_VALUES:
        if text.isascii() and text.isprintable() and "\\" not in text and '"' not in text and "/" not in text:
            assert metric(run.scrape, "c2c_otel_events_total", key=f"count/{text}") == 2, text
    assert metric(run.scrape, "http_server_request_duration_seconds_count", http_route="/route/3") == 1


def test_rsyslog_parses_what_is_logged(run: Run) -> None:
    assert run.unparsed == []
    (line,) = [line for line in run.logs if line["logger_name"] == "hostile"]
    assert line["msg"].startswith("line\nbreak ")
    assert line["msg"].endswith(" @cee: {}")
    assert line["matched_route"] == "instruments"


def test_otlp_takes_what_it_can_hold(run: Run) -> None:
    assert run.otlp.errors == []
    assert {request.status for request in run.otlp.requests} == {200}
    assert {span["resource"]["service.name"] for span in run.otlp.spans} == {"hostile|:#\n"}
    assert {span["attributes"].get("pyramid.route.name") for span in run.otlp.spans} >= set(ROUTES)
    (span,) = [span for span in run.otlp.spans if span["name"] == "name|:#\n"]
    assert span["attributes"]["fine"] == "ü\n"
    (record,) = [record for record in run.otlp.logs if record["scope"] == "hostile"]
    assert record["body"].startswith("line\nbreak ")
    points: dict[str, float] = {}
    for point in run.otlp.metrics:
        if point["name"] == "hostile.events":
            points[json.dumps(point["attributes"])] = point["value"]
    assert sum(points.values()) == len(TAG_VALUES) - 1
