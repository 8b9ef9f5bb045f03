"""All commands: as ``c2c-otel NAME``, as a script of their own, and their help."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from c2c_otel import cli

PROGRAMS = Path(sys.executable).parent
SCRIPTS = {
    point.name.removeprefix("c2c-otel-"): point
    for point in importlib.metadata.distribution("c2c-otel").entry_points
    if point.group == "console_scripts" and point.name.startswith("c2c-otel-")
}

PROGRAM_NAMES = {f"c2c-otel-{name}" for name in SCRIPTS}


def call(*words: object, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60)


def test_each_script_is_a_command_too() -> None:
    assert SCRIPTS.keys() - {"instrument"} <= cli.COMMANDS.keys()
    for name, point in SCRIPTS.items():
        if name != "instrument":
            assert point.value == f"{cli.COMMANDS[name].module}:main"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_has_examples_and_exit_codes(name: str) -> None:
    done = call(PROGRAMS / "c2c-otel", name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("usage: c2c-otel", "example", "exit codes: 0"):
        assert part in done.stdout or (name == "run" and part == "exit codes: 0"), part


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_both_ways_are_the_same(name: str) -> None:
    script = PROGRAMS / f"c2c-otel-{name}"
    assert script.exists(), "pip install -e ."
    if name in cli.COMMANDS:
        one, other = call(script, "--help"), call(PROGRAMS / "c2c-otel", name, "--help")
        assert (one.returncode, one.stdout) == (other.returncode, other.stdout) == (0, other.stdout)


def test_the_page_has_each_with_its_exit_codes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    rows = re.findall(r"^\| \[?`(c2c-otel[- ][a-z-]+)`(?:\]\(\S+\))? \| .* \| (.*?) ?\|$", page, re.MULTILINE)
    named = {name if name in PROGRAM_NAMES else name.removeprefix("c2c-otel ") for name, _ in rows}
    assert named == {f"c2c-otel-{name}" if name in SCRIPTS else name for name in {*cli.COMMANDS, *SCRIPTS}}
    for name, codes in rows:
        if "instrument" not in name:
            said = call(PROGRAMS / "c2c-otel", name[len("c2c-otel ") :], "--help").stdout.partition("exit codes: ")[2]
            found = set(re.findall(r"\b(1|127)\b: ", said))
            assert found == set(re.findall(r"\b(1|127): ", codes)), name


def test_help_of_all_lists_all() -> None:
    done = call(PROGRAMS / "c2c-otel", "--help")
    assert done.returncode == 0
    for name, command in cli.COMMANDS.items():
        assert any(line.split(None, 1) == [name, command.help] for line in done.stdout.splitlines()), name


@pytest.mark.parametrize(("words", "message"), [((), "required: COMMAND"), (("nothing",), "invalid choice: 'nothing'")])
def test_a_usage_error_is_2(words: tuple[str, ...], message: str) -> None:
    done = call(PROGRAMS / "c2c-otel", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_command_imports_only_what_it_needs() -> None:
    code = (
        "import sys; from c2c_otel import cli\n"
        "try: cli.main(['genversion', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ['opentelemetry.sdk.trace', 'pyramid.config', 'sqlalchemy', 'redis', 'requests', 'gunicorn']\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    assert call(sys.executable, "-c", code).stderr == "[]\n"
