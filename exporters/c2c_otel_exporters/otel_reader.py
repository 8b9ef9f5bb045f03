"""The application's own OpenTelemetry instruments -> the store and statsd.

| instrument | store | over the workers |
|---|---|---|
| Counter, ObservableCounter | counter, what was added | sum |
| Histogram | histogram with the instrument's bounds | sum |
| Histogram with exponential buckets | histogram with the powers of two from 2^-10 to 2^20 as bounds | sum |
| UpDownCounter, ObservableUpDownCounter, ObservableGauge | gauge | sum over the living |
| Gauge | gauge, written when it was set | the latest |

The reader asks for deltas, so what is copied by a fork could not count twice, and what did not change costs nothing.
An exponential bucket of a scale of 0 or more lies between two powers of two, so its counts lose nothing but
resolution; one of a negative scale is counted at its upper end. The scope of an instrument is not part of its name:
two meters that have a counter of one name count together.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    Gauge,
    Histogram,
    MetricReader,
    MetricsData,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as SdkMetric
from opentelemetry.sdk.metrics.view import SumAggregation

from c2c_otel_exporters import guard
from c2c_otel_exporters.model import Exemplar, Kind, Labels, Metric
from c2c_otel_exporters.statsd import metric_lines
from c2c_otel_exporters.statsd_otel import STATSD_TEMPORALITY
from c2c_otel_exporters.store_writer import StoreWriter

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.sdk.metrics import Exemplar as SdkExemplar
    from opentelemetry.sdk.metrics.export import ExponentialHistogramDataPoint

    from c2c_otel_exporters.statsd import Names, Sender
    from c2c_otel_exporters.store import Store

__all__ = ["POWERS_OF_TWO", "StoreReader", "labels_of"]

POWERS_OF_TWO = tuple(2.0**power for power in range(-10, 21))
"""Bounds that exponential histograms are given: about a millisecond to twelve days where the unit is seconds."""

_TEMPORALITY: dict[type, AggregationTemporality] = {
    **STATSD_TEMPORALITY,
    sdk._Gauge: AggregationTemporality.DELTA,  # told once after it was set: the latest set among the workers counts
}


class _FirstOfEach(logging.Filter):
    """A callback that fails does so each second: it is logged once for each instrument, and counted."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith("Callback"):
            return True
        place = f"failed.callback.{record.args[-1] if isinstance(record.args, tuple) and record.args else ''}"
        return guard.count(place) == 1


_first_of_each = _FirstOfEach()


