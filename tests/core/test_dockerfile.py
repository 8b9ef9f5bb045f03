"""The Dockerfile: linted, and its Python steps run in a clean environment, which then serves, answers and stops."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from c2c_otel import __version__
from c2c_otel.commands import alive
from c2c_otel.migration import docker as migrated
from c2c_otel.settings import Settings, rows
from tests.provision import image

TEXT = (image.ROOT / "Dockerfile").read_text()
STAGES = image.read(TEXT)
BY_NAME = {stage.name: stage for stage in STAGES}


def test_targets() -> None:
    assert [stage.name for stage in STAGES][-2:] == ["light", "full"], "the last one is what is built without --target"
    assert BY_NAME["full"].base == "light"
    assert [stage.name for stage in image.chain(STAGES, "light")] == ["base", "build", "light"]


def test_the_base_is_a_slim_debian_of_one_release() -> None:
    outside = {stage.base for stage in STAGES} - set(BY_NAME)
    assert len(outside) == 1
    assert re.fullmatch(r"debian:[a-z]+-slim(@sha256:[0-9a-f]{64})?", outside.pop())


@pytest.mark.parametrize("target", ["light", "full"])
def test_who_runs_and_how(target: str) -> None:
    user = BY_NAME[target].last("USER")
    assert user == migrated.USER and int(user) >= 10_000
    light = BY_NAME["light"]
    assert f"useradd --uid {user} " in str(light.steps)
    assert light.last("CMD") == '["c2c-otel-run"]'
    assert str(light.last("HEALTHCHECK")).endswith('CMD ["c2c-otel", "alive"]')
    assert light.last("STOPSIGNAL") == "SIGTERM"
    assert light.last("WORKDIR") == "/app"
    assert f'image.version="{__version__}"' in str(light.last("LABEL"))


def test_no_secret_and_only_settings_that_exist() -> None:
    environ = image.environment(STAGES, "full")
    known = {row.env for row in rows()}
    ours = {name for name in environ if name.startswith(("C2C", "STATSD", "LOG_", "OTEL_", "GUNICORN_PARAMS"))}
    assert ours <= known | {"LOG_HOST", "LOG_PORT"}
    assert not [name for name in environ if re.search("SECRET|PASSWORD|TOKEN|KEY", name)]
    assert "c2crulez" not in TEXT
    settings = Settings.load(environ)
    assert settings.gunicorn_params == Settings().gunicorn_params
    assert (settings.secret, dict(settings.redis_options)) == (None, {"socket_timeout": 3})
    contract = {"LOG_TYPE": "console", "LOG_LEVEL": "INFO", "OTHER_LOG_LEVEL": "WARN", "SQL_LOG_LEVEL": "WARN"}
    assert contract.items() <= environ.items()


def test_nothing_is_left_of_an_installation() -> None:
    for stage in STAGES:
        for name, text in stage.steps:
            assert name != "ADD"
            if "apt-get install" in text:
                assert "apt-get update" in text and text.endswith("rm -rf /var/lib/apt/lists/*")
                assert "--no-install-recommends" in text and "--yes" in text
            if "pip install" in text:
                assert "--no-cache-dir" in text and "--constraint constraints.txt" in text


def test_only_what_is_copied_reaches_the_builder() -> None:
    ignore = image.Ignore((image.ROOT / ".dockerignore").read_text())
    for path in (".git/config", ".env", ".venv/bin/python", "tests/conftest.py", "c2c_otel/__pycache__/a.pyc", "x.ini"):
        assert ignore.hides(path), path
    for stage in STAGES:
        for name, text in stage.steps:
            if name == "COPY" and "--from=" not in text:
                for source in text.split()[:-1]:
                    assert (image.ROOT / source).exists() and not ignore.hides(source), source


def test_hadolint() -> None:
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("hadolint has no wheel for this machine")
    done = subprocess.run(
        [program, "--no-color", str(image.ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")
    broken = TEXT.replace("--no-install-recommends ", "", 1)
    done = subprocess.run([program, "-"], input=broken, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "DL3015" in done.stdout, "it looks"


def codename() -> str:
    match = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    return match[1] if match else ""


def test_packages_exist() -> None:
    wanted = image.packages(STAGES)
    assert {"python3", "gdal-bin", "build-essential"} <= wanted
    if shutil.which("apt-cache") is None or codename() not in STAGES[0].base:
        pytest.skip(f"this is no {STAGES[0].base}")
    said = subprocess.run(["apt-cache", "policy", *sorted(wanted)], capture_output=True, text=True, timeout=60).stdout
    known = set(re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (?!\(none\))", said, re.MULTILINE))
    if not Path("/var/lib/apt/lists").is_dir() or "python3" not in known:
        pytest.skip("apt has no lists here")
    lists = any(
        path.name.endswith("_Packages") or "_Packages." in path.name for path in Path("/var/lib/apt/lists").iterdir()
    )
    missing = sorted(wanted - known)
    if missing and not lists:
        pytest.skip(f"apt has no lists here, and these are not installed: {', '.join(missing)}")
    assert not missing


# -- the steps, run ---------------------------------------------------------------------------------------------------

INI = """\
[app:main]
use = call:service:main
greeting = hello at %(LOG_LEVEL)s
"""
SERVICE = """\
from pyramid.config import Configurator


