"""Who refers to whom, as a graph for Graphviz: the answer to debug/show_refs.dot."""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from c2c_otel.debug import census, objects, sizes
from c2c_otel.debug.budget import Budget
from c2c_otel.debug.describe import describe
from c2c_otel.debug.release import given_back

__all__ = ["MOST_NODES", "SECONDS", "Graph", "by_id", "graph", "roots_by_type"]

SECONDS = 10.0
"""What one graph may take."""

MOST_NODES = 500
"""What Graphviz still draws in a reasonable time."""

_SIZED = 5000
"""Objects that are visited for the size of one node."""

_CHUNK = 500


@dataclasses.dataclass
class Graph:
    """``nodes``: id -> label; ``edges``: (from, to) -> label; ``more``: id -> what is not shown of its references.
    ``roots``: ids of the objects that were asked for. ``incomplete``: why it is not everything, or empty."""

    nodes: dict[int, str] = dataclasses.field(default_factory=dict)
    edges: dict[tuple[int, int], str] = dataclasses.field(default_factory=dict)
    more: dict[int, str] = dataclasses.field(default_factory=dict)
    roots: set[int] = dataclasses.field(default_factory=set)
    incomplete: str = ""

    def dot(self) -> str:
        """In the language of Graphviz."""
        lines = ["digraph ObjectGraph {", "  node [shape=box, style=filled, fillcolor=white];"]
        if self.incomplete:
            lines.append(f"  label={_quoted(self.incomplete)};")
        for key, label in self.nodes.items():
            root = ", fontcolor=red" if key in self.roots else ""
            lines.append(f"  o{key} [label={_quoted(label)}{root}];")
        for key, label in self.more.items():
            lines.append(f"  more{key} [label={_quoted(label)}, shape=plaintext, style=solid];")
            lines.append(f"  o{key} -> more{key} [style=dashed, dir=none];")
        for (source, target), label in self.edges.items():
            lines.append(f"  o{source} -> o{target}{f' [label={_quoted(label)}]' if label else ''};")
        return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    """A quoted string of DOT: line ends as ``\\n``, no other control characters."""
    shown = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(c if c.isprintable() else "?" for c in shown) + '"'


def by_id(identity: int) -> list[Any]:
    """The object with this ``id()``, if the garbage collector knows one; no address is ever looked into."""
    return [obj for obj in gc.get_objects() if id(obj) == identity]


def roots_by_type(name: str, budget: Budget) -> list[Any]:
    """All objects whose class has this name."""
    return census.by_type(gc.get_objects(), name, budget)


def graph(
    roots: Sequence[Any],
    budget: Budget,
    *,
    max_depth: int = 3,
    too_many: int = 10,
    min_size: int = 0,
    extra_info: bool = True,
    backrefs: bool = False,
) -> Graph:
    """What these objects refer to, or with ``backrefs`` what refers to them, ``max_depth`` steps far. Of each object
    at most ``too_many`` references are shown, of those to objects of more than ``min_size`` bytes. Arrows lead from
    the one that refers to the other."""
    with given_back():
        made = _Maker(budget, too_many, min_size, extra_info)
        level = made.add_roots(roots)
        for _ in range(max_depth):
            if not level or made.graph.incomplete:
                break
            level = made.backwards(level) if backrefs else made.forwards(level)
        return made.graph


