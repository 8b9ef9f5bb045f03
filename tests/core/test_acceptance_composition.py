"""`Composition` drives a stand-in for ``docker``: a program, first on PATH, that writes down how it was called."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from c2c_otel.acceptance import network
from c2c_otel.acceptance.composition import Composition, CompositionError, environment
from tests.servers import wait_until

VARIABLES = ("docker_start", "docker_stop", "DOCKER_RUN", "DOCKER_TAG", "DOCKER_IP", "DOCKER_CB_HOST", "TEST_IP")
STAND_IN = """\
#!{python} -S
import json, os, sys, time
from pathlib import Path

here = Path(__file__).resolve().parent
args = sys.argv[1:]
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([args, os.getcwd(), {{name: os.environ.get(name) for name in {variables!r}}}]) + "\\n")
command = next((arg for arg in args[1:] if not arg.startswith("--")), "") if args[:1] == ["compose"] else args[0]
for rule in json.loads((here / "rules").read_text()):
    if rule["command"] == command and rule["times"] > 0:
        rule["times"] -= 1
        rules = json.loads((here / "rules").read_text())
        next(one for one in rules if one["id"] == rule["id"])["times"] -= 1
        (here / "rules").write_text(json.dumps(rules))
        sys.stdout.write(rule["out"])
        sys.stderr.write(rule["err"])
        sys.exit(rule["code"])
if command == "logs":  # until the services have stopped, as Docker's
    print("app-1  | listening", flush=True)
    (here / "listening").touch()
    while not (here / "stopped").exists():
        time.sleep(0.01)
    print("app-1  | bye", flush=True)
if command == "stop" and args[-1] == "stop" and (here / "calls").read_text().count("logs"):
    (here / "stopped").touch()
if command in ("run", "exec"):
    print("said:", *args[args.index(command) + 1:], sys.stdin.read())
    print("on the side", file=sys.stderr)
"""


class Docker:
    """What it was asked, and what it shall answer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rules: list[dict[str, Any]] = []
        program = directory / "docker"
        program.write_text(STAND_IN.format(python=sys.executable, variables=VARIABLES))
        program.chmod(0o755)
        self._write()

    def _write(self) -> None:
        (self.directory / "rules").write_text(json.dumps(self.rules))

    def answers(self, command: str, code: int = 0, out: str = "", err: str = "", times: int = 999) -> None:
        rule = {"id": len(self.rules), "command": command, "code": code, "out": out, "err": err, "times": times}
        self.rules.append(rule)
        self._write()

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of each call, in order, without those that are always there."""
        always = ["compose", "--ansi=never", "--file=docker-compose.yaml", "--project-name=shop"]
        found = []
        for args, _, _ in self.all():
            assert args[:4] == always or args == ["compose", "version"], args
            found.append(args[4:] if args[:4] == always else args[1:])
        return found

    def all(self) -> list[tuple[list[str], str, dict[str, str | None]]]:
        file = self.directory / "calls"
        return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


class Request:
    """A pytest request's finalizers."""

    def __init__(self) -> None:
        self.finalizers: list[Callable[[], object]] = []

    def addfinalizer(self, finalizer: Callable[[], object]) -> None:
        self.finalizers.append(finalizer)

    def finish(self) -> None:
        while self.finalizers:
            self.finalizers.pop()()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr("c2c_otel.acceptance.composition.time", SimpleNamespace(sleep=slept.append))
    return slept


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    (tmp_path / "bin").mkdir()
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Docker(tmp_path / "bin")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "compose").mkdir()
    file = tmp_path / "compose" / "docker-compose.yaml"
    file.write_text("services: {app: {image: scratch}}\n")
    return file


@pytest.fixture
def request_(docker: Docker) -> Any:
    request = Request()
    yield request
    request.finish()


START = [["version"], ["stop"], ["rm", "--force"], ["build"], ["up", "--detach"]]
LOGS = ["logs", "--follow", "--no-color"]


def made(request: Request, docker: Docker, file: Path, **more: Any) -> Composition:
    composition = Composition(request, "shop", file, **more)
    wait_until("the logs", lambda: LOGS in docker.calls)
    return composition


def test_from_start_to_stop(
    request_: Request, docker: Docker, file: Path, capsys: pytest.CaptureFixture[str], slept: list[float]
) -> None:
    made(request_, docker, file)
    assert docker.calls == [*START, LOGS]
    assert {cwd for _, cwd, _ in docker.all()} == {str(file.parent)}
    wait_until("a line", lambda: "app-1  | listening" in capsys.readouterr().out)
    request_.finish()
    assert docker.calls == [*START, LOGS, ["stop"]]
    assert capsys.readouterr().out == "app-1  | bye\n"
    assert slept == []


