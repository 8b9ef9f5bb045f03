"""The arbiter holds nothing, ended workers leave nothing that grows, and gauges speak of the living."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.integration.worker_kit import (
    APP,
    GTHREAD,
    Sent,
    Watch,
    access_log,
    answering,
    metric_files,
    parse,
    pids_of,
    run_directories,
    send,
    series,
    value,
)
from tests.servers import Gunicorn, OtlpReceiver, UdpSink, free_port, wait_until
from tests.servers.find import ROOT
from tests.servers.process import Process


def environ(sink: UdpSink, receiver: OtlpReceiver, **more: str) -> dict[str, str]:
    """Everything on that could hold a thread, a socket or a file."""
    return {
        "STATSD_ADDRESS": sink.address,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_LOGS_EXPORTER": "otlp",
        "LOG_TYPE": "json,logstash",
        "LOG_HOST": "127.0.0.1",
        "LOG_PORT": str(sink.port),
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(free_port()),
        "APP_RECORD_AT_IMPORT": "1",
        **more,
    }


@pytest.mark.parametrize("launcher", [True, False], ids=["launcher", "include"])
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])
def test_the_arbiter_holds_nothing(
    launcher: bool, preload: tuple[str, ...], udp_sink: UdpSink, otlp_receiver: OtlpReceiver
) -> None:
    env = environ(udp_sink, otlp_receiver, APP_INCLUDE=str(not launcher).lower())
    with Gunicorn(APP, "-w", "2", *GTHREAD, *preload, env=env, launcher=launcher) as gunicorn:
        gunicorn.wait_for_workers(2)
        assert pids_of(send(gunicorn, range(10), "/job"))
        killed = gunicorn.worker_pids()[0]
        gunicorn.kill_worker(killed)  # so that it has forked with others alive
        gunicorn.wait_for_workers(2, without=killed)
        assert value(gunicorn, "c2c_otel_events_total", key="job") == 10
        arbiter = Path(f"/proc/{gunicorn.arbiter_pid}")
        assert len(list((arbiter / "task").iterdir())) == 1
        held = [str(path.readlink()) for path in (arbiter / "fd").iterdir()]
        assert [path for path in held if "c2c-otel" in path] == [
            str(run / "alive") for run in run_directories(gunicorn) if launcher
        ]
        sockets = [path for path in held if path.startswith("socket:")]
        assert len(sockets) <= (2 if "--preload" in preload or launcher else 1)  # its own, and @cee for its own log
        assert not re.search(r"c2c-otel-\d+/run", (arbiter / "maps").read_text())
        assert not [path for path in held if path.startswith("anon_inode")]


def test_recycling_leaves_no_more_files(udp_sink: UdpSink, tmp_path: Path) -> None:
    """At least 30 workers, two requests each."""
    log = tmp_path / "access.log"
    args = ("-w", "2", "--preload", "--max-requests", "2", *access_log(log))
    with Gunicorn(APP, *args, env={"STATSD_ADDRESS": udp_sink.address}) as gunicorn, Watch(gunicorn, 0.4) as watch:
        seen: set[int] = set()
        jobs = most = 0
        while len(seen) < 30:
            sent = [one for one in send(gunicorn, range(4), "/job", threads=2) if one.answer is not None]
            jobs += len(sent)
            seen |= pids_of(sent)
            most = max(most, len(metric_files(gunicorn)))
        assert value(gunicorn, "c2c_otel_events_total", key="job") == jobs
        assert value(gunicorn, "http_server_request_duration_seconds_count", http_route="/job") == jobs
        assert most <= 14  # two workers and those that take over, five dead ones, archive, epoch, lock, one being made
        assert not watch.falls
        [run] = run_directories(gunicorn)
        assert {path.name for path in run.iterdir()} == {"alive", "metrics", "processes", "sockets"}
        for kind in ("processes", "sockets"):
            assert len(list((run / kind).iterdir())) <= 4, kind  # those that left have removed theirs
    print(f"{len(seen)} workers, {watch.scrapes} scrapes, at most {most} files")


@pytest.mark.parametrize("launcher", [True, False], ids=["launcher", "include"])
def test_a_stopped_service_is_cleared_away_by_the_next_start(launcher: bool, tmp_path: Path) -> None:
    runs = tmp_path / "runtime" / "run"
    env = {"C2C_RUNTIME_DIR": str(tmp_path / "runtime"), "APP_INCLUDE": str(not launcher).lower()}
    ended = []
    for _ in range(2):
        with Gunicorn(APP, "-w", "2", "--preload", env=env, launcher=launcher) as gunicorn:
            gunicorn.wait_for_workers(2)
            send(gunicorn, range(3), "/job")
            assert value(gunicorn, "c2c_otel_events_total", key="job") == 3  # a new run begins at 0
            [run] = runs.iterdir()
            assert run.name not in ended
            gunicorn.stop()
            assert gunicorn.processes() == {}
            ended.append(run.name)
    assert not re.search(str(tmp_path), "".join(_maps()))


def _maps() -> list[str]:
    texts = []
    for path in Path("/proc").glob("[0-9]*/maps"):
        try:
            texts.append(path.read_text())
        except OSError:
            continue
    return texts


# -- gauges and sums --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])
def test_gauges_of_the_living_and_sums_of_all(preload: tuple[str, ...]) -> None:
    with Gunicorn(APP, "-w", "3", *GTHREAD, *preload) as gunicorn:
        gunicorn.wait_for_workers(3)
        sent = _until_all_have_answered(gunicorn, "/gauge/2")
        told = {pid: 2 * sum(one.answer["pid"] == pid for one in sent) for pid in pids_of(sent)}
        jobs = _until_all_have_answered(gunicorn, "/job")
        assert value(gunicorn, "c2c_otel_value", key="depth") == 2
        for pid in told:
            assert value(gunicorn, "c2c_otel_value", key=f"depth/of/{pid}") == 2
        wait_until("the up-down counters", lambda: value(gunicorn, "jobs_open") == sum(told.values()))
        wait_until("the counters", lambda: _counted(gunicorn) == dict.fromkeys(SUMS, len(jobs)))
        seen = value(gunicorn, "jobs_seen_total")
        assert seen == 3 * 7

        victim = gunicorn.worker_pids()[0]
        gunicorn.kill_worker(victim)
        gunicorn.wait_for_workers(3, without=victim)
        wait_until("the new one", lambda: value(gunicorn, "jobs_seen_total") == 4 * 7)
        gauges = {dict(labels)["key"] for labels in series(gunicorn, "c2c_otel_value")}
        assert gauges == {"depth", *(f"depth/of/{pid}" for pid in told if pid != victim)}
        assert value(gunicorn, "jobs_open") == sum(number for pid, number in told.items() if pid != victim)
        assert _counted(gunicorn) == dict.fromkeys(SUMS, len(jobs))


SUMS = ("jobs_done_total", "jobs_size_count", "jobs_classic_total", "jobs_provided_total")


def _counted(gunicorn: Gunicorn) -> dict[str, float]:
    return {name: value(gunicorn, name) for name in SUMS}


def _until_all_have_answered(gunicorn: Gunicorn, path: str) -> list[Sent]:
    sent: list[Sent] = []
    while pids_of(sent) != set(gunicorn.worker_pids()):
        sent += send(gunicorn, range(12), path)
        assert len(sent) < 1000
    return sent


# -- where it cannot share, listen or send ----------------------------------------------------------------------------


def test_without_a_place_to_share_each_process_tells_of_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = tmp_path / "access.log"
    env = {"C2C_RUNTIME_DIR": str(tmp_path / "file" / "below")}
    with Gunicorn(APP, "-w", "2", *GTHREAD, *access_log(log), env=env) as gunicorn:
        gunicorn.wait_for_workers(2)
        sent = _until_all_have_answered(gunicorn, "/job")
        own = {pid: sum(one.answer["pid"] == pid for one in sent) for pid in pids_of(sent)}
        for pid, texts in answering(gunicorn, log).items():
            growing, others = parse(texts[-1])
            assert growing["c2c_otel_events_total", 'key="job"'] == own[pid]
            assert f"# These metrics are of process {pid} alone" in texts[-1]
            assert others["c2c_otel_metrics_unshared", ""] == 1
        warnings = [line for line in gunicorn.stderr.read_text().splitlines() if "not of all workers" in line]
        assert len(warnings) == 2  # one of each worker


def test_a_port_of_its_own_is_shared_by_the_workers() -> None:
    port = free_port()
    env = {"OTEL_EXPORTER_PROMETHEUS_PORT": str(port)}
    with Gunicorn(APP, "-w", "3", *GTHREAD, env=env) as gunicorn:
        gunicorn.wait_for_workers(3)
        send(gunicorn, range(20), "/job")
        other = Gunicorn(APP)  # for its requests alone
        other.url = f"http://127.0.0.1:{port}"
        for _ in range(12):  # whoever of the three it is
            assert value(other, "c2c_otel_events_total", key="job") == 20
        listening = re.compile(rf":{port:04X} 00000000:0000 0A")
        wait_until("all workers", lambda: len(listening.findall(Path("/proc/net/tcp").read_text())) == 3)
        killed = gunicorn.worker_pids()[0]
        gunicorn.kill_worker(killed)
        assert value(other, "c2c_otel_events_total", key="job") == 20


def test_collectors_that_do_not_resolve_are_warned_about_once() -> None:
    env = {
        "STATSD_ADDRESS": "statsd.invalid:8125",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otlp.invalid:4318",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "300",
    }
    with Gunicorn(APP, "-w", "1", env=env) as gunicorn:
        assert {one.status for one in send(gunicorn, range(10), "/job")} == {200}

        def warned(name: str) -> list[str]:
            return [line for line in gunicorn.stderr.read_text().splitlines() if name in line]

        wait_until("the warnings", lambda: warned("statsd.invalid") and warned("otlp.invalid"), 30)
        for _ in range(4):
            assert {one.status for one in send(gunicorn, range(10), "/job")} == {200}
            gunicorn.get("/metrics")
        assert len(warned("statsd.invalid")) == 1, gunicorn.stderr.read_text()
        assert 1 <= len(warned("otlp.invalid")) <= 2, gunicorn.stderr.read_text()  # traces, and metrics
        assert "Traceback" not in gunicorn.stderr.read_text()


# -- what is refused --------------------------------------------------------------------------------------------------


def _run(*argv: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / argv[0]
    path = os.pathsep.join([str(program.parent), os.environ.get("PATH", os.defpath)])
    environ = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TMPDIR": str(cwd), **env}
    argv = (str(program), *argv[1:])
    return subprocess.run(argv, env=environ, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", ["c2c-otel-instrument", "c2c-otel"])
def test_a_bad_setting_ends_our_commands_with_2(command: str, tmp_path: Path) -> None:
    rest = ("gunicorn", APP) if command == "c2c-otel-instrument" else ("config",)
    done = _run(command, *rest, env={"STATSD_ADDRESS": "nowhere"}, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        f"{command}: STATSD_ADDRESS is 'nowhere'; expected host:port ([address]:port for IPv6). "
        "Correct it or remove it."
    ]


def test_a_bad_ini_value_is_named(tmp_path: Path) -> None:
    ini = "[app:main]\nuse = call:bad:main\nc2c.requests_default_timeout = soon\n"
    (tmp_path / "app.ini").write_text(ini)
    (tmp_path / "bad.py").write_text(
        "from pyramid.config import Configurator\n"
        "def main(global_config, **settings):\n"
        "    config = Configurator(settings=settings)\n"
        "    config.include('c2c_otel')\n"
        "    return config.make_wsgi_app()\n"
    )
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    args = ("gunicorn", "-b", "127.0.0.1:0", "--no-control-socket", "--paste", str(tmp_path / "app.ini"))
    for launcher in ((), ("c2c-otel-instrument",)):
        done = _run(*launcher, *args, env=env, cwd=tmp_path)
        assert done.returncode not in (0, -9)
        assert "ConfigurationError: c2c.requests_default_timeout is 'soon'; expected a number of seconds" in done.stderr


# -- accounts ---------------------------------------------------------------------------------------------------------


def _python_of_everybody() -> tuple[Path, str]:
    """A Python that another account can run too, and its PYTHONPATH. This one, if it is not in root's own home."""
    site = next(path for path in sys.path if path.endswith("site-packages"))
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "exporters", ROOT / "views", site)))
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info[1]}"):
        asked = [python, "-c", "import gzip, c2c_otel.launcher, c2c_otel_exporters, gunicorn"]
        try:
            subprocess.run(asked, env={"PYTHONPATH": paths}, cwd="/", user="nobody", extra_groups=[], check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return Path(python), paths
    return Path(sys.executable), ""


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])
@pytest.mark.parametrize("named", [False, True], ids=["default", "named"])
def test_workers_of_another_account(named: bool, preload: tuple[str, ...], udp_sink: UdpSink) -> None:
    """gunicorn started by root, serving as nobody: the run belongs to nobody. Where this is not root's test, or no
    Python is there for others, the account is our own."""
    account, python, paths = pwd.getpwuid(os.getuid()), Path(sys.executable), ""
    if account.pw_uid == 0:
        python, paths = _python_of_everybody()
        account = pwd.getpwnam("nobody") if paths else account
    gunicorn = Gunicorn(APP)
    gunicorn.directory = directory = Path(tempfile.mkdtemp(prefix="c2c-account-", dir="/tmp"))
    directory.chmod(0o1777)
    gunicorn.port, gunicorn._pidfile = free_port(), directory / "pid"
    gunicorn.url = f"http://127.0.0.1:{gunicorn.port}"
    argv = [python, "-m", "c2c_otel.launcher", python, "-m", "gunicorn", "-b", f"127.0.0.1:{gunicorn.port}"]
    argv += ["--pid", gunicorn._pidfile, "--no-control-socket", "-w", "2", *GTHREAD, *preload]
    argv += ["--user", str(account.pw_uid), "--group", str(account.pw_gid), "--worker-tmp-dir", directory, APP]
    env = {"PATH": os.defpath, "PYTHONPATH": paths or str(ROOT), "TMPDIR": str(directory)}
    if named:
        env["C2C_RUNTIME_DIR"] = str(directory / "named")
    gunicorn._process = Process(argv, directory / "log", env=env | {"STATSD_ADDRESS": udp_sink.address}, cwd=ROOT)
    try:
        gunicorn._process.wait_until("a worker", lambda: gunicorn.get("/metrics").status == 200, 60)
        gunicorn.wait_for_workers(2)
        jobs = len(_until_all_have_answered(gunicorn, "/job"))
        udp_sink.wait_for(lambda lines: lines.count("job:1|c") == jobs)
        assert value(gunicorn, "c2c_otel_events_total", key="job") == jobs
        for pid in gunicorn.worker_pids():
            assert Path(f"/proc/{pid}").stat().st_uid == account.pw_uid
        killed = gunicorn.worker_pids()[0]
        gunicorn.kill_worker(killed)
        gunicorn.wait_for_workers(2, without=killed)
        assert value(gunicorn, "c2c_otel_events_total", key="job") == jobs
        assert b"# These metrics are of process" not in gunicorn.get("/metrics").body
        log = gunicorn._process.output()
        assert "not of all workers" not in log
        assert "c2c-otel failed" not in log
        [run] = (directory / ("named" if named else f"c2c-otel-{account.pw_uid}")).glob("run/*/metrics")
        assert run.stat().st_uid == account.pw_uid
    finally:
        gunicorn.stop()
        shutil.rmtree(directory, ignore_errors=True)
