"""``config.include("c2c_otel.pyramid")``: the same as ``config.include("c2c_otel")``."""

from __future__ import annotations

from c2c_otel import includeme

__all__ = ["includeme"]
