"""Families -> the body of stats.json: ``{"timers": {key: {nb, avg_ms, min_ms, max_ms}}, "gauges": {}, "counters": {}}``.

Milliseconds are rounded to integers. Keys are the parts of a name with slashes between them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from c2c_otel_exporters.model import Family, Kind

__all__ = ["body"]

_SECTIONS = {Kind.STAT_TIMER: "timers", Kind.STAT_GAUGE: "gauges", Kind.STAT_COUNTER: "counters"}


def body(families: Iterable[Family]) -> dict[str, dict[str, Any]]:
    """What stats.json shows, keys sorted. Families of other kinds are left out."""
    sections: dict[str, dict[str, Any]] = {"timers": {}, "gauges": {}, "counters": {}}
    for metric, series in families:
        section = _SECTIONS.get(metric.kind)
        if section is not None:
            entries = ((labels[0][1] if labels[0][0] == "key" else labels[0][0], labels) for labels in series)
            for key, labels in sorted(entries):
                values = series[labels].values
                sections[section][key] = _timer(values) if section == "timers" else _number(values[1])
    return sections


def _timer(values: tuple[float, ...]) -> dict[str, int]:
    _, count, total, shortest, longest = values
    return {
        "nb": int(count),
        "avg_ms": round(total / count * 1000),
        "min_ms": round(shortest * 1000),
        "max_ms": round(longest * 1000),
    }


def _number(value: float) -> float:
    """An integer where it is one, as it was given."""
    return int(value) if value == value // 1 else value
