"""Which files an application is made of, and of what kind each is."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from c2c_otel.migration import dependencies, docker, documents, ini
from c2c_otel.migration.change import Note, Rewritten

__all__ = ["SKIPPED", "find", "rewriter"]

SKIPPED = frozenset({
    ".git", ".hg", ".svn", ".tox", ".nox", ".venv", "venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".cache",
    "__pycache__", "node_modules", "site-packages", "build", "dist",
})  # fmt: skip
"""Directories that hold nothing an application was written in."""

MOST_BYTES = 2_000_000
"""Nobody wrote a longer one by hand."""

_LOCKS = ("poetry.lock", "Pipfile.lock", "uv.lock", "pdm.lock")


def find(root: Path) -> Iterator[Path]:
    """The files below a directory, or the file itself. Links are not followed: they may lead out of it."""
    if root.is_file():
        yield root
        return
    for directory, subdirectories, files in os.walk(root):
        here = Path(directory)
        subdirectories[:] = sorted(
            name
            for name in subdirectories
            if name not in SKIPPED and not name.endswith(".egg-info") and not (here / name / "pyvenv.cfg").exists()
        )
        yield from (here / name for name in sorted(files) if not (here / name).is_symlink())


def rewriter(path: Path, image: str) -> Callable[[str], Rewritten] | None:
    """What rewrites a file of this name; None for what is left alone."""
    name = path.name
    for patterns, make in _KINDS:
        if any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns):
            return make(name, image)
    return None


Make = Callable[[str, str], Callable[[str], Rewritten]]


def _python(name: str, image: str) -> Callable[[str], Rewritten]:
    from c2c_otel.migration import python

    return lambda text: python.rewrite(text, is_setup=name == "setup.py")


def _lock(name: str, image: str) -> Callable[[str], Rewritten]:
    def look(text: str) -> Rewritten:
        named = '"c2cwsgiutils"' in text.lower()
        return Rewritten(text, (Note(0, "make it anew, with the tool that wrote it", "Names"),) if named else ())

    return look


def _setup_cfg(text: str) -> Rewritten:
    """Requirements, and what linters and test runners are told of our modules."""
    first = ini.rewrite(text)
    second = dependencies.rewrite(first.text)
    return Rewritten(second.text, (*first.notes, *second.notes))


_KINDS: tuple[tuple[tuple[str, ...], Make], ...] = (
    (tuple(name.lower() for name in _LOCKS), _lock),
    (("*.py",), _python),
    (("dockerfile", "dockerfile.*", "*.dockerfile"), lambda name, image: lambda text: docker.rewrite(text, image)),
    (("pyproject.toml", "pipfile"), lambda name, image: dependencies.rewrite_toml),
    (("setup.cfg",), lambda name, image: _setup_cfg),
    (("*.ini", "*.ini.tmpl", "*.ini.mako"), lambda name, image: ini.rewrite),
    (("*requirements*.txt", "*requirements*.in", "constraints*.txt"), lambda name, image: dependencies.rewrite),
    (("*.yaml", "*.yml"), lambda name, image: lambda text: documents.rewrite_yaml(text, image)),
    (
        ("makefile", "*.mk", "*.sh", "*.bash", "*.env", ".env", ".env.*", "procfile", "jenkinsfile"),
        lambda name, image: lambda text: documents.rewrite(text, image),
    ),
)