class _Maker:
    """One graph while it is made."""

    def __init__(self, budget: Budget, too_many: int, min_size: int, extra_info: bool) -> None:
        self.graph = Graph()
        self._budget = budget
        self._too_many = too_many
        self._min_size = min_size
        self._extra_info = extra_info
        self._kinds = objects.Kinds()
        self._kept: list[Any] = []  # so that no id is given to another object meanwhile
        self._ignored = {id(self._kept)}

    def add_roots(self, roots: Sequence[Any]) -> list[Any]:
        self._ignored.add(id(roots))
        level: list[Any] = []
        for root in roots:
            if self._full():
                break
            self._add(root)
            level.append(root)
        self.graph.roots = set(map(id, level))
        if len(level) < len(roots):
            self.graph.incomplete = f"{len(level)} of {len(roots)} objects are shown. {self.graph.incomplete}".strip()
        return level

    def forwards(self, level: Sequence[Any]) -> list[Any]:
        """Add what these refer to; returns what was not known yet."""
        following: list[Any] = []
        for source in level:
            shown = 0
            try:
                for piece in objects.pieces(source, self._kinds):
                    for target in piece:
                        if self._too_small(target):
                            continue
                        shown += 1
                        if shown <= self._too_many and not self._full():
                            self._edge(source, target, target, following)
                    if self._budget.spent():
                        self.graph.incomplete = self.graph.incomplete or "The time was over."
                        break
            except RuntimeError:  # another thread is changing it
                pass
            self._more(id(source), shown - self._too_many)
        return following

    def backwards(self, level: Sequence[Any]) -> list[Any]:
        """Add what refers to these. One look at all objects, whatever their number."""
        known = gc.get_objects()  # before anything of ours refers to them
        ignored = {id(level), *self._ignored, *_frames()}
        wanted = {id(obj): obj for obj in level}
        shown = dict.fromkeys(wanted, 0)
        following: list[Any] = []
        for source in self._referrers(known, frozenset(wanted)):
            if id(source) in ignored:
                continue
            for key in self._referred(source, frozenset(wanted)):
                if self._too_small(source):
                    continue
                shown[key] += 1
                if shown[key] <= self._too_many and not self._full():
                    self._edge(source, wanted[key], source, following)
        for key, count in shown.items():
            self._more(key, count - self._too_many)
        return following

    def _more(self, key: int, count: int) -> None:
        if count > 0:
            self.graph.more[key] = f"{count} more"

    def _referrers(self, known: Sequence[Any], wanted: frozenset[int]) -> Iterator[Any]:
        for start in range(0, len(known), _CHUNK):
            if self._budget.spent():
                self.graph.incomplete = self.graph.incomplete or "The time was over."
                return
            chunk = known[start : start + _CHUNK]
            if any(not wanted.isdisjoint(map(id, piece)) for piece in census.referents(chunk)):
                yield from (source for source in chunk if self._referred(source, wanted))

    def _referred(self, source: Any, wanted: frozenset[int]) -> set[int]:
        found: set[int] = set()
        try:
            for piece in objects.pieces(source, self._kinds):
                found.update(wanted.intersection(map(id, piece)))
        except RuntimeError:  # another thread is changing it
            pass
        return found

    def _edge(self, source: Any, target: Any, new: Any, following: list[Any]) -> None:
        if id(new) not in self.graph.nodes:
            self._add(new)
            if not self._kinds.of(new).shared:
                following.append(new)
        if (id(source), id(target)) not in self.graph.edges:
            self.graph.edges[id(source), id(target)] = _name_of_reference(source, target)

    def _add(self, obj: Any) -> None:
        self._kept.append(obj)
        label = f"{objects.type_name(type(obj))}\n{describe(obj)[:80]}"
        if self._extra_info:
            size, complete = sizes.measure(obj, self._kinds, self._budget, _SIZED)
            label += f"\n{'' if complete else 'at least '}{size / 1024:.3f} kb\n{id(obj)}"
        self.graph.nodes[id(obj)] = label

    def _too_small(self, obj: Any) -> bool:
        if not self._min_size or id(obj) in self.graph.nodes:
            return False
        measured = sizes.measure(obj, self._kinds, self._budget)
        return measured.complete and measured.size <= self._min_size

    def _full(self) -> bool:
        if len(self.graph.nodes) >= MOST_NODES:
            self.graph.incomplete = self.graph.incomplete or f"Only {MOST_NODES} objects are shown."
        elif self._budget.spent():
            self.graph.incomplete = self.graph.incomplete or "The time was over."
        return bool(self.graph.incomplete)


def _frames() -> set[int]:
    """The ids of the frames of this thread, which refer to what we look at."""
    found = set()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        found.add(id(frame))
        frame = frame.f_back
    return found


def _name_of_reference(source: Any, target: Any) -> str:
    """The key or index under which a small builtin container holds it; else nothing."""
    found = objects.contents(source, 100)
    if found is None:
        return ""
    builtin, members, _ = found
    if builtin == "dict":
        return next((describe(key)[:40] for key, value in members if value is target), "")
    if builtin in ("list", "tuple"):
        return next((f"[{index}]" for index, member in enumerate(members) if member is target), "")
    return ""
