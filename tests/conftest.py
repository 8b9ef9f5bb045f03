"""For all tests: real servers as fixtures, their versions at the end, and no silent skip on CI."""

from __future__ import annotations

from tests.servers.account import account_for
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
    "pytest_configure",
    "redis_server",
    "rsyslog",
    "sentinel",
    "statsd",
    "udp_sink",
]

pytest_configure = account_for
