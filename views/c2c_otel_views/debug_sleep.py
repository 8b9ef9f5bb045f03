"""{base}/debug/sleep: an answer that takes its time, to see what a load balancer or a client does then."""

from __future__ import annotations

import threading
import time
from typing import Any

from pyramid.response import Response

from c2c_otel import admin, auth
from c2c_otel_views import answers, parameters

__all__ = ["AT_ONCE", "LONGEST", "debug_sleep", "includeme"]

LONGEST = 300.0
"""Seconds: load balancers give up before that."""

AT_ONCE = 2
"""Requests that may sleep in one process: each has a thread that then serves nobody else."""

_beds = threading.BoundedSemaphore(AT_ONCE)


def debug_sleep(request: Any) -> Response:
    """204 after ``time`` seconds; 503 where too many others are asleep."""
    seconds = parameters.number(request, "time", 0, LONGEST, unit="seconds")
    if not _beds.acquire(blocking=False):
        response = answers.error(503, f"{AT_ONCE} requests are asleep in this process, which is as many as may be.")
        response.headers["Retry-After"] = "1"
        return response
    try:
        time.sleep(seconds)
    finally:
        _beds.release()
    return Response(status=204)


def includeme(config: Any) -> None:
    settings = admin.settings_of(config)
    if auth.is_enabled(settings, settings.debug_view_enabled):
        path = f"{admin.base_path(config)}/debug/sleep"
        answers.add_view(config, "c2c_debug_sleep", path, debug_sleep, protected=True)
