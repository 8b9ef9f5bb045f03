"""Values of many sources into one: which series each source has, and how two values of a series become one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import fsum, nextafter
from operator import add
from typing import NamedTuple

from c2c_otel_exporters.layout import EXEMPLAR_WORDS, CorruptError, decode_key, encode_key, exemplar_from, width
from c2c_otel_exporters.mapped import Source
from c2c_otel_exporters.model import OVERFLOW, Exemplar, Family, Kind, Labels, Metric, Sample

__all__ = ["Keys", "Layout", "Row", "Totals", "combine", "exact_sum"]

_GAUGES = frozenset({Kind.GAUGE_SUM, Kind.GAUGE_LAST, Kind.GAUGE_MIN, Kind.GAUGE_MAX})
_STATS = frozenset({Kind.STAT_TIMER, Kind.STAT_COUNTER, Kind.STAT_GAUGE})


class Group:
    """One metric, whatever its help, and its series. ``created``: of the oldest, unix ns.

    ``doubles``: of a series in a file, ``width`` of them without an exemplar. ``summed``: the last of them is a sum.
    """

    __slots__ = ("created", "doubles", "keys", "metric", "summed", "width")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.created = _NOT_YET
        self.keys: list[Key] = []
        self.width = width(metric)
        self.doubles = self.width + (EXEMPLAR_WORDS if metric.kind is Kind.HISTOGRAM else 0)
        self.summed = metric.kind not in _GAUGES and metric.kind not in _STATS


class Key:
    """One series, the same object for all sources: equal only to itself, so that a look-up costs nothing.

    ``created``: when it was first seen in any of them, unix ns. ``number``: from 0 on, those of one `Keys`.
    ``encoded``: as it was first seen.
    """

    __slots__ = ("created", "encoded", "group", "labels", "number")

    def __init__(self, group: Group, encoded: bytes, labels: Labels, number: int) -> None:
        self.group = group
        self.encoded = encoded
        self.labels = labels
        self.number = number
        self.created = _NOT_YET


_NOT_YET = 1 << 64
"""No series is so young."""


class Keys:
    """Decodes each key once."""

    def __init__(self) -> None:
        self.known: dict[bytes, tuple[Key, int, int]] = {}
        """The series of an encoded key, its doubles, and its doubles without an exemplar."""
        self._keys: dict[tuple[Group, Labels], Key] = {}
        self._groups: dict[Metric, Group] = {}
        """By the metric with its help, as it is in a key, and without."""

    def count(self) -> int:
        """How many series there are, and the number that the next will have."""
        return len(self._keys)

    def groups(self) -> Iterator[Group]:
        """All of them, by age."""
        return iter(sorted(set(self._groups.values()), key=lambda group: (group.created, group.metric)))

    def add(self, encoded: bytes) -> tuple[Key, int, int]:
        """A key that is not known, and its series if that is not either. Raises CorruptError."""
        decoded = decode_key(encoded)
        if isinstance(decoded, list):
            raise CorruptError("a list of files that is not the first record")
        metric, labels = decoded
        group = self._groups.get(metric) or self._group(metric)
        key = self._keys.get((group, labels))
        if key is None:
            key = self._keys[group, labels] = Key(group, encoded, labels, len(self._keys))
            group.keys.append(key)
        found = self.known[encoded] = key, group.doubles, group.width
        return found

    def _group(self, metric: Metric) -> Group:
        same = metric._replace(help="")
        group = self._groups.get(same)
        if group is None:
            group = self._groups[same] = Group(metric)
        self._groups[metric] = group
        return group


class Layout:
    """Which series one source has, and where; grows as the source does."""

    def __init__(self, keys: Keys, source: Source) -> None:
        self.source = source
        self.keys = keys
        self.counters: tuple[list[int], list[int]] = ([], [])
        """The numbers of the keys, and where their values are."""
        self.sums: list[tuple[Key, int, int]] = []
        self.gauges: list[tuple[Key, int, int]] = []
        self.stats: list[tuple[Key, int, int]] = []
        self.merged: frozenset[str] = frozenset()
        """Names of the files an archive has taken in."""
        self.update()

    def size(self) -> int:
        """Number of series."""
        return len(self.counters[0]) + len(self.sums) + len(self.gauges) + len(self.stats)

    def update(self) -> None:
        """Read what was added. Raises CorruptError.

        Sixteen thousand times in a first scrape, hence no calls and no objects for counters.
        """
        keys, firsts, widths, created = self.source.entries()
        if keys and not widths[0]:
            self._merged(keys.pop(0))
            del firsts[0], widths[0], created[0]
        add, numbers, places = self.keys.add, *self.counters
        rows = zip(map(self.keys.known.get, keys), keys, firsts, widths, created, strict=True)
        for found, encoded, first, doubles, since in rows:
            key, expected, count = found or add(encoded)
            if doubles != expected:
                raise CorruptError("a series with a wrong number of values")
            if since < key.created:
                key.created = since
                key.group.created = min(key.group.created, since)
            if count == 1:
                numbers.append(key.number)
                places.append(first)
            else:
                self._place(key.group).append((key, first, first + count))

    def _merged(self, encoded: bytes) -> None:
        names = decode_key(encoded)
        if not isinstance(names, list):
            raise CorruptError("a series without values")
        self.merged = frozenset(names)

    def _place(self, group: Group) -> list[tuple[Key, int, int]]:
        return self.sums if group.summed else self.gauges if group.metric.kind in _GAUGES else self.stats


class Row(NamedTuple):
    """A merged series. ``lost``: what rounding took from the last of a counter's or a distribution's values.
    ``encoded``: its key."""

    encoded: bytes
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
        self._keys: Keys | None = None
        self._parts: list[list[float]] = []
        """By the number of a key: of a counter its values, of a distribution its sums, one of each source."""
        self._values: dict[Key, list[float]] = {}
        self._exemplars: dict[Key, tuple[float, Source, int]] = {}

    def add(self, layout: Layout, *, alive: bool) -> None:
        """Add what a source has now. Gauges of the dead are left out. All layouts have the same `Keys`."""
        values = layout.source.values()
        parts = self._room(layout.keys)
        for number, at in zip(*layout.counters, strict=True):
            parts[number].append(values[at])
        self._add_sums(layout, values)
        if alive:
            for key, first, end in layout.gauges:
                if values[end - 1]:  # written
                    self._combine(key, values[first:end])
        for key, first, end in layout.stats:
            if values[first] == self._epoch and (alive or key.group.metric.kind is not Kind.STAT_GAUGE):
                self._combine(key, values[first:end])

    def _room(self, keys: Keys) -> list[list[float]]:
        self._keys = keys
        self._parts += [[] for _ in range(len(self._parts), keys.count())]
        return self._parts

    def _add_sums(self, layout: Layout, values: list[float]) -> None:
        counts, parts, exemplars = self._values, self._parts, self._exemplars
        for key, first, end in layout.sums:
            parts[key.number].append(values[end - 1])
            old = counts.get(key)
            counts[key] = values[first : end - 1] if old is None else list(map(add, old, values[first : end - 1]))
            if key.group.doubles > key.group.width:
                time = values[end + 2]
                if time and time > exemplars.get(key, _NEVER)[0]:
                    exemplars[key] = time, layout.source, end

    def _combine(self, key: Key, new: list[float]) -> None:
        old = self._values.get(key)
        self._values[key] = new if old is None else combine(key.group.metric.kind, old, new)

    def families(self, max_series: int) -> list[Family]:
        """By age. The sources must still be open."""
        families = []
        for group, keys in self._groups():
            if len(keys) <= max_series:
                series = self._samples(group, keys)
            else:
                rows = _limited(list(map(self._row, keys)), max_series)
                series = {row.labels: Sample(row.values, row.exemplar) for row in rows}
            families.append(Family(group.metric, series))
        return families

    def rows(self, max_series: int) -> list[Row]:
        """The same, for an archive."""
        found = []
        for _, keys in self._groups():
            rows = list(map(self._row, keys))
            found += rows if len(rows) <= max_series else _limited(rows, max_series)
        return found

    def _groups(self) -> Iterator[tuple[Group, list[Key]]]:
        """Those that have a series in a source, by age."""
        parts, values = self._parts, self._values
        for group in self._keys.groups() if self._keys is not None else ():
            if group.summed:
                keys = [key for key in group.keys if parts[key.number]]
            else:
                keys = [key for key in group.keys if key in values]
            if keys:
                yield group, keys

    def _samples(self, group: Group, keys: list[Key]) -> dict[Labels, Sample]:
        parts, values = self._parts, self._values
        if not group.summed:
            return {key.labels: Sample(tuple(values[key])) for key in keys}
        if group.width == 1:
            return {key.labels: Sample((_total(parts[key.number]),)) for key in keys}
        return {key.labels: Sample((*values[key], _total(parts[key.number])), self._exemplar(key)) for key in keys}

    def _exemplar(self, key: Key) -> Exemplar | None:
        found = self._exemplars.get(key)
        return found and _exemplar(found[1], found[2])

    def _row(self, key: Key) -> Row:
        values = self._values.get(key, [])
        lost = 0.0
        if key.group.summed:
            total, lost = exact_sum(self._parts[key.number])
            values = [*values, total]
        return Row(key.encoded, key.group.metric, key.labels, key.created, tuple(values), self._exemplar(key), lost)


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
    metric = rest[0].metric
    return [
        *rows[:max_series],
        Row(encode_key(metric, OVERFLOW), metric, OVERFLOW, created, tuple(values), None, lost),
    ]


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


def _total(parts: Sequence[float]) -> float:
    """The first of `exact_sum`."""
    if len(parts) == 1:
        return parts[0]
    try:
        return fsum(parts)
    except (OverflowError, ValueError):
        return sum(parts)


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
