"""A pytest plugin that accounts for a run: which servers were real, and what did not run at all."""

from __future__ import annotations

import os
import signal

import pytest

from tests.servers.process import used

__all__ = ["Account", "account_for", "on_ci"]


def on_ci() -> bool:
    """Where a server that cannot be had, or any skipped test, is a failure."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def account_for(config: pytest.Config) -> None:
    """Account for the run once, whichever of the conftest.py that ask for it are loaded, and in which order."""
    if not config.pluginmanager.hasplugin("account"):
        config.pluginmanager.register(Account(), "account")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job ignores Ctrl-C, and so would every program that the tests start and interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Account:
    """Registered by `account_for`; as a plugin of its own it sees the tests of every directory."""

    def __init__(self) -> None:
        self._skipped: dict[str, None] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember skipped tests; an expected failure is not one."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped[report.nodeid] = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that skips itself counts too."""
        if report.skipped:
            self._skipped[report.nodeid] = None

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """On CI a test that did not run is a failure."""
        if on_ci() and self._skipped and session.exitstatus in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Each server that was used with its version, and on CI the tests whose skipping fails the run."""
        if used:
            terminalreporter.section("servers")
            for name, versions in sorted(used.items()):
                terminalreporter.line(f"{name} {', '.join(versions)}")
        if self._skipped and on_ci():
            terminalreporter.section("skipped, which fails the run where CI=true", red=True)
            for nodeid in self._skipped:
                terminalreporter.line(nodeid)
