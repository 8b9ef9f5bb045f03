"""/metrics: the measurements of all processes of the service, for Prometheus or OpenMetrics."""

from __future__ import annotations

import gzip
from typing import Any

from pyramid.response import Response

from c2c_otel import telemetry
from c2c_otel_views import answers

__all__ = ["includeme", "metrics"]

_WORTH_PACKING = 1000
"""Bytes below which gzip gains nothing."""


def metrics(request: Any) -> Response:
    content_type, body = telemetry.get().render(request.headers.get("Accept", ""))
    response = Response(headerlist=[("Content-Type", content_type), ("Vary", "Accept, Accept-Encoding")])
    if len(body) >= _WORTH_PACKING and _takes_gzip(request):
        body = gzip.compress(body, 1)
        response.headers["Content-Encoding"] = "gzip"
    response.body = body
    return response


def _takes_gzip(request: Any) -> bool:
    """Without the header any coding is acceptable (RFC 9110), but whoever does not send it cannot unpack."""
    return "Accept-Encoding" in request.headers and bool(request.accept_encoding.acceptable_offers(["gzip"]))


def includeme(config: Any) -> None:
    answers.add_view(config, "c2c_metrics", "/metrics", metrics)