def main(global_config, **settings):
    config = Configurator(settings=settings)
    config.include("c2c_otel")
    config.add_route("hello", "/hello")
    config.add_view(lambda request: settings["greeting"], route_name="hello", renderer="json")
    return config.make_wsgi_app()
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the steps of both targets make, those of apt apart. ``installed`` in it: what is in the environment of
    `light`, before that of `full` sees the system's packages."""
    root = tmp_path_factory.mktemp("image")
    assert len(image.build(image.chain(STAGES, "light"), root)) == 2
    code = "import importlib.metadata as m\nfor d in m.distributions(): print(f'{d.name.lower()}=={d.version}')"
    with open(root / "installed", "w") as listed:
        subprocess.run([root / "venv/bin/python", "-Ic", code], stdout=listed, check=True, cwd=root)
    assert len(image.build([BY_NAME["full"]], root)) == 1
    return root


def environ_of(root: Path, **more: str) -> dict[str, str]:
    plain = image.plain_environment(root) | image.environment(STAGES, "light") | more
    return plain | {"PATH": f"{root}/venv/bin:/usr/bin:/bin", "PYTHONPATH": str(root / "app"), "HOME": str(root)}


def health(root: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = re.findall(r'"([^"]*)"', str(BY_NAME["light"].last("HEALTHCHECK")))
    return subprocess.run(
        command,
        cwd=root,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        executable=str(root / "venv/bin" / command[0]),
    )


def test_what_is_installed(root: Path) -> None:
    python = root / "venv/bin/python"
    pins = dict(line.split("==") for line in (image.ROOT / "constraints.txt").read_text().split())
    installed = dict(line.split("==") for line in (root / "installed").read_text().split())
    assert installed["c2c-otel"] == __version__
    assert {"gunicorn", "alembic", "psycopg", "psycopg2-binary", "requests", "sqlalchemy"} <= set(installed)
    assert not {"pytest", "libcst", "hypothesis", "mypy"} & set(installed), "tools of developers"
    pinned = set(installed) & set(pins)
    assert len(pinned) > 30 and {name: installed[name] for name in pinned} == {name: pins[name] for name in pinned}
    where = "import c2c_otel, psycopg2; print(c2c_otel.__file__)"
    assert subprocess.run([python, "-Ic", where], capture_output=True, text=True, check=True).stdout.startswith(
        str(root)
    )


def test_full_sees_the_systems_packages_and_keeps_its_own(root: Path) -> None:
    settings = (root / "venv/pyvenv.cfg").read_text()
    assert "include-system-site-packages = true" in settings
    assert (root / "venv/bin/pip").exists()


def test_it_serves_answers_and_stops(root: Path) -> None:
    (root / "app/production.ini").write_text(INI)
    (root / "app/service.py").write_text(SERVICE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    parameters = f"-b :{port} --workers 2 --threads 2 --worker-class gthread --no-control-socket"
    environ = environ_of(root, C2CWSGIUTILS_CONFIG=str(root / "app/production.ini"), GUNICORN_PARAMS=parameters)
    dead = health(root, environ)
    assert dead.returncode == 1 and "ConnectionRefusedError" in dead.stderr
    command = [str(root / "venv/bin" / re.findall(r'"([^"]*)"', str(BY_NAME["light"].last("CMD")))[0])]
    with open(root / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=root / "app", env=environ, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 40
        while health(root, environ).returncode != 0:
            assert process.poll() is None and time.monotonic() < deadline, (root / "log").read_text()
            time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /hello HTTP/1.0\r\n\r\n")
            answer = connection.makefile("rb").read().decode()
        assert re.match("HTTP/1.[01] 200 OK", answer) and answer.endswith('"hello at INFO"')
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(40) == 0, (root / "log").read_text()
    finally:
        process.kill()
        process.wait()


# -- c2c-otel alive ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "url"),
    [
        ("-b :8080 --workers 5", "http://127.0.0.1:8080/c2c/health_check/live"),
        ("-b:80", "http://127.0.0.1:80/c2c/health_check/live"),
        ("--bind=0.0.0.0:9000 --bind 10.0.0.1:9001", "http://127.0.0.1:9000/c2c/health_check/live"),
        ("--threads 3 --bind [::]:8080", "http://[::1]:8080/c2c/health_check/live"),
        ("--bind 10.1.2.3", "http://10.1.2.3:8000/c2c/health_check/live"),
        ("--workers 3", "http://127.0.0.1:8000/c2c/health_check/live"),
        ("-b unix:/run/s.sock", "unix:/run/s.sock?/c2c/health_check/live"),
        ("-b :8443 --certfile /c.pem", "https://127.0.0.1:8443/c2c/health_check/live"),
    ],
)
def test_where_it_asks(parameters: str, url: str) -> None:
    assert alive.url_of(Settings(gunicorn_params=parameters)) == url


@pytest.mark.parametrize(
    ("ini", "path"),
    [
        ("[app:main]\nc2c.base_path = /ops\n", "/ops"),
        ("[app:main]\nc2c.base_path = %(NOBODY_SET_THIS)s\n", "/c2c"),
        (None, "/c2c"),
    ],
)
def test_the_base_path_of_the_ini_file(
    ini: str | None, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if ini is not None:
        (tmp_path / "production.ini").write_text(ini)
    monkeypatch.delenv("C2C_BASE_PATH", raising=False)
    monkeypatch.setenv("C2CWSGIUTILS_CONFIG", str(tmp_path / "production.ini"))
    monkeypatch.setenv("GUNICORN_PARAMS", f"-b unix:{tmp_path}/nobody")
    assert alive.main([]) == 1
    assert f"unix:{tmp_path}/nobody?{path}/health_check/live: FileNotFoundError" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [(200, 0), (404, 0), (403, 0), (500, 1), (503, 1)])
def test_any_answer_of_a_worker_will_do(
    tmp_path: Path, status: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    seen: list[bytes] = []

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            seen.append(connection.recv(4096))
            connection.sendall(f"HTTP/1.0 {status} Whatever\r\n\r\n".encode())

    thread = threading.Thread(target=answer)
    thread.start()
    monkeypatch.setenv("GUNICORN_PARAMS", f"-b unix:{tmp_path}/s")
    monkeypatch.setenv("C2C_BASE_PATH", "/ops")
    try:
        assert alive.main([]) == code
    finally:
        thread.join(10)
        listener.close()
    assert seen[0].startswith(b"GET /ops/health_check/live HTTP/1.1\r\n")
    assert b"\r\nHost: localhost\r\n" in seen[0]
    assert (str(status) in capsys.readouterr().err) == bool(code)


# -- the sample for development ---------------------------------------------------------------------------------------


def test_the_compose_sample() -> None:
    sample = yaml.safe_load((image.ROOT / "docker-compose.sample.yml").read_text())
    service = sample["services"]["app"]
    environ = service["environment"]
    assert "--reload" in environ["GUNICORN_PARAMS"]
    assert any(volume.endswith(":/app/myapp:ro") for volume in service["volumes"])
    assert alive.url_of(Settings(gunicorn_params=environ["GUNICORN_PARAMS"])).startswith("http://127.0.0.1:8080/")
    assert set(environ) - {"SQLALCHEMY_URL", "SQLALCHEMY_URL_SLAVE"} <= {row.env for row in rows()}
    assert "C2C_SECRET" in environ and environ["C2C_SECRET"].startswith("${"), "from outside"
    Settings.load({key: str(value) for key, value in environ.items() if not str(value).startswith("${")})
