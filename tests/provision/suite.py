"""``python -m tests.provision.suite``: all tests under coverage, a few pytest processes at a time.

Most tests wait for servers, so two processes on two cores take little more than half the time of one. The files are
dealt out in chunks; a process that has ended is followed by the next chunk's. What a chunk printed is shown when it has
ended: its last line if it passed, else all of it. Arguments go to each pytest. The exit code is the worst of all.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("tests", "acceptance_tests")
CHUNK = 16
"""Files at most in a chunk: each one starts the servers that its tests ask for."""


class Done(NamedTuple):
    """One chunk: its name, its exit code, what it printed, and its seconds."""

    name: str
    code: int
    output: str
    seconds: float


def chunks(root: Path = ROOT) -> list[list[str]]:
    """All files with tests, each in one chunk, those that take long first: what talks to many processes."""
    found: dict[str, list[str]] = {}
    for place in PLACES:
        for path in sorted((root / place).rglob("test_*.py")):
            found.setdefault(str(path.parent.relative_to(root)), []).append(str(path.relative_to(root)))
    longest_first = sorted(found, key=lambda directory: ("integration" not in directory, directory))
    return [chunk for directory in longest_first for chunk in _split(found[directory])]


def _split(files: Sequence[str]) -> Iterator[list[str]]:
    """Chunks of about the same length."""
    count = -(-len(files) // CHUNK)
    for number in range(count):
        yield list(files[number * len(files) // count : (number + 1) * len(files) // count])


def run(files: Sequence[str], arguments: Sequence[str] = ()) -> Done:
    """One pytest process."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="c2c-otel-suite-") as cache:
        command = [sys.executable, "-m", "coverage", "run", "--parallel-mode", "--branch", "-m", "pytest"]
        command += ["-o", f"cache_dir={cache}", *arguments, *files]
        # coverage starts before pytest does: our own pytest plugin imports c2c_otel
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    first, last = (Path(name).stem.removeprefix("test_") for name in (files[0], files[-1]))
    name = f"{Path(files[0]).parent} ({first} to {last})"
    return Done(name, done.returncode, done.stdout, time.monotonic() - begun)


def _result(done: Done) -> str:
    """Pytest's last line, without its frame."""
    lines = [line.strip("= ") for line in done.output.splitlines() if re.match(r"=+ .* in [0-9.]+s", line)]
    return (lines or ["no result"])[-1] + (f", exit {done.code}" if done.code else "")


def _servers(output: str) -> list[str]:
    """The lines that name the servers which were used."""
    section = output.partition("= servers =")[2].partition("\n")[2]
    return [line for line in section.partition("\n=")[0].splitlines() if line.strip() and not line[0].isdigit()]


def main(arguments: Sequence[str]) -> int:
    """Run all, show all."""
    at_once = max(2, min(os.cpu_count() or 1, 4))
    worst, begun = 0, time.monotonic()
    servers: set[str] = set()
    with ThreadPoolExecutor(at_once) as pool:
        for future in as_completed([pool.submit(run, files, arguments) for files in chunks()]):
            done = future.result()
            worst = max(worst, done.code)
            servers.update(_servers(done.output))
            if done.code:
                print(done.output)
            print(f"{done.name}: {_result(done)}", flush=True)
    print("\n".join(["servers:", *(f"  {line}" for line in sorted(servers))]))
    print(f"all tests: {'passed' if not worst else 'FAILED'}, {time.monotonic() - begun:.0f} s")
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
