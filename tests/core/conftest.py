"""What the core's tests share: programs that run in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

_BEGIN = """
import logging, multiprocessing, os, sys, threading, time
from opentelemetry import metrics, trace
from c2c_otel import stats, telemetry
process = telemetry.get()

def sample(name):
    lines = process.render("text/plain")[1].decode().splitlines()
    found = [float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + " ", name + "{"))]
    return sum(found) if found else None

def fork(child):
    one = multiprocessing.get_context("fork").Process(target=child)
    one.start()
    one.join(20)
    assert one.exitcode == 0, one.exitcode
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(code: str, *, ok: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("C2C_", "OTEL_", "STATSD_", "LOG_", "COVERAGE"))
        }
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _BEGIN + code],
            env={**clean, "C2C_RUNTIME_DIR": str(tmp_path / "run"), **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not ok or (done.returncode == 0 and "Traceback" not in done.stderr), done.stderr
        return done

    return run
