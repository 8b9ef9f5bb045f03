"""Graphviz, for what is written in its language."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.servers.find import Program, find
from tests.servers.process import has_been_used, used

__all__ = ["dot"]


def dot(text: str | bytes, output: str = "svg") -> str:
    """The picture of a graph as Graphviz' ``dot`` draws it; raises ValueError with what it says against the text."""
    program, environ = _program()
    data = text.encode() if isinstance(text, str) else text
    done = subprocess.run(
        [program.path, f"-T{output}"], input=data, capture_output=True, env=environ, check=False, timeout=60
    )
    if done.returncode or done.stderr:
        raise ValueError(done.stderr.decode())
    return done.stdout.decode()


def _program() -> tuple[Program, dict[str, str]]:
    program = find("dot", packages=["graphviz"])
    environ = program.environ(**_plugins(program))
    if "graphviz" not in used:
        said = subprocess.run([program.path, "-V"], capture_output=True, text=True, env=environ, check=True, timeout=60)
        has_been_used("graphviz", said.stderr.split("version ", 1)[1].split()[0])
    return program, environ


def _plugins(program: Program) -> Mapping[str, str]:
    """Where an unpacked Debian package has them; the list of them is made by what installs the package otherwise."""
    if program.root is None:
        return {}
    directory = next(program.root.glob("usr/lib/*/graphviz"))
    environ = {"GVBINDIR": str(directory)}
    if not any(Path(directory).glob("config*")):
        subprocess.run([program.path, "-c"], env=program.environ(**environ), check=True, timeout=60)
    return environ
