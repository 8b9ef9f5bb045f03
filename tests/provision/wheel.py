"""Build sdist and wheel, install the wheel alone in a clean environment, and use it as a stranger would.

Run by `make test` with .venv's Python. Nothing of the work tree is importable there: what the wheel lacks is missed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from c2c_otel import cli

ROOT = Path(__file__).resolve().parents[2]
SERVICE = """\
from pyramid.config import Configurator
from webob import Request

with Configurator() as config:
    config.add_route("hello", "/hello/{name}")
    config.add_view(lambda request: {"hello": request.matchdict["name"]}, route_name="hello", renderer="json")
    application = config.make_wsgi_app()
answer = Request.blank("/hello/wheel", headers={"X-Request-ID": "from-the-smoke-test"}).get_response(application)
print(answer.status, answer.text, answer.headers["X-Request-ID"], *sorted(answer.headers))
print(Request.blank("/metrics").get_response(application).text)
"""


def main() -> None:
    """Exits with the first thing that is wrong."""
    with tempfile.TemporaryDirectory(prefix="c2c-wheel-") as name:
        directory = Path(name).resolve()
        run(sys.executable, "-m", "build", "--outdir", str(directory / "dist"), str(ROOT))
        (wheel,) = (directory / "dist").glob("*.whl")
        (sdist,) = (directory / "dist").glob("*.tar.gz")
        run(sys.executable, "-m", "venv", "--without-pip", str(directory / "venv"))
        python = directory / "venv" / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
        run(*pip, "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
        use(directory, python)
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        (ROOT / "dist").mkdir()
        for file in (wheel, sdist):
            shutil.copy(file, ROOT / "dist")
            print(f"dist/{file.name}: {file.stat().st_size // 1024} kB")


def use(directory: Path, python: Path) -> None:
    """What a first user does: import it, look at the settings, run a service, mistype a command."""
    tools = python.parent
    packages = "import c2c_otel, c2c_otel_exporters, c2c_otel_views; print(c2c_otel.__file__)"
    expect(run(str(python), "-c", packages, cwd=directory), str(directory))
    expect(run(str(tools / "c2c-otel"), "config", cwd=directory), "STATSD_ADDRESS")
    commands(directory, tools)
    (directory / "service.py").write_text(SERVICE)
    said = run(str(tools / "c2c-otel-instrument"), str(python), "service.py", cwd=directory)
    expect(said, '200 OK {"hello": "wheel"} from-the-smoke-test')
    expect(said, "Server-Timing")
    expect(said, "http_server_request_duration_seconds_count{", 'http_route="/hello/{name}"')
    run(str(tools / "c2c-otel-instrument"), "no-such-command", cwd=directory, code=127)


def commands(directory: Path, tools: Path) -> None:
    """Every script is installed, and says how it is used, also without the extra that it needs; one does its work."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name in declared:
        expect(run(str(tools / name), "--help", cwd=directory), "usage: ", name)
    for name in cli.COMMANDS:
        expect(
            run(str(tools / "c2c-otel"), name, "--help", cwd=directory),
            f"usage: c2c-otel{'-' * (f'c2c-otel-{name}' in declared) or ' '}{name}",
        )
    run(str(tools / "c2c-otel-genversion"), "1.0", "0a1b2c3", cwd=directory)
    expect((directory / "versions.json").read_text(), '"c2c-otel": "')
    run(str(tools / "c2c-otel-run"), cwd=directory, code=2)  # there is no /app/production.ini
    run(str(tools / "c2c-otel"), "doctor", cwd=directory)


def run(*command: str, cwd: Path = ROOT, code: int = 0) -> str:
    """Its standard output. The environment is the caller's without what sets up telemetry or Python's path."""
    ours = ("C2C_", "OTEL_", "STATSD_", "LOG_", "PYTHONPATH")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    if done.returncode != code:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def expect(text: str, *parts: str) -> None:
    """Every part in one line of the text, in that order."""
    for line in text.splitlines():
        position = 0
        for part in parts:
            position = line.find(part, position)
            if position < 0:
                break
        else:
            return
    sys.exit(f"{parts} is missing in\n{text}")


if __name__ == "__main__":
    main()
