"""The request that is being served, as log lines, spans and outgoing calls see it.

It travels in the OpenTelemetry context, from the first tween to the closing of the body, longer than
Pyramid's own thread-local, which ends before the body is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["KEY", "CurrentRequest", "get"]

KEY = otel_context.create_key("c2c-otel-request")


class CurrentRequest:
    """State of one WSGI request. One thread at a time touches it.

    ``environ``: the WSGI environ. ``request_id``: accepted or made. ``span``: the route span.
    ``request``: Pyramid's request once there is one (the outermost, not a subrequest).
    ``route_name`` and ``route_pattern``: of the matched route. ``started``: ``time.time_ns()``.
    """

    __slots__ = (
        "environ",
        "error",
        "render_ns",
        "request",
        "request_id",
        "route_name",
        "route_pattern",
        "span",
        "started",
        "status",
    )

    def __init__(self, environ: dict[str, Any], request_id: str, span: Span, started: int) -> None:
        self.environ = environ
        self.request_id = request_id
        self.span = span
        self.started = started
        self.request: Any = None
        self.route_name: str | None = None
        self.route_pattern: str | None = None
        self.status: int | None = None
        self.error: BaseException | None = None
        self.render_ns = -1
        """Nanoseconds spent rendering; -1 where nothing was rendered."""


def get() -> CurrentRequest | None:
    """The request being served in this context, or None."""
    return otel_context.get_current().get(KEY)  # type: ignore[return-value]
