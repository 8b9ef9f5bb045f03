"""Each server proves itself: what the other tests lean on is looked at here first."""

from __future__ import annotations

import signal
import socket
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import (
    Chromium,
    Gunicorn,
    NotReady,
    OtlpReceiver,
    Postgres,
    Process,
    Prometheus,
    Redis,
    Rsyslog,
    Sentinel,
    Statsd,
    UdpSink,
    postgres_installations,
    wait_until,
)

APP = """\
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def send(address: tuple[str, int], *datagrams: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, address)


# -- processes ------------------------------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_stop_ends_what_the_process_left_behind(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "sleep 600 & echo $!; trap '' TERM; wait; sleep 600"], tmp_path / "log")
    child = process.wait_until("the child's pid", lambda: int(process.output() or 0))
    process.stop(timeout=0.2)
    assert process.returncode() == -signal.SIGKILL
    wait_until("the child's end", lambda: not alive(child))


def test_a_program_that_exits_is_reported_with_its_last_words(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "echo no such luck; exit 3"], tmp_path / "log")
    with pytest.raises(NotReady, match=r"exited with 3\nno such luck"):
        process.wait_until("an answer", lambda: False)
    process.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_servers_go_however_pytest_ends(number: signal.Signals, tmp_path: Path) -> None:
    script = (
        "import time; from tests.servers import Redis; r = Redis().start(); "
        "print(r._process.pid, r.directory, flush=True); time.sleep(600)"
    )
    parent = Process([sys.executable, "-c", script], tmp_path / "log", cwd=Path(__file__).parents[2])
    pid, directory = parent.wait_until("the server's pid", lambda: parent.output().split())
    assert alive(int(pid))
    assert Path(directory).is_dir()
    parent.send_signal(number)
    wait_until("the server's end", lambda: not alive(int(pid)) and not Path(directory).exists())
    parent.stop()


# -- PostgreSQL -----------------------------------------------------------------------------------------------------


def test_postgres_replicates_and_logs_application_names(postgres: Postgres) -> None:
    postgres.execute("CREATE TABLE IF NOT EXISTS servers_test (a int)")
    postgres.execute("INSERT INTO servers_test VALUES (41), (42)")
    postgres.wait_for_replica()
    assert postgres.execute("SELECT max(a) FROM servers_test", "replica") == [(42,)]
    import psycopg

    connection = psycopg.connect(postgres.dsn("replica"), application_name="request-id-1")
    with connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("INSERT INTO servers_test VALUES (43)")
    assert "request-id-1 LOG:" in postgres.log("replica")
    assert "request-id-1" not in postgres.log("primary")


@pytest.mark.parametrize("bin_dir", postgres_installations(), ids=str)
def test_every_postgres_here_stops_and_promotes_its_replica(bin_dir: Path) -> None:
    with Postgres(replica=True, bin_dir=bin_dir) as server:
        server.stop_replica()
        with pytest.raises(ConnectionError):
            server.execute("SELECT 1", "replica")
        server.execute("CREATE TABLE t (a int)")
        server.start_replica()
        server.wait_for_replica()
        server.promote()
        server.execute("INSERT INTO t VALUES (1)", "replica")
        assert server.execute("SELECT * FROM t") == []
        assert server.version.split(".")[0].isdigit()
        ports = list(server.ports.values())
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not server.directory.exists()


def test_a_setting_that_postgres_refuses_is_shown() -> None:
    with pytest.raises(NotReady, match="unrecognized configuration parameter"):
        Postgres(conf={"no_such_setting": "1"}).start()


@pytest.mark.parametrize("with_namespaces", [True, False])
@pytest.mark.parametrize("bin_dir", postgres_installations(), ids=str)
def test_root_runs_postgres_from_where_its_user_cannot_go(
    bin_dir: Path, with_namespaces: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_namespaces:
        monkeypatch.setattr("shutil.which", lambda name: None)
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "closed" / "bin").symlink_to(bin_dir)
    with Postgres(bin_dir=tmp_path / "closed" / "bin") as server:
        assert server.execute("SELECT 1") == [(1,)]


# -- Redis ----------------------------------------------------------------------------------------------------------


def test_redis_answers_a_client(redis_server: Redis) -> None:
    import redis

    client = redis.Redis.from_url(redis_server.url)
    client.set("servers-test", "x")
    assert redis_server.command("GET", "servers-test") == "x"
    client.close()


def test_sentinel_fails_over() -> None:
    import redis

    with Sentinel() as server:
        sentinel = redis.Sentinel(server.sentinels)
        assert sentinel.discover_master(server.master_name) == ("127.0.0.1", server.master_port)
        assert sentinel.discover_slaves(server.master_name) == [("127.0.0.1", server.replica_port)]
        server.kill_master()
        assert server.wait_for_failover() == server.replica_port
        master = sentinel.master_for(server.master_name)
        assert master.set("after", "failover")
        master.close()
        for client in sentinel.sentinels:
            client.close()


# -- statsd, syslog, UDP --------------------------------------------------------------------------------------------


def test_statsd_flushes_what_it_was_sent(statsd: Statsd) -> None:
    statsd.clear()
    send((statsd.host, statsd.port), b"a.b:2|c\na.b:1|c|#k:v,l:w\na.t:1.5|ms\na.g:7|g\na.g:-3|g", b"a.b:1|c")
    totals = statsd.wait_for(lambda totals: totals.counters["a.b"] == 3)
    assert totals.counters["a.b;k=v;l=w"] == 1
    assert totals.timers == {"a.t": [1.5]}
    assert totals.gauges == {"a.g": 4}
    assert statsd.packets[-1] == "a.b:1|c"
    assert statsd.bad_lines() == 0
    send((statsd.host, statsd.port), b"nonsense|x")
    wait_until("a bad line", statsd.bad_lines)


def test_udp_sink_keeps_packets_and_lines(udp_sink: UdpSink) -> None:
    send((udp_sink.host, udp_sink.port), b"a:1|c\nb:1|c", b"c:1|c")
    assert udp_sink.wait_for(3) == ["a:1|c", "b:1|c", "c:1|c"]
    assert udp_sink.packets == [b"a:1|c\nb:1|c", b"c:1|c"]
    with pytest.raises(NotReady, match="waited"):
        udp_sink.wait_for(4, timeout=0.05)


def test_rsyslog_parses_cee_after_a_tag_only(rsyslog: Rsyslog) -> None:
    rsyslog.clear()
    rsyslog.send(b'<14>@cee: {"lost":1}')
    rsyslog.send(b'<14>: @cee: {"a":1,"b":{"c":"\xc3\xa9"}}')
    assert rsyslog.wait_for(1) == [{"a": 1, "b": {"c": "é"}}]
    assert rsyslog.unparsed() == ['<14>@cee: {"lost":1}']


# -- Prometheus -----------------------------------------------------------------------------------------------------


def test_promtool_knows_clean_from_lint_from_garbage(promtool: Callable[[str], tuple[int, str]]) -> None:
    clean = "# HELP a_total As.\n# TYPE a_total counter\na_total 1\n"
    assert promtool(clean) == (0, "")
    code, lint = promtool(clean.replace("a_total", "a"))
    assert (code, "_total" in lint) == (3, True)
    assert promtool("a{b=1} x\n")[0] == 1


def test_prometheus_scrapes_itself(prometheus: Prometheus) -> None:
    prometheus.scrape(f"127.0.0.1:{prometheus.port}", who="itself")
    assert prometheus.wait_for('up{who="itself"} == 1')[0][0]["who"] == "itself"
    assert [target["health"] for target in prometheus.targets()] == ["up"]
    assert prometheus.exemplars("up") == []
    prometheus.forget()


# -- OTLP -----------------------------------------------------------------------------------------------------------


def test_otlp_receiver_decodes_what_the_sdk_sends(otlp_receiver: OtlpReceiver) -> None:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    resource = Resource({"service.name": "proof"})
    tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(otlp_receiver.url + "/v1/traces", compression=Compression.Gzip)
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    otlp_receiver.fail_next(1, 503)
    with tracing.get_tracer("t").start_as_current_span("work", attributes={"a": 1, "b": ["x", "y"]}) as span:
        span.add_event("half-way")
    tracing.shutdown()
    assert [request.status for request in otlp_receiver.requests] == [503, 200]
    assert otlp_receiver.requests[1].headers["content-encoding"] == "gzip"
    (received,) = otlp_receiver.spans
    assert received["name"] == "work"
    assert received["attributes"] == {"a": 1, "b": ["x", "y"]}
    assert received["resource"]["service.name"] == "proof"
    assert received["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert [event["name"] for event in received["events"]] == ["half-way"]

    reader = PeriodicExportingMetricReader(OTLPMetricExporter(otlp_receiver.url + "/v1/metrics"), 3_600_000)
    metering = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    metering.get_meter("m").create_counter("things").add(3, {"k": "v"})
    metering.get_meter("m").create_histogram("sizes", explicit_bucket_boundaries_advisory=[1, 10]).record(5)
    metering.shutdown()
    points = {point["name"]: point for point in otlp_receiver.metrics}
    assert points["things"]["value"] == 3
    assert points["things"]["monotonic"] is True
    assert points["things"]["temporality"] == "CUMULATIVE"
    assert points["sizes"]["buckets"] == [0, 1, 0]
    assert otlp_receiver.errors == []


def test_otlp_receiver_decodes_json_and_refuses_garbage(otlp_receiver: OtlpReceiver) -> None:
    log = (
        '{"resourceLogs":[{"resource":{"attributes":[{"key":"r","value":{"stringValue":"1"}}]},"scopeLogs":'
        '[{"logRecords":[{"body":{"stringValue":"hi"},"traceId":"000102030405060708090a0b0c0d0e0f"}]}]}]}'
    )

    def post(body: str) -> int:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(otlp_receiver.url + "/v1/logs", body.encode(), headers)
        try:
            with urllib.request.urlopen(request) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    assert post(log) == 200
    assert post('{"resourceLogs":[{"nonsense":1}]}') == 400
    assert [(record["body"], record["trace_id"], record["resource"]) for record in otlp_receiver.logs] == [
        ("hi", "000102030405060708090a0b0c0d0e0f", {"r": "1"})
    ]
    assert len(otlp_receiver.errors) == 1


# -- gunicorn -------------------------------------------------------------------------------------------------------


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    (tmp_path / "plain_app.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize("worker", [("-k", "sync"), ("-k", "gthread", "--threads", "2")], ids=lambda args: args[1])
def test_gunicorn_kills_reloads_upgrades_and_stops(plain: Path, worker: tuple[str, ...]) -> None:
    with Gunicorn("plain_app:application", "-w", "2", *worker, launcher=False, cwd=plain) as server:
        first = server.wait_for_workers(2)
        assert int(server.get("/").body) in first
        server.kill_worker(first[0])
        second = server.wait_for_workers(2, without=first[0])
        server.hup()
        third = server.wait_for_workers(2)
        assert not {*first, *second} & {*third}
        old = server.arbiter_pid
        new = server.usr2()
        assert server.arbiter_pid == old
        assert server.finish_upgrade() == new
        assert int(server.get("/").body) in server.wait_for_workers(2)
        server.stop()
        assert server.processes() == {}
        assert "Listening at" in server.stderr.read_text()
    assert not alive(new)


def test_gunicorn_that_does_not_boot_shows_why(plain: Path) -> None:
    with pytest.raises(NotReady, match="no_such_module"):
        Gunicorn("no_such_module:application", launcher=False, cwd=plain).start()


def test_readiness_does_not_reach_the_application(plain: Path) -> None:
    (plain / "plain_app.py").write_text("import sys\n" + APP.replace("    start", "    print('CALLED')\n    start"))
    with Gunicorn("plain_app:application", launcher=False, cwd=plain) as server:
        assert server.stdout.read_text() == ""
        server.get("/")
        assert server.stdout.read_text() == "CALLED\n"


# -- Chromium -------------------------------------------------------------------------------------------------------


def test_chromium_renders_a_page_of_this_machine(chromium: Chromium, plain: Path, tmp_path: Path) -> None:
    page_app = APP.replace("text/plain", "text/html").replace(
        "[str(os.getpid()).encode()]", "[b'<h1 id=t></h1><script>t.textContent = 6 * 7</script>']"
    )
    (plain / "page_app.py").write_text(page_app)
    with Gunicorn("page_app:application", launcher=False, cwd=plain) as server:
        with chromium.page() as page:
            page.goto(server.url)
            assert page.inner_text("h1") == "42"
        chromium.screenshot(server.url, tmp_path / "page.png", 300, 200)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
