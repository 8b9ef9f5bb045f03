"""{base}/stats.json: timers, gauges and counters of all processes of the service; where STATS_VIEW is on."""

from __future__ import annotations

from typing import Any

from pyramid.response import Response

from c2c_otel import admin, telemetry
from c2c_otel_exporters import stats_json
from c2c_otel_views import answers

__all__ = ["includeme", "stats"]


def may_reset(request: Any) -> bool:
    """Whether this request may change something: nobody's may, as long as nobody can log in."""
    return False


def stats(request: Any) -> Response:
    """With ``reset=1`` what was shown is forgotten."""
    reset = request.params.get("reset") == "1"
    if reset and not may_reset(request):
        return answers.error(403, "Resetting the statistics needs the secret, and this service has no login yet.")
    families, _ = telemetry.get().families()
    return answers.json_response(stats_json.body(families))


def includeme(config: Any) -> None:
    if admin.settings_of(config).stats_view:
        answers.add_view(config, "c2c_read_stats_json", f"{admin.base_path(config)}/stats.json", stats)
