"""A call tree as HTML that folds: no script, nested ``<details>``.

A column of functions that each call the next one alone is not indented, or everything would be at the right edge of
the page: an arrow says that a line is called by the one above it. Neighbours in it that are code of libraries fold into
one line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from c2c_otel.index import Html, escape
from c2c_otel.profiler.tree import ROOT, Frame, Tree

__all__ = ["STYLE", "call_tree", "place"]

STYLE = """\
.tree { font: .85rem/1.6 ui-monospace, "DejaVu Sans Mono", "Liberation Mono", monospace; }
.tree summary { cursor: pointer; }
.tree .row { padding-left: 1rem; }
.tree .in { border-left: 1px solid var(--line); margin-left: .3rem; padding-left: .9rem; }
.tree b { font-weight: 600; }
.tree .lib b, .tree .lib { font-weight: 400; color: var(--soft); }
.tree i, .place { font-style: normal; color: var(--soft); }
.tree .ms { display: inline-block; min-width: 5.5rem; text-align: right; margin-right: .6rem; }
"""

_LEAST = 0.004
"""Of everything: what took less is counted, not shown."""

_OPEN = 0.1
_MAX_ROWS = 1_500
_MAX_LEVELS = 80
_FOLDED = 3
"""So many neighbours of libraries are one line."""

_LIBRARIES = ("/site-packages/", "/dist-packages/")


def call_tree(tree: Tree, packages: Sequence[str], named: Sequence[str]) -> Html:
    """``packages``: of each node. ``named``: those that are not a library's; where there are none, all that is not
    installed as one."""
    return Html(f'<div class="tree">\n{"".join(_Writer(tree, packages, named).below(ROOT, 0))}</div>')


def place(frame: Frame) -> str:
    """Where a function is, short."""
    return f"{frame.module or frame.file}:{frame.line}" if frame.file else "in C"


class _Writer:
    def __init__(self, tree: Tree, packages: Sequence[str], named: Sequence[str]) -> None:
        self._tree = tree
        self._packages = packages
        self._named = frozenset(named)
        self._totals = tree.totals()
        self._children = tree.children(self._totals)
        self._whole = tree.total() or 1.0
        self._rows = 0
        self._alone: set[int] = set()  # what stands below its caller, not beside it

    def below(self, parent: int, level: int) -> Iterator[str]:
        """What a node has called."""
        shown = self._shown(parent)
        for node in shown:
            yield from self._column(node, level)
        rest = [node for node in self._children.get(parent, ()) if node not in set(shown)]
        if rest and (left := sum(self._totals[node] for node in rest)) > 0:
            yield f'<div class="row lib">{self._times(left)}{len(rest)} more</div>\n'

    def _shown(self, parent: int) -> list[int]:
        return [node for node in self._children.get(parent, ()) if self._totals[node] >= _LEAST * self._whole]

    def _column(self, node: int, level: int) -> Iterator[str]:
        """A node and the ones below it, up to the first that has a choice."""
        column = [node]
        while len(below := self._shown(column[-1])) == 1 and self._totals[below[0]] >= 0.98 * self._totals[column[-1]]:
            column.append(below[0])
        self._alone.update(column[1:])
        last = column.pop()
        for is_library, run in groupby(column, self._is_library):
            nodes = list(run)
            yield from self._folded(nodes) if is_library else map(self._row, nodes)
        if not self._shown(last):
            yield self._row(last)
        elif level >= _MAX_LEVELS or self._rows >= _MAX_ROWS:
            yield f'{self._row(last)}<div class="row lib">and more below it: see the downloads</div>\n'
        else:
            opened = " open" if self._totals[last] >= _OPEN * self._whole else ""
            yield f"<details{opened}><summary{self._class(last)}>{self._text(last)}</summary>\n"
            yield '<div class="in">\n'
            yield from self.below(last, level + 1)
            yield "</div></details>\n"

    def _folded(self, nodes: list[int]) -> Iterable[str]:
        rows = map(self._row, nodes)
        if len(nodes) < _FOLDED:
            return rows
        names = ", ".join(dict.fromkeys(self._packages[node] for node in nodes))
        arrow = "↳ " if nodes[0] in self._alone else ""
        text = f"{self._times(self._totals[nodes[0]])}{arrow}{len(nodes)} calls in {escape(names)}"
        return [f'<details><summary class="lib">{text}</summary>\n<div class="in">\n', *rows, "</div></details>\n"]

    def _row(self, node: int) -> str:
        style = "row lib" if self._is_library(node) else "row"
        return f'<div class="{style}">{self._text(node)}</div>\n'

    def _class(self, node: int) -> str:
        return ' class="lib"' if self._is_library(node) else ""

    def _text(self, node: int) -> str:
        self._rows += 1
        frame = self._tree.frame(node)
        title = escape(f"{frame.file}:{frame.line}" if frame.file else "a function in C")
        where = f'<i title="{title}">{escape(place(frame))}</i>'
        arrow = "<i>↳</i> " if node in self._alone else ""
        return f"{self._times(self._totals[node])}{arrow}<b>{escape(frame.name)}</b> {where}"

    def _times(self, seconds: float) -> str:
        return f'<span class="ms">{seconds * 1000:,.1f} ms</span><span class="ms">{seconds / self._whole:.1%}</span>'

    def _is_library(self, node: int) -> bool:
        if self._named:
            return self._packages[node] not in self._named
        frame = self._tree.frame(node)
        top = frame.module.partition(".")[0]
        return top in sys.stdlib_module_names or top == "c2c_otel" or any(one in frame.file for one in _LIBRARIES)
