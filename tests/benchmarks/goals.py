"""What the figures must come to, and whether they do."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from tests.benchmarks import figures
from tests.benchmarks.figures import Figures, Spread


class Goal(NamedTuple):
    """What `row` adds to a request is at most `bounds` (by scenario) of what `other` adds."""

    row: str
    other: str
    bounds: dict[str, float]


_SCENARIOS = ("json", "select", "redis", "mix", "call")

GOALS = (
    Goal("ours", "contrib", {**dict.fromkeys(_SCENARIOS, 1 / 8), "call": 1 / 5}),
    Goal("ours", "4.1.1", {**dict.fromkeys(_SCENARIOS, 1 / 4), "call": 1 / 3}),
    Goal("ours-include", "4.1.1", dict.fromkeys(_SCENARIOS, 1 / 2)),
    Goal("ours-include", "6.1.10", dict.fromkeys(_SCENARIOS, 1.0)),
    Goal("ours-include over its includes", "ours", dict.fromkeys(_SCENARIOS, 1.0)),
)

COMPARED = [(goal.row, goal.other) for goal in GOALS]


class Verdict(NamedTuple):
    """One cell of a goal. `time` and `instructions` are ratios; None where they were not measured."""

    name: str
    scenario: str
    bound: float
    time: Spread | None
    instructions: float | None

    @property
    def noisy(self) -> bool:
        """Whether the bound lies between the quartiles of the rounds: another run could say otherwise."""
        return self.time is not None and self.time.low <= self.bound < self.time.high

    @property
    def decides(self) -> str:
        """Time, unless it is noisy and instructions were counted."""
        if self.time is None or (self.noisy and self.instructions is not None):
            return "instructions"
        return "time"

    @property
    def met(self) -> bool:
        ratio = self.instructions if self.decides == "instructions" else self.time and self.time.middle
        assert ratio is not None
        return ratio <= self.bound


def judge(times: Figures, instructions: Figures, scenarios: Sequence[str]) -> list[Verdict]:
    """All goals that something is known of, for those scenarios; either of the figures may be empty."""
    verdicts = []
    for goal in GOALS:
        by_time, by_count = (_known(goal, measured) for measured in (times, instructions))
        for scenario, bound in goal.bounds.items():
            if scenario in scenarios and (by_time or by_count):
                time = figures.spread(_ratios(times, goal, scenario)) if by_time else None
                count = statistics.median(_ratios(instructions, goal, scenario)) if by_count else None
                verdicts.append(Verdict(f"{goal.row} / {goal.other}", scenario, bound, time, count))
    return verdicts


def _known(goal: Goal, measured: Figures) -> bool:
    return {goal.row, goal.other} <= set(figures.rows(measured))


def _ratios(measured: Figures, goal: Goal, scenario: str) -> list[float]:
    return figures.ratios(measured, goal.row, goal.other, scenario)


def table(verdicts: Sequence[Verdict]) -> str:
    """Markdown, one row for each verdict."""
    lines = [figures.line("goal", ["", "at most", "time", "instructions", "what decides", "met"])]
    lines.append("| --- | --- | ---: | ---: | ---: | --- | --- |")
    for verdict in verdicts:
        time = verdict.time.show(3) if verdict.time else "-"
        count = "-" if verdict.instructions is None else f"{verdict.instructions:.3f}"
        cells = [verdict.scenario, f"{verdict.bound:.3f}", time, count, verdict.decides]
        lines.append(figures.line(verdict.name, [*cells, "yes" if verdict.met else "NO"]))
    return "\n".join(lines)


def missed(verdicts: Sequence[Verdict]) -> list[str]:
    """The names of what is not met."""
    return [f"{verdict.name}, {verdict.scenario}" for verdict in verdicts if not verdict.met]
