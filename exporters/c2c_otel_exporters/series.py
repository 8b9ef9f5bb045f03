"""Values of many sources into one: which series each source has, and how two values of a series become one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import fsum, inf, nextafter
from operator import add
from typing import NamedTuple

from c2c_otel_exporters.layout import (
    EXEMPLAR_WORDS,
    CorruptError,
    decode_labels,
    decode_metric,
    decode_texts,
    doubles_of,
    encode_key,
    exemplar_from,
    split_key,
    width,
)
from c2c_otel_exporters.mapped import Source
from c2c_otel_exporters.model import OVERFLOW, Exemplar, Family, Kind, Labels, Metric, Sample

__all__ = ["Keys", "Layout", "Row", "Totals", "combine", "exact_sum"]

_GAUGES = frozenset({Kind.GAUGE_SUM, Kind.GAUGE_LAST, Kind.GAUGE_MIN, Kind.GAUGE_MAX})
_STATS = frozenset({Kind.STAT_TIMER, Kind.STAT_COUNTER, Kind.STAT_GAUGE})


class Group:
    """One metric, whatever its help, and its series.

    ``doubles``: of a series in a file, ``width`` of them without an exemplar. ``summed``: the last of them is a sum.
    """

    __slots__ = ("doubles", "keys", "metric", "summed", "width")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.keys: dict[Labels, Key] = {}
        self.width = width(metric)
        self.doubles = self.width + (EXEMPLAR_WORDS if metric.kind is Kind.HISTOGRAM else 0)
        self.summed = metric.kind not in _GAUGES and metric.kind not in _STATS


class Key:
    """One series, the same object for all sources: equal only to itself, so that a look-up costs nothing.

    ``number``: from 0 on, those of one `Keys`. ``encoded``: as it was first seen.
    """

    __slots__ = ("encoded", "group", "labels", "number")

    def __init__(self, group: Group, encoded: bytes, labels: Labels, number: int) -> None:
        self.group = group
        self.encoded = encoded
        self.labels = labels
        self.number = number


_NOT_YET = inf
"""No series is so young."""


class Keys:
    """Decodes each key once. What is looked up for each series of each file is in lists, by the key's number."""

    def __init__(self) -> None:
        self.known: dict[bytes, int] = {}
        """By what identifies a series in a file; it has several where its help differs."""
        self.all: list[Key] = []
        self.single: list[bool] = []
        """Whether it is one double in a file."""
        self.created: list[float] = []
        """When it was first seen in any of the files, unix time."""
        self._groups: dict[Metric, Group] = {}
        """By the metric without its help."""
        self._encoded_groups: dict[bytes, Group] = {}

    def count(self) -> int:
        """How many series there are, and the number that the next will have."""
        return len(self.all)

    def groups(self) -> list[Group]:
        """All of them, the oldest first."""
        return sorted(self._groups.values(), key=self._age)

    def _age(self, group: Group) -> tuple[float, Metric]:
        return min([self.created[key.number] for key in group.keys.values()], default=_NOT_YET), group.metric

    def add(self, identity: bytes, encoded: bytes) -> int:
        """A key that is not known, and its series if that is not either: its number. Raises CorruptError."""
        metric, text = split_key(encoded)
        group = self._encoded_groups.get(metric) or self._group(metric)
        if doubles_of(identity) != group.doubles:
            raise CorruptError("a series with a wrong number of values")
        labels = decode_labels(text)
        key = group.keys.get(labels)
        if key is None:
            key = group.keys[labels] = Key(group, encoded, labels, len(self.all))
            self.all.append(key)
            self.single.append(group.doubles == 1)
            self.created.append(_NOT_YET)
        self.known[identity] = key.number
        return key.number

    def _group(self, encoded: bytes) -> Group:
        metric = decode_metric(encoded)
        same = metric._replace(help="")
        group = self._groups.get(same)
        if group is None:
            group = self._groups[same] = Group(metric)
        self._encoded_groups[encoded] = group
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
        self.end = 0
        """How many values there are."""
        self.update()

    def size(self) -> int:
        """Number of series."""
        return len(self.counters[0]) + len(self.sums) + len(self.gauges) + len(self.stats)

    def update(self) -> None:
        """Read what was added. Raises CorruptError.

        Sixteen thousand series in a first scrape, hence no calls and no objects for counters.
        """
        start, identities, firsts, created = self.source.entries()
        if not identities:
            return
        if start == 0 and not doubles_of(identities[0]):
            self.merged = frozenset(decode_texts(self.source.key(0)))
            start, identities, firsts, created = 1, identities[1:], firsts[1:], created[1:]
        numbers = self._numbers(start, identities)
        single, oldest, (counted, places) = self.keys.single, self.keys.created, self.counters
        end = max(firsts, default=-1) + 1
        for number, first, since in zip(numbers, firsts, created, strict=True):
            if since < oldest[number]:  # noqa: PLR1730 - a call for each
                oldest[number] = since
            if single[number]:
                counted.append(number)
                places.append(first)
            else:
                key = self.keys.all[number]
                self._place(key.group).append((key, first, first + key.group.width))
                end = max(end, first + key.group.doubles)
        if end > self.source.room():
            raise CorruptError("values outside their area")
        self.end = max(self.end, end)

    def _numbers(self, start: int, identities: list[bytes]) -> list[int]:
        """Of the keys of these rows."""
        known = self.keys.known
        try:
            return [*map(known.__getitem__, identities)]
        except KeyError:
            for at, identity in enumerate(identities):
                if identity not in known:
                    self.keys.add(identity, self.source.key(start + at))
            return [*map(known.__getitem__, identities)]

    def _place(self, group: Group) -> list[tuple[Key, int, int]]:
        return self.sums if group.summed else self.gauges if group.metric.kind in _GAUGES else self.stats


class Row(NamedTuple):
    """A merged series. ``lost``: what rounding took from the last of a counter's or a distribution's values.
    ``encoded``: its key."""

    encoded: bytes
    metric: Metric
    labels: Labels
    created: float
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
        self._keys = Keys()
        self._parts: list[list[float]] = []
        """By the number of a key: of a counter its values, of a distribution its sums, one of each source."""
        self._values: dict[Key, list[float]] = {}
        self._exemplars: dict[Key, tuple[float, Source, int]] = {}

    def add(self, layout: Layout, *, alive: bool) -> None:
        """Add what a source has now. Gauges of the dead are left out. All layouts have the same `Keys`."""
        values = layout.source.block(0, layout.end)
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
        for group in self._keys.groups():
            if group.summed:
                keys = [key for key in group.keys.values() if parts[key.number]]
            else:
                keys = [key for key in group.keys.values() if key in values]
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
        values, lost = self._values.get(key, []), 0.0
        if key.group.summed:
            total, lost = exact_sum(self._parts[key.number])
            values = [*values, total]
        created = self._keys.created[key.number]
        return Row(key.encoded, key.group.metric, key.labels, created, tuple(values), self._exemplar(key), lost)


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
