"""The lines of a series, as statsd reads them.

A line is ``{prefix}.{a.b.c}:{value}|{ms|g|c}``, then ``|#name:value,...`` where there are tags. Whatever a client
or a user can choose is cleaned here: no text can end a line, or begin another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from . import guard
from .names import Series

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

__all__ = [
    "MAX_PACKET",
    "Line",
    "Names",
    "gauge_line",
    "lost_tags",
    "metric_lines",
    "number",
    "number_value",
    "timer_value",
]

MAX_PACKET = 1432
"""Bytes of a datagram: what an Ethernet frame takes beside the headers of UDP and IPv6, with some room."""

_MAX_NAME = 450
_NOT_IN_KEY = re.compile(r"[^A-Za-z0-9_]")
_NOT_IN_PREFIX = re.compile(r"[^A-Za-z0-9_.-]")
# The separators of the format, all that some reader may take for the end of a line, and what UTF-8 cannot hold.
_NOT_IN_VALUE = re.compile("[,#|\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Line(NamedTuple):
    """A line is ``head + value + tail``."""

    head: str
    tail: str


class Names:
    """Names series in the form that one service uses.

    ``prefix``: put before every name, with a dot; it may hold dots and ``-`` itself. ``use_tags``: automatic
    metrics have short names and tags. ``global_tags`` are on every line; a tag of the series wins over them.
    """

    def __init__(self, prefix: str, use_tags: bool, global_tags: Mapping[str, str]) -> None:
        self.use_tags = use_tags
        clean = _NOT_IN_PREFIX.sub("_", prefix)
        self._prefix = clean if not clean or clean.endswith(".") else f"{clean}."
        self._global_tags = dict(global_tags)

    def lines(self, series: Series, kind: str) -> tuple[Line, ...]:
        """What goes before and after the value, for each name of the series. ``kind``: ``ms``, ``c`` or ``g``."""
        if self.use_tags:
            return (self.line(series.stem, series.tags + series.user_tags, kind),)
        return tuple(self.line(key, series.user_tags, kind) for key in (series.parts, *series.also))

    def line(self, key: Iterable[str], tags: Iterable[tuple[str, str]], kind: str) -> Line:
        """The same for one name, with tags in both modes."""
        head, shown = f"{self._name(key)}:", self._tags(tags)
        if shown and len(f"{head}0|{kind}|#{shown}".encode()) > MAX_PACKET:
            lost_tags()
            shown = ""
        return Line(head, f"|{kind}|#{shown}" if shown else f"|{kind}")

    def _name(self, parts: Iterable[str]) -> str:
        return (self._prefix + ".".join(_NOT_IN_KEY.sub("_", part) for part in parts))[:_MAX_NAME] or "_"

    def _tags(self, tags: Iterable[tuple[str, str]]) -> str:
        merged = {**self._global_tags, **dict(tags)}
        return ",".join(f"{_NOT_IN_KEY.sub('_', name) or '_'}:{_tag_value(merged[name])}" for name in sorted(merged))


def _tag_value(value: str) -> str:
    # A value that is cut here has no place in a datagram anyway: the line will lose its tags.
    return _NOT_IN_VALUE.sub("_", value[:MAX_PACKET])


def lost_tags() -> None:
    """Count a line that is sent without its tags."""
    guard.dropped("statsd.tags", 1, f"a line with its tags has more than {MAX_PACKET} bytes; it is sent without them")


def timer_value(seconds: float) -> str:
    """Milliseconds, halves to even, at least 1. Raises ValueError or OverflowError for NaN and infinity."""
    milliseconds = round(seconds * 1000)
    return str(milliseconds) if milliseconds > 1 else "1"


def number_value(value: object) -> str:
    """Plain decimal text, without exponent. Raises ValueError for NaN, infinity (which an integer beyond the range of
    a float would be to statsd) and what is not a number."""
    try:
        as_float = float(value)  # type: ignore[arg-type] # what float() refuses is what the except is for
        if isinstance(value, int):
            return str(int(value))
        text = repr(as_float)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a value of type {type(value).__name__} is not a number") from error
    if "n" in text:  # nan, inf
        raise ValueError(f"{text} is not a finite number")
    if "e" in text:
        text = format(Decimal(text), "f")
    return "0" if text == "-0.0" else text


def number(value: object) -> str | None:
    """`number_value`, or None where there is none; that is counted."""
    try:
        return number_value(value)
    except ValueError as error:
        guard.dropped("statsd.values", 1, str(error))
        return None


def gauge_line(line: Line, value: object) -> str | None:
    """What is sent for a gauge, as one entry for `Sender.send`; None where `number` is None.

    A sign means a change by so much; so a negative value is preceded by 0, in the same datagram.
    """
    text = number(value)
    if text is None:
        return None
    head, tail = line
    return f"{head}0{tail}\n{head}{text}{tail}" if text.startswith("-") else head + text + tail


_DELTA, _CUMULATIVE = 1, 2  # opentelemetry.sdk.metrics.export.AggregationTemporality, which costs an import


def metric_lines(names: Names, metrics_data: MetricsData | None) -> Iterator[str]:
    """What the OpenTelemetry SDK has collected -> entries for `Sender.send`.

    | data | lines |
    |---|---|
    | sum that only grows, delta | ``name:increment|c`` |
    | other sum, cumulative | ``name:value|g`` |
    | other sum, delta | ``name:+change|g`` |
    | gauge | ``name:value|g`` |
    | histogram, delta | ``name.count:increment|c``, ``name.sum:increment|c`` |

    The name is the instrument's, its attributes are tags. Increments of 0 are left out. Cumulative counters and
    histograms have no lines: statsd would add up totals.
    """
    for resource in metrics_data.resource_metrics if metrics_data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                parts = tuple(metric.name.split("."))
                for point in metric.data.data_points:
                    tags = [(name, _attribute(value)) for name, value in (point.attributes or {}).items()]
                    yield from _point_lines(names, parts, tags, metric.data, point)


def _point_lines(
    names: Names, parts: tuple[str, ...], tags: list[tuple[str, str]], data: Any, point: Any
) -> Iterator[str]:
    # Any: what a point has depends on the data it belongs to
    temporality = getattr(data, "aggregation_temporality", None)
    if hasattr(point, "count"):
        yield from _count_line(names.line((*parts, "count"), tags, "c"), point.count, temporality)
        yield from _count_line(names.line((*parts, "sum"), tags, "c"), point.sum, temporality)
    elif getattr(data, "is_monotonic", False):
        yield from _count_line(names.line(parts, tags, "c"), point.value, temporality)
    elif temporality == _DELTA:
        line = names.line(parts, tags, "g")
        if (text := number(point.value)) not in (None, "0", "0.0"):
            yield f"{line.head}{text if text[0] == '-' else '+' + text}{line.tail}"
    elif entry := gauge_line(names.line(parts, tags, "g"), point.value):
        yield entry


def _count_line(line: Line, value: float, temporality: int | None) -> Iterator[str]:
    if temporality == _CUMULATIVE:
        guard.dropped("statsd.totals", 1, "statsd adds up what it is sent; counters must be exported as deltas")
    elif (text := number(value)) not in (None, "0", "0.0"):
        yield f"{line.head}{text}{line.tail}"


def _attribute(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_attribute, value))
    return str(value)
