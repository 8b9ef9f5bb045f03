"""How a process comes to be instrumented: by our launcher, by OpenTelemetry's, by gunicorn programs of all kinds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(sys.executable).parent
Launch = Callable[..., subprocess.CompletedProcess[str]]

_LIBRARIES = """
import pyramid.config, redis, requests, sqlalchemy
from pyramid.request import Request
from redis.backoff import NoBackoff
from redis.retry import Retry
from c2c_otel.testing import capture
config = pyramid.config.Configurator()
config.add_route("home", "/")
config.add_view(lambda request: {}, route_name="home", renderer="json")
app = config.make_wsgi_app()
with capture() as captured:
    Request.blank("/").get_response(app).body
    with sqlalchemy.create_engine("sqlite://").connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    try:
        requests.get("http://127.0.0.1:1/", timeout=1)
    except OSError:
        pass
    try:
        redis.Redis(port=1, retry=Retry(NoBackoff(), 0)).get("x")
    except redis.ConnectionError:
        pass
    names = [name for name in captured.statsd_names()]
    print(sorted(names), sorted(span.name for span in captured.spans))
"""
_ALL = (
    "['redis.GET', 'redis.GET.failure', 'render.GET.home.200', 'requests.http.127_0_0_1.1.GET.999', "
    "'route.GET.home.200', 'sql.SELECT__'] ['GET', 'GET', 'GET /', 'ROLLBACK', 'SELECT', 'render json']\n"
)


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Run a program of the environment with that Python code as its last argument."""

    def launch(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("C2C_", "OTEL_", "STATSD_", "LOG_", "COVERAGE", "PYTHON"))
        }
        return subprocess.run(
            [str(PROGRAMS / words[0]), *words[1:]],
            env={**clean, "C2C_RUNTIME_DIR": str(tmp_path / "run"), **environ},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return launch


def test_our_launcher_instruments_all_four(launch: Launch) -> None:
    done = launch("c2c-otel-instrument", sys.executable, "-c", _LIBRARIES)
    assert (done.stdout, done.stderr) == (_ALL, "")


def test_opentelemetrys_launcher_does_the_same_with_our_distro(launch: Launch) -> None:
    """Each once, and no word about the version of SQLAlchemy that contrib's instrumentor is too old for."""
    chosen = {"OTEL_PYTHON_DISTRO": "c2c", "OTEL_PYTHON_CONFIGURATOR": "c2c"}
    done = launch("opentelemetry-instrument", sys.executable, "-c", _LIBRARIES, **chosen)
    assert (done.stdout, done.stderr) == (_ALL, "")


def test_an_application_that_uses_contribs_instrumentors_has_each_span_once(launch: Launch) -> None:
    contrib = """
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.instrumentation.pyramid import PyramidInstrumentor
for each in (RedisInstrumentor, RequestsInstrumentor, SQLAlchemyInstrumentor, PyramidInstrumentor):
    each().instrument()
"""
    done = launch("c2c-otel-instrument", sys.executable, "-c", contrib + _LIBRARIES)
    assert done.stdout == _ALL
    assert done.stderr == "Attempting to instrument while already instrumented\n" * 4


@pytest.mark.parametrize(
    ("setting", "gone"),
    [
        (
            {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis,sqlalchemy"},
            {"redis.GET", "redis.GET.failure", "sql.SELECT__"},
        ),
        ({"C2C_TRACK_REDIS": "0"}, {"redis.GET", "redis.GET.failure"}),
    ],
)
def test_what_is_turned_off_is_left_alone(launch: Launch, setting: dict[str, str], gone: set[str]) -> None:
    done = launch("c2c-otel-instrument", sys.executable, "-c", _LIBRARIES, **setting)
    names = done.stdout.partition("]")[0]
    every = _ALL.partition("]")[0].strip("['").split("', '")
    assert names == str(sorted(set(every) - gone)).rstrip("]"), done.stderr


def test_everything_can_be_turned_off(launch: Launch) -> None:
    done = launch("c2c-otel-instrument", sys.executable, "-c", _LIBRARIES, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="*")
    assert (done.stdout, done.stderr) == ("[] []\n", "")


def test_a_child_program_is_instrumented_too_and_belongs_to_the_run(launch: Launch, tmp_path: Path) -> None:
    child = (
        "from c2c_otel import stats, telemetry; stats.increment_counter(['n'])\n"
        "print(telemetry.get().parts.run.path.name)"
    )
    parent = f"import subprocess, sys; {child}\nsys.stdout.flush(); subprocess.run([sys.executable, '-c', {child!r}])"
    done = launch("c2c-otel-instrument", sys.executable, "-c", parent)
    first, second = done.stdout.split()
    assert first == second


# -- who is gunicorn's arbiter ----------------------------------------------------------------------------------------

_GUNICORN = """
import os, sys, threading
from gunicorn.app.base import BaseApplication
from pyramid.config import Configurator
from c2c_otel import telemetry

def tell(who):
    text = f"{who} {telemetry.get().started} {any('c2c' in thread.name for thread in threading.enumerate())}"
    print(text, file=sys.stderr, flush=True)

config = Configurator()
if "include" in sys.argv:
    config.include("c2c_otel")
app = config.make_wsgi_app()

class Program(BaseApplication):
    def load_config(self):
        self.cfg.set("bind", "127.0.0.1:0")
        self.cfg.set("loglevel", "error")
        self.cfg.set("preload_app", "preload" in sys.argv)
        self.cfg.set("post_worker_init", lambda worker: (tell("worker"), os.kill(os.getppid(), 15)))
        self.cfg.set("on_exit", lambda server: tell("arbiter"))
    def load(self):
        return app

Program().run()
"""


@pytest.mark.parametrize(
    "words", ["launcher", "launcher preload", "launcher include preload", "include", "include preload"]
)
def test_a_program_that_runs_gunicorn_itself_starts_in_its_workers_alone(
    launch: Launch, tmp_path: Path, words: str
) -> None:
    (tmp_path / "program.py").write_text(_GUNICORN)
    launcher = ["c2c-otel-instrument"] if "launcher" in words else []
    done = launch(*launcher, sys.executable, "program.py", *words.split())
    assert done.stderr.splitlines() == ["worker True True", "arbiter False False"]


@pytest.mark.parametrize("words", ["", "--preload"])
def test_gunicorn_as_a_module(launch: Launch, tmp_path: Path, words: str) -> None:
    (tmp_path / "program.py").write_text(_GUNICORN.replace("Program().run()", ""))
    (tmp_path / "conf.py").write_text(
        "import os\n"
        "def post_worker_init(worker):\n    import program\n    program.tell('worker')\n    os.kill(os.getppid(), 15)\n"
        "def on_exit(server):\n    import program\n    program.tell('arbiter')\n"
    )
    options = ["-b", "127.0.0.1:0", "--log-level", "error", "-c", "conf.py", *words.split()]
    done = launch("c2c-otel-instrument", sys.executable, "-m", "gunicorn", *options, "program:app")
    worker, arbiter = done.stderr.splitlines()
    assert worker == "worker True True"
    assert arbiter == "arbiter False False"


def test_a_program_that_only_knows_gunicorn_starts_with_its_first_request(launch: Launch) -> None:
    code = """
import gunicorn.arbiter
from pyramid.config import Configurator
from pyramid.request import Request
from c2c_otel import telemetry
config = Configurator()
config.include("c2c_otel")
app = config.make_wsgi_app()
print(telemetry.get().started)
Request.blank("/metrics").get_response(app).body
print(telemetry.get().started)
"""
    assert launch(sys.executable, "-c", code).stdout == "False\nTrue\n"


@pytest.mark.parametrize("launcher", [True, False])
@pytest.mark.parametrize("off", ["", "sqlalchemy"])
def test_postgresql_is_told_the_request_id_whether_or_not_sqlalchemy_is_instrumented(
    launch: Launch, launcher: bool, off: str
) -> None:
    code = """
from pyramid.config import Configurator
config = Configurator()
config.include("c2c_otel")
from sqlalchemy.engine import Connection
print([hasattr(getattr(Connection, name), "__wrapped__") for name in ("_begin_impl", "_exec_single_context")])
"""
    program = ["c2c-otel-instrument"] if launcher else []
    environ = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": off, "C2C_SQL_REQUEST_ID": "1"}
    done = launch(*program, sys.executable, "-c", code, **environ)
    assert (done.stdout, done.stderr) == (f"[True, {not off}]\n", "")
