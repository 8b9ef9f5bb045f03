"""``c2c-otel doctor`` before a start, and what it makes of what processes say."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from c2c_otel import broadcast, doctor, telemetry
from c2c_otel.doctor import directories, judge, presence, probes, running, state
from c2c_otel.doctor.findings import Finding
from c2c_otel.settings import Address, Settings
from c2c_otel_exporters import exported
from tests.core.conftest import Run
from tests.servers import Redis
from tests.servers.process import free_port

PROGRAM = str(Path(sys.executable).with_name("c2c-otel"))


class Said:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.text = done.returncode, done.stdout + done.stderr
        try:
            self.json = json.loads(done.stdout)
        except ValueError:
            self.json = {}

    def problems(self) -> dict[str, str]:
        """Message and remedy of each, by subject; a subject has one here."""
        found = [one for one in self.json["findings"] if one["level"] == "problem"]
        assert all(one["remedy"] for one in found)
        assert self.code == (1 if found else 0)
        assert self.json["ok"] == (not found)
        return {one["subject"]: f"{one['message']} -> {one['remedy']}" for one in found}


def examine(tmp_path: Path, *words: str, **environ: str) -> Said:
    ours = ("C2C", "OTEL_", "STATSD_", "GUNICORN_", "LOG_", "COVERAGE", "SENTRY_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [PROGRAM, "doctor", *words],
        env={
            **clean,
            "C2C_RUNTIME_DIR": str(tmp_path / "runtime"),
            "GUNICORN_PARAMS": f"-b 127.0.0.1:{free_port()}",
            **environ,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Said(done)


# -- before a start ---------------------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_nothing(tmp_path: Path) -> None:
    said = examine(tmp_path, "--json")
    assert said.problems() == {}
    assert {one["subject"] for one in said.json["findings"]} == {"settings", "runtime_dir", "workers"}
    assert not (tmp_path / "runtime").exists(), "it only looks"


def test_all_settings_that_cannot_be_used_are_named_and_no_secret_is(tmp_path: Path) -> None:
    (tmp_path / "a.ini").write_text("[app:main]\nuse = egg:c2c-otel\nc2c.stats_view = maybe\nc2c.redis_db = x\n")
    environ = {"C2C_REDIS_URL": "nonsense://:hush@x", "C2C_SECRET": "hush", "C2C_TRUSTED_PROXIES": "everybody"}
    said = examine(tmp_path, "--ini", "a.ini", "--json", **environ)
    wrong = [one["message"] for one in said.json["findings"] if one["level"] == "problem"]
    assert [message.replace(",", "").split()[0] for message in wrong] == [
        "C2C_TRUSTED_PROXIES",
        "c2c.stats_view",
        "C2C_REDIS_URL",
        "c2c.redis_db",
    ]
    assert all(" expected " in message for message in wrong)
    assert said.code == 1
    assert "hush" not in said.text
    assert {"name": "C2C_SECRET", "value": "***", "source": "environment"} in said.json["settings"]


@pytest.mark.parametrize(
    ("environ", "subject", "message"),
    [
        (
            {"STATSD_ADDRESS": "127.0.0.1:{port}"},
            "statsd",
            "statsd at 127.0.0.1:{port}: nobody takes datagrams there: ",
        ),
        ({"STATSD_ADDRESS": "no.such.host.invalid:1"}, "statsd", "no.such.host.invalid is not resolved"),
        (
            {"LOG_TYPE": "logstash", "LOG_HOST": "127.0.0.1", "LOG_PORT": "{port}"},
            "logs",
            "syslog at 127.0.0.1:{port}: ",
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:{port}",
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_METRICS_EXPORTER": "none",
            },
            "otlp",
            "the OpenTelemetry collector at http://127.0.0.1:{port}/v1/logs: Connection refused -> Start it, or "
            "correct OTEL_EXPORTER_OTLP_ENDPOINT.",
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://me:hush@127.0.0.1:{port}/x"},
            "otlp",
            "http://***@127.0.0.1:{port}/x: Connection refused -> Start it, or correct "
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT.",
        ),
        ({"OTEL_TRACES_EXPORTER": "nobody"}, "packages", "OTEL_TRACES_EXPORTER is 'nobody'; expected one of "),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "packages",
            "to be installed. -> Run: pip install 'opentelemetry-exporter-otlp-proto-grpc'",
        ),
        ({"C2C_REDIS_URL": "redis://:hush@127.0.0.1:{port}"}, "redis", "Redis at redis://127.0.0.1:{port}/0: "),
        ({"SENTRY_URL": "nonsense"}, "sentry", "SENTRY_URL is no DSN"),
        ({"SENTRY_URL": "http://key@127.0.0.1:{port}/1"}, "sentry", "Sentry at 127.0.0.1:{port}: Connection refused"),
        ({"C2C_SECRET": "c2crulez"}, "secret", "C2C_SECRET is what the image of c2cwsgiutils had for everybody"),
        ({"C2C_VERSIONS_FILE": "garbled.json"}, "versions", "garbled.json cannot be used"),
        ({"C2CWSGIUTILS_CONFIG": "none.ini"}, "ini", "none.ini is no file that can be read"),
        (
            {"C2CWSGIUTILS_CONFIG": "missing.ini"},
            "ini",
            "C2CWSGIUTILS_CONFIG is 'missing.ini'; expected an ini file. a in [app:main] refers to %(",
        ),
        (
            {"C2CWSGIUTILS_CONFIG": "egg.ini"},
            "ini",
            "use = egg:nobody#main, but no distribution nobody is installed -> Run: pip",
        ),
        (
            {"C2CWSGIUTILS_CONFIG": "log.ini"},
            "ini",
            "the ini file is 'log.ini'; expected logging that can be read. NoSec",
        ),
        (
            {"C2CWSGIUTILS_CONFIG": "good.ini", "GUNICORN_PARAMS": "-b 127.0.0.1:{taken}"},
            "ports",
            "GUNICORN_PARAMS: 127.0.0.1:{taken} cannot be served: Address already in use",
        ),
        (
            {"C2CWSGIUTILS_CONFIG": "good.ini", "GUNICORN_PARAMS": "-b '"},
            "settings",
            'GUNICORN_PARAMS is "-b \'"; expected',
        ),
        (
            {"OTEL_EXPORTER_PROMETHEUS_PORT": "{taken}"},
            "ports",
            "OTEL_EXPORTER_PROMETHEUS_PORT: 127.0.0.1:{taken} cannot",
        ),
        ({"C2C_RUNTIME_DIR": "file"}, "runtime_dir", "file is no directory -> Remove it, or: Name another directory"),
        ({"C2C_RUNTIME_DIR": "open"}, "runtime_dir", "others may write to open -> Run: chmod go-w open"),
    ],
)
def test_each_thing_that_is_wrong_has_its_remedy(
    tmp_path: Path, environ: dict[str, str], subject: str, message: str
) -> None:
    (tmp_path / "garbled.json").write_text("{")
    (tmp_path / "good.ini").write_text("[app:main]\nuse = call:x:main\n")
    (tmp_path / "missing.ini").write_text("[app:main]\na = %(NOBODY_SETS_THIS)s\n")
    (tmp_path / "egg.ini").write_text("[app:main]\nuse = egg:nobody#main\n")
    (tmp_path / "log.ini").write_text("[app:main]\nuse = call:x:main\n[loggers]\nkeys = root\n")
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {"{port}": str(free_port()), "{taken}": str(taken.getsockname()[1])}
        for name, value in ports.items():
            environ = {key: text.replace(name, value) for key, text in environ.items()}
            message = message.replace(name, value)
        said = examine(tmp_path, "--json", **environ)
        shown = examine(tmp_path, **environ)
    assert said.problems().keys() == {subject}, said.text
    assert message in said.problems()[subject]
    assert message.partition(" -> ")[0] in shown.text and "  PROBLEM " in shown.text and "1 problem\n" in shown.text
    assert "hush" not in said.text + shown.text


def test_what_is_there_is_ok(tmp_path: Path, udp_sink: Any, otlp_receiver: Any, redis_server: Redis) -> None:
    environ = {
        "STATSD_ADDRESS": udp_sink.address,
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_receiver.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=one%20two",
        "C2C_REDIS_URL": f"redis://127.0.0.1:{redis_server.port}/0",
    }
    said = examine(tmp_path, "--json", **environ)
    assert said.problems() == {}
    assert {"statsd", "otlp", "redis"} <= {one["subject"] for one in said.json["findings"] if one["level"] == "ok"}
    assert sorted(request.path for request in otlp_receiver.requests) == ["/v1/logs", "/v1/metrics", "/v1/traces"]
    assert {request.headers["x-key"] for request in otlp_receiver.requests} == {"one two"}
    assert otlp_receiver.errors == []


def test_that_nothing_runs_is_wrong_where_something_should(tmp_path: Path) -> None:
    assert "no service is alive in" in examine(tmp_path, "--json", "--running").problems()["workers"]
    assert "run x is not alive in" in examine(tmp_path, "--json", "--run", "x").problems()["workers"]
    assert examine(tmp_path, "--nothing").code == 2


class _Status(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (200, ""),
        (400, ""),
        (401, "it answers 401 (its credentials: OTEL_EXPORTER_OTLP_HEADERS)"),
        (404, "it answers 404 (is the path right?)"),
        (503, "it answers 503"),
    ],
)
def test_what_a_collector_answers(status: int, why: str) -> None:
    with HTTPServer(("127.0.0.1", 0), _Status) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()  # the connection that only tries
        thread = threading.Thread(target=lambda: [server.handle_request() for _ in range(1)], daemon=True)
        thread.start()
        assert probes.otlp_http(f"http://127.0.0.1:{server.server_port}/{status}", {}) == why


def test_a_port_of_ipv6_and_one_that_is_free() -> None:
    port = free_port()
    assert probes.bindable(Address("127.0.0.1", port)) == ""
    assert probes.bindable(Address("", port)) == ""
    assert probes.tcp(Address("127.0.0.1", port)) == "Connection refused"


# -- who is there -----------------------------------------------------------------------------------------------------


def test_a_process_is_there_until_it_says_goodbye(run: Run, tmp_path: Path) -> None:
    """Also a child, which does not take its parent's leave."""
    done = run(
        "from c2c_otel.doctor import presence\n"
        "from pathlib import Path\n"
        f"place = Path({str(tmp_path)!r})\n"
        "presence.announce(place, worker=True)\n"
        "presence.announce(place, worker=False)\n"
        "fork(lambda: presence.withdraw())\n"
        "fork(lambda: (presence.announce(place, worker=False), presence.withdraw()))\n"
        "(one,) = presence.present(place)\n"
        "print(one.pid == os.getpid(), one.worker, one.state in ('R', 'S'), one.parent == os.getppid(), flush=True)\n"
        "presence.withdraw()\n"
        "print(presence.present(place), flush=True)\n"
        "presence.announce(place, worker=True)\n"
        "os._exit(0)"
    )
    assert done.stdout == "True True True True\n[]\n"
    (one,) = presence.present(tmp_path)
    assert one.state == ""
    assert presence.forget(tmp_path) == 1
    assert presence.present(tmp_path) == []


