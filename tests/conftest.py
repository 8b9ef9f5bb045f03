"""For all tests: real servers as fixtures, their versions at the end, and no silent skip on CI."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.servers.account import account_for
from tests.servers.fixtures import (
    chromium,
    dot,
    otlp_receiver,
    postgres,
    prometheus,
    promtool,
    pushgateway,
    redis_server,
    rsyslog,
    sentinel,
    sentry_server,
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
    "pushgateway",
    "pytest_configure",
    "redis_server",
    "rsyslog",
    "sentinel",
    "sentry_server",
    "statsd",
    "udp_sink",
]

pytest_configure = account_for


@pytest.fixture(autouse=True, scope="session")
def own_runtime_directory() -> Iterator[None]:
    """What services of the test run share is not what was shared in another one."""
    from c2c_otel import runtime_dir

    before = runtime_dir._temporary_directory
    directory = Path(tempfile.mkdtemp(prefix="c2c-otel-tests-"))
    runtime_dir._temporary_directory = lambda: directory
    yield
    runtime_dir._temporary_directory = before
    shutil.rmtree(directory, ignore_errors=True)


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


@pytest.fixture(autouse=True, scope="module")
def nothing_stays_instrumented() -> Iterator[None]:
    """An application that includes c2c_otel instruments its process for good: the next file's tests begin without."""
    yield
    from c2c_otel import distro

    for name in distro._instrumented:
        _, module, cls = distro.INSTRUMENTORS[name]
        ours = getattr(import_module(module), cls)
        if ours().is_instrumented_by_opentelemetry:
            ours().uninstrument()
        ours.__base__._is_instrumented_by_opentelemetry = False
    distro._instrumented.clear()
    distro._hooked.difference_update(distro.INSTRUMENTORS)
