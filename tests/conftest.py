"""For all tests: real servers as fixtures, their versions at the end, and no silent skip on CI."""

from __future__ import annotations

import pytest

from tests.servers.account import Account
from tests.servers.fixtures import (
    chromium,
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


def pytest_configure(config: pytest.Config) -> None:
    """Account for the run, in whichever directory its tests are."""
    config.pluginmanager.register(Account(), "account")
