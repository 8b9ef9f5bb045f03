"""pytest fixtures of `c2c_otel.testing`; loaded by pytest itself once c2c-otel is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from c2c_otel.testing import Captured


@pytest.fixture
def c2c_telemetry() -> Iterator[Captured]:
    """The telemetry of this test alone, in memory: spans, statsd lines, metrics, log lines."""
    from c2c_otel.testing import capture

    with capture() as captured:
        yield captured
