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


@pytest.mark.parametrize("before", ["", "/a", "/a::/b", ":"])
def test_pythonpath_is_kept_behind_our_own(before: str) -> None:
    from c2c_otel import launcher
    from c2c_otel.settings import Settings

    environ = {"PYTHONPATH": before}
    for _ in range(2):  # a launcher in a launcher
        run = launcher.prepare(Settings(runtime_dir=Path("/proc/nowhere")), environ)
        assert run is None, "a directory that cannot be had is the worker's to tell"
        here, _, rest = environ["PYTHONPATH"].partition(":")
        assert (Path(here).name, rest) == ("autostart", before)


def test_commands_with_a_path_are_those_of_the_shell(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\necho \"$1\" '$2'\n")
    runtime = {"C2C_RUNTIME_DIR": str(tmp_path / "r")}
    relative = f"./{os.path.relpath(script)}"
    done = launch(relative, "a  b", **runtime)
    assert (done.returncode, done.stderr) == (126, f"c2c-otel-instrument: {relative}: Permission denied\n")
    script.chmod(0o755)
    assert launch(relative, "a  b", **runtime).stdout == "a  b $2\n"
    assert launch("run.sh", "a  b", **runtime, PATH=f"{tmp_path}:{os.environ['PATH']}").stdout == "a  b $2\n"
    done = launch(f"{tmp_path}/none", **runtime)
    assert (done.returncode, done.stderr) == (127, f"c2c-otel-instrument: {tmp_path}/none: No such file or directory\n")
    assert launch(str(tmp_path), **runtime).returncode == 126


def test_a_hidden_sitecustomize_may_be_a_package(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize").mkdir()
    (tmp_path / "sitecustomize" / "__init__.py").write_text("import builtins; builtins.hidden_ran = True")
    code = "import builtins; print(builtins.hidden_ran)"
    done = launch(sys.executable, "-c", code, PYTHONPATH=str(tmp_path), C2C_RUNTIME_DIR=str(tmp_path / "r"))
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_another_interpreter_runs_without_telemetry_and_says_so_once(tmp_path: Path) -> None:
    """What it starts itself is not told: its output may be read by a program."""
    bare = tmp_path / "bare.py"
    bare.write_text("import subprocess, sys; print(1, flush=True); subprocess.run([sys.executable, '-c', 'print(2)'])")
    done = launch(os.path.realpath(sys.executable), str(bare), C2C_RUNTIME_DIR=str(tmp_path / "r"))
    assert done.stdout == "1\n2\n"
    assert done.stderr.count("c2c-otel-instrument: no telemetry in") == 1
