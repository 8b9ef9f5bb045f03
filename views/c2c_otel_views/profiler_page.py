"""The profiler's pages: its switch and the requests that were followed; what was seen of one, or of many together."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from pyramid.interfaces import IRoutesMapper
from pyramid.response import Response

from c2c_otel import auth, profiler
from c2c_otel.index import Html, button, escape, form, input_, link, paragraph, section
from c2c_otel.profiler.everybody import Listing, Profile
from c2c_otel.profiler.modules import Share, packages, shares
from c2c_otel.profiler.tree import Frame, Tree
from c2c_otel_views import pages, profiler_svg, profiler_tree

__all__ = ["SORTS", "overview", "profile"]

_STYLE = (
    profiler_svg.STYLE
    + profiler_tree.STYLE
    + """\
header, main { max-width: 80rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; font-weight: 600; }
th, td { padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: baseline; }
th, td { overflow-wrap: normal; }
th.n, td.n { text-align: right; white-space: nowrap; padding-right: 1.2rem; font-variant-numeric: tabular-nums; }
td form { margin: 0; }
td button { min-height: 0; padding: .05rem .6rem; background: none; color: var(--accent); }
.side { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-start; }
.side > div { flex: 1 1 24rem; }
code { font-family: ui-monospace, "DejaVu Sans Mono", "Liberation Mono", monospace; }
"""
)

SORTS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "seconds": lambda head: -head["seconds"],
    "started": lambda head: -head["started"],
    "path": lambda head: (head["path"], head["method"], -head["seconds"]),
    "route": lambda head: (head["route"] or "", -head["seconds"]),
}
"""How the list can be sorted."""

_FUNCTIONS = 12


# -- the list -------------------------------------------------------------------------------------------------------


def overview(request: Any, found: Listing, sort: str, limit: int) -> Response:
    """The switch, and the sessions of all workers."""
    parts = [_switch(request, found), _sessions(request, found, sort, limit)]
    return pages.page("Profiler", _beside(request), parts, style=_STYLE)


def _beside(request: Any, *more: Html) -> Html:
    """What stands beside the title."""
    index = request.registry.getUtility(IRoutesMapper).get_route("c2c_index")
    views = link(request.route_path("c2c_index"), "All views") if index is not None else Html("")
    return Html(f"<p>{' · '.join(part for part in (*more, views) if part)}</p>")


def _switch(request: Any, found: Listing) -> Html:
    if what := profiler.missing():
        head, _, command = what.partition(": ")
        return section("Not installed", Html(f"<p>{escape(head)}:</p>\n<p><code>{escape(command)}</code></p>"))
    mode = profiler.mode()
    if mode is None:
        what = paragraph("On, requests are followed in all workers; they take longer then.")
        return section("Off", what, _told(found), _change(request, *_options(request), button("Switch on")))
    off = _change(request, input_("enable", type_="hidden", value="0"), button("Switch off"))
    return section("On", paragraph(_mode(mode)), _told(found), off)


def _mode(mode: profiler.Mode) -> str:
    which = f"Requests whose path begins with {mode.path}" if mode.path else "All requests"
    least = f" that take {mode.min_seconds:g} seconds or more" if mode.min_seconds else ""
    return (
        f"{which}{least}, with a sample each {mode.interval * 1000:g} ms; {mode.seconds_left():.0f} seconds are left."
    )


def _options(request: Any) -> Iterable[Html]:
    settings = request.registry.c2c_settings
    yield input_("enable", type_="hidden", value="1")
    yield input_("duration", "For seconds", "number", f"{settings.profiler_seconds:g}", min=1)
    interval = f"{settings.profiler_interval_seconds * 1000:g}"
    yield input_("interval_ms", "A sample each (ms)", "number", interval, min="0.1", max=1000, step="any")
    yield input_("min_seconds", "Only from seconds", "number", 0, min=0, step="any")
    yield input_("path", "Only paths that begin with (optional)", placeholder="/")


def _told(found: Listing) -> Html:
    """In how many workers it is on, and who does not say so."""
    on = sum(one["on"] for one in found.workers)
    lines = [paragraph(f"On in {on} of {len(found.workers)} workers.")] if on else []
    dropped = sum(one["dropped"] for one in found.workers)
    if dropped:
        lines.append(paragraph(f"{dropped:,} older requests have made room for newer ones."))
    if found.missing:
        lines.append(Html(f'<p class="bad">No answer from {escape(", ".join(found.missing))}.</p>'))
    return Html("\n".join(lines))


def _change(request: Any, *content: Html) -> Html:
    token = auth.csrf_token(request)
    hidden = input_("csrf_token", type_="hidden", value=token) if token else Html("")
    return form(request.route_path("c2c_profiler"), hidden, *content, method="post")


def _sessions(request: Any, found: Listing, sort: str, limit: int) -> Html:
    heads = sorted(found.sessions, key=SORTS[sort])
    if not heads:
        return section("Requests", paragraph("None was followed yet."))
    home = request.route_path("c2c_profiler")
    columns = [
        (_sorted(home, "started", "When (UTC)", sort), ""),
        (_sorted(home, "seconds", "Duration", sort), "n"),
        (_sorted(home, "path", "Request", sort), ""),
        (_sorted(home, "route", "Route", sort), ""),
        (Html("Status"), ""),
        (Html("Samples"), "n"),
        (Html("Worker"), ""),
        (Html(""), ""),
    ]
    rows = [_row(request, head) for head in heads[:limit]]
    cut = paragraph(f"{len(heads) - limit:,} more are not shown.") if len(heads) > limit else Html("")
    all_together = _url(request, "c2c_profiler_session")
    links = paragraph(link(all_together, f"All {len(heads):,} together"))
    remove = _change(request, input_("delete", type_="hidden", value="all"), button("Delete all"))
    return section("Requests", links, Html(f'<div class="wide">{_table(columns, rows)}</div>'), cut, remove)


def _sorted(home: str, by: str, text: str, sort: str) -> Html:
    """A column's title, which sorts by it."""
    return Html(f"{text} ↓") if by == sort else link(f"{home}?sort={by}", text)


