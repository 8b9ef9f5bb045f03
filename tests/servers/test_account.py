"""What a run of pytest says and returns where a server is missing or a test is skipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """\
import pytest
from tests.servers import Server, Unavailable, used
from tests.servers.account import Account
from tests.servers.fixtures import running

used["Thing"] = ["1.2", "3"]

class Missing(Server):
    name = "Oracle"
    def _start(self): raise Unavailable("install the oracle")
    def _stop(self): pass

@pytest.fixture
def oracle():
    with running(Missing()) as server:
        yield server

def pytest_configure(config):
    config.pluginmanager.register(Account())
"""
TESTS = {
    "server": "def test_server(oracle): pass",
    "skip": "import pytest\n@pytest.mark.skip\ndef test_skip(): pass",
    "module": "import pytest\npytest.skip(allow_module_level=True)",
    "xfail": "import pytest\n@pytest.mark.xfail\ndef test_xfail(): assert False",
    "pass": "def test_pass(): pass",
}


def run(directory: Path, kind: str, ci: str) -> tuple[int, str]:
    root = Path(__file__).parents[2]
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_it.py").write_text(TESTS[kind])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-rs",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            directory,
            "-c",
            "/dev/null",
            directory,
        ],
        capture_output=True,
        text=True,
        cwd=directory,
        env={"PATH": "", "CI": ci, "PYTHONPATH": str(root)},
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("kind", "code"), [("server", 1), ("skip", 1), ("module", 1), ("xfail", 0), ("pass", 0)])
def test_on_ci_whatever_did_not_run_fails(tmp_path: Path, kind: str, code: int) -> None:
    returned, said = run(tmp_path, kind, "true")
    assert returned == code, said
    assert "Thing 1.2, 3" in said
    assert ("Oracle cannot be had: install the oracle" in said) == (kind == "server")
    assert ("skipped, which fails the run" in said) == (kind in ("skip", "module"))


@pytest.mark.parametrize(("kind", "code"), [("server", 0), ("skip", 0), ("module", 5)])
def test_elsewhere_it_is_skipped_by_name(tmp_path: Path, kind: str, code: int) -> None:
    returned, said = run(tmp_path, kind, "")
    assert returned == code, said
    assert ("Oracle cannot be had: install the oracle" in said) == (kind == "server")
