"""pytest fixtures of `c2c_otel.testing`; loaded by pytest itself once c2c-otel is installed.

While it runs, a failure inside c2c-otel is raised, where a service logs it once and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from c2c_otel.testing import Captured


def pytest_configure() -> None:
    from c2c_otel_exporters import guard

    guard.under_pytest(True)


def pytest_unconfigure() -> None:
    from c2c_otel_exporters import guard

    guard.under_pytest(False)


@pytest.fixture
def c2c_telemetry() -> Iterator[Captured]:
    """The telemetry of this test alone, in memory: spans, statsd lines, metrics, log lines. Deterministic: ids count
    from 1, and what is timed takes as long as ``c2c_telemetry.clock.advance(seconds)`` says."""
    from c2c_otel.testing import capture

    with capture(deterministic=True) as captured:
        yield captured
