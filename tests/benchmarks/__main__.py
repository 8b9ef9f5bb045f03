"""``make bench``: what a request costs with each peer, and whether the goals are met. See docs/performance.md.

Ends with 1 and the names of the goals that are not met, if there are any.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks import compare, environments, figures, goals, instructions, throughput
from tests.benchmarks.application import PATHS

PARTS = ("times", "instructions", "server")
SERVER_ROUNDS = 3


def machine() -> str:
    """What it ran on."""
    model = "?"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, Linux {platform.release()}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--blocks", type=int, default=6, help="of 50 requests, for each peer and scenario in a round")
    parser.add_argument("--callgrind", type=int, default=100, metavar="REQUESTS", help="whose instructions are counted")
    parser.add_argument("--peers", default=",".join(compare.MEASURED))
    parser.add_argument("--scenarios", default=",".join(PATHS))
    parser.add_argument("--floor", action="store_true", help="what the least that can measure a request costs, instead")
    parser.add_argument("--seconds", type=int, default=4, help="of wrk, for each peer and scenario in a round of three")
    parser.add_argument("--chart", type=Path, default=environments.CACHE / "performance.png")
    parser.add_argument("--json", type=Path, default=environments.CACHE / "result.json")
    return parser.parse_args()


def main() -> int:
    """Each part's table as soon as it is there, then the goals."""
    options = arguments()
    parts, scenarios = options.parts.split(","), options.scenarios.split(",")
    peers = list(compare.FLOOR) if options.floor else options.peers.split(",")
    result: dict[str, Any] = {"machine": machine()}
    print(machine())
    if "times" in parts:
        result["us_per_request"] = compare.measure(peers, scenarios, options.rounds, options.blocks)
        result["us_added"] = figures.all_added(result["us_per_request"])
        print(f"\n{options.rounds} rounds of {options.blocks} blocks of {compare.BLOCK} requests\n")
        print(figures.table(result["us_per_request"], "us of CPU per request", scenarios, goals.COMPARED), flush=True)
    if "instructions" in parts:
        counted = result["kilo_instructions_per_request"] = instructions.measure(peers, scenarios, options.callgrind)
        print(f"\n{options.callgrind} requests\n")
        print(figures.table(counted, "1,000 instructions per request", scenarios, goals.COMPARED), flush=True)
    if "server" in parts and not options.floor:
        result["server"] = throughput.measure(throughput.PEERS, SERVER_ROUNDS, options.seconds)
        print(f"\n{SERVER_ROUNDS} rounds of {options.seconds} s\n")
        print(throughput.table(result["server"]), flush=True)
    verdicts = goals.judge(result.get("us_per_request", {}), result.get("kilo_instructions_per_request", {}), scenarios)
    if verdicts:
        print(f"\n{goals.table(verdicts)}")
    result["goals"] = [{**verdict._asdict(), "met": verdict.met} for verdict in verdicts]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1))
    if "us_added" in result and not options.floor:
        script = Path(__file__).with_name("chart.py")
        subprocess.run([environments.interpreter("chart"), script, options.json, options.chart], check=True)
        print(f"\nchart: {options.chart}", file=sys.stderr)
    print(f"\nall figures: {options.json}", file=sys.stderr)
    missed = goals.missed(verdicts)
    if missed:
        print("\ngoals not met: " + "; ".join(missed), file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
