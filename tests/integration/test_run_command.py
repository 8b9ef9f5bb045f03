"""``c2c-otel-run`` as a container starts it: what it serves, how it ends, and what it says to what cannot work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import Process
from tests.servers.process import free_port

PROGRAMS = Path(sys.executable).parent
RUN = PROGRAMS / "c2c-otel-run"

APPLICATION = """
import os
from pyramid.config import Configurator

def hello(request):
    said = request.registry.settings["said"]
    return {"parent": os.getppid(), "client": request.client_addr, "said": said}

def main(global_config, **settings):
    config = Configurator(settings=settings)
    if settings.get("include") != "no":
        config.include("c2c_otel")
    config.add_route("hello", "/hello")
    config.add_view(hello, route_name="hello", renderer="json")
    return config.make_wsgi_app()

def broken(global_config, **settings):
    return settings.nothing_of_that_name
"""

INI = """
[app:main]
use = call:shop:main
said = %(SAID)s
"""

LOGGING = """
[loggers]
keys = root, gunicorn
[handlers]
keys = json
[formatters]
keys = generic
[logger_root]
level = INFO
handlers = %(LOG_TYPE)s
[logger_gunicorn]
level = %(GUNICORN_LOG_LEVEL)s
handlers =
qualname = gunicorn.error
[handler_json]
class = c2c_otel.pyramid_logging.JsonLogHandler
args = (sys.stdout,)
[formatter_generic]
format = %(asctime)s %(message)s
"""


def environment(directory: Path, **more: str) -> dict[str, str]:
    ours = ("C2C", "OTEL_", "STATSD_", "GUNICORN_", "LOG_", "COVERAGE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **clean,
        "C2CWSGIUTILS_CONFIG": str(directory / "shop.ini"),
        "C2C_RUNTIME_DIR": str(directory / "runtime"),
        "SAID": "50%40 of it",
        "PYTHONUNBUFFERED": "1",
        **more,
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "shop.ini").write_text(INI)
    return tmp_path


class Running:
    def __init__(self, process: Process, directory: Path, port: int) -> None:
        self.process, self.directory, self.url = process, directory, f"http://127.0.0.1:{port}"

    def get(self, path: str, **headers: str) -> str:
        request = urllib.request.Request(self.url + path, headers={"Connection": "close", **headers})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())

    def stdout(self) -> str:
        return (self.directory / "stdout").read_text()


@contextmanager
def running(directory: Path, *arguments: str, params: str = "", **environ: str) -> Iterator[Running]:
    port = free_port()
    environ = {"GUNICORN_PARAMS": f"-b 127.0.0.1:{port} --no-control-socket {params}", **environ}
    out, err = directory / "stdout", directory / "stderr"
    process = Process([RUN, *arguments], out, errors=err, env=environment(directory, **environ), cwd=directory)
    try:
        one = Running(process, directory, port)
        process.wait_until("an answer", lambda: one.get("/hello"), 40)
        yield one
    finally:
        process.stop()


def ended(directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Of one that should end by itself: a loop of restarts would not."""
    port = free_port()
    environ = {"GUNICORN_PARAMS": f"-b 127.0.0.1:{port} --workers 1 --no-control-socket", **environ}
    return subprocess.run(
        [RUN, *arguments],
        cwd=directory,
        env=environment(directory, **environ),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("params", ["--workers 2", "--workers 2 --preload"], ids=["each", "preload"])
def test_it_serves_becomes_gunicorn_and_ends_with_0(place: Path, params: str) -> None:
    with running(place, params=params) as service:
        said = json.loads(service.get("/hello", **{"X-Forwarded-For": "192.0.2.7"}))
        assert said["parent"] == service.process.pid  # gunicorn's arbiter is the very process that was started
        assert (said["client"], said["said"]) == ("192.0.2.7", "50%40 of it")
        assert 'http_route="/hello"' in service.get("/metrics")
        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        assert len(children) == 2
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait() == 0
        assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    assert "Traceback" not in (place / "stderr").read_text()


def test_an_application_without_the_include_is_behind_proxies_too(place: Path) -> None:
    (place / "shop.ini").write_text(f"{INI}include = no\nc2c.trusted_proxies = none\n")
    with running(place, "--workers", "1") as service:
        forwarded = {"X-Forwarded-For": "192.0.2.7"}
        assert json.loads(service.get("/hello", **forwarded))["client"] == "127.0.0.1"  # the ini trusts nobody
        assert 'http_route="/hello"' in service.get("/metrics")
    (place / "shop.ini").write_text(f"{INI}include = no\n")
    with running(place, "--workers", "1") as service:
        assert json.loads(service.get("/hello", **forwarded))["client"] == "192.0.2.7"


def test_arguments_come_after_those_of_the_environment(place: Path) -> None:
    words = "--workers 3 --worker-class gthread --access-logformat 'a %(h)s  \"b\"' --access-logfile -"
    with running(place, "--workers", "1", "--threads", "2", params=words) as service:
        service.get("/hello")
        assert len(Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()) == 1
        service.process.wait_until("the access log", lambda: 'a 127.0.0.1  "b"' in service.stdout())


@pytest.mark.parametrize("params", ["", "--preload"], ids=["each", "preload"])
def test_the_ini_sets_up_logging_from_the_first_line_of_the_arbiter(place: Path, params: str) -> None:
    (place / "shop.ini").write_text(INI + LOGGING)
    log = {"LOG_TYPE": "json", "GUNICORN_LOG_LEVEL": "INFO"}
    with running(place, params=f"--workers 1 {params}", **log) as service:
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait() == 0
        lines = [json.loads(line) for line in service.stdout().splitlines()]
    messages = [line["msg"] for line in lines]
    assert messages[0].startswith("Starting gunicorn")
    assert len(messages) == len(set(messages)), "each line once"
    assert {line["logger_name"] for line in lines} == {"gunicorn.error"}
    assert (place / "stderr").read_text() == ""


def test_logging_that_only_fails_when_it_is_set_up_is_said_without_traceback(place: Path) -> None:
    (place / "shop.ini").write_text(INI + LOGGING.replace("JsonLogHandler", "NoSuchHandler"))
    done = ended(place, LOG_TYPE="json")
    assert done.returncode == 1
    assert f"C2CWSGIUTILS_CONFIG is '{place}/shop.ini'; its logging cannot be set up" in done.stderr
    assert "NoSuchHandler" in done.stderr


@pytest.mark.parametrize(
    ("ini", "environ", "message"),
    [
        (
            None,
            {},
            "C2CWSGIUTILS_CONFIG is '{ini}'; expected an ini file that can be read. Put it there, or name yours: ",
        ),
        ("garbage", {}, "C2CWSGIUTILS_CONFIG is '{ini}'; expected an ini file. MissingSectionHeaderError"),
        ("[server:main]\n", {}, "is '{ini}'; expected an ini file with an application: a section [app:main]."),
        (
            "[app:main]\na = %(NOBODY_SETS_THIS)s\n",
            {},
            "a in [app:main] refers to %(NOBODY_SETS_THIS)s, which is not set."
            " Set the environment variable NOBODY_SETS_THIS.",
        ),
        ("[app:main]\nuse = egg:x\nc2c.stats_view = maybe\n", {}, "c2c.stats_view is 'maybe'; expected one of 1, true"),
        (INI, {"STATSD_ADDRESS": "x"}, "STATSD_ADDRESS is 'x'; expected host:port"),
        (
            INI,
            {"GUNICORN_PARAMS": "-b ':80"},
            'GUNICORN_PARAMS is "-b \':80"; expected words as in a shell. No closing',
        ),
        (
            INI + LOGGING.replace("level = INFO", "level = %(X)s"),
            {},
            "expected logging that can be read. level in [logger_root] refers to %(X)s, which is not set.",
        ),
        (INI + LOGGING.replace("keys = json", "keys = json, two"), {}, "No section: 'handler_two'"),
    ],
)
def test_what_can_be_seen_to_be_wrong_ends_it_with_2(
    place: Path, ini: str | None, environ: dict[str, str], message: str
) -> None:
    if ini is None:
        (place / "shop.ini").unlink()
    else:
        (place / "shop.ini").write_text(ini)
    done = ended(place, **environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("c2c-otel-run: ")
    assert message.format(ini=place / "shop.ini") in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("call:nowhere:main", "No module named 'nowhere'"),
        ("call:shop:broken", "The application cannot be made: 'dict' object has no attribute 'nothing_of_that_name'"),
        ("egg:no-such-distribution", "no-such-distribution"),
    ],
)
@pytest.mark.parametrize("preload", [False, True])
def test_an_application_that_cannot_be_loaded_ends_it_once(place: Path, use: str, message: str, preload: bool) -> None:
    (place / "shop.ini").write_text(f"[app:main]\nuse = {use}\n")
    done = ended(place, *(["--preload"] if preload else []))
    assert done.returncode in ((1,) if preload else (3, 4)), done.stderr
    assert message in done.stderr
    assert done.stderr.count("Booting worker") == (0 if preload else 1), "no restart"


