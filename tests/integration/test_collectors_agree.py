"""One run of the demo application on PostgreSQL and Redis: statsd, syslog, OTLP and /metrics tell the same story."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.collectors_demo import counted, demo, internal_failures, metric
from tests.servers import Answer, Gunicorn, OtlpReceiver, Postgres, Redis, Rsyslog, Statsd, Totals, wait_until

TIMES = 4
"""How often each path is requested."""

PATHS = {
    # path: (route, pattern, status)
    "/": ("home", "/", 200),
    "/api/hello": ("hello", "/api/hello", 200),
    "/api/hello/1": ("hello_one", "/api/hello/{id}", 200),
    "/api/hello/999": ("hello_one", "/api/hello/{id}", 404),
    "/api/activity": ("activity", "/api/activity", 200),
    "/api/cache/agree": ("cache", "/api/cache/{key}", 200),
    "/api/call": ("call", "/api/call", 200),
    "/api/stream": ("stream", "/api/stream", 200),
    "/api/error": ("error", "/api/error", 500),
    "/api/order": ("order", "/api/order", 200),
    "/api/log": ("log", "/api/log", 200),
    "/nowhere": ("_not_found", "", 404),
}


@dataclass
class Run:
    tags: bool
    prefix: str
    port: int
    totals: Totals
    bad_lines: float
    packets: list[str]
    logs: list[dict[str, Any]]
    unparsed: list[str]
    otlp: OtlpReceiver
    scrape: str
    stats: dict[str, Any]
    answers: dict[str, Answer]
    posted: Answer

    def statsd(self, kind: str) -> Counter[str]:
        """How many timers came under each name that begins so, without prefix."""
        head = f"{self.prefix}.{kind}"
        named = {name.removeprefix(f"{self.prefix}."): len(values) for name, values in self.totals.timers.items()}
        return Counter({name: count for name, count in named.items() if f"{self.prefix}.{name}".startswith(head)})

    def spans(self, kind: str, **attributes: Any) -> list[dict[str, Any]]:
        named = {name.replace("_", "."): value for name, value in attributes.items()}
        return [s for s in self.otlp.spans if s["kind"] == kind and named.items() <= s["attributes"].items()]

    def trace(self, request_id: str) -> list[dict[str, Any]]:
        return [span for span in self.otlp.spans if span["attributes"].get("c2c.request_id") == request_id]


def tree(spans: list[dict[str, Any]], parent: str = "") -> list[Any]:
    """Nested [name, children] in the order of their start."""
    found = sorted((s for s in spans if s["parent_span_id"] == parent), key=lambda span: int(span["start"]))
    return [[span["name"], tree(spans, span["span_id"])] for span in found]


def both_workers(server: Gunicorn, rsyslog: Rsyslog) -> int:
    """Ask until both workers have answered; how many requests that took."""
    asked = 0

    def answered() -> bool:
        nonlocal asked
        server.get("/")
        asked += 1
        logged = [line for line in rsyslog.parsed() if line["logger_name"] == "gunicorn.access"]
        return len({line["pid"] for line in logged}) == 2

    wait_until("both workers", answered)
    return asked


@pytest.fixture(scope="module", params=["untagged", "tagged"])
def run(
    request: pytest.FixtureRequest, postgres: Postgres, redis_server: Redis, statsd: Statsd, rsyslog: Rsyslog
) -> Iterator[Run]:
    tags = request.param == "tagged"
    prefix = f"agree_{request.param}"
    statsd.clear()
    rsyslog.clear()
    with OtlpReceiver() as receiver:
        env = {
            "STATSD_ADDRESS": statsd.address,
            "STATSD_PREFIX": prefix,
            "STATSD_USE_TAGS": str(int(tags)),
            "STATS_VIEW": "1",
            "LOG_TYPE": "logstash",
            "LOG_HOST": rsyslog.host,
            "LOG_PORT": str(rsyslog.port),
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=tests",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_BLRP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "400",
        }
        arguments = ("-w", "2", "--threads", "4", "--access-logfile", "-")
        with demo(*arguments, postgres=postgres, redis=redis_server, env=env) as server:
            asked = both_workers(server, rsyslog)
            answers = {}
            for _ in range(TIMES):
                for path in PATHS:
                    answers[path] = server.get(path, {"X-Request-ID": f"id of {path}"})
            body = b'{"value": "agreed"}'
            posted = server.get("/api/hello", {"X-Request-ID": "id of POST"}, method="POST", body=body)
            served = asked + TIMES * (len(PATHS) + 1) + 1  # /api/call calls
            statsd.wait_for(lambda t: t.counters.get(f"{prefix}.demo.orders;kind=demo", 0) == TIMES)
            statsd.wait_for(lambda t: sum(len(v) for n, v in t.timers.items() if ".route" in n) == served)
            rsyslog.wait_for(lambda lines: sum(line["logger_name"] == "gunicorn.access" for line in lines) == served)
            receiver.wait_for(lambda: sum(span["kind"] == "SERVER" for span in receiver.spans) == served)
            stats = json.loads(server.get("/c2c/stats.json").body)
            scrape = server.get("/metrics").body.decode()
        yield Run(
            tags,
            prefix,
            server.port,
            statsd.totals(),
            statsd.bad_lines(),
            statsd.packets,
            rsyslog.parsed(),
            rsyslog.unparsed(),
            receiver,
            scrape,
            stats,
            answers,
            posted,
        )


# -- what was answered --------------------------------------------------------


def test_every_request_is_served(run: Run) -> None:
    assert {path: answer.status for path, answer in run.answers.items()} == {p: e[2] for p, e in PATHS.items()}
    assert run.posted.status == 200
    assert json.loads(run.answers["/api/activity"].body)["application_name"] == "id of /api/activity"
    assert json.loads(run.answers["/api/call"].body) == {"status": 200, "request_id": "id of /api/call"}
    for path, answer in run.answers.items():
        if path != "/api/error":  # answered by gunicorn
            assert answer.headers["x-request-id"] == f"id of {path}"
            assert re.fullmatch(r"(route;desc=\w+, )?route;dur=\d+(, render;dur=\d+)?", answer.headers["server-timing"])
    assert internal_failures(run.scrape) == []


# -- statsd --------------------------------------------------------


def test_the_original_daemon_takes_every_line(run: Run) -> None:
    assert run.bad_lines == 0
    assert max(len(packet.encode()) for packet in run.packets) <= 1432
    assert run.totals.counters[f"{run.prefix}.order.items"] == 3 * TIMES
    assert run.totals.gauges[f"{run.prefix}.order.last"] == 3


def test_statsd_has_each_request_once(run: Run) -> None:
    found = run.statsd("route")
    for path, (route, _, status) in PATHS.items():
        expected = TIMES * {"hello": 2, "home": 1}.get(route, 1)
        if run.tags:
            name = f"route;group={status // 100};method=GET;route={route};status={status}"
        else:
            name = f"route.GET.{route}.{status}"
        assert found[name] == expected or (route == "home" and found[name] > expected), path
    own = "order.check;success=1" if run.tags else "order.check.success"
    assert (run.statsd("order")[own], run.statsd("order")["order.total"]) == (TIMES, TIMES)


# -- OTLP against statsd and Prometheus --------------------------------------------------------


def test_routes_agree(run: Run) -> None:
    spans: Counter[tuple[str, str, int]] = Counter()
    for span in run.spans("SERVER"):
        attributes = span["attributes"]
        route = attributes.get("pyramid.route.name", "_not_found")
        spans[attributes["http.request.method"], route, attributes["http.response.status_code"]] += 1
    lines: Counter[tuple[str, str, int]] = Counter()
    for name, count in run.statsd("route").items():
        if run.tags:
            tags = dict(pair.split("=") for pair in name.split(";")[1:])
            assert tags["group"] == tags["status"][0]
            lines[tags["method"], tags["route"], int(tags["status"])] += count
        else:
            _, method, route, status = name.split(".")
            lines[method, route, int(status)] += count
    ours = ("c2c_metrics", "c2c_read_stats_json")  # asked for at the end, to be compared
    assert {k: v for k, v in spans.items() if k[1] not in ours} == {k: v for k, v in lines.items() if k[1] not in ours}
    for route, pattern, status in PATHS.values():
        labels = {"http_response_status_code": str(status), "http_request_method": "GET"}
        if pattern:
            labels["http_route"] = pattern
        count = metric(run.scrape, "http_server_request_duration_seconds_count", **labels)
        if pattern:
            assert count == spans["GET", route, status]
    renders = [span for span in run.otlp.spans if span["name"] == "render json"]
    assert len(renders) == sum(run.statsd("render").values())
    assert len(renders) == metric(run.scrape, "pyramid_render_duration_seconds_count")


def test_sql_agrees(run: Run) -> None:
    spans = Counter(span["attributes"]["db.query.summary"] for span in run.spans("CLIENT", db_system_name="postgresql"))
    assert spans.pop("ROLLBACK") > 0  # a span, but as ever no timer
    assert spans["SELECT hello"] >= 4 * TIMES
    name = "db_client_operation_duration_seconds_count"
    assert spans == {key: metric(run.scrape, name, db_query_summary=key) for key in spans}
    assert sum(spans.values()) == metric(run.scrape, name, db_system_name="postgresql")
    assert sum(spans.values()) == sum(run.statsd("sql").values())
    assert spans["COMMIT"] == run.statsd("sql")["sql.commit"]


def test_redis_agrees(run: Run) -> None:
    spans = Counter(span["name"] for span in run.spans("CLIENT", db_system_name="redis"))
    assert spans == {"GET": TIMES, "SET": TIMES}
    for command in spans:
        names = [f"redis;cmd={command};success=1"] if run.tags else [f"redis.{command}", f"redis.{command}.success"]
        assert [run.statsd("redis")[name] for name in names] == [TIMES] * len(names)
        labels = {"db_system_name": "redis", "db_operation_name": command}
        assert metric(run.scrape, "db_client_operation_duration_seconds_count", **labels) == TIMES
    assert len(run.statsd("redis")) == (2 if run.tags else 4)


def test_outgoing_calls_agree(run: Run) -> None:
    spans = [span for span in run.spans("CLIENT") if "url.full" in span["attributes"]]
    assert [span["attributes"]["url.full"] for span in spans] == [f"http://127.0.0.1:{run.port}/api/hello"] * TIMES
    name = f"requests.http.127_0_0_1.{run.port}.GET.200"
    if run.tags:
        name = f"requests;host=127.0.0.1;method=GET;port={run.port};scheme=http;status=200"
    assert run.statsd("requests") == {name: TIMES}
    assert metric(run.scrape, "http_client_request_duration_seconds_count", server_port=str(run.port)) == TIMES


def test_metrics_over_otlp_are_those_of_the_scrape(run: Run) -> None:
    """Each worker sends its own; the last cumulative points of both are the scrape (but for what came after it)."""
    points: dict[Any, dict[str, Any]] = {}
    for point in run.otlp.metrics:
        if point["name"] == "http.server.request.duration":
            key = point["resource"]["service.instance.id"], tuple(sorted(point["attributes"].items()))
            points[key] = point
    assert len({instance for instance, _ in points}) == 2
    counts: Counter[str] = Counter()
    for point in points.values():
        attributes = point["attributes"]
        assert type(attributes["http.response.status_code"]) is int
        assert (point["unit"], point["temporality"], sum(point["buckets"])) == ("s", "CUMULATIVE", point["count"])
        counts[attributes.get("http.route", "")] += point["count"]
    name = "http_server_request_duration_seconds_count"
    for pattern in {pattern for _, pattern, _ in PATHS.values() if pattern}:
        assert counts[pattern] == metric(run.scrape, name, http_route=pattern), pattern
    orders = {p["resource"]["service.instance.id"]: p["value"] for p in run.otlp.metrics if p["name"] == "demo.orders"}
    assert sum(orders.values()) == TIMES == metric(run.scrape, "demo_orders_total", kind="demo")


def test_the_resource(run: Run) -> None:
    resources = {
        json.dumps(entry["resource"], sort_keys=True)
        for entries in (run.otlp.spans, run.otlp.logs, run.otlp.metrics)
        for entry in entries
    }
    assert len(resources) == 2  # one a worker, the same in all signals
    found = [json.loads(text) for text in resources]
    for resource in found:
        assert resource["service.name"] == "shop"
        assert resource["deployment.environment.name"] == "tests"
        assert (resource["telemetry.sdk.language"], resource["telemetry.distro.name"]) == ("python", "c2c-otel")
    assert len({resource["process.pid"] for resource in found}) == 2
    assert len({resource["service.instance.id"] for resource in found}) == 2
    requests = [line for line in run.logs if "request_id" in line]  # gunicorn's arbiter logs too
    assert {resource["process.pid"] for resource in found} == {line["pid"] for line in requests}


# -- trees --------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", [["GET /", []]]),
        ("/api/hello", [["GET /api/hello", [["SELECT hello", []], ["render json", []], ["ROLLBACK", []]]]]),
        ("/api/cache/agree", [["GET /api/cache/{key}", [["GET", []], ["SET", []], ["render json", []]]]]),
        (
            "/api/call",
            [
                [
                    "GET /api/call",
                    [
                        [
                            "GET",
                            [["GET /api/hello", [["SELECT hello", []], ["render json", []], ["ROLLBACK", []]]]],
                        ],
                        ["render json", []],
                    ],
                ]
            ],
        ),
        (
            "/api/order",
            [["GET /api/order", [["order.total", [["order.check.success", []]]], ["render json", []]]]],
        ),
        ("/api/error", [["GET /api/error", []]]),
        ("/nowhere", [["GET", []]]),
    ],
)
def test_parents_over_the_whole_request(run: Run, path: str, expected: list[Any]) -> None:
    spans = run.trace(f"id of {path}")
    traces = {span["trace_id"] for span in spans}
    assert len(traces) == TIMES
    if run.tags:  # the outcome is a tag there
        expected = json.loads(json.dumps(expected).replace("order.check.success", "order.check"))
    for trace in traces:
        assert tree([span for span in spans if span["trace_id"] == trace]) == expected


def test_a_write_commits_inside_its_request(run: Run) -> None:
    (root,) = tree(run.trace("id of POST"))
    assert root == ["POST /api/hello", [["INSERT hello", []], ["render json", []], ["COMMIT", []]]]


def test_an_error_is_on_its_span(run: Run) -> None:
    spans = run.trace("id of /api/error")
    assert {span["status"] for span in spans} == {"ERROR"}
    assert {span["attributes"]["error.type"] for span in spans} == {"RuntimeError"}
    assert [event["attributes"]["exception.message"] for span in spans for event in span["events"]] == [
        "asked for"
    ] * TIMES
    # but for the table, which the workers may make at the same time, before any request
    served = [span for span in run.otlp.spans if "c2c.request_id" in span["attributes"]]
    assert {span["status"] for span in served if span not in spans} == {"UNSET"}


# -- logs --------------------------------------------------------

FIELDS = {
    "host", "timestamp", "level", "level_name", "source_facility", "logger_name", "file", "line", "function", "msg",
    "pid", "thread_name", "process_name", "client_addr", "method", "matched_route", "path", "request_id", "trace_id",
    "span_id",
}  # fmt: skip


def test_rsyslog_parses_every_line(run: Run) -> None:
    assert run.unparsed == []
    in_requests = [line for line in run.logs if "request_id" in line]
    assert len(in_requests) > TIMES * len(PATHS)
    servers = {span["span_id"]: span for span in run.spans("SERVER")}
    for line in in_requests:
        span = servers[line["span_id"]]
        assert line["trace_id"] == span["trace_id"]
        assert line["request_id"] == span["attributes"]["c2c.request_id"]
        assert line["path"] == span["attributes"]["url.path"]
        assert line["method"] == span["attributes"]["http.request.method"]
        assert line["client_addr"] == "127.0.0.1"
        assert line.get("matched_route") == span["attributes"].get("pyramid.route.name")
        assert FIELDS - set(line) <= {"matched_route"}


def test_a_line_has_every_field(run: Run) -> None:
    lines = [line for line in run.logs if line["msg"].startswith("logged for")]
    assert len(lines) == TIMES
    for line in lines:
        assert set(line) == FIELDS | {"answer"}
        assert (line["level"], line["level_name"], line["answer"]) == (6, "INFO", 42)
        assert line["source_facility"] == line["logger_name"] == "acceptance_tests.app.views"
        assert (line["file"].rpartition("/")[2], line["function"]) == ("views.py", "log")
        assert (line["msg"], line["request_id"]) == ("logged for id of /api/log", "id of /api/log")
        assert (line["matched_route"], line["path"], line["method"]) == ("log", "/api/log", "GET")
        assert isinstance(line["timestamp"], float)
        assert type(line["line"]) is int
        assert line["process_name"] == "MainProcess"


def test_lines_while_the_body_streams(run: Run) -> None:
    lines = [line for line in run.logs if line["msg"].startswith("streaming part")]
    assert Counter(line["msg"] for line in lines) == {f"streaming part {number}": TIMES for number in range(5)}
    assert {(line["request_id"], line["matched_route"]) for line in lines} == {("id of /api/stream", "stream")}
    assert Counter(line["trace_id"] for line in lines) == {
        span["trace_id"]: 5 for span in run.trace("id of /api/stream")
    }


def test_gunicorns_access_log(run: Run) -> None:
    lines = [line for line in run.logs if line["logger_name"] == "gunicorn.access"]
    for path in PATHS:
        of_path = [line for line in lines if f'"GET {path} HTTP' in line["msg"] and "urllib" in line["msg"]]
        if path == "/api/error":  # written when the request is over
            assert of_path == []
        elif path != "/":
            assert {line["request_id"] for line in of_path} == {f"id of {path}"}
            assert len({line["trace_id"] for line in of_path}) == len(of_path) == TIMES
            assert {line["path"] for line in of_path} == {path}


def test_the_traceback_of_an_error_has_the_ids(run: Run) -> None:
    lines = [line for line in run.logs if line["level"] == 3]
    assert len(lines) == TIMES
    for line in lines:
        assert line["full_msg"] == "true"
        assert line["full_message"].startswith("Traceback (most recent call last):\n")
        assert line["full_message"].endswith("RuntimeError: asked for")
        assert (line["request_id"], line["matched_route"]) == ("id of /api/error", "error")
    assert {line["trace_id"] for line in lines} == {span["trace_id"] for span in run.trace("id of /api/error")}


def test_logs_over_otlp_are_those_of_syslog(run: Run) -> None:
    sent = Counter((record["body"], record["trace_id"], record["span_id"]) for record in run.otlp.logs)
    parsed = Counter((line["msg"], line.get("trace_id", ""), line.get("span_id", "")) for line in run.logs)
    missing = {
        key: count for key, count in (parsed - sent).items() if "/c2c/" not in key[0] and "/metrics" not in key[0]
    }
    # the application's lines; gunicorn logs starts and stops before and after the worker's own telemetry
    assert {key: count for key, count in missing.items() if key[1]} == {}
    (record,) = [record for record in run.otlp.logs if record["body"] == "logged for id of /api/log"][:1]
    attributes = record["attributes"]
    assert (attributes["c2c.request_id"], attributes["answer"]) == ("id of /api/log", 42)
    assert attributes["code.function.name"] == "log"
    assert (record["severity_text"], record["scope"]) == ("INFO", "acceptance_tests.app.views")


# -- the whole service --------------------------------------------------------


def test_stats_json_is_of_the_whole_service(run: Run) -> None:
    timers = run.stats["timers"]
    for name, count in run.statsd("").items():
        if name.startswith(("sql", "redis")) or "c2c_" in name:  # keys with spaces; those of the scrapes themselves
            continue
        if run.tags:
            stem, *pairs = name.split(";")
            key = "/".join([*stem.split("."), *pairs])
        else:
            key = name.replace("127_0_0_1", "127.0.0.1").replace(".", "/").replace("127/0/0/1", "127.0.0.1")
        assert timers[key]["nb"] == count, key
        assert timers[key]["min_ms"] <= timers[key]["avg_ms"] <= timers[key]["max_ms"]
    sql = {key: value["nb"] for key, value in timers.items() if key.startswith("sql/")}
    assert sum(sql.values()) == sum(run.statsd("sql").values())
    if run.tags:
        assert timers["redis/cmd=GET/success=1"]["nb"] == TIMES
    else:
        assert timers["redis/GET/success"]["nb"] == TIMES
    assert run.stats["counters"]["order/items"] == 3 * TIMES
    assert run.stats["gauges"] == {"order/last": 3}


def test_the_sums_are_numbers(run: Run) -> None:
    assert all(math.isfinite(value) and value >= 0 for value in counted(run.scrape).values())
