"""{base}/debug/time: what time the service thinks it is."""

from __future__ import annotations

import datetime
import time
from typing import Any

from pyramid.response import Response

from c2c_otel import admin
from c2c_otel_views import answers

__all__ = ["debug_time", "includeme"]


def debug_time(request: Any) -> Response:
    """``local_time`` and ``gmt_time`` as ISO 8601 without zone, ``epoch`` in seconds, ``timezone`` by name."""
    epoch = time.time()
    utc = datetime.datetime.fromtimestamp(epoch, datetime.UTC)
    return answers.json_response(
        {
            "local_time": utc.astimezone().replace(tzinfo=None).isoformat(),
            "gmt_time": utc.replace(tzinfo=None).isoformat(),
            "epoch": epoch,
            "timezone": utc.astimezone().tzname(),
        }
    )


def includeme(config: Any) -> None:
    answers.add_view(config, "c2c_debug_time", f"{admin.base_path(config)}/debug/time", debug_time)