@pytest.mark.parametrize("params", ["--workers 1", "--workers 1 --preload"], ids=["each", "preload"])
def test_coverage_is_what_the_requests_have_reached(place: Path, params: str) -> None:
    for requested in (False, True):
        collected = place / f"coverage-{requested}"
        with running(place, params=params, COVERAGE="1", C2C_COVERAGE_DIR=str(collected)) as service:
            if requested:
                service.get("/hello")
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait() == 0
        assert len(list(collected.glob("coverage.*"))) == (2 if "preload" in params else 1)
    report = [
        PROGRAMS / "c2c-otel-coverage-report",
        "--data",
        str(collected),
        "--output",
        str(place / "report"),
        "shop",
    ]
    for _ in range(2):  # what was collected stays
        done = subprocess.run(report, cwd=place, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
    xml = (place / "report" / "coverage.xml").read_text()
    hits = {
        line.split('number="')[1].split('"')[0]: 'hits="1"' in line for line in xml.splitlines() if "<line " in line
    }
    numbers = {text.strip(): str(number) for number, text in enumerate(APPLICATION.splitlines(), 1)}
    assert hits[numbers["config = Configurator(settings=settings)"]]
    assert hits[next(number for text, number in numbers.items() if text.startswith('return {"parent"'))]
    assert not hits[numbers["return settings.nothing_of_that_name"]]
    assert (place / "report" / "index.html").exists()


def test_coverage_of_nothing_is_1(place: Path) -> None:
    report = [PROGRAMS / "c2c-otel-coverage-report", "--data", str(place), "shop"]
    done = subprocess.run(report, cwd=place, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "COVERAGE=1" in done.stderr


def test_an_upgrade_by_usr2_goes_on(place: Path) -> None:
    with running(place, "--workers", "1", "--pid", str(place / "pid")) as service:
        service.get("/hello")
        service.process.send_signal(signal.SIGUSR2)
        new = place / "pid.2"
        service.process.wait_until("the new arbiter", lambda: new.exists() and int(new.read_text()), 30)
        parents = set()

        def both() -> bool:
            parents.add(json.loads(service.get("/hello"))["parent"])
            return len(parents) == 2

        pid = int(new.read_text())
        try:
            service.process.wait_until("both to answer", both, 40)
            assert parents == {service.process.pid, pid}
        finally:
            os.kill(pid, signal.SIGTERM)


def test_help_names_the_settings() -> None:
    done = subprocess.run([RUN, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    for part in ("GUNICORN_PARAMS", "C2CWSGIUTILS_CONFIG", "examples:", "exit codes:"):
        assert part in done.stdout
