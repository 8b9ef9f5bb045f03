"""The launcher as a shell sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("c2c-otel-instrument"))


def launch(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *words], env={**os.environ, **environ}, capture_output=True, text=True, timeout=60)


def test_an_unknown_command_is_127_with_the_shells_words() -> None:
    done = launch("no-such-command", "-x")
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "c2c-otel-instrument: no-such-command: command not found\n"


def test_a_command_that_cannot_be_run_is_126(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF garbage")
    broken.chmod(0o755)
    done = launch(str(broken), C2C_RUNTIME_DIR=str(tmp_path / "r"))
    assert done.returncode == 126
    assert "broken: Exec format error" in done.stderr


def test_a_bad_setting_is_named_without_traceback() -> None:
    done = launch(sys.executable, "-c", "pass", STATSD_ADDRESS="nowhere")
    assert done.returncode == 2
    assert done.stderr == (
        "c2c-otel-instrument: STATSD_ADDRESS is 'nowhere'; expected host:port ([address]:port for IPv6). "
        "Correct it or remove it.\n"
    )


@pytest.mark.parametrize(("words", "code"), [((), 2), (("--help",), 0)])
def test_usage(words: tuple[str, ...], code: int) -> None:
    done = launch(*words)
    assert done.returncode == code
    assert "c2c-otel-instrument gunicorn -w 4" in done.stdout + done.stderr


def test_the_command_keeps_its_arguments_exit_code_and_hidden_sitecustomize(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins; builtins.hidden_ran = True")
    code = (
        "import sys, builtins; print(sys.argv[1:], builtins.hidden_ran, 'c2c_otel.telemetry' in sys.modules); exit(7)"
    )
    done = launch(
        sys.executable, "-c", code, "a b", "--x", PYTHONPATH=str(tmp_path), C2C_RUNTIME_DIR=str(tmp_path / "r")
    )
    assert (done.stdout, done.returncode) == ("['a b', '--x'] True True\n", 7), done.stderr


def test_nothing_is_started_in_a_program_that_measures_nothing(tmp_path: Path) -> None:
    code = "import threading; from c2c_otel import telemetry; print(telemetry.get().started, threading.active_count())"
    done = launch(sys.executable, "-c", code, C2C_RUNTIME_DIR=str(tmp_path / "r"))
    assert done.stdout == "False 1\n", done.stderr


def test_sdk_disabled_leaves_the_program_alone(tmp_path: Path) -> None:
    code = "import pyramid.config, pyramid.router; print(pyramid.config.Router is pyramid.router.Router)"
    done = launch(sys.executable, "-c", code, OTEL_SDK_DISABLED="true", C2C_RUNTIME_DIR=str(tmp_path / "r"))
    assert done.stdout == "True\n", done.stderr