def test_another_process_of_the_same_pid_is_not_taken_for_it(tmp_path: Path) -> None:
    presence.announce(tmp_path, worker=True)
    try:
        (path,) = (tmp_path / "processes").iterdir()
        text = json.loads(path.read_text())
        (path.parent / "other").write_text(json.dumps({**text, "start": "1"}))
        (path.parent / "elsewhere").write_text(json.dumps({**text, "host": "elsewhere"}))
        (path.parent / "container").write_text(json.dumps({**text, "namespace": "pid:[1]"}))
        (path.parent / "garbled").write_text("{")
        found = [
            (one.host == socket.gethostname(), bool(one.state), one.state is None) for one in presence.present(tmp_path)
        ]
        assert sorted(found) == [
            (False, False, True),
            (True, False, False),
            (True, False, True),
            (True, True, False),
        ]
        assert presence.forget(tmp_path) == 1
    finally:
        presence.withdraw()


def test_the_traces_of_the_dead_are_bounded(tmp_path: Path) -> None:
    directory = tmp_path / "processes"
    directory.mkdir()
    for number in range(50):
        dead = {
            "pid": number + 1,
            "start": "x",
            "host": socket.gethostname(),
            "parent": 1,
            "worker": True,
            "born": number,
            "namespace": os.readlink("/proc/self/ns/pid"),
        }
        (directory / str(number)).write_text(json.dumps(dead))
    presence.announce(tmp_path, worker=True)
    presence.withdraw()
    assert [one.pid for one in presence.present(tmp_path)] == list(range(31, 51))


