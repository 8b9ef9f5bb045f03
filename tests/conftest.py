"""For all tests: real servers as fixtures, their versions at the end, and no silent skip on CI."""

from __future__ import annotations

import pytest

from tests.servers import used
from tests.servers.fixtures import (
    chromium,
    on_ci,
    otlp_receiver,
    postgres,
    prometheus,
    promtool,
    redis_server,
    rsyslog,
    sentinel,
    statsd,
    udp_sink,
)

__all__ = [
    "chromium",
    "otlp_receiver",
    "postgres",
    "prometheus",
    "promtool",
    "redis_server",
    "rsyslog",
    "sentinel",
    "statsd",
    "udp_sink",
]

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember skipped tests; an expected failure is not one."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module that skips itself counts too."""
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """On CI a test that did not run is a failure."""
    if on_ci() and _skipped and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which servers were real, and which tests did not run."""
    if used:
        terminalreporter.section("servers")
        for name, versions in sorted(used.items()):
            terminalreporter.line(f"{name} {', '.join(versions)}")
    if _skipped and on_ci():
        terminalreporter.section("skipped, which fails the run where CI=true", red=True)
        for nodeid in _skipped:
            terminalreporter.line(nodeid)
