"""``c2c_otel.wsgi`` and ``c2c_otel.wsgi_app``: the application of an ini file, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.conftest import Run

APPLICATION = """
import linecache

def main(global_config, **settings):
    linecache.getline(__file__, 1)
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/error":
            raise ValueError("asked for")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{settings['name']} {environ['REMOTE_ADDR']}".encode()]
    return app

def broken(global_config, **settings):
    return global_config.nothing
"""
INI = """
[app:main]
use = call:shop:main
name = main of %(NAME)s
[app:other]
use = call:shop:main
name = other
[app:broken]
use = call:shop:broken
"""


@pytest.fixture
def ini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "shop.ini").write_text(INI)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("NAME", "100 %")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "shop.ini"


def test_each_way_to_name_it(run: Run, ini: Path) -> None:
    done = run(
        "import linecache\n"
        "from webob import Request\n"
        "from c2c_otel.wsgi import create_application\n"
        f"for name in (None, 'shop.ini', {str(ini)!r}, 'c2c://shop.ini', 'shop.ini#other'):\n"
        "    app = create_application(name)\n"
        "    assert not [path for path in linecache.cache if 'shop' in path]\n"
        "    print(Request.blank('/', headers={'X-Forwarded-For': '192.0.2.1'},\n"
        "                        environ={'REMOTE_ADDR': '127.0.0.1'}).get_response(app).text)",
        C2CWSGIUTILS_CONFIG="shop.ini",
    )
    assert done.stdout.splitlines() == ["main of 100 % 192.0.2.1"] * 4 + ["other 192.0.2.1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "None",
            "C2CWSGIUTILS_CONFIG is 'none.ini'; expected an ini file that can be read. Put it there, or name another",
        ),
        (
            "'/none.ini'",
            "configfile is '/none.ini'; expected an ini file that can be read. Put it there, or name another",
        ),
    ],
)
def test_a_file_that_is_not_there_is_named(run: Run, ini: Path, name: str, message: str) -> None:
    done = run(
        f"from c2c_otel.wsgi import create_application\ncreate_application({name})",
        ok=False,
        C2CWSGIUTILS_CONFIG="none.ini",
    )
    assert f"c2c_otel.settings.ConfigurationError: {message}" in done.stderr


def test_importing_wsgi_app_does_nothing_and_the_application_is_made_once(run: Run, ini: Path) -> None:
    done = run(
        "from c2c_otel import wsgi_app\n"
        "print('shop' in sys.modules, process.started)\n"
        "first = wsgi_app.application\n"
        "print('shop' in sys.modules, wsgi_app.application is first, hasattr(wsgi_app, 'other'))",
        C2CWSGIUTILS_CONFIG=str(ini),
    )
    assert done.stdout == "False False\nTrue True False\n"


def test_an_attribute_error_of_the_application_is_not_taken_for_a_missing_name(run: Run, ini: Path) -> None:
    done = run(
        "from c2c_otel import wsgi_app\nhasattr(wsgi_app, 'application')", ok=False, C2CWSGIUTILS_CONFIG=f"{ini}#broken"
    )
    assert "RuntimeError: The application cannot be made: 'dict' object has no attribute 'nothing'" in done.stderr


@pytest.mark.parametrize("dsn", ["", "c2c.sentry_url = http://key@127.0.0.1:9/1"])
def test_sentry_of_the_ini_is_around_it(run: Run, ini: Path, dsn: str) -> None:
    ini.write_text(INI.replace("[app:other]", f"{dsn}\n[app:other]"))
    done = run(
        "from c2c_otel.wsgi import create_application\n"
        "app = create_application('shop.ini')\n"
        "print(type(app).__module__)\n"
        "os._exit(0) if sys.stdout.flush() is None else None"
    )
    assert done.stdout == ("c2c_otel.sentry.wsgi\n" if dsn else "c2c_otel.client_info\n")


def test_coverage_that_cannot_be_measured_is_said(run: Run, ini: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = "from c2c_otel import covered\nfrom c2c_otel.settings import Settings\n"
    done = run(f"{code}covered.start(Settings.load())", ok=False, COVERAGE="1", C2C_COVERAGE_DIR=str(tmp_path / "file"))
    assert (
        f"C2C_COVERAGE_DIR is '{tmp_path}/file'; expected a directory that can be written to. File exists."
        in done.stderr
    )
    hidden = "sys.modules['coverage'] = None\nimport importlib.util\nimportlib.util.find_spec = lambda name: None\n"
    done = run(f"{code}{hidden}covered.start(Settings.load())", ok=False, COVERAGE="1")
    assert "expected the package coverage to be installed. Run: pip install 'c2c-otel[coverage]'" in done.stderr
    assert run(f"{code}print(covered.start(Settings.load()), 'coverage' in sys.modules)").stdout == "False False\n"


def test_without_gunicorn_the_command_says_how_to_get_it(ini: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util, os, sys\n"
        "from c2c_otel.commands import run\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'gunicorn' else find(name, *more)\n"
        f"os.environ.update(C2CWSGIUTILS_CONFIG={str(ini)!r}, C2C_RUNTIME_DIR={str(tmp_path / 'rt')!r})\n"
        "sys.exit(run.main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        127,
        "c2c-otel-run: gunicorn is not installed. Run: pip install 'c2c-otel[gunicorn]'\n",
    )
    assert not (tmp_path / "rt").exists()