def test_runs_are_those_that_somebody_holds(tmp_path: Path) -> None:
    settings = Settings(runtime_dir=tmp_path)
    for name in ("alive", "ended", "being-made", ".hidden"):
        (tmp_path / "run" / name).mkdir(parents=True)
        if name != "being-made":
            (tmp_path / "run" / name / "alive").touch()
    with (tmp_path / "run" / "alive" / "alive").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert [(one.id, one.alive) for one in directories.runs(settings)] == [("alive", True), ("ended", False)]


# -- what a process says ----------------------------------------------------------------------------------------------


def test_each_export_is_counted() -> None:
    class Exporter:
        _endpoint = "http://me:hush@collector/v1/traces"

        def __init__(self, *results: Any) -> None:
            self.results = list(results)

        def export(self, batch: list[int], timeout: float = 1.0) -> Any:
            (now,) = (one for one in exported.states() if one["signal"] == "test")
            assert now["began"] > 0
            return self.results.pop(0)

    class Result:
        def __init__(self, name: str) -> None:
            self.name = name

    exporter = exported.watch(Exporter(Result("SUCCESS"), Result("FAILURE"), Result("FAILURE")), "test", "fake")
    for batch in ([1, 2, 3], [4], [5]):
        exporter.export(batch, timeout=2)
    with pytest.raises(IndexError):
        exporter.export([6])
    (found,) = (one for one in exported.states() if one["signal"] == "test")
    assert (found["items"], found["succeeded"], found["failed"], found["failed_since_success"]) == (3, 1, 3, 3)
    assert found["began"] == 0 and 0 < found["last_success"] <= found["last_failure"]
    reader = object()
    assert exported.watch(reader, "test", "reader") is reader


