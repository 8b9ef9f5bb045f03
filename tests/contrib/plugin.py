"""A pytest plugin for the runs of contrib's suites: which instrumentors, which spans, what came out.

``--instrumentors=ours`` puts our classes in the place of contrib's (`tests.contrib.ours`); ``--spans=lean`` makes the
suites' TracerProvider ours. ``--results`` gets a JSON object: test id -> ``passed``, or the message it failed with.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--instrumentors", choices=["contrib", "ours"], required=True)
    parser.addoption("--spans", choices=["sdk", "lean"], required=True)
    parser.addoption("--results", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Before the suites are imported."""
    from opentelemetry.test import httptest, test_base

    httptest.HttpTestBase.Handler.timeout = 0.3  # of its one thread, for a connection that a failed test leaves open
    if config.getoption("--spans") == "lean":
        from c2c_otel.tracing import TracerProvider

        test_base.TracerProvider = TracerProvider
    if config.getoption("--instrumentors") == "ours":
        from tests.contrib import ours

        ours.replace()
    config.pluginmanager.register(Results(config.getoption("--results")))


class Results:
    """Writes them down. A test that is skipped (SQLAlchemy 1.4 alone has some) is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self._found[report.nodeid] = f"{report.when}: {report.longrepr if crash is None else crash.message}"
        elif report.when == "call" and report.passed:
            self._found[report.nodeid] = "passed"

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(json.dumps(self._found))
