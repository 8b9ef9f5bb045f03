"""The Dockerfile, read as Docker reads it, and its Python steps run in a directory that stands for the image's root.

No Docker is needed. What apt and useradd do is left out; everything that pip and venv do is done, with the work tree
as the build context and .dockerignore in force.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = ("venv", "src", "app")
"""Directories of the image that are made below the one that stands for its root."""


@dataclass
class Stage:
    """``base``: an earlier stage's name, or an image. ``steps``: instructions with what follows them, in order."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str | None:
        return ([text for name, text in self.steps if name == instruction] or [None])[-1]


def read(text: str) -> list[Stage]:
    """The stages in order; a step before the first FROM belongs to none and is left out, ARG apart."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for name, value in instructions(text):
        if name == "FROM":
            for key, default in arguments.items():
                value = value.replace(f"${{{key}}}", default)
            base, _, stage = value.partition(" AS ")
            stages.append(Stage(stage.strip(), base.strip()))
        elif stages:
            stages[-1].steps.append((name, value))
        elif name == "ARG":
            key, _, default = value.partition("=")
            arguments[key] = default
    return stages


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Name in capitals, and the text with its continued lines joined."""
    lines = iter(text.splitlines())
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        whole = line
        while whole.endswith("\\"):
            following = next(lines)
            if not following.lstrip().startswith("#"):
                whole = whole[:-1] + following.strip()
        name, _, rest = whole.strip().partition(" ")
        yield name.upper(), rest.strip()


def chain(stages: list[Stage], target: str) -> list[Stage]:
    """What is built for a target, in order: the stages that it is made from or copies from."""
    by_name = {stage.name: stage for stage in stages}
    needed: list[Stage] = []

    def need(name: str) -> None:
        stage = by_name[name]
        for other in [stage.base, *re.findall(r"--from=(\S+)", "\n".join(text for _, text in stage.steps))]:
            if other in by_name:
                need(other)
        if stage not in needed:
            needed.append(stage)

    need(target)
    return needed


def environment(stages: list[Stage], target: str) -> dict[str, str]:
    """ENV of a target and of what it is made from."""
    values: dict[str, str] = {}
    by_name = {stage.name: stage for stage in stages}
    line = [by_name[target]]
    while line[-1].base in by_name:
        line.append(by_name[line[-1].base])
    for stage in reversed(line):
        for name, text in stage.steps:
            if name == "ENV":
                values |= dict(word.split("=", 1) for word in shlex.split(text))
    return values


def packages(stages: list[Stage]) -> set[str]:
    """What apt-get installs."""
    found: set[str] = set()
    for stage in stages:
        for name, text in stage.steps:
            if name == "RUN":
                for command in re.findall(r"apt-get install ([^&|;]*)", text):
                    found |= {word for word in shlex.split(command) if not word.startswith("-")}
    return found


class Ignore:
    """.dockerignore: the last pattern that matches decides."""

    def __init__(self, text: str) -> None:
        lines = (line.strip() for line in text.splitlines())
        self._patterns = [line for line in lines if line and not line.startswith("#")]

    def hides(self, path: str) -> bool:
        hidden = False
        parents = ["/".join(path.split("/")[:length]) for length in range(1, path.count("/") + 2)]
        for pattern in self._patterns:
            plain = pattern.removeprefix("!").removeprefix("**/")
            anywhere = pattern.removeprefix("!").startswith("**/")
            candidates = [part.rpartition("/")[2] for part in parents] if anywhere else parents
            if any(fnmatch.fnmatchcase(candidate, plain) for candidate in candidates):
                hidden = not pattern.startswith("!")
        return hidden


def copy(source: str, target: Path) -> None:
    """What COPY takes of the work tree."""
    ignore = Ignore((ROOT / ".dockerignore").read_text())
    origin = ROOT / source
    files = [origin] if origin.is_file() else sorted(path for path in origin.rglob("*") if path.is_file())
    copied = 0
    for file in files:
        if ignore.hides(file.relative_to(ROOT).as_posix()):
            continue
        place = target / source if origin.is_file() else target / file.relative_to(origin)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, place)
        copied += 1
    assert copied, f"COPY {source}: nothing is there, or .dockerignore hides it"


def build(stages: list[Stage], root: Path) -> list[str]:
    """Runs the steps of these stages, in order, in ``root``; returns the shell commands that were run. Raises
    AssertionError, with the output of what failed."""
    done = []
    directory = root
    for stage in stages:
        for name, text in stage.steps:
            if name == "WORKDIR":
                directory = root / text.lstrip("/")
                directory.mkdir(parents=True, exist_ok=True)
            elif name == "COPY" and "--from=" not in text:
                *sources, place = text.split()
                for source in sources:
                    copy(source, directory / place)
            elif name == "RUN" and ("pip install" in text or "-m venv" in text):
                run(inside(text, root), directory, root)
                done.append(text)
    return done


def inside(command: str, root: Path) -> str:
    """The command with the image's paths below ``root``, and this machine's Python for the image's."""
    command = command.replace("/usr/bin/python3", shlex.quote(base_python()))
    return re.sub(rf"(?<![\w.\"'/])/({'|'.join(PATHS)})\b", lambda match: str(root) + match[0], command)


def base_python() -> str:
    return str(getattr(sys, "_base_executable", sys.executable))


def plain_environment(root: Path) -> dict[str, str]:
    """What a RUN step has, and pip's own settings of this machine."""
    ours = ("C2C", "OTEL_", "STATSD_", "LOG_", "PYTHON", "VIRTUAL_ENV", "COVERAGE", "GUNICORN_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return kept | {"PATH": f"{root}/venv/bin:/usr/bin:/bin"}


def run(command: str, directory: Path, root: Path) -> str:
    """Its output. Raises AssertionError, which has it, too."""
    done = subprocess.run(
        ["/bin/sh", "-ec", command], cwd=directory, env=plain_environment(root), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout
