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
from tests.benchmarks.figures import Figures
from tests.servers.process import Unavailable

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
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--blocks", type=int, default=6, help="of 50 requests, for each peer and scenario in a round")
    parser.add_argument("--callgrind", type=int, default=100, metavar="REQUESTS", help="whose instructions are counted")
    parser.add_argument("--peers", default=",".join(compare.MEASURED))
    parser.add_argument("--scenarios", help="some of " + ",".join(PATHS))
    parser.add_argument("--floor", action="store_true", help="what the least that can measure a request costs, instead")
    parser.add_argument("--seconds", type=int, default=4, help="of wrk, for each peer and scenario in a round of three")
    parser.add_argument("--chart", type=Path, default=environments.CACHE / "performance.png")
    parser.add_argument("--json", type=Path, help="where all figures go")
    options = parser.parse_args()
    if options.floor:
        options.peers = ",".join(compare.FLOOR)
        options.parts = ",".join(part for part in options.parts.split(",") if part != "server")
    options.scenarios = options.scenarios or ("json" if options.floor else ",".join(PATHS))
    options.json = options.json or environments.CACHE / ("floor.json" if options.floor else "result.json")
    return options


def main() -> int:
    """Each part's table as soon as it is there, then the goals: 0 if they are met, 1 if not, 2 without a tool."""
    options = arguments()
    parts, peers, scenarios = (some.split(",") for some in (options.parts, options.peers, options.scenarios))
    try:
        if "instructions" in parts:
            instructions.valgrind()
        if "server" in parts:
            throughput.wrk()
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 2
    digits = 1 if options.floor else 0
    result: dict[str, Any] = {"machine": machine()}
    times: Figures = {}
    counts: Figures = {}
    print(machine())
    if "times" in parts:
        times = result["us_per_request"] = compare.measure(peers, scenarios, options.rounds, options.blocks)
        result["us_added"] = figures.all_added(times)
        said = f"{options.rounds} rounds of {options.blocks} blocks of {compare.BLOCK} requests"
        show(
            said, figures.table(times, "us of CPU per request", scenarios, goals.COMPARED, digits), options.json, result
        )
    if "instructions" in parts:
        counts = result["kilo_instructions_per_request"] = instructions.measure(peers, scenarios, options.callgrind)
        text = figures.table(counts, "1,000 instructions per request", scenarios, goals.COMPARED, digits)
        show(f"{options.callgrind} requests", text, options.json, result)
    if "server" in parts:
        loads = result["server"] = throughput.measure(throughput.PEERS, SERVER_ROUNDS, options.seconds)
        show(f"{SERVER_ROUNDS} rounds of {options.seconds} s", throughput.table(loads), options.json, result)
    verdicts = goals.judge(times, counts, scenarios)
    result["goals"] = [{**verdict._asdict(), "decides": verdict.decides, "met": verdict.met} for verdict in verdicts]
    if verdicts:
        show("the goals", goals.table(verdicts), options.json, result)
    if "ours" in result.get("us_added", ()):
        script = Path(__file__).with_name("chart.py")
        subprocess.run([environments.interpreter("chart"), script, options.json, options.chart], check=True)
        print(f"\nchart: {options.chart}", file=sys.stderr)
    print(f"\nall figures: {options.json}", file=sys.stderr)
    missed = goals.missed(verdicts)
    if missed:
        print("\ngoals not met: " + "; ".join(missed), file=sys.stderr)
    return 1 if missed else 0


def show(head: str, text: str, path: Path, result: dict[str, Any]) -> None:
    """Print a table, and write what there is so far: the next part takes minutes."""
    print(f"\n{head}\n\n{text}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    sys.exit(main())
