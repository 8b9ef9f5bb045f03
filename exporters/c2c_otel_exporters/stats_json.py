"""Families -> the body of stats.json.

``{"timers": {key: {"nb", "avg_ms", "min_ms", "max_ms"}}, "gauges": {key: value}, "counters": {key: value}}``

Milliseconds are rounded to integers. Keys are the parts of a name with slashes between them.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any

from c2c_otel_exporters.model import Family, Kind

__all__ = ["body"]

_SECTIONS = {Kind.STAT_TIMER: "timers", Kind.STAT_GAUGE: "gauges", Kind.STAT_COUNTER: "counters"}


def body(families: Iterable[Family]) -> dict[str, dict[str, Any]]:
    """What stats.json shows, keys sorted. Families of other kinds are left out, and what was never written."""
    sections: dict[str, dict[str, Any]] = {"timers": {}, "gauges": {}, "counters": {}}
    for metric, series in families:
        section = _SECTIONS.get(metric.kind)
        if section is None:
            continue
        for labels, sample in sorted(series.items()):
            label, key = labels[0]
            values = sample.values
            if metric.kind is Kind.STAT_COUNTER or values[1 if metric.kind is Kind.STAT_TIMER else 2]:
                entry = _timer(values) if metric.kind is Kind.STAT_TIMER else _number(values[1])
                sections[section][key if label == "key" else label] = entry
    return sections


def _timer(values: tuple[float, ...]) -> dict[str, int]:
    _, count, total, shortest, longest = values
    return {
        "nb": int(count),
        "avg_ms": round(total / count * 1000),
        "min_ms": round(shortest * 1000),
        "max_ms": round(longest * 1000),
    }


def _number(value: float) -> float | None:
    """An integer where it is one, as it was given; JSON has nothing for what is not finite."""
    if not isfinite(value):
        return None
    return int(value) if value == int(value) else value
