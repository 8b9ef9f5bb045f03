"""OpenTelemetry-native observability for Pyramid services: ``config.include("c2c_otel")``."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def includeme(config: Any) -> None:
    """See `c2c_otel.includes`."""
    from c2c_otel import includes

    includes.includeme(config)
