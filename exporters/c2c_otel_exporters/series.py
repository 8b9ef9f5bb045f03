"""Values of many sources into one: which series each source has, and how two values of a series become one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import fsum, nextafter
from operator import add
from typing import NamedTuple

from c2c_otel_exporters.layout import EXEMPLAR_WORDS, CorruptError, decode_key, exemplar_from, width
from c2c_otel_exporters.mapped import Source
from c2c_otel_exporters.model import OVERFLOW, Exemplar, Family, Kind, Labels, Metric, Sample

__all__ = ["Keys", "Layout", "Row", "Totals", "combine", "exact_sum"]

_GAUGES = frozenset({Kind.GAUGE_SUM, Kind.GAUGE_LAST, Kind.GAUGE_MIN, Kind.GAUGE_MAX})
_STATS = frozenset({Kind.STAT_TIMER, Kind.STAT_COUNTER, Kind.STAT_GAUGE})


class Group:
    """One metric, whatever its help. ``created``: of its oldest series, unix ns."""

    __slots__ = ("created", "metric")

    def __init__(self, metric: Metric, created: int) -> None:
        self.metric = metric
        self.created = created


class Key:
    """One series, the same object for all sources: equal only to itself, so that a look-up costs nothing.

    ``created``: when it was first seen in any of them, unix ns.
    """

    __slots__ = ("created", "group", "labels")

    def __init__(self, group: Group, labels: Labels, created: int) -> None:
        self.group = group
        self.labels = labels
        self.created = created


class Keys:
    """Decodes each key once."""

    def __init__(self) -> None:
        self.known: dict[bytes, tuple[Key, int, int]] = {}
        """The series of an encoded key, its doubles, and its doubles without an exemplar."""
        self._keys: dict[tuple[Group, Labels], Key] = {}
        self._groups: dict[Metric, Group] = {}

    def add(self, encoded: bytes, created: int) -> tuple[Key, int, int] | list[str]:
        """A key that is not known, or the files an archive has taken in. Raises CorruptError."""
        decoded = decode_key(encoded)
        if isinstance(decoded, list):
            return decoded
        metric, labels = decoded
        same = metric._replace(help="")
        group = self._groups.get(same)
        if group is None:
            group = self._groups[same] = Group(metric, created)
        key = self._keys.get((group, labels))
        if key is None:
            key = self._keys[group, labels] = Key(group, labels, created)
            group.created = min(group.created, created)
        count = width(metric)
        found = key, count + EXEMPLAR_WORDS if metric.kind is Kind.HISTOGRAM else count, count
        self.known[encoded] = found
        return found


class Layout:
    """Which series one source has, and where; grows as the source does."""

    def __init__(self, keys: Keys, source: Source) -> None:
        self.source = source
        self.counters: list[tuple[Key, int]] = []
        self.sums: list[tuple[Key, int, int]] = []
        self.gauges: list[tuple[Key, int, int]] = []
        self.stats: list[tuple[Key, int, int]] = []
        self.merged: frozenset[str] = frozenset()
        """Names of the files an archive has taken in."""
        self._keys = keys
        self.update()

    def size(self) -> int:
        """Number of series."""
        return len(self.counters) + len(self.sums) + len(self.gauges) + len(self.stats)

    def update(self) -> None:
        """Read what was added. Raises CorruptError."""
        known = self._keys.known
        counters = self.counters
        for encoded, first, doubles, created in self.source.entries():
            found = known.get(encoded) or self._keys.add(encoded, created)
            if isinstance(found, list):
                self.merged = frozenset(found)
                continue
            key, expected, count = found
            if doubles != expected:
                raise CorruptError("a series with a wrong number of values")
            if created < key.created:
                key.created = created
                key.group.created = min(key.group.created, created)
            if count == 1:
                counters.append((key, first))
            else:
                self._place(key.group.metric.kind).append((key, first, first + count))

    def _place(self, kind: Kind) -> list[tuple[Key, int, int]]:
        return self.gauges if kind in _GAUGES else self.stats if kind in _STATS else self.sums


class Row(NamedTuple):
    """A merged series. ``lost``: what rounding took from the last of a counter's or a distribution's values."""

    metric: Metric
    labels: Labels
    created: int
    values: tuple[float, ...]
    exemplar: Exemplar | None
    lost: float = 0.0


class Totals:
    """What several sources add up to. ``epoch``: entries of stats.json of another one are left out.

    Counters and the sums of distributions are added exactly and rounded once: the order of the sources, which
    changes with each process that ends, must not make a total fall by its last bit. Prometheus would take that for
    a counter that began anew. The archive keeps a sum in two doubles, so it is exact where all bits of the parts
    span at most 106: seconds from a nanosecond to a year do.
    """

    def __init__(self, epoch: float) -> None:
        self._epoch = epoch
        self._parts: dict[Key, list[float]] = {}
        """Of each counter its values, of each distribution its sums: one of each source."""
        self._values: dict[Key, list[float]] = {}
        self._exemplars: dict[Key, tuple[float, Source, int]] = {}

    def add(self, layout: Layout, *, alive: bool) -> None:
        """Add what a source has now. Gauges of the dead are left out."""
        values = layout.source.values()
        known = self._parts
        for key, at in layout.counters:
            parts = known.get(key)
            if parts is None:
                known[key] = [values[at]]
            else:
                parts.append(values[at])
        self._add_sums(layout, values)
        if alive:
            for key, first, end in layout.gauges:
                if values[end - 1]:  # written
                    self._combine(key, values[first:end])
        for key, first, end in layout.stats:
            if values[first] == self._epoch and (alive or key.group.metric.kind is not Kind.STAT_GAUGE):
                self._combine(key, values[first:end])

    def _add_sums(self, layout: Layout, values: list[float]) -> None:
        counts, known, exemplars = self._values, self._parts, self._exemplars
        for key, first, end in layout.sums:
            old = counts.get(key)
            if old is None:
                counts[key] = values[first : end - 1]
                known[key] = [values[end - 1]]
            else:
                counts[key] = _added(old, values[first : end - 1])
                known[key].append(values[end - 1])
            if key.group.metric.kind is Kind.HISTOGRAM:
                time = values[end + 2]
                if time and time > exemplars.get(key, _NEVER)[0]:
                    exemplars[key] = time, layout.source, end

    def _combine(self, key: Key, new: list[float]) -> None:
        old = self._values.get(key)
        self._values[key] = new if old is None else combine(key.group.metric.kind, old, new)

    def families(self, max_series: int) -> list[Family]:
        """By age. The sources must still be open."""
        families: dict[Group, Family] = {}
        for group, rows in self._admitted(max_series):
            series = {labels: Sample(values, exemplar) for _, labels, _, values, exemplar, _ in rows}
            families[group] = Family(group.metric, series)
        return list(families.values())

    def rows(self, max_series: int) -> list[Row]:
        """The same, for an archive."""
        return [row for _, rows in self._admitted(max_series) for row in rows]

    def _admitted(self, max_series: int) -> Iterator[tuple[Group, list[Row]]]:
        groups: dict[Group, list[Key]] = {}
        for key in self._parts:
            groups.setdefault(key.group, []).append(key)
        for key in self._values:
            if key not in self._parts:
                groups.setdefault(key.group, []).append(key)
        for group, keys in sorted(groups.items(), key=lambda item: (item[0].created, item[0].metric)):
            rows = [self._row(key) for key in keys]
            yield group, rows if len(rows) <= max_series else _limited(rows, max_series)

    def _row(self, key: Key) -> Row:
        values = self._values.get(key, [])
        parts = self._parts.get(key)
        lost = 0.0
        if parts is not None:
            total, lost = exact_sum(parts)
            values = [*values, total]
        found = self._exemplars.get(key)
        exemplar = found and _exemplar(found[1], found[2])
        return Row(key.group.metric, key.labels, key.created, tuple(values), exemplar, lost)


_NEVER = (0.0, None, 0)


def _limited(rows: list[Row], max_series: int) -> list[Row]:
    """The oldest, and one more for all others.

    Age is the smallest over processes, dead ones included, so a series that was shown once is never pushed out by
    a younger one, whichever worker looks: nothing moves into the overflow series after it was shown, and no total
    falls.
    """
    rest = [row for row in rows if row.labels == OVERFLOW]
    rows = sorted((row for row in rows if row.labels != OVERFLOW), key=lambda row: (row.created, row.labels))
    rest += rows[max_series:]
    if not rest:
        return rows
    kind, values, lost = rest[0].metric.kind, list(rest[0].values), 0.0
    for row in rest[1:]:
        values = combine(kind, values, list(row.values))
    if kind not in _COMBINE:
        values[-1], lost = exact_sum([part for row in rest for part in (row.values[-1], row.lost)])
    created = min(row.created for row in rest)
    return [*rows[:max_series], Row(rest[0].metric, OVERFLOW, created, tuple(values), None, lost)]


def exact_sum(parts: Sequence[float]) -> tuple[float, float]:
    """The sum, rounded once, and what that took from it."""
    if len(parts) == 1:
        return parts[0], 0.0
    try:
        total = fsum(parts)
        lost = fsum((*parts, -total))
        if total + lost != total:  # half of the last bit, by rounding: both must add up to what is shown
            lost = nextafter(lost, 0.0)
        return total, lost
    except (OverflowError, ValueError):  # more than a double holds, or infinities of both signs
        return sum(parts), 0.0


def _exemplar(source: Source, at: int) -> Exemplar | None:
    """None where it is being written, or its writer died over it."""
    before, *words = source.block(at, EXEMPLAR_WORDS)
    if before % 2 or source.block(at, 1)[0] != before:
        return None
    return exemplar_from(words)


def combine(kind: Kind, a: list[float], b: list[float]) -> list[float]:
    """Two values of one series, of two processes, as one."""
    return _COMBINE.get(kind, _added)(a, b)


def _added(a: list[float], b: list[float]) -> list[float]:
    return list(map(add, a, b))


def _latest(a: list[float], b: list[float]) -> list[float]:
    return a if a[-1] >= b[-1] else b


def _timers(a: list[float], b: list[float]) -> list[float]:
    if not a[1] or not b[1]:
        return a if a[1] else b
    return [a[0], a[1] + b[1], a[2] + b[2], min(a[3], b[3]), max(a[4], b[4])]


_COMBINE: dict[Kind, Callable[[list[float], list[float]], list[float]]] = {
    Kind.GAUGE_SUM: lambda a, b: [a[0] + b[0], max(a[1], b[1])],
    Kind.GAUGE_LAST: _latest,
    Kind.GAUGE_MIN: min,
    Kind.GAUGE_MAX: max,
    Kind.STAT_TIMER: _timers,
    Kind.STAT_COUNTER: lambda a, b: [a[0], a[1] + b[1]],
    Kind.STAT_GAUGE: _latest,
}
"""All others are added, number by number."""
