"""The SDK's MeterProvider, but whose readers come and go with the telemetry of the process.

An application keeps its instruments for good, while a fork, a capture and the end of the process change who reads
them. What a reader has not read yet is in a storage of the reader's own, locks included; so a forked child, which
gets readers of its own, counts nothing twice and waits for no lock that its parent's threads held.

Private names, all of the SDK's version that is pinned: the consumer, to which every meter keeps a reference, and its
``_lock``, ``_reader_storages`` and ``_async_instruments``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry.metrics import ObservableCounter
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics._internal.measurement_consumer import SynchronousMeasurementConsumer
from opentelemetry.sdk.metrics._internal.metric_reader_storage import MetricReaderStorage
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from opentelemetry.sdk.resources import Resource

from c2c_otel_exporters.otel_reader import StoreReader

__all__ = ["MeterProvider"]


class _Consumer(SynchronousMeasurementConsumer):
    def __init__(self, sdk_config: Any, nobody_reads: Callable[[], object]) -> None:
        super().__init__(sdk_config, ())
        self._nobody_reads = nobody_reads

    def consume_measurement(self, measurement: Any) -> None:
        if not self._reader_storages:
            self._nobody_reads()
        super().consume_measurement(measurement)

    def collect(self, metric_reader: MetricReader, timeout_millis: float = 10_000) -> MetricsData | None:
        try:
            return super().collect(metric_reader, timeout_millis)
        except KeyError:
            if metric_reader in self._reader_storages:
                raise
            return None  # it was replaced, maybe meanwhile


class MeterProvider(sdk.MeterProvider):
    """``nobody_reads`` is called before a measurement that no reader would see; it may call `renew`."""

    def __init__(self, resource: Resource, nobody_reads: Callable[[], object]) -> None:
        super().__init__(resource=resource, shutdown_on_exit=False)
        self._measurement_consumer = _Consumer(self._sdk_config, nobody_reads)
        self._inherited: frozenset[str] = frozenset()
        self._storages: WeakKeyDictionary[MetricReader, MetricReaderStorage] = WeakKeyDictionary()

    def renew(self, resource: Resource, readers: Iterable[MetricReader]) -> None:
        """Let these read, in the place of those before; one that has read before finds what it had not read."""
        readers = tuple(readers)
        consumer: Any = self._measurement_consumer
        self._sdk_config.resource = resource
        for reader in readers:
            if isinstance(reader, StoreReader):
                reader.inherited, self._inherited = self._inherited, frozenset()
            if reader not in self._storages:
                kinds: Any = (reader._instrument_class_temporality, reader._instrument_class_aggregation)
                self._storages[reader] = MetricReaderStorage(self._sdk_config, *kinds)
                reader._set_collect_callback(consumer.collect)
                reader._set_meter_provider(self)
        self._metric_readers = readers
        consumer._reader_storages = {reader: self._storages[reader] for reader in readers}

    def forget(self) -> None:
        """For a forked child: no reader, and nothing of what was recorded."""
        consumer = self._measurement_consumer
        consumer._lock = threading.Lock()  # a thread of the parent's may have been collecting
        consumer._reader_storages = {}
        self._storages = WeakKeyDictionary()
        self._metric_readers = ()
        observed = consumer._async_instruments
        self._inherited = frozenset(one.name for one in observed if isinstance(one, ObservableCounter))
