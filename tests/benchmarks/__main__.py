"""``make bench``: what a request costs with each peer, and the ratios between them. See docs/performance.md.

python -m tests.benchmarks [--rounds N] [--blocks N] [--peers A,B] [--scenarios A,B] [--json FILE] [--callgrind]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import compare, environments
from tests.benchmarks.application import PATHS


def table(times: compare.Times, scenarios: Sequence[str]) -> str:
    """Markdown: us per request of the bare applications, us added by the others (and their spread), ratios."""
    lines = [_row("us of CPU per request", scenarios), _row("---", ["---:"] * len(scenarios))]
    for peer in compare.MEASURED:
        if peer.startswith("bare") and peer in times:
            lines.append(_row(peer, [f"{statistics.median(times[peer][name]):.0f}" for name in scenarios]))
    rows = [row for row, bare in compare.BARE.items() if row.partition(" ")[0] in times and bare in times]
    for row in rows:
        lines.append(_row(f"+ {row}", [_spread(compare.added(times, row, name)) for name in scenarios]))
    for row, other in compare.RATIOS:
        if row in rows and other in rows:
            ratios = [compare.ratio(times, row, other, name) for name in scenarios]
            lines.append(_row(f"{row} / {other}", [f"{value:.2f}" for value in ratios]))
    return "\n".join(lines)


def _row(head: str, cells: Sequence[str]) -> str:
    return f"| {head} | " + " | ".join(cells) + " |"


def _spread(values: Sequence[float]) -> str:
    """Median, and the quartiles over the rounds."""
    if len(values) < 2:
        return f"{values[0]:.0f}"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def machine() -> str:
    """What it ran on."""
    model = "?"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, Linux {platform.release()}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--blocks", type=int, default=8, help="of 50 requests, for each peer and scenario in a round")
    parser.add_argument("--peers", default=",".join(compare.MEASURED))
    parser.add_argument("--scenarios", default=",".join(PATHS))
    parser.add_argument("--json", type=Path, default=environments.CACHE / "result.json")
    parser.add_argument("--callgrind", type=int, metavar="REQUESTS", help="instructions instead of time (valgrind)")
    options = parser.parse_args()
    peers, scenarios = options.peers.split(","), options.scenarios.split(",")
    if options.callgrind:
        from tests.benchmarks import instructions

        print(instructions.table(instructions.measure(peers, scenarios, options.callgrind), scenarios))
        return
    times = compare.measure(peers, scenarios, options.rounds, options.blocks)
    print(f"{machine()}; {options.rounds} rounds of {options.blocks} blocks of {compare.BLOCK} requests\n")
    print(table(times, scenarios))
    result = {"machine": machine(), "block": compare.BLOCK, "blocks": options.blocks, "us_per_request": times}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1))
    print(f"\nall figures: {options.json}", file=sys.stderr)


if __name__ == "__main__":
    main()
