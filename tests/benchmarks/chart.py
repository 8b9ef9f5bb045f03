"""``python chart.py result.json chart.png``, in the environment that has matplotlib: us added to a request, as bars."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

SCENARIOS = {
    "json": "one route, JSON",
    "select": "+ connect, SELECT",
    "redis": "+ Redis GET",
    "mix": "+ 3 SELECT, 2 GET",
    "call": "+ outgoing call",
}
PEERS = {
    "ours": ("c2c-otel: launcher", "#00429d"),
    "ours-include": ("c2c-otel: include", "#5b8fd0"),
    "4.1.1": ("c2cwsgiutils 4.1.1", "#8a8a8a"),
    "6.1.10": ("c2cwsgiutils 6.1.10", "#c4c4c4"),
    "contrib": ("OpenTelemetry contrib", "#e39b00"),
    "ddtrace": ("ddtrace", "#7b3294"),
    "sentry-sdk": ("sentry-sdk (no span for the call)", "#b2182b"),
}
"""Row of the table -> its name in the legend, and its colour."""
WIDTH = 0.9
"""Of a group of bars, whose centres are 1 apart."""


def draw(result: dict[str, Any], path: Path) -> None:
    """Medians, with the quartiles as whiskers; what was not measured is left out."""
    added = result["us_added"]
    peers = [peer for peer in PEERS if peer in added]
    scenarios = [scenario for scenario in SCENARIOS if scenario in added[peers[0]]]
    figure, axes = pyplot.subplots(figsize=(12, 5.6), dpi=110, layout="constrained")
    width = WIDTH / len(peers)
    for number, peer in enumerate(peers):
        name, colour = PEERS[peer]
        places = [group + (number - (len(peers) - 1) / 2) * width for group in range(len(scenarios))]
        spreads = [added[peer][scenario] for scenario in scenarios]
        middles = [middle for _, middle, _ in spreads]
        whiskers = [[middle - low for low, middle, _ in spreads], [high - middle for _, middle, high in spreads]]
        error = {"elinewidth": 0.8, "ecolor": "#444444"}
        axes.bar(places, middles, width * 0.9, color=colour, label=name, yerr=whiskers, error_kw=error)
        for place, (_, middle, high) in zip(places, spreads, strict=True):
            offset = {"xytext": (0, 4), "textcoords": "offset points"}
            axes.annotate(f"{middle:.0f}", (place, high), ha="center", va="bottom", fontsize=8, rotation=90, **offset)
    axes.set_xticks(range(len(scenarios)), [SCENARIOS[scenario] for scenario in scenarios], fontsize=11)
    axes.set_ylabel("µs of CPU added to one request")
    axes.set_title("What telemetry adds to a request of a bare Pyramid application (less is better)", fontsize=12)
    axes.margins(x=0.01, y=0.12)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.grid(True, color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="upper left", fontsize=10)
    figure.supxlabel(result["machine"], fontsize=8, color="#666666")
    figure.savefig(path)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
