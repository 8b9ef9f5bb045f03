"""Families -> what /metrics answers: Prometheus names, and the format that the scraper asked for.

Names follow OpenTelemetry's own exporter (``http.server.request.duration``, ``s`` ->
``http_server_request_duration_seconds``). Names that become one: families of one type become one family; of
another type, the younger gets its type as a suffix. Names are always escaped with underscores.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import lru_cache

import prometheus_client.exposition
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS

from c2c_otel_exporters import guard
from c2c_otel_exporters.exposition import Pairs, Shown, openmetrics, text
from c2c_otel_exporters.model import Family, Kind, Labels, Metric, Sample
from c2c_otel_exporters.series import combine

__all__ = ["negotiate", "render", "shown"]

_TYPES = {
    Kind.COUNTER: "counter",
    Kind.HISTOGRAM: "histogram",
    Kind.SUMMARY: "summary",
    Kind.GAUGE_SUM: "gauge",
    Kind.GAUGE_LAST: "gauge",
    Kind.GAUGE_MIN: "gauge",
    Kind.GAUGE_MAX: "gauge",
}
_SUFFIXES = {
    "counter": ("", "_total", "_created"),
    "histogram": ("", "_bucket", "_count", "_sum", "_created"),
    "summary": ("", "_count", "_sum", "_created"),
    "gauge": ("",),
    "info": ("", "_info"),
}
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_TEXT_1: str = getattr(prometheus_client.exposition, "CONTENT_TYPE_PLAIN_1_0_0", _TEXT)
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_:]")
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")


def render(
    families: Iterable[Family], accept: str, *, comments: Iterable[str] = (), target: Mapping[str, str] | None = None
) -> tuple[str, bytes]:
    """The content type and the body. ``accept``: the header, or nothing. ``comments``: lines put above, in text
    alone, as OpenMetrics knows none. ``target``: resource attributes, shown as ``target_info``.
    """
    content_type = negotiate(accept)
    chosen = shown(families, target)
    if content_type.startswith("application/openmetrics-text"):
        return content_type, openmetrics(chosen)
    return content_type, text(chosen, comments)


def negotiate(accept: str) -> str:
    """The content type that the header likes best; Prometheus text 0.0.4 for whatever cannot be understood.

    >>> negotiate("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")
    'application/openmetrics-text; version=1.0.0; charset=utf-8'
    """
    best, answer = 0.0, _TEXT
    for part in accept.split(","):
        media, *words = (word.strip().lower() for word in part.split(";"))
        parameters = dict(word.split("=", 1) for word in words if "=" in word)
        offered = _offered(media, parameters.get("version", ""))
        if offered and (quality := _quality(parameters.get("q", "1"))) > best:
            best, answer = quality, offered + ("; escaping=underscores" if "escaping" in parameters else "")
    return answer


def _offered(media: str, version: str) -> str | None:
    if media == "application/openmetrics-text" and version in ("", "1.0.0"):
        return OPENMETRICS if "version=1.0.0" in OPENMETRICS else None
    if media == "text/plain" and version == "1.0.0":
        return _TEXT_1
    return _TEXT if media in ("text/plain", "text/*", "*/*") and version in ("", "0.0.4") else None


def _quality(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0


def shown(families: Iterable[Family], target: Mapping[str, str] | None = None) -> list[Shown]:
    """The families that Prometheus sees, by name. ``families``: the oldest first, which keep their names."""
    names = _Names()
    if target:
        pairs = _pairs(tuple(sorted(target.items())), exact=False, histogram=False)
        names.add(Shown("target", "info", "", "Target metadata", (), {pairs: Sample((1.0,))}), Kind.GAUGE_LAST)
    for metric, series in families:
        type_ = _TYPES.get(metric.kind)
        if type_ is None:
            continue
        name, unit = _name(metric)
        family = Shown(name, type_, unit, metric.help, metric.buckets, {})
        for labels, sample in series.items():
            _put(family.series, _pairs(labels, metric.exact, type_ == "histogram"), sample, metric.kind)
        names.add(family, metric.kind)
    return sorted(names.families.values())


class _Names:
    """Families by name, and which names are taken by the samples of which family."""

    def __init__(self) -> None:
        self.families: dict[str, Shown] = {}
        self._taken: dict[str, str] = {}

    def add(self, family: Shown, kind: Kind) -> None:
        while not self._is_free(family):
            renamed = f"{family.name}_{family.type}"
            guard.warn_once(
                f"prometheus.{family.name}.{family.type}",
                "Two metrics of different types would be %s for Prometheus; the %s is shown as %s",
                family.name,
                family.type,
                renamed,
            )
            family = family._replace(name=renamed, unit="")
        old = self.families.get(family.name)
        self.families[family.name] = family if old is None else _merged(old, family, kind)
        for suffix in _SUFFIXES[family.type]:
            self._taken[family.name + suffix] = family.name

    def _is_free(self, family: Shown) -> bool:
        old = self.families.get(family.name)
        if old is not None:
            return old.type == family.type
        return all(family.name + suffix not in self._taken for suffix in _SUFFIXES[family.type])


def _merged(old: Shown, new: Shown, kind: Kind) -> Shown:
    if old.buckets != new.buckets:
        common = tuple(sorted(set(old.buckets) & set(new.buckets)))
        old, new = _rebucketed(old, common), _rebucketed(new, common)
    for pairs, sample in new.series.items():
        _put(old.series, pairs, sample, kind)
    return old


def _rebucketed(family: Shown, buckets: tuple[float, ...]) -> Shown:
    """With some of its bounds only: what is counted up to each of those is as exact as before."""
    series = {
        pairs: Sample(_recounted(values, family.buckets, buckets), exemplar)
        for pairs, (values, exemplar) in family.series.items()
    }
    return family._replace(buckets=buckets, series=series)


def _recounted(values: tuple[float, ...], old: tuple[float, ...], new: tuple[float, ...]) -> tuple[float, ...]:
    counts = [0.0] * (len(new) + 1)
    for bound, count in zip((*old, float("inf")), values[:-1], strict=True):
        counts[bisect_left(new, bound)] += count
    return (*counts, values[-1])


def _put(series: dict[Pairs, Sample], pairs: Pairs, sample: Sample, kind: Kind) -> None:
    """Two series that become one under their Prometheus labels are added, as two processes' are."""
    old = series.get(pairs)
    if old is not None:
        values = combine(kind, list(old.values), list(sample.values))
        sample = Sample(tuple(values), sample.exemplar or old.exemplar)
    series[pairs] = sample


