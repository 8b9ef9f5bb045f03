"""The parts of the index: links and forms for the views that there are, whoever made them.

A form that changes something is sent by POST with the login's token; all others are GET.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.interfaces import IRoutesMapper

from c2c_otel import auth
from c2c_otel.index import Html, button, escape, form, input_, link, section, select

__all__ = ["OPEN", "PROTECTED", "Shown"]

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Shown:
    """One request's view of the routes there are. ``known``: of who has the secret."""

    def __init__(self, request: Any, known: bool) -> None:
        self.known = known
        self._request = request
        self._routes = request.registry.getUtility(IRoutesMapper)
        self._token = auth.csrf_token(request)

    def url(self, route: str) -> str | None:
        """The path of a route of ours, or None where that view is not there."""
        if self._routes.get_route(route) is None:
            return None
        path: str = self._request.route_path(route)
        return path

    def links(self, *links: tuple[str, str, str]) -> Html:
        """(route, text, what is there): a list of those that are there; nothing where none is."""
        lines = [
            f"<dt>{link(url, text)}</dt><dd>{escape(what)}</dd>"
            for route, text, what in links
            if (url := self.url(route)) is not None
        ]
        return Html("<dl>\n" + "\n".join(lines) + "\n</dl>") if lines else Html("")

    def ask(self, route: str, title: str, what: str, *content: Html) -> Html:
        """A form that changes nothing."""
        url = self.url(route)
        return _try(title, what, form(url, *content)) if url is not None else Html("")

    def change(self, route: str, title: str, what: str, *forms: tuple[Html, ...]) -> Html:
        """Forms that change something; each is its content."""
        url = self.url(route)
        if url is None or not self.known:
            return Html("")
        token = input_("csrf_token", type_="hidden", value=self._token) if self._token else Html("")
        return _try(title, what, *(form(url, token, *content, method="post") for content in forms))


def _try(title: str, what: str, *forms: Html) -> Html:
    lines = "\n".join(forms)
    head = f"<h3>{escape(title)}</h3>\n<p>{escape(what)}</p>"
    return Html(f'<div class="try">\n{head}\n<div class="forms">\n{lines}\n</div>\n</div>')


def _section(title: str, *content: Html) -> Html:
    """Nothing where it has nothing."""
    return section(title, *content) if any(content) else Html("")


def _measurements(shown: Shown) -> Html:
    return _section(
        "Measurements",
        shown.links(
            ("c2c_metrics", "Metrics", "all workers together, for Prometheus and OpenMetrics"),
            ("c2c_read_stats_json", "Statistics", "timers, counters and gauges of all workers as JSON"),
        ),
        shown.change(
            "c2c_read_stats_json",
            "Reset the statistics",
            "Shows them once more, and begins anew; the metrics go on.",
            (input_("reset", type_="hidden", value="1"), button("Reset")),
        ),
    )


def _service(shown: Shown) -> Html:
    return _section(
        "Service",
        shown.links(
            ("c2c_versions", "Versions", "of the application and its packages"),
            ("c2c_debug_time", "Time", "the clock and the time zone of the server"),
        ),
        shown.ask(
            "c2c_health_check",
            "Health check",
            "Runs the checks up to a level, or those that are named, with commas between them.",
            input_("max_level", value=1, min=0),
            input_("checks"),
            button("Run"),
        ),
    )


def _logging(shown: Shown) -> Html:
    name = input_("name", "Logger", placeholder="sqlalchemy.engine", required=True)
    return _section(
        "Log levels",
        shown.links(("c2c_logging_level", "Overrides", "the levels that were changed here")),
        shown.ask("c2c_logging_level", "Look", "The level of a logger.", name, button("Show")),
        shown.change(
            "c2c_logging_level",
            "Change",
            "In all workers, and in those that come. With a duration it reverts by itself.",
            (
                name,
                select("level", _LEVELS, value="DEBUG"),
                input_("duration", "Seconds (optional)", "number", min=1),
                button("Set level"),
            ),
        ),
        shown.change(
            "c2c_logging_level",
            "Reset",
            "The logger has the level again that its configuration gave it.",
            (name, input_("reset", type_="hidden", value="1"), button("Reset")),
        ),
    )


