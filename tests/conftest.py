"""For all tests: real servers as fixtures, their versions at the end, and no silent skip on CI."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.servers.account import account_for
from tests.servers.fixtures import (
    chromium,
    dot,
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
    "dot",
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


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """What a test started or counted does not reach the next one."""
    yield
    telemetry, guard = (sys.modules.get(name) for name in ("c2c_otel.telemetry", "c2c_otel_exporters.guard"))
    if telemetry is not None and telemetry.get().started:
        telemetry.get().shutdown()
        telemetry.get()._renew()
    if guard is not None:
        guard.reset()
