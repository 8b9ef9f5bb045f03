"""Whose code a file is: its module, the package that it counts for, and each package's share of the time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from c2c_otel.profiler.tree import ROOT, Tree

__all__ = ["OTHER", "STANDARD_LIBRARY", "Share", "module_of", "packages", "shares"]

STANDARD_LIBRARY = "standard library"
OTHER = "other"

_MAX_FILES = 20_000

_known: dict[str, str] = {}
_modules = 0


def module_of(file: str) -> str:
    """The dotted name of the module with this file; "" for code without a file of its own (``<string>``)."""
    found = _known.get(file)
    if found is None:
        _look_around()
        found = _known.get(file)
        if found is None:
            found = _known[file] = _guess(file)
    return found


def _look_around() -> None:
    """Learn the files of what has been imported since."""
    global _modules
    if len(sys.modules) == _modules and _known:
        return
    if len(_known) > _MAX_FILES:
        _known.clear()
    _modules = len(sys.modules)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) if type(module).__module__ in ("builtins", "types") else None
        if isinstance(file, str) and name != "__main__":
            _known[file] = name


def _guess(file: str) -> str:
    """Of one that nobody has imported (by this name)."""
    if file.startswith("<"):  # <frozen importlib._bootstrap>, <string>, <template>
        return file[len("<frozen ") : -1] if file.startswith("<frozen ") else ""
    path = PurePath(file)
    for entry in sorted((entry for entry in sys.path if entry), key=len, reverse=True):
        try:
            parts = path.relative_to(entry).with_suffix("").parts
        except ValueError:
            continue
        return ".".join(parts[:-1] if parts[-1:] == ("__init__",) else parts)
    return path.stem


class Share(NamedTuple):
    """A package's ``own`` seconds, and those ``within``: with what it has called."""

    package: str
    own: float
    within: float


def shares(tree: Tree, named: Sequence[str] = ()) -> list[Share]:
    """Of each package that is on a stack; those with most time of their own first. See `packages` for ``named``."""
    own: dict[str, float] = {}
    within: dict[str, float] = {}
    above: list[frozenset[str]] = []
    for node, package in enumerate(packages(tree, named)):
        parent = tree.parents[node]
        on_stack = frozenset((package,)) if parent == ROOT else above[parent]
        above.append(on_stack if package in on_stack else on_stack | {package})
        seconds = tree.seconds[node]
        own[package] = own.get(package, 0.0) + seconds
        for one in above[node]:
            within[one] = within.get(one, 0.0) + seconds
    found = [Share(package, seconds, within[package]) for package, seconds in own.items()]
    return sorted(found, key=lambda share: (-share.own, -share.within, share.package))


def packages(tree: Tree, named: Sequence[str] = ()) -> list[str]:
    """Of each node: the longest of the ``named`` packages (or modules) that it is in, else its top-level package; all
    of the standard library is one. Functions in C, and code without a module, count for their caller."""
    wanted = sorted(named, key=len, reverse=True)
    of_frames = [_package(frame.module, wanted) for frame in tree.frames]
    found: list[str] = []
    for node, parent in enumerate(tree.parents):
        found.append(of_frames[tree.of[node]] or (OTHER if parent == ROOT else found[parent]))
    return found


def _package(module: str, named: Sequence[str]) -> str:
    if not module:
        return ""
    for name in named:
        if module == name or module.startswith(f"{name}."):
            return name
    top = module.partition(".")[0]
    return STANDARD_LIBRARY if top in sys.stdlib_module_names else top