def test_a_composition_that_runs_already(
    request_: Request, docker: Docker, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("docker_start", "0")
    monkeypatch.setenv("docker_stop", "0")
    made(request_, docker, file)
    request_.finish()
    assert docker.calls == [["version"], LOGS]


@pytest.mark.parametrize("value", ["1", ""])
def test_the_default_in_words(
    request_: Request, docker: Docker, file: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("docker_start", value)
    monkeypatch.setenv("docker_stop", value)
    made(request_, docker, file)
    request_.finish()
    assert docker.calls == [*START, LOGS, ["stop"]]


def test_what_an_earlier_run_has_left_need_not_be_there(
    request_: Request, docker: Docker, file: Path, slept: list[float]
) -> None:
    docker.answers("stop", 1, times=1)
    docker.answers("rm", 1)
    made(request_, docker, file)
    assert docker.calls == [*START, LOGS]
    assert slept == []


def test_a_start_is_tried_again(request_: Request, docker: Docker, file: Path, slept: list[float]) -> None:
    docker.answers("up", 1, times=2)
    made(request_, docker, file)
    assert docker.calls == [*START, START[-1], START[-1], LOGS]
    assert slept == [10, 10]


def test_a_start_that_fails_says_why_and_is_stopped(
    request_: Request, docker: Docker, file: Path, slept: list[float]
) -> None:
    docker.answers("up", 17, out="Container db  Started\n", err="Error: port is already allocated\n")
    with pytest.raises(CompositionError) as caught:
        Composition(request_, "shop", file)
    first, *said = str(caught.value).splitlines()
    assert first == (
        "docker compose --ansi=never --file=docker-compose.yaml --project-name=shop up --detach: exit code 17"
    )
    assert sorted(said) == ["Container db  Started", "Error: port is already allocated"]  # two pipes, in no order
    assert isinstance(caught.value, subprocess.CalledProcessError)
    assert len(slept) == 4
    before = len(docker.calls)
    request_.finish()
    assert docker.calls[before:] == [["stop"]]


def test_without_docker(request_: Request, docker: Docker, file: Path, slept: list[float]) -> None:
    (docker.directory / "docker").unlink()
    with pytest.raises(FileNotFoundError, match="docker is not on PATH: install Docker with its Compose plugin"):
        Composition(request_, "shop", file)
    assert (request_.finalizers, slept) == ([], [])


def test_without_compose(request_: Request, docker: Docker, file: Path, slept: list[float]) -> None:
    docker.answers("version", 1, err="docker: unknown command: docker compose\n")
    with pytest.raises(CompositionError, match=r"(?s)^docker compose version: .*unknown command.*Compose plugin\.$"):
        Composition(request_, "shop", file)
    assert (request_.finalizers, slept, docker.calls) == ([], [], [["version"]])


def test_without_a_file(request_: Request, docker: Docker, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"composition .*/none\.yaml: no such file"):
        Composition(request_, "shop", tmp_path / "none.yaml")
    assert docker.all() == []


def test_commands(request_: Request, docker: Docker, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    composition = made(request_, docker, file)
    before = len(docker.calls)
    docker.answers("ps", out="NAME\n", err="a warning\n")
    composition.stop("db")
    composition.restart("db")
    assert "NAME" in (said := composition.dc(["ps"])) and "a warning" in said
    assert composition.dc(("ps",), stderr=subprocess.PIPE) == "NAME\n"
    with caplog.at_level(logging.INFO):
        assert composition.run("app", "alembic", "upgrade", "head") == "said: --rm -T app alembic upgrade head \n"
    assert "on the side" in caplog.text
    assert composition.exec("db", "psql", "-c", "SELECT 1") == "said: -T db psql -c SELECT 1 \n"
    assert composition.exec("db", "psql", input="SELECT 2") == "said: -T db psql SELECT 2\n"
    assert docker.calls[before:] == [
        ["stop", "db"],
        ["restart", "db"],
        ["ps"],
        ["ps"],
        ["run", "--rm", "-T", "app", "alembic", "upgrade", "head"],
        ["exec", "-T", "db", "psql", "-c", "SELECT 1"],
        ["exec", "-T", "db", "psql"],
    ]


def test_commands_that_fail(request_: Request, docker: Docker, file: Path, slept: list[float]) -> None:
    composition = made(request_, docker, file)
    docker.answers("exec", 3, err="no such service: nobody\n")
    with pytest.raises(CompositionError, match=r"exec -T nobody true: exit code 3\nno such service: nobody$") as caught:
        composition.exec("nobody", "true")
    assert caught.value.returncode == 3
    docker.answers("restart", 1)
    composition.dc_try(["restart", "app"], fail=False, times=2, delay=3)
    assert slept == [3]
    with pytest.raises(CompositionError):
        composition.dc_try(["restart", "app"], times=3, delay=4)
    assert slept == [3, 4, 4]
    assert docker.calls.count(["restart", "app"]) == 5


def test_long_output_is_shown_from_its_end() -> None:
    said = str(CompositionError(1, ["docker"], "begin" + "x" * 9000 + "end"))
    assert len(said) < 4100
    assert said.endswith("xend")


def test_a_command_that_hangs(request_: Request, docker: Docker, file: Path) -> None:
    composition = made(request_, docker, file)
    with pytest.raises(subprocess.TimeoutExpired):
        composition.dc(["logs", "--follow"], timeout=0.3)


def test_coverage_is_fetched_once_the_services_have_stopped(
    request_: Request, docker: Docker, file: Path, tmp_path: Path
) -> None:
    reports = tmp_path / "reports"
    paths = ["app:/tmp/coverage", "shop_app_1:/tmp/coverage/api", "shop-the-app-2:/tmp/c"]
    made(request_, docker, file, coverage_paths=paths, reports=reports)
    request_.finish()
    assert reports.is_dir()
    assert docker.calls[-4:] == [
        ["stop"],
        ["cp", "app:/tmp/coverage", str(reports)],
        ["cp", "--index=1", "app:/tmp/coverage/api", str(reports)],
        ["cp", "--index=2", "the-app:/tmp/c", str(reports)],
    ]


def test_coverage_that_is_not_there(
    request_: Request, docker: Docker, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    docker.answers("cp", 1, err="no such file\n")
    docker.answers("ps", out="app is gone\n")
    composition = made(request_, docker, file, coverage_paths=["app:/tmp/coverage"], reports=tmp_path / "reports")
    with pytest.raises(CompositionError, match="no such file"):
        request_.finish()
    assert "app is gone" in caplog.text
    assert composition._logs is None  # nothing is left running


def test_services_that_keep_logging_do_not_keep_the_tests(
    request_: Request, docker: Docker, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("docker_stop", "0")
    composition = made(request_, docker, file)
    logs, reader = composition._logs, composition._reader
    assert logs is not None and reader is not None and logs.poll() is None
    request_.finish()
    assert logs.poll() is not None
    assert not reader.is_alive()


def test_variables_for_the_file(request_: Request, docker: Docker, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_TAG", "")
    made(request_, docker, file)
    seen = docker.all()[-1][2]
    assert (seen["DOCKER_TAG"], seen["DOCKER_CB_HOST"]) == ("latest", "localhost")
    assert (seen["DOCKER_IP"], seen["TEST_IP"]) == (network.docker_host(), network.own_address())


def test_variables_inside_a_container(monkeypatch: pytest.MonkeyPatch, docker: Docker) -> None:
    monkeypatch.setenv("DOCKER_RUN", "1")
    monkeypatch.setenv("OTHER", "")
    seen = environment()
    assert seen["DOCKER_IP"] == seen["DOCKER_CB_HOST"] == network.default_gateway()
    assert seen["OTHER"] == ""


def test_variables_that_are_set_are_kept(monkeypatch: pytest.MonkeyPatch, docker: Docker) -> None:
    given = {"DOCKER_TAG": "v2", "DOCKER_IP": "10.0.0.1", "DOCKER_CB_HOST": "docker", "TEST_IP": "10.0.0.2"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert environment().items() >= given.items()


SUITE = """
import time
from pathlib import Path
import pytest
from c2c_otel.acceptance.composition import Composition
from c2c_otel.acceptance.utils import retry_timeout

@pytest.fixture(scope="session")
def composition(request):
    return Composition(request, "shop", "compose/docker-compose.yaml")

def test_the_first(composition):
    retry_timeout(Path("bin/listening").exists, interval=0.05)
    time.sleep(0.2)
    assert not "this fails"

def test_the_second(composition):
    assert composition.exec("app", "true").startswith("said:")
"""


def test_in_a_session_of_pytest(docker: Docker, file: Path, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_suite.py"]
    done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=60)
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "app-1  | listening" in done.stdout
    assert docker.calls[:5] == START
    assert docker.calls[-1] == ["stop"]
