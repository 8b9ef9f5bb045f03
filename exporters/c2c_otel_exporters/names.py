"""How each kind of measurement is named: statsd parts and tags, the stats.json key, metric and attributes.

Pure functions of plain hashable values, so that the caller can remember what they return; they run once for
each distinct tuple of arguments. Exporters only join the parts in their own way.

>>> route("GET", "hello", "/hello", 200, "http", None).parts
('route', 'GET', 'hello', '200')
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .model import Kind, Labels, Metric

__all__ = [
    "COUNTER",
    "DB_CLIENT",
    "GAUGE",
    "HTTP_CLIENT",
    "HTTP_SERVER",
    "NOT_FOUND",
    "RENDER",
    "STATUS_EXCEPTION",
    "TIMER",
    "Series",
    "Tags",
    "counter",
    "gauge",
    "redis",
    "render",
    "request",
    "route",
    "sql",
    "sql_commit",
    "stats_key",
    "timer",
]

Tags = tuple[tuple[str, str], ...]

NOT_FOUND = "_not_found"
"""The route of a request that matched none."""

STATUS_EXCEPTION = 999
"""The status of an outgoing call that ended with an exception instead of an answer."""

# The bounds that OpenTelemetry's semantic conventions give for HTTP and for databases, in seconds. Rendering and
# the user's timers reach from a millisecond to a minute.
_HTTP_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_DB_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_RENDER_BOUNDS = (0.001, *_HTTP_BOUNDS)
_TIMER_BOUNDS = (0.001, *_HTTP_BOUNDS, 30.0, 60.0)

HTTP_SERVER = Metric(
    "http.server.request.duration", Kind.HISTOGRAM, "s", "Duration of HTTP server requests.", _HTTP_BOUNDS
)
RENDER = Metric("pyramid.render.duration", Kind.HISTOGRAM, "s", "Duration of rendering alone.", _RENDER_BOUNDS)
DB_CLIENT = Metric(
    "db.client.operation.duration", Kind.HISTOGRAM, "s", "Duration of database client operations.", _DB_BOUNDS
)
HTTP_CLIENT = Metric(
    "http.client.request.duration", Kind.HISTOGRAM, "s", "Duration of HTTP client requests.", _HTTP_BOUNDS
)
TIMER = Metric("c2c_otel.timer.duration", Kind.HISTOGRAM, "s", "Timers of the application.", _TIMER_BOUNDS)
COUNTER = Metric("c2c_otel.events", Kind.COUNTER, "", "Counters of the application.")
GAUGE = Metric("c2c_otel.value", Kind.GAUGE_LAST, "", "Gauges of the application.")

# http.request.method may only have these values, or _OTHER: a client must not be able to make series at will.
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_OTHER = "_OTHER"
_METHOD_LENGTH = 20
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Series(NamedTuple):
    """All names of one measurement; docs/architecture.md has an example of each field."""

    parts: tuple[str, ...]
    """statsd without tags, and stats.json."""
    stem: tuple[str, ...]
    """statsd with tags."""
    tags: Tags
    """Sorted by name; for statsd with tags."""
    user_tags: Tags
    """Sorted by name; sent in both modes."""
    also: tuple[tuple[str, ...], ...]
    """Further names of the same event in statsd without tags."""
    metric: Metric
    labels: Labels
    """Attributes of the metric; those that are absent are left out."""


def _labels(**attributes: str | int | None) -> Labels:
    """``http_request_method="GET"`` -> ``(("http.request.method", "GET"),)``, without None and ''."""
    named = ((_ATTRIBUTES[name], value) for name, value in attributes.items() if value not in (None, ""))
    return tuple(sorted((name, str(value)) for name, value in named))


_ATTRIBUTES = {
    "method": "http.request.method",
    "pattern": "http.route",
    "status": "http.response.status_code",
    "scheme": "url.scheme",
    "error": "error.type",
    "system": "db.system.name",
    "namespace": "db.namespace",
    "operation": "db.operation.name",
    "summary": "db.query.summary",
    "host": "server.address",
    "port": "server.port",
}


def _known(method: str) -> str:
    return method if method in _METHODS else _OTHER


def _server_series(
    kind: str, method: str, route_name: str | None, status: int, metric: Metric, labels: Labels
) -> Series:
    verb, name = method[:_METHOD_LENGTH], route_name or NOT_FOUND
    tags = (("group", str(status // 100)), ("method", verb), ("route", name), ("status", str(status)))
    return Series((kind, verb, name, str(status)), (kind,), tags, (), (), metric, labels)


def route(
    method: str, route_name: str | None, pattern: str | None, status: int, scheme: str, error_type: str | None
) -> Series:
    """One request served. ``pattern`` is the route's (``/hello/{id}``), never the path. Without an
    ``error_type``, a status of 500 or more is its own."""
    error = error_type or (str(status) if status >= 500 else None)
    labels = _labels(method=_known(method), pattern=pattern, status=status, scheme=scheme, error=error)
    return _server_series("route", method, route_name, status, HTTP_SERVER, labels)


def render(method: str, route_name: str | None, pattern: str | None, status: int) -> Series:
    """The rendering of one response."""
    labels = _labels(method=_known(method), pattern=pattern, status=status)
    return _server_series("render", method, route_name, status, RENDER, labels)


def sql(
    system: str,
    namespace: str | None,
    host: str | None,
    port: int | None,
    query: str,
    operation: str | None,
    summary: str | None,
    error_type: str | None,
) -> Series:
    """One SQL statement. ``query``, ``operation`` and ``summary`` come from `sql.describe`; never the full text."""
    text = query or "_"
    labels = _labels(
        system=system,
        namespace=namespace,
        host=host,
        port=port,
        operation=operation,
        summary=summary,
        error=error_type,
    )
    return Series(("sql", text), ("sql",), (("query", text),), (), (), DB_CLIENT, labels)


def sql_commit(
    system: str, namespace: str | None, host: str | None, port: int | None, error_type: str | None
) -> Series:
    """One commit."""
    labels = _labels(
        system=system,
        namespace=namespace,
        host=host,
        port=port,
        operation="COMMIT",
        summary="COMMIT",
        error=error_type,
    )
    return Series(("sql", "commit"), ("sql", "commit"), (), (), (), DB_CLIENT, labels)


def request(scheme: str, host: str, port: int | None, method: str, status: int, error_type: str | None) -> Series:
    """One hop of an outgoing HTTP call. Status 999 stands for an exception and is no label; without a ``port``
    it is the scheme's. Without an ``error_type``, a status of 400 or more is its own."""
    verb = method[:_METHOD_LENGTH]
    number = _DEFAULT_PORTS.get(scheme, 0) if port is None else port
    answered = status != STATUS_EXCEPTION
    error = error_type or (None if status < 400 else str(status) if answered else _OTHER)
    labels = _labels(
        method=_known(method),
        scheme=scheme,
        host=host,
        port=number or None,
        status=status if answered else None,
        error=error,
    )
    tags = (
        ("host", host),
        ("method", verb),
        ("port", str(number)),
        ("scheme", scheme),
        ("status", str(status)),
    )
    parts = ("requests", scheme, host, str(number), verb, str(status))
    return Series(parts, ("requests",), tags, (), (), HTTP_CLIENT, labels)