def test_a_process_tells_how_it_is(run: Run) -> None:
    port = free_port()
    done = run(
        "import json\n"
        "from c2c_otel import broadcast, doctor\n"
        "process.start(); broadcast.init()\n"
        "stats.increment_counter(['a']); process.parts.sender.flush()\n"
        "with trace.get_tracer('x').start_as_current_span('y'): pass\n"
        "process.parts.span_processors[0].force_flush()\n"
        "process.parts.publisher.publish()\n"
        "answer = broadcast.broadcast(doctor.CHANNEL, expect_answers=True, timeout=5)[0]\n"
        "print(json.dumps(answer))",
        STATSD_ADDRESS=f"127.0.0.1:{port}",
        OTEL_TRACES_EXPORTER="console",
        C2C_SECRET="hush",
        C2C_REDIS_URL=f"redis://:hush@127.0.0.1:{port}",
        LOG_LEVEL="CRITICAL",
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert "hush" not in json.dumps(answer)
    assert answer["telemetry"] == "on"
    assert answer["publisher"]["age"] < 60 and answer["publisher"]["thread"] is True
    assert answer["statsd"]["address"] == f"127.0.0.1:{port}" and answer["statsd"]["thread"] is True
    (exporter,) = answer["exporters"]
    assert (exporter["signal"], exporter["exporter"], exporter["succeeded"], exporter["items"]) == (
        "traces",
        "console",
        1,
        1,
    )
    assert answer["ended"] == []
    assert answer["redis"]["reachable"] is False
    assert ["C2C_SECRET", "***", "environment"] in answer["settings"]
    assert {"c2c_otel_publish", "c2c-otel-statsd"} <= set(answer["threads"])


def test_without_telemetry_it_still_answers(run: Run) -> None:
    done = run(
        "from c2c_otel import broadcast, doctor\n"
        "broadcast.init()\n"
        "print(broadcast.broadcast(doctor.CHANNEL, expect_answers=True)[0]['telemetry'])",
        OTEL_SDK_DISABLED="true",
    )
    assert done.stdout == "off\n"


def test_an_unstarted_process_is_said_to_be_so() -> None:
    assert telemetry.get().started is False
    assert state.report()["telemetry"] == "not started"


# -- what is made of it -----------------------------------------------------------------------------------------------


def report(**more: Any) -> dict[str, Any]:
    from c2c_otel import __version__

    return {"pid": 7, "hostname": "h", "version": __version__, "telemetry": "on", "settings": [], **more}


def exporter(**more: Any) -> dict[str, Any]:
    base = {"signal": "traces", "exporter": "otlp", "endpoint": "http://c", "items": 0, "succeeded": 0, "failed": 0}
    return {**base, "failed_since_success": 0, "last_success": 0.0, "last_failure": 0.0, "began": 0.0, **more}


def seen(*reports: dict[str, Any], **more: Any) -> running.Seen:
    run = directories.Run("r", Path("/nowhere"), True)
    return running.Seen(run, list(reports), (), 2.0, [], running.Totals(1, {}))._replace(**more)


def there(pid: int, state: str | None, *, worker: bool = True) -> presence.Presence:
    return presence.Presence(pid, 1, "h", worker, time.time() - 100, state)


STATSD = {"address": "s:1", "sent": 1, "queued": 2, "failing": False, "thread": True}
PUBLISHER = {"age": 0.5, "thread": True, "busy": []}


@pytest.mark.parametrize(
    ("what", "subject", "part"),
    [
        (seen(report(telemetry="failed")), "telemetry", "worker 7: telemetry could not start"),
        (seen(report(telemetry="not started")), "telemetry", "worker 7: telemetry is not started"),
        (
            seen(report(publisher={**PUBLISHER, "thread": False})),
            "metrics",
            "worker 7: the thread that publishes metrics",
        ),
        (seen(report(publisher={**PUBLISHER, "age": 60.0, "busy": ["provider.x"]})), "metrics", "60 s ago: provider.x"),
        (seen(report(statsd={**STATSD, "thread": False})), "statsd", "worker 7: statsd at s:1: the thread that sends"),
        (seen(report(statsd={**STATSD, "failing": True})), "statsd", "worker 7: statsd at s:1 is not reached, 2 lines"),
        (
            seen(report(statsd={**STATSD, "failing": True}), report(pid=5, statsd={**STATSD, "failing": True})),
            "statsd",
            "worker 5, 7: statsd at s:1 is not reached, 4 lines wait",
        ),
        (seen(report(ended=["traces"])), "exporter", "worker 7: the thread that exports traces has ended"),
        (
            seen(report(store={"shared": False, "reason": "full"})),
            "metrics",
            "worker 7: its metrics are shown by itself",
        ),
        (seen(report(redis={"address": "a", "reachable": False, "error": "e"})), "redis", "worker 7: Redis at a: e"),
        (
            seen(report(exporters=[exporter(failed=2, failed_since_success=2)]), report(pid=5, exporters=[exporter()])),
            "exporter",
            "traces to http://c: the last 2 exports failed, in worker 7; none has succeeded",
        ),
        (
            seen(report(exporters=[exporter(began=1.0)])),
            "exporter",
            "traces to http://c: an export has not come to its end",
        ),
        (seen(missing=("h/9",), present=[there(9, "T")]), "workers", "worker 9 is stopped"),
        (seen(missing=("h/9",), present=[there(9, "S")]), "workers", "worker 9 does not answer within 2 s"),
        (seen(missing=("h/9",), present=[there(9, "S")], seconds=0.1), "workers", "worker 9 has refused the question"),
        (seen(present=[there(9, "S")]), "workers", "worker 9 does not answer"),
        (seen(missing=("h/9",), present=[there(9, "Z")]), "workers", "worker 9 has ended, but its parent"),
        (seen(report(), present=[there(7, "S"), there(8, "")]), "workers", "worker 8, started 20"),
        (seen(report(), totals=running.Totals(0, {"dropped.statsd.lines": 3})), "dropped", "statsd.lines: 3 dropped"),
        (seen(report(events={"failed.x.y": 4})), "failed", "x.y: failed 4 times"),
        (seen(report(), totals=running.Totals(0, {}, "no way")), "metrics", "cannot be read: no way"),
    ],
)
def test_what_is_wrong_is_named(what: running.Seen, subject: str, part: str) -> None:
    wrong = [one for one in judge.judge(what) if one.level == "problem"]
    assert [one.subject for one in wrong] == [subject], wrong
    assert part in wrong[0].message
    assert wrong[0].remedy


@pytest.mark.parametrize(
    "what",
    [
        seen(report(publisher=PUBLISHER, statsd=STATSD, store={"shared": True, "reason": ""}), present=[there(7, "S")]),
        seen(report(telemetry="off")),
        seen(report(exporters=[exporter(succeeded=5, failed=2)])),
        seen(report(exporters=[exporter(began=time.time() + 1000)])),
        seen(report(), present=[there(7, "R"), there(8, "", worker=False)]),
        seen(report(), present=[there(7, "R"), there(8, None)]),
        seen(present=[there(9, "S")], unasked="Redis is away"),
        seen(report(events={"broadcast.refused.late": 1})),
        seen(report(version="0")),
        seen(report(), report(pid=8, settings=[["A", "1", "ini"]])),
        seen(),
    ],
)
def test_what_may_be_as_it_is_meant_is_no_problem(what: running.Seen) -> None:
    found: list[Finding] = list(judge.judge(what))
    assert [one for one in found if one.level == "problem"] == []


def test_the_doctor_does_not_take_part(tmp_path: Path) -> None:
    """It is seen by nobody: it asks, and has no socket of its own."""
    (tmp_path / "r" / "sockets").mkdir(parents=True)
    run = directories.Run("r", tmp_path / "r", True)
    (found,), elsewhere, unnamed = running.look([run], Settings(), 0.5)
    assert (found.reports, found.missing, elsewhere, unnamed) == ([], (), [], ())
    assert list((tmp_path / "r" / "sockets").iterdir()) == []
    assert broadcast.get().joined is False
    assert doctor.CHANNEL == "c2c_doctor"