def _row(request: Any, head: Mapping[str, Any]) -> list[Html]:
    delete = _change(request, input_("delete", type_="hidden", value=head["id"]), button("Delete"))
    route = link(_url(request, "c2c_profiler_session", route=head["route"] or ""), head["route"] or "(none)")
    return [
        escape(_when(head)),
        escape(f"{head['seconds'] * 1000:,.1f} ms"),
        link(_url(request, "c2c_profiler_session", id=head["id"]), f"{head['method']} {head['path']}"),
        route,
        escape(_status(head)),
        escape(f"{head['samples']:,}"),
        escape(head["worker"]),
        delete,
    ]


def _status(head: Mapping[str, Any]) -> str:
    status = "" if head["status"] is None else str(head["status"])
    return f"{status} {head['error']}".strip() if head["error"] else status


def _when(head: Mapping[str, Any]) -> str:
    moment = datetime.datetime.fromtimestamp(head["started"], datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _table(columns: Iterable[tuple[Html, str]], rows: Iterable[Iterable[Html]]) -> Html:
    """``columns``: title and class of each."""
    kinds = [(title, f' class="{kind}"' if kind else "") for title, kind in columns]
    head = "".join(f"<th{kind}>{title}</th>" for title, kind in kinds)
    lines = [
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, (_, kind) in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    ]
    body = "\n".join(lines)
    return Html(f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>")


def _url(request: Any, name: str, /, **parameters: str) -> str:
    path: str = request.route_path(name)
    return f"{path}?{urlencode(parameters)}" if parameters else path


# -- one profile ------------------------------------------------------------------------------------------------------


def profile(request: Any, found: Profile, route: str | None) -> Response:
    """What was seen. ``route``: of which requests, where they are many."""
    tree = found.tree
    named = request.registry.c2c_settings.profiler_modules
    of_nodes = packages(tree, named)
    parts = [_summary(request, found, route)]
    if len(tree):
        found_shares = shares(tree, named)
        colour = profiler_svg.colours(found_shares)
        parts += [
            _packages(found_shares, colour),
            section("Flame graph", profiler_svg.flame(tree, of_nodes, colour)),
            section("Call tree", profiler_tree.call_tree(tree, of_nodes, named)),
            _functions(tree),
        ]
    else:
        parts.append(section("Samples", paragraph("There is none: it was over before the first one was taken.")))
    beside = _beside(request, link(request.route_path("c2c_profiler"), "Profiler"))
    return pages.page(_title(found, route), beside, parts, style=_STYLE)


def _title(found: Profile, route: str | None) -> str:
    if found.head is not None:
        return f"{found.head['method']} {found.head['path']}"
    return "All requests" if route is None else f"Requests of {route or 'no route'}"


def _summary(request: Any, found: Profile, route: str | None) -> Html:
    tree, head = found.tree, found.head
    facts: list[tuple[str, object]] = []
    if head is None:
        facts.append(("Requests", f"{found.requests:,}"))
    else:
        facts += [
            ("When", f"{_when(head)} UTC"),
            ("Status", _status(head)),
            ("Route", f"{head['route']} ({head['pattern']})" if head["route"] else "none"),
            ("Worker", f"{head['worker']}, thread {head['thread']}"),
            ("Request id", head["request_id"]),
            ("Trace id", head["trace_id"]),
        ]
    facts.append(("Duration", f"{found.seconds * 1000:,.1f} ms"))
    facts.append(("Samples", f"{tree.samples:,}, of {tree.total() * 1000:,.1f} ms"))
    if tree.cut > 0.0005:
        facts.append(("Not all known", f"of {tree.cut * 1000:,.1f} ms the innermost functions had no room"))
    if found.missing:
        facts.append(("No answer from", ", ".join(found.missing)))
    lines = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    which = {"id": head["id"]} if head is not None else {} if route is None else {"route": route}
    downloads = [
        link(_url(request, "c2c_profiler_speedscope", **which), "Download for speedscope"),
        link(_url(request, "c2c_profiler_text", **which), "As text"),
    ]
    return section("Request" if head is not None else "Together", Html(f"<dl>\n{lines}\n</dl>"), _ways(downloads))


def _ways(links: Iterable[Html]) -> Html:
    return Html(f'<p class="try">{" · ".join(links)}</p>')


def _packages(found: list[Share], colour: Mapping[str, int]) -> Html:
    total = sum(share.own for share in found) or 1.0
    rows = [
        [
            Html(f"{profiler_svg.square(colour[share.package])}{escape(share.package)}"),
            escape(f"{share.own / total:.1%}"),
            escape(f"{share.own * 1000:,.1f} ms"),
            escape(f"{share.within / total:.1%}"),
        ]
        for share in found
    ]
    columns = [(Html("Package"), ""), (Html("Own"), "n"), (Html(""), "n"), (Html("With what it calls"), "n")]
    drawn = profiler_svg.pie(found, colour)
    return section("Packages", Html(f'<div class="side">{drawn}<div class="wide">{_table(columns, rows)}</div></div>'))


def _functions(tree: Tree) -> Html:
    """Those with most time of their own, wherever they were called."""
    own: dict[Frame, float] = {}
    for node, seconds in enumerate(tree.seconds):
        frame = tree.frame(node)
        own[frame] = own.get(frame, 0.0) + seconds
    total = tree.total() or 1.0
    most = sorted(own.items(), key=lambda item: -item[1])[:_FUNCTIONS]
    rows = [
        [
            escape(f"{seconds / total:.1%}"),
            escape(f"{seconds * 1000:,.1f} ms"),
            Html(f"{profiler_svg.bar(seconds / total)}<code>{escape(frame.name)}</code>"),
            Html(f'<span class="place">{escape(profiler_tree.place(frame))}</span>'),
        ]
        for frame, seconds in most
        if seconds
    ]
    columns = [(Html("Own"), "n"), (Html(""), "n"), (Html("Function"), ""), (Html("Where"), "")]
    return section("Functions with most time of their own", Html(f'<div class="wide">{_table(columns, rows)}</div>'))