@lru_cache(maxsize=1024)
def _name(metric: Metric) -> tuple[str, str]:
    """Without ``_total``, and the unit that it ends with."""
    from opentelemetry.exporter.prometheus._mapping import map_unit, sanitize_full_name

    counter = metric.kind is Kind.COUNTER
    if metric.exact:
        name = _safe(metric.name, _NOT_IN_NAMES)
        return (name.removesuffix("_total") if counter else name) or "_", ""
    name = sanitize_full_name(metric.name) or "_"
    if counter:
        name = name.removesuffix("_total")
    unit = map_unit(metric.unit)
    if unit and not name.endswith(f"_{unit}"):
        name = f"{name}_{unit}"
    return name, unit


def _safe(name: str, wrong: re.Pattern[str]) -> str:
    name = wrong.sub("_", name)
    return f"_{name[1:]}" if name[:1].isdigit() else name


@lru_cache(maxsize=4096)
def _label(name: str, exact: bool) -> str:
    from opentelemetry.exporter.prometheus._mapping import sanitize_attribute

    return (_safe(name, _NOT_IN_LABELS) if exact else sanitize_attribute(name)) or "_"


@lru_cache(maxsize=4096)
def _pairs(labels: Labels, exact: bool, histogram: bool) -> Pairs:
    """Values of attributes that become one label are joined by semicolons, as OpenTelemetry says."""
    values: dict[str, str] = {}
    for name, value in labels:
        label = _label(name, exact)
        if histogram and label == "le":
            label = "exported_le"
        values[label] = f"{values[label]};{value}" if label in values else value
    return tuple(sorted(values.items()))
