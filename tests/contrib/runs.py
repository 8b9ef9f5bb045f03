"""Runs contrib's suites, in a process of its own: with its instrumentors or ours, on the SDK's spans or lean ones."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from tests.provision import contrib
from tests.servers.find import ROOT

__all__ = ["PASSED", "run"]

PASSED = "passed"

_OPTIONS = [
    *("-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider", "-p", "no:warnings", "-p", "tests.contrib.plugin"),
    *("-q", "--tb=line", "--assert=plain"),
]
_LOUD = ("C2C_", "OTEL_", "STATSD_", "LOG_", "PYTEST_", "PYTHON")


@functools.cache
def run(instrumentors: Literal["contrib", "ours"], spans: Literal["sdk", "lean"]) -> dict[str, str]:
    """Test, as ``redis/test_redis.py::TestRedis::test_request_hook`` -> `PASSED`, or why not.

    Raises Unavailable where the suites cannot be had, and AssertionError where they did not run.
    """
    found = contrib.get()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_LOUD)}
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    environ["PYTHONPATH"] = f"{found.libraries}{os.pathsep}{ROOT}"
    with tempfile.TemporaryDirectory(prefix="c2c-otel-contrib-") as directory:
        results = Path(directory) / "results.json"
        asked = [f"--instrumentors={instrumentors}", f"--spans={spans}", f"--results={results}"]
        suites = sorted(os.listdir(found.suites))
        command = [sys.executable, "-m", "pytest", *_OPTIONS, *asked, *suites]
        done = subprocess.run(
            command, cwd=found.suites, env=environ, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode in (0, 1) and results.exists(), f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        read: dict[str, str] = json.loads(results.read_text())
    return {name.removeprefix("contrib_"): outcome for name, outcome in read.items()}
