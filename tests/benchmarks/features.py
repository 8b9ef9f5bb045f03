"""What each peer must have to show for the requests that are timed: checked before any figure is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

SPANS_CONTRIB = {"json": 1, "select": 3, "redis": 2, "mix": 7, "call": 2, "404": 1, "stream": 1, "log": 1}
"""Spans of one request: the route; connect; each statement, command and call."""
SPANS_OURS = {"json": 2, "select": 4, "redis": 3, "mix": 8, "call": 3, "404": 1, "stream": 1, "log": 2}
"""The same and, where there is something to render, the rendering."""
LINES_OURS = {"json": 2, "select": 3, "redis": 4, "mix": 9, "call": 3, "404": 1, "stream": 1, "log": 2}
"""statsd lines of one request: route, render, each statement and call, two for each command."""
LINES_PREDECESSOR = {"json": 2, "select": 3, "redis": 3, "mix": 7, "call": 3, "404": 1, "stream": 1, "log": 2}

SPANS_DATADOG = {"json": 2, "select": 4, "redis": 3, "mix": 8, "call": 3, "404": 1, "stream": 1, "log": 2}
"""The same as ours."""
SPANS_SENTRY = {"json": 1, "select": 2, "redis": 2, "mix": 6, "call": 1, "404": 1, "stream": 1, "log": 1}
"""The route, each statement and each command; nothing of a rollback, the rendering, or a call without a socket."""
SPANS = {"contrib": SPANS_CONTRIB, "ours": SPANS_OURS, "ours-include": SPANS_OURS}
SPANS |= {"ddtrace": SPANS_DATADOG, "sentry-sdk": SPANS_SENTRY}
LINES = {"ours": LINES_OURS, "ours-include": LINES_OURS, "4.1.1": LINES_PREDECESSOR}
"""statsd lines of one request, of the peers that send some for each."""
PARTS_6 = {
    "renders": {name: int(name != "stream") for name in LINES_OURS},
    "statements": {"select": 1, "mix": 3},
    "commands": {"redis": 1, "mix": 2},
    "calls": {"call": 1},
}
"""What c2cwsgiutils 6 counts in each request beside the request; it renders its error of a 404."""

Found = dict[str, Any]
Lines = list[str]


def _equal(what: str, found: object, expected: object) -> None:
    assert found == expected, f"{what}: {found!r}, expected {expected!r}"


def _bare(scenario: str, count: int, found: Found, lines: Lines) -> None:
    _equal("statsd lines", lines, [])
    _equal("headers", found["headers"], [{"x-request-id": None, "server-timing": None}] * count)


def _contrib(scenario: str, count: int, found: Found, lines: Lines) -> None:
    _equal("spans exported", found["spans"], SPANS_CONTRIB[scenario] * count)
    _equal("requests in /metrics", found["requests"], count)
    if scenario == "call":
        assert "traceparent" in found["sent"], found["sent"]


def _ours(scenario: str, count: int, found: Found, lines: Lines) -> None:
    _equal("spans exported", found["spans"], SPANS_OURS[scenario] * count)
    _equal("requests in /metrics", found["requests"], count)
    _equal("statsd lines", len(lines), LINES_OURS[scenario] * count)
    _timed(scenario, count, lines)
    ids = {headers["x-request-id"] for headers in found["headers"]}
    assert None not in ids and len(ids) == count, found["headers"]
    assert all("route;dur=" in headers["server-timing"] for headers in found["headers"]), found["headers"]
    if scenario == "call":
        assert found["sent"].get("X-Request-ID") in ids and "traceparent" in found["sent"], found["sent"]
    if scenario == "log":
        line = json.loads(found["line"])
        assert line["request_id"] in ids and len(line["trace_id"]) == 32, line


def _predecessor(scenario: str, count: int, found: Found, lines: Lines) -> None:
    _equal("statsd lines", len(lines), LINES_PREDECESSOR[scenario] * count)
    _timed(scenario, count, lines)
    if scenario not in ("404", "stream"):  # it adds the header to request.response, which is not what is sent there
        assert all("route;dur=" in headers["server-timing"] for headers in found["headers"]), found["headers"]
    if scenario == "call":
        assert "X-Request-ID" in found["sent"], found["sent"]


def _predecessor_6(scenario: str, count: int, found: Found, lines: Lines) -> None:
    _equal("requests in /metrics", found["requests"], count)
    for part, of_scenario in PARTS_6.items():
        _equal(f"{part} in /metrics", found[part], of_scenario.get(scenario, 0) * count)
    if scenario not in ("404", "stream"):  # as in 4.1.1; it spells dur as due
        assert all("route;due=" in headers["server-timing"] for headers in found["headers"]), found["headers"]
    if scenario == "call":
        assert "X-Request-ID" in found["sent"], found["sent"]
    if scenario == "log":
        assert json.loads(found["line"])["request_id"], found["line"]


def _datadog(scenario: str, count: int, found: Found, lines: Lines) -> None:
    _equal("spans written", found["spans"], SPANS_DATADOG[scenario] * count)
    _equal("requests", found["requests"], count)
    assert any(line.startswith("runtime.python.") for line in lines), lines
    if scenario == "call":
        assert "traceparent" in found["sent"], found["sent"]


def _sentry(scenario: str, count: int, found: Found, lines: Lines) -> None:
    _equal("spans sent", found["spans"], SPANS_SENTRY[scenario] * count)
    _equal("transactions", found["requests"], count)


def _timed(scenario: str, count: int, lines: Lines) -> None:
    """Each request has its route timer, and names what it did."""
    routes = [line for line in lines if line.startswith("route.GET.")]
    _equal("route timers", len(routes), count)
    for part in {"select": ["sql."], "mix": ["sql.", "redis."], "redis": ["redis."], "call": ["requests."]}.get(
        scenario, []
    ):
        assert any(line.startswith(part) for line in lines), (part, lines[:9])


CHECKS: dict[str, Callable[[str, int, Found, Lines], None]] = {
    "bare": _bare,
    "bare-include": _bare,
    "bare-4.1.1": _bare,
    "contrib": _contrib,
    "ours": _ours,
    "ours-include": _ours,
    "bare-6.1.10": _bare,
    "4.1.1": _predecessor,
    "6.1.10": _predecessor_6,
    "ddtrace": _datadog,
    "sentry-sdk": _sentry,
    "tween": _bare,
    "tween-clocks": _bare,
    "tween-update": _bare,
}


def spans_of_all(peer: str, requests: dict[str, int]) -> int | None:
    """Spans that the exporter must have got after that many requests of each scenario; None for who has none."""
    expected = SPANS.get(peer)
    return None if expected is None else sum(expected[name] * count for name, count in requests.items())


def under_load(peer: str, scenario: str, requests: int, more: int, found: Found) -> None:
    """A server's totals for what a client has counted; up to `more` requests were sent that it did not wait for."""
    if "requests" not in found:
        return
    assert requests <= found["requests"] <= requests + more, f"{peer}: {found} of {requests} requests"
    if peer in SPANS:
        _equal(f"{peer}, spans exported", found["spans"], SPANS[peer][scenario] * found["requests"])
