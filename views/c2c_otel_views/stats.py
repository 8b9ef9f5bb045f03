"""{base}/stats.json: timers, gauges and counters of all processes of the service; where STATS_VIEW is on."""

from __future__ import annotations

import logging
from typing import Any

from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.response import Response

from c2c_otel import admin, auth, telemetry
from c2c_otel_exporters import stats_json
from c2c_otel_views import answers, parameters

__all__ = ["includeme", "stats"]

_logger = logging.getLogger("c2c_otel.stats")


def stats(request: Any) -> Response:
    """With ``reset=1``, which needs the secret, what was shown is forgotten by all workers."""
    reset = parameters.flag(request, "reset", False)
    if reset:
        auth.require_change(request)
    families, _ = telemetry.get().families()
    body = stats_json.body(families)
    if reset:
        _reset(request, sum(map(len, body.values())))
    return answers.json_response(body)


def _reset(request: Any, before: int) -> None:
    parts = telemetry.get().parts
    if parts is None:
        raise HTTPServiceUnavailable("There are no statistics: telemetry is off in this process.")
    try:
        parts.scraper.reset_stats()
    except OSError as problem:
        raise HTTPServiceUnavailable(f"The statistics were not reset: {problem}") from problem
    _logger.warning("%s has reset the statistics: %d keys before, 0 after", auth.who(request), before)


def includeme(config: Any) -> None:
    if admin.settings_of(config).stats_view:
        answers.add_view(config, "c2c_read_stats_json", f"{admin.base_path(config)}/stats.json", stats, ("GET", "POST"))