def redis(
    command: str,
    success: bool,
    namespace: str | int | None,
    host: str | None,
    port: int | None,
    error_type: str | None,
) -> Series:
    """One Redis command. Without tags it has two statsd names: the documented one, and the one with the outcome."""
    error = error_type or (None if success else _OTHER)
    labels = _labels(system="redis", namespace=namespace, host=host, port=port, operation=command, error=error)
    return Series(
        parts=("redis", command, "success" if success else "failure"),
        stem=("redis",),
        tags=(("cmd", command), ("success", "1" if success else "0")),
        user_tags=(),
        also=(("redis", command),),
        metric=DB_CLIENT,
        labels=labels,
    )


def _user_series(metric: Metric, key: Iterable[object], tags: Iterable[tuple[object, object]]) -> Series:
    parts = tuple(map(str, key))
    pairs = tuple(sorted((str(name), str(value)) for name, value in tags))
    labels = {("tag_key" if name == "key" else name): value for name, value in pairs}
    labels["key"] = _joined(parts)
    return Series(parts, parts, (), pairs, (), metric, tuple(sorted(labels.items())))


def timer(key: tuple[str, ...], tags: Tags = ()) -> Series:
    """The user's timer. Its metric has the label ``key`` (parts with ``/`` between) and the user's tags; a tag
    that is called ``key`` itself becomes ``tag_key`` there."""
    return _user_series(TIMER, key, tags)


def counter(key: tuple[str, ...], tags: Tags = ()) -> Series:
    """The user's counter, named like `timer`."""
    return _user_series(COUNTER, key, tags)


def gauge(key: tuple[str, ...], tags: Tags = ()) -> Series:
    """The user's gauge, named like `timer`."""
    return _user_series(GAUGE, key, tags)


def _joined(parts: Iterable[str]) -> str:
    return "/".join(part.replace("/", "_") for part in parts)


def stats_key(series: Series, use_tags: bool = False) -> str:
    """The key in stats.json: parts (with ``use_tags`` the stem), then ``name=value`` tags, ``/`` between all.

    >>> stats_key(timer(("a/b", "c"), (("x", "1"),)))
    'a_b/c/x=1'
    """
    if use_tags:
        parts, tags = series.stem, sorted(series.tags + series.user_tags)
    else:
        parts, tags = series.parts, list(series.user_tags)
    return _joined((*parts, *(f"{name}={value}" for name, value in tags)))
