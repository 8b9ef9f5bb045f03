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
    # route, text
    ("c2c_metrics", "Metrics"),
    ("c2c_read_stats_json", "Statistics"),
    ("c2c_versions", "Versions"),
    ("c2c_debug_time", "Time"),
)

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ font-family: sans-serif; margin: 2rem auto; max-width: 40rem; padding: 0 1rem; }}</style>
</head>
<body>
<h1>{title}</h1>
<ul>
{links}
</ul>
</body>
</html>
"""


def index(request: Any) -> Response:
    routes = request.registry.getUtility(IRoutesMapper)
    links = [
        f'<li><a href="{escape(request.route_path(name))}">{escape(text)}</a></li>'
        for name, text in LINKS
        if routes.get_route(name) is not None
    ]
    title = escape(telemetry.get().settings.service_name or "c2c-otel")
    response = Response(_PAGE.format(title=title, links="\n".join(links)))
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"
    return response


def includeme(config: Any) -> None:
    """With an empty base path there is no index: the root is the application's."""
    if base := admin.base_path(config):
        answers.add_view(config, "c2c_index", base, index)
        answers.add_view(config, "c2c_index_slash", f"{base}/", index)
