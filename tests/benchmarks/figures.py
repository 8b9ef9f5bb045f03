"""What is computed from the figures of the peers, be they us of CPU or instructions, and the table of it all."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

Figures = dict[str, dict[str, list[float]]]
"""Peer -> scenario -> what one request costs, one figure a round (a single one if they are counted)."""

BARE = {
    "contrib": "bare",
    "ours": "bare",
    "ours-include": "bare",
    "ours-include over its includes": "bare-include",
    "4.1.1": "bare-4.1.1",
    "6.1.10": "bare-6.1.10",
    "ddtrace": "bare",
    "sentry-sdk": "bare",
    "tween": "bare",
    "tween-clocks": "bare",
    "tween-update": "bare",
}
"""Row of the table -> the application it is subtracted from."""

BEYOND = 99.0
"""Stands for a ratio to a cost that was lost in the noise."""


class Spread(NamedTuple):
    """Median and quartiles over the rounds."""

    low: float
    middle: float
    high: float

    def show(self, digits: int) -> str:
        if self.low == self.high:
            return f"{self.middle:.{digits}f}"
        return f"{self.middle:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Of one value: three times the same."""
    return Spread(*statistics.quantiles(values, n=4)) if len(values) > 1 else Spread(*values * 3)


def rows(figures: Figures) -> list[str]:
    """The rows of BARE whose peer and bare application were measured."""
    return [row for row, bare in BARE.items() if _peer(row) in figures and bare in figures]


def added(figures: Figures, row: str, scenario: str) -> list[float]:
    """What a row adds to its bare application, round by round."""
    pairs = zip(figures[_peer(row)][scenario], figures[BARE[row]][scenario], strict=True)
    return [with_ - without for with_, without in pairs]


def all_added(figures: Figures) -> dict[str, dict[str, Spread]]:
    """Row -> scenario -> what it adds."""
    return {row: {name: spread(added(figures, row, name)) for name in figures[_peer(row)]} for row in rows(figures)}


def ratios(figures: Figures, row: str, other: str, scenario: str) -> list[float]:
    """What one row adds over what another adds, round by round."""
    pairs = zip(added(figures, row, scenario), added(figures, other, scenario), strict=True)
    return [min(ours / theirs, BEYOND) if theirs > 0 else BEYOND for ours, theirs in pairs]


def _peer(row: str) -> str:
    return row.partition(" ")[0]


def table(
    figures: Figures, head: str, scenarios: Sequence[str], compared: Sequence[tuple[str, str]] = (), digits: int = 0
) -> str:
    """Markdown: the bare applications, what the others add (and its quartiles), the ratios of the compared rows."""
    lines = [line(head, scenarios), line("---", ["---:"] * len(scenarios))]
    for peer in figures:
        if peer.startswith("bare"):
            lines.append(line(peer, [f"{statistics.median(figures[peer][name]):.{digits}f}" for name in scenarios]))
    there = rows(figures)
    for row in there:
        lines.append(line(f"+ {row}", [spread(added(figures, row, name)).show(digits) for name in scenarios]))
    for row, other in compared:
        if row in there and other in there:
            medians = [statistics.median(ratios(figures, row, other, name)) for name in scenarios]
            lines.append(line(f"{row} / {other}", [f"{value:.2f}" for value in medians]))
    return "\n".join(lines)


def line(head: str, cells: Sequence[str]) -> str:
    """One row of a Markdown table."""
    return f"| {head} | " + " | ".join(cells) + " |"
