"""Where the time went: a call tree of bounded size, built sample by sample.

A frame of a sample is pyinstrument's text: ``function NUL file NUL first line``, then attributes, each led by 0x01:
``c`` and the class of ``self``, ``l`` and the line that ran. A C function's file is ``<built-in>``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["MAX_DEPTH", "MAX_NODES", "ROOT", "Frame", "Tree"]

MAX_NODES = 4_000
"""Of one request; time in what comes later counts for the caller."""

MAX_DEPTH = 250
"""Frames below each other; what is deeper counts for the last one."""

MAX_ORDER = 10_000
"""Changes from one node to another that are known in their order."""

ROOT = -1
"""The parent of what was called first."""

_TEXT = 300


class Frame(NamedTuple):
    """A function. ``file`` is "" and ``line`` 0 for one in C. ``module``: its dotted name, "" where there is none and
    it counts for its caller."""

    name: str
    file: str
    line: int
    module: str = ""


class Tree:
    """Nodes are numbered as they were made, parents before children. ``seconds``: a node's own time. ``cut``: seconds
    of which the tree does not know all of the stack. ``order``: (node, seconds) as time passed, until it was full."""

    __slots__ = ("_children", "_frames", "_max_nodes", "cut", "frames", "of", "order", "parents", "samples", "seconds")

    def __init__(self, max_nodes: int = MAX_NODES) -> None:
        self.parents: list[int] = []
        self.of: list[int] = []  # each node's index in `frames`
        self.seconds: list[float] = []
        self.frames: list[Any] = []  # pyinstrument's texts while it is recorded, then `Frame`s
        self.order: list[list[Any]] = []
        self.samples = 0
        self.cut = 0.0
        self._frames: dict[Any, int] = {}
        self._children: dict[tuple[int, int], int] = {}
        self._max_nodes = max_nodes

    # -- while it grows -----------------------------------------------------------------------------------------------

    def add(self, stack: Sequence[str], seconds: float) -> None:
        """One sample: its frames, the outermost first."""
        node = ROOT
        for text in stack[:MAX_DEPTH]:
            found = self._child(node, text.partition("\x01l")[0])
            if found is None:
                self.cut += seconds
                break
            node = found
        else:
            if len(stack) > MAX_DEPTH:
                self.cut += seconds
        if node == ROOT:
            if not stack:
                return
            node = self._no_room("(no room)\x00<built-in>\x000")
        self.samples += 1
        self.seconds[node] += seconds
        order = self.order
        if order and order[-1][0] == node:
            order[-1][1] += seconds
        elif len(order) < MAX_ORDER:
            order.append([node, seconds])

    def _no_room(self, frame: Any) -> int:
        """For what was called first and is one too many: a node more than there should be, once."""
        self._max_nodes, most = len(self.parents) + 1, self._max_nodes
        node = self._child(ROOT, frame)
        self._max_nodes = most
        assert node is not None
        return node

    def _child(self, parent: int, frame: Any) -> int | None:
        """Made where it is new; None where there is no room."""
        known = self._frames.get(frame)
        node = None if known is None else self._children.get((parent, known))
        if node is not None:
            return node
        node = len(self.parents)
        if node >= self._max_nodes:
            return None
        if known is None:
            known = self._frames[frame] = len(self.frames)
            self.frames.append(frame)
        self._children[parent, known] = node
        self.parents.append(parent)
        self.of.append(known)
        self.seconds.append(0.0)
        return node

    def name_frames(self, module_of: Callable[[str], str]) -> None:
        """Recorded is what there is: texts become frames. ``module_of``: a file's module."""
        self.frames = [_frame(text, module_of) for text in self.frames]
        self._frames, self._children = {}, {}

    def merge(self, other: Tree) -> None:
        """Add another tree's time; the order is lost. Both have named frames."""
        self.order = []
        self.samples += other.samples
        self.cut += other.cut
        if len(self._children) != len(self.parents):
            self._frames = {frame: index for index, frame in enumerate(self.frames)}
            self._children = {pair: node for node, pair in enumerate(zip(self.parents, self.of, strict=True))}
        nodes: list[int] = []
        for parent, of, seconds in zip(other.parents, other.of, other.seconds, strict=True):
            above = ROOT if parent == ROOT else nodes[parent]
            node = self._child(above, other.frames[of])
            if node is None:
                self.cut += seconds
                node = self._no_room(Frame("(no room)", "", 0)) if above == ROOT else above
            nodes.append(node)
            self.seconds[node] += seconds

    # -- what it says -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.parents)

    def frame(self, node: int) -> Frame:
        """The node's function."""
        found: Frame = self.frames[self.of[node]]
        return found

    def totals(self) -> list[float]:
        """Each node's seconds with those of all below it."""
        totals = list(self.seconds)
        for node in range(len(totals) - 1, -1, -1):
            if (parent := self.parents[node]) != ROOT:
                totals[parent] += totals[node]
        return totals

    def total(self) -> float:
        """Seconds of all samples."""
        return sum(self.seconds)

    def children(self, totals: Sequence[float]) -> dict[int, list[int]]:
        """Node (or `ROOT`) -> its children, those with most time first."""
        found: dict[int, list[int]] = {}
        for node, parent in enumerate(self.parents):
            found.setdefault(parent, []).append(node)
        for nodes in found.values():
            nodes.sort(key=lambda node: -totals[node])
        return found

    def stack(self, node: int) -> list[int]:
        """The node and all above it, the outermost first."""
        found = []
        while node != ROOT:
            found.append(node)
            node = self.parents[node]
        return found[::-1]

    def timeline(self) -> Iterator[tuple[int, float]]:
        """(node, seconds) as time passed; then, of each node, what is not known in its order."""
        rest = list(self.seconds)
        for node, seconds in self.order:
            rest[node] -= seconds
            yield node, seconds
        for node, seconds in enumerate(rest):
            if seconds > 1e-9:
                yield node, seconds

    # -- as it travels ------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """JSON, times in microseconds."""
        return {
            "frames": [list(frame) for frame in self.frames],
            "parents": self.parents,
            "of": self.of,
            "micros": [_micros(seconds) for seconds in self.seconds],
            "order": [[node for node, _ in self.order], [_micros(seconds) for _, seconds in self.order]],
            "samples": self.samples,
            "cut": _micros(self.cut),
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any], max_nodes: int = MAX_NODES) -> Tree:
        """What `dump` has made. Raises KeyError, TypeError, ValueError for what is none."""
        tree = cls(max_nodes)
        tree.frames = [
            Frame(str(name), str(file), int(line), str(module)) for name, file, line, module in dumped["frames"]
        ]
        tree.parents = [int(parent) for parent in dumped["parents"]]
        tree.of = [int(of) for of in dumped["of"]]
        tree.seconds = [micros / 1e6 for micros in dumped["micros"]]
        size = len(tree.parents)
        if not len(tree.of) == len(tree.seconds) == size or any(
            not ROOT <= parent < node or not 0 <= of < len(tree.frames)
            for node, (parent, of) in enumerate(zip(tree.parents, tree.of, strict=True))
        ):
            raise ValueError("no call tree")
        nodes, micros = dumped["order"]
        tree.order = [[node, one / 1e6] for node, one in zip(nodes, micros, strict=True) if 0 <= node < size]
        tree.samples, tree.cut = int(dumped["samples"]), dumped["cut"] / 1e6
        return tree


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


def _frame(text: str, module_of: Callable[[str], str]) -> Frame:
    identity, _, attributes = text.partition("\x01")
    name, file, line = (*identity.split("\x00"), "", "0")[:3]
    cls = next((part[1:] for part in attributes.split("\x01") if part.startswith("c")), "")
    name = _printable(f"{cls}.{name}" if cls and not name.startswith("<") else name)
    if file == "<built-in>":
        return Frame(name, "", 0)
    return Frame(name, _printable(file), int(line) if line.isdigit() else 0, _printable(module_of(file)))


def _printable(text: str) -> str:
    """What JSON, HTML and a terminal can show."""
    found = text.encode("utf-8", "backslashreplace").decode()[:_TEXT]
    return "".join(char if char.isprintable() else "?" for char in found)
