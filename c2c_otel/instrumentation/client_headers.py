"""Headers of outgoing calls that the standard variables ask to have in spans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.util.http import (
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST,
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE,
    OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS,
    get_custom_header_attributes,
    get_custom_headers,
    normalise_request_header_name,
    normalise_response_header_name,
)

__all__ = ["CapturedHeaders"]


class CapturedHeaders:
    """``OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_*``; falsy where they ask for none."""

    def __init__(self) -> None:
        self._request = get_custom_headers(OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST)
        self._response = get_custom_headers(OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE)
        self._hidden = get_custom_headers(OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS)

    def __bool__(self) -> bool:
        return bool(self._request or self._response)

    def of_request(self, headers: Mapping[str, Any]) -> dict[str, list[str]]:
        """Attributes ``http.request.header.{name}``."""
        return get_custom_header_attributes(headers, self._request, self._hidden, normalise_request_header_name)

    def of_response(self, headers: Mapping[str, Any]) -> dict[str, list[str]]:
        """Attributes ``http.response.header.{name}``."""
        return get_custom_header_attributes(headers, self._response, self._hidden, normalise_response_header_name)