def _maintenance(shown: Shown) -> Html:
    readonly = {word: input_("readonly", type_="hidden", value=word) for word in ("true", "false")}
    return _section(
        "Database maintenance",
        shown.links(("c2c_db_maintenance", "State", "whether the service is read-only")),
        shown.change(
            "c2c_db_maintenance",
            "Change",
            "Read-only, nothing is written to the database; in all workers, until it is ended.",
            (readonly["true"], button("Begin read-only")),
            (readonly["false"], button("End read-only")),
        ),
    )


def _sql_profiler(shown: Shown) -> Html:
    return _section(
        "SQL profiler",
        shown.links(("c2c_sql_profiler", "State", "whether it is on")),
        shown.change(
            "c2c_sql_profiler",
            "Change",
            "On, the plan of each slow SELECT goes to its span and to the log. It switches itself off after a while.",
            (
                input_("enable", type_="hidden", value="1"),
                input_("min_seconds", "From seconds (optional)", "number", min=0, step="any"),
                input_("duration", "For seconds (optional)", "number", min=1),
                input_("analyze", "Run the SELECT once more, for real times", "checkbox"),
                button("Switch on"),
            ),
            (input_("enable", type_="hidden", value="0"), button("Switch off")),
        ),
    )


def _profiler(shown: Shown) -> Html:
    return _section(
        "Profiler",
        shown.links(("c2c_profiler", "Profiler", "where requests spend their time; its switch, and what it has seen")),
    )


def _debug(shown: Shown) -> Html:
    return _section(
        "Requests and threads",
        shown.links(
            ("c2c_debug_stacks", "Stacks", "what each thread of each worker is doing"),
            ("c2c_debug_headers", "Headers", "this request as it arrives here, behind all proxies"),
        ),
        shown.ask(
            "c2c_debug_sleep",
            "Sleep",
            "An answer that takes its time, to see what a load balancer does then.",
            input_("time", "Seconds", "number", 1, min=0, max=300, step="any", required=True),
            button("Sleep"),
        ),
        shown.ask(
            "c2c_debug_error",
            "Error",
            "An answer with this status, to see what proxies and alerts do then.",
            input_("status", value=500, min=400, max=599, required=True),
            button("Raise"),
        ),
    )


def _memory(shown: Shown) -> Html:
    return _section(
        "Memory",
        shown.links(("c2c_debug_memory_maps", "Memory maps", "what the memory of the answering process is used for")),
        shown.ask(
            "c2c_debug_memory",
            "Memory",
            "Of each worker: its most common types, and with a type the biggest objects of it.",
            input_("limit", value=30, min=1, max=1000),
            input_("analyze_type", "Type (optional)", placeholder="builtins.dict"),
            input_("python_internals_map", "Python internals", "checkbox"),
            button("Measure"),
        ),
        shown.ask(
            "c2c_debug_memory_diff",
            "Memory difference",
            "What a request to a path of the application leaves in the memory.",
            input_("path", placeholder="/", required=True),
            input_("limit", value=30, min=1, max=1000),
            input_("no_warmup", "No request before it", "checkbox"),
            button("Compare"),
        ),
        shown.ask(
            "c2c_debug_show_refs",
            "References",
            "Of the objects of a type, or of the one with an id, for Graphviz.",
            input_("analyze_type", "Type", placeholder="myapp.Order"),
            input_("analyze_id", "Or id", "number", min=1),
            input_("max_depth", value=3, min=0, max=20),
            input_("too_many", value=10, min=1, max=1000),
            input_("min_size_kb", "Min size (KiB, optional)", "number", min=0),
            input_("no_extra_info", "Names alone", "checkbox"),
            input_("backrefs", "What refers to them, not what they refer to", "checkbox"),
            button("Draw"),
        ),
    )


OPEN: tuple[Callable[[Shown], Html], ...] = (_service, _measurements)
"""What everybody sees."""

PROTECTED: tuple[Callable[[Shown], Html], ...] = (_logging, _maintenance, _profiler, _sql_profiler, _debug, _memory)
"""What is added for who is logged in."""
