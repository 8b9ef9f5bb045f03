"""OpenTelemetry-native observability for Pyramid services: ``config.include("c2c_otel")``."""

from __future__ import annotations

__version__ = "0.1.0"
