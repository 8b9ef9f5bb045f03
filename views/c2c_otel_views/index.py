"""{base} and {base}/: a page with a link to each of our views that there is."""

from __future__ import annotations

from html import escape
from typing import Any

from pyramid.interfaces import IRoutesMapper
from pyramid.response import Response

from c2c_otel import admin, telemetry
from c2c_otel_views import answers

__all__ = ["LINKS", "includeme", "index"]

LINKS = (
    # route, text, what is there
    ("c2c_metrics", "Metrics", "all workers together, for Prometheus and OpenMetrics"),
    ("c2c_read_stats_json", "Statistics", "timers, counters and gauges of all workers as JSON"),
    ("c2c_versions", "Versions", "of the application and its packages"),
    ("c2c_debug_time", "Time", "the clock and the time zone of the server"),
)

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
body {{ font-family: sans-serif; line-height: 1.5; margin: 2rem auto; max-width: 44rem; padding: 0 1rem; }}
dt {{ font-size: 1.1rem; margin-top: 1rem; }}
dd {{ color: #555; margin: 0; }}
</style>
</head>
<body>
<h1>{title}</h1>
<dl>
{links}
</dl>
</body>
</html>
"""

# the icon is empty, and named so that no browser asks the application for /favicon.ico
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def index(request: Any) -> Response:
    routes = request.registry.getUtility(IRoutesMapper)
    links = [
        f'<dt><a href="{escape(request.route_path(name))}">{escape(text)}</a></dt><dd>{escape(what)}</dd>'
        for name, text, what in LINKS
        if routes.get_route(name) is not None
    ]
    title = escape(telemetry.get().settings.service_name or "c2c-otel")
    response = Response(_PAGE.format(title=title, links="\n".join(links)))
    response.headers["Content-Security-Policy"] = _POLICY
    return response


def includeme(config: Any) -> None:
    """With an empty base path there is no index: the root is the application's."""
    if base := admin.base_path(config):
        answers.add_view(config, "c2c_index", base, index)
        answers.add_view(config, "c2c_index_slash", f"{base}/", index)
