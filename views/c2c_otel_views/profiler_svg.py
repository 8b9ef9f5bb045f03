"""Drawings of a profile, as SVG within the page: no script, tooltips are titles, colours are classes of its style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from c2c_otel.index import Html, escape
from c2c_otel.profiler.modules import Share
from c2c_otel.profiler.tree import ROOT, Tree

__all__ = ["COLOURS", "STYLE", "bar", "colours", "flame", "pie", "square"]

COLOURS = ("#f2a65a", "#7fb3e6", "#8fcf9a", "#dba0d8", "#f1d36b", "#7fd0cf", "#ef9090", "#b6a9f2", "#cdb68f", "#c5cbd3")
"""Dark text is read on each of them; the last one is for all that have none of their own."""

STYLE = (
    "".join(f".k{number} {{ fill: {colour}; }}\n" for number, colour in enumerate(COLOURS))
    + """\
svg { display: block; }
svg.bar { display: inline-block; width: 4rem; height: .6rem; margin-right: .5rem; background: var(--line); }
svg.square { display: inline-block; width: .8rem; height: .8rem; vertical-align: -.1em; margin-right: .35rem; }
svg.pie { width: 15rem; height: 15rem; flex: none; max-width: 100%; }
svg.pie path, svg.pie circle { stroke: var(--card); stroke-width: 1; }
.wide { overflow-x: auto; }
svg.flame { width: 100%; min-width: 44rem; height: auto; }
svg.flame rect { stroke: var(--card); stroke-width: .6; }
svg.flame g:hover rect { stroke: #1c2128; stroke-width: 1.2; }
svg.flame text { fill: #1c2128; font: 11px ui-monospace, "DejaVu Sans Mono", "Liberation Mono", monospace; }
"""
)

_WIDTH = 1200
_ROW = 18
_LETTER = 6.7
_MAX_ROWS = 100
_LEAST = 1.0
"""What is narrower, of the whole width, is not drawn."""


def colours(shares: Sequence[Share]) -> dict[str, int]:
    """Package -> the number of its colour; those with most time have one of their own."""
    last = len(COLOURS) - 1
    return {share.package: min(number, last) for number, share in enumerate(shares)}


def square(colour: int) -> Html:
    """For a legend."""
    rect = f'<rect class="k{colour}" width="10" height="10" rx="2"/>'
    return Html(f'<svg class="square" viewBox="0 0 10 10" aria-hidden="true">{rect}</svg>')


def bar(share: float, colour: int = 1) -> Html:
    """A share of 1."""
    rect = f'<rect class="k{colour}" width="{_number(100 * share)}" height="10"/>'
    return Html(f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{rect}</svg>')


def pie(shares: Sequence[Share], colour: Mapping[str, int]) -> Html:
    """Of the packages' own time."""
    total = sum(share.own for share in shares)
    slices = []
    begin = 0.0
    for share in shares:
        part = share.own / total if total else 0.0
        if part < 0.0005:
            continue
        title = f"<title>{escape(share.package)}: {part:.1%}</title>"
        slices.append(f"<g>{title}{_slice(begin, part, f'k{colour[share.package]}')}</g>")
        begin += part
    head = '<svg class="pie" viewBox="-101 -101 202 202" role="img" aria-label="Share of each package">'
    return Html(f"{head}{''.join(slices)}</svg>")


def _slice(begin: float, part: float, style: str) -> str:
    if part > 0.9995:
        return f'<circle class="{style}" r="100"/>'
    (x0, y0), (x1, y1) = (_on_circle(turn) for turn in (begin, begin + part))
    large = int(part > 0.5)
    return f'<path class="{style}" d="M0 0L{x0} {y0}A100 100 0 {large} 1 {x1} {y1}Z"/>'


def _on_circle(turn: float) -> tuple[str, str]:
    """From the top, clockwise."""
    angle = 2 * math.pi * turn
    return _number(100 * math.sin(angle)), _number(-100 * math.cos(angle))


class _Box(NamedTuple):
    node: int
    x: float
    width: float
    row: int


def flame(tree: Tree, packages: Sequence[str], colour: Mapping[str, int]) -> Html:
    """Callers above what they call, as wide as their time. What has (nearly) everything below it is left out above."""
    totals = tree.totals()
    whole = tree.total()
    if not whole:
        return Html('<p class="soft">No time was seen.</p>')
    children = tree.children(totals)
    top, skipped = _top(children, totals, tree.seconds, whole)
    boxes = _boxes(children, totals, top, whole)
    if not boxes:
        return Html('<p class="soft">Of very many functions, none took long enough to be drawn.</p>')
    rows = 1 + max(box.row for box in boxes)
    drawn = "".join(_drawn(tree, box, totals, whole, colour.get(packages[box.node], 9)) for box in boxes)
    label = f"Flame graph of {whole:.3f} seconds"
    size = f'viewBox="0 0 {_WIDTH} {rows * _ROW}"'
    note = f'<p class="soft">{skipped} callers of all that is shown are left out.</p>' if skipped else ""
    svg = f'<svg class="flame" {size} role="img" aria-label="{label}">{drawn}</svg>'
    return Html(f'{note}<div class="wide">{svg}</div>')


def _top(
    children: Mapping[int, list[int]], totals: Sequence[float], own: Sequence[float], whole: float
) -> tuple[int, int]:
    """Below which node it becomes interesting, and how many are left out."""
    node, skipped = ROOT, 0
    while len(below := children.get(node, [])) >= 1:
        first = below[0]
        if totals[first] < 0.99 * whole or own[first] > 0.005 * whole or not children.get(first):
            break
        node, skipped = first, skipped + 1
    return node, skipped


def _boxes(children: Mapping[int, list[int]], totals: Sequence[float], top: int, whole: float) -> list[_Box]:
    scale = _WIDTH / whole
    boxes: list[_Box] = []
    waiting = [(top, 0.0, 0)]
    while waiting:
        parent, x, row = waiting.pop()
        for node in children.get(parent, ()):
            width = totals[node] * scale
            if width >= _LEAST:
                boxes.append(_Box(node, x, width, row))
                if row + 1 < _MAX_ROWS:
                    waiting.append((node, x, row + 1))
            x += width
    return boxes


def _drawn(tree: Tree, box: _Box, totals: Sequence[float], whole: float, colour: int) -> str:
    frame = tree.frame(box.node)
    total, own = totals[box.node], tree.seconds[box.node]
    place = f"{frame.file}:{frame.line}" if frame.file else "a function in C"
    title = f"{frame.name}\n{place}\n{total * 1000:.1f} ms, {total / whole:.1%} (own: {own * 1000:.1f} ms)"
    y = box.row * _ROW
    rect = f'<rect class="k{colour}" x="{_number(box.x)}" y="{y}" width="{_number(box.width)}" height="{_ROW}"/>'
    return f"<g><title>{escape(title)}</title>{rect}{_label(frame.name, box, y)}</g>"


def _label(name: str, box: _Box, y: int) -> str:
    room = int((box.width - 6) / _LETTER)
    if room < 3:
        return ""
    text = name if len(name) <= room else f"{name[: room - 1]}…"
    return f'<text x="{_number(box.x + 3)}" y="{y + 13}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