class StoreReader(MetricReader):
    """To be given to one MeterProvider; `read` takes what its instruments have recorded since."""

    def __init__(self, store: Store, sender: Sender | None = None, names: Names | None = None) -> None:
        # An observable gauge is summed, and so told apart from the gauge that the application sets.
        super().__init__(
            preferred_temporality=_TEMPORALITY, preferred_aggregation={sdk.ObservableGauge: SumAggregation()}
        )
        self.writer = StoreWriter(store)
        self._sender = sender
        self._names = names
        self._registered = False
        self._reading = threading.Lock()
        self.inherited: frozenset[str] = frozenset()
        """Observable counters whose first total was counted before this process was forked."""
        logger = logging.getLogger("opentelemetry.sdk.metrics._internal.instrument")
        if _first_of_each not in logger.filters:
            logger.addFilter(_first_of_each)

    def read(self) -> None:
        """Collect and write. Takes as long as the callbacks of observable instruments take."""
        if self._registered:
            with self._reading:
                self.writer.begin()
                self.collect()
                self.writer.finish()
                self.inherited = frozenset()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """As the application may ask its MeterProvider to."""
        self.read()
        return True

    def _set_meter_provider(self, meter_provider: MeterProvider) -> None:
        super()._set_meter_provider(meter_provider)
        self._registered = True

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        for resource_metrics in metrics_data.resource_metrics:
            for scope_metrics in resource_metrics.scope_metrics:
                for metric in scope_metrics.metrics:
                    try:
                        self._write(metric)
                    except Exception:
                        guard.failed("publish.opentelemetry")
        if self._sender is not None and self._names is not None:
            for line in metric_lines(self._names, metrics_data):
                self._sender.send(line)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing: the publisher reads a last time when it stops."""

    def _write(self, metric: SdkMetric) -> None:
        data = metric.data
        if isinstance(data, Sum):
            self._write_sum(metric, data)
        elif isinstance(data, Gauge):
            named = _metric(metric, Kind.GAUGE_LAST)
            for number in data.data_points:
                self.writer.gauge_written(named, labels_of(number.attributes), number.value)
        elif isinstance(data, Histogram):
            for point in data.data_points:
                self.writer.add_distribution(
                    _metric(metric, Kind.HISTOGRAM, tuple(point.explicit_bounds)),
                    labels_of(point.attributes),
                    point.bucket_counts,
                    point.sum,
                    _latest(point.exemplars),
                )
        elif isinstance(data, ExponentialHistogram):
            named = _metric(metric, Kind.HISTOGRAM, POWERS_OF_TWO)
            for exponential in data.data_points:
                labels = labels_of(exponential.attributes)
                exemplar = _latest(exponential.exemplars)
                self.writer.add_distribution(named, labels, _explicit(exponential), exponential.sum, exemplar)

    def _write_sum(self, metric: SdkMetric, data: Sum) -> None:
        if not data.is_monotonic:
            named = _metric(metric, Kind.GAUGE_SUM)
            for point in data.data_points:
                self.writer.gauge(named, labels_of(point.attributes), point.value)
            return
        if metric.name in self.inherited:
            return
        named = _metric(metric, Kind.COUNTER)
        for point in data.data_points:
            if point.value < 0:
                guard.dropped("observable_counter", 1, f"{metric.name} fell by {-point.value}; a counter cannot")
                continue
            self.writer.add(named, labels_of(point.attributes), point.value)


def _metric(metric: SdkMetric, kind: Kind, buckets: tuple[float, ...] = ()) -> Metric:
    return Metric(metric.name, kind, metric.unit or "", metric.description or "", buckets)


def labels_of(attributes: Mapping[str, Any] | None) -> Labels:
    """Attributes as labels: sorted, values as text (what is neither text nor number as JSON)."""
    if not attributes:
        return ()
    return tuple(sorted((name, _text(value)) for name, value in attributes.items()))


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value, default=str, separators=(",", ":"))
    return str(value)


def _latest(found: Sequence[SdkExemplar]) -> Exemplar | None:
    """The latest one that belongs to a trace."""
    traced = [one for one in found if one.trace_id and one.span_id]
    if not traced:
        return None
    one = max(traced, key=lambda exemplar: exemplar.time_unix_nano)
    return Exemplar(one.value, one.time_unix_nano / 1e9, one.trace_id or 0, one.span_id or 0)


def _explicit(point: ExponentialHistogramDataPoint) -> list[float]:
    """Counts in the buckets of `POWERS_OF_TWO`. What is not positive is below the first bound."""
    counts = [0.0] * (len(POWERS_OF_TWO) + 1)
    counts[0] += point.zero_count + sum(point.negative.bucket_counts)
    for upper, count in _uppers(point):
        counts[bisect_left(POWERS_OF_TWO, upper)] += count
    return counts


def _uppers(point: ExponentialHistogramDataPoint) -> Iterable[tuple[float, int]]:
    step = 2.0**-point.scale  # bucket i of scale s holds 2^(i * 2^-s) (exclusive) to 2^((i + 1) * 2^-s) (inclusive)
    for index, count in enumerate(point.positive.bucket_counts, point.positive.offset + 1):
        if count:
            exponent = math.ceil(index * step)  # the power of two at or above it
            yield (2.0**exponent if exponent < 1024 else math.inf), count
