"""Once a second, and before each scrape: what others have recorded in this process -> the store.

Sources are the OpenTelemetry SDK (also to statsd), prometheus_client, the providers, and what our own code had to
drop. They run code of the application's, which may raise or hang. So a source that fails costs itself alone; and
they run on a thread nobody waits for longer than `PATIENCE`: when it has not come back by then another one takes
its place, and leaves out the source in which it hangs until that returns.

| thread | what it does |
|---|---|
| c2c_otel_publish | asks for a round each interval |
| c2c_otel_publish_round | does it, one source after the other |
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from c2c_otel_exporters import guard
from c2c_otel_exporters.model import Kind, Labels, Metric
from c2c_otel_exporters.otel_reader import StoreReader
from c2c_otel_exporters.prometheus_client_source import PrometheusClientSource
from c2c_otel_exporters.rounds import Rounds
from c2c_otel_exporters.store_writer import StoreWriter

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from c2c_otel_exporters.statsd import Names, Sender
    from c2c_otel_exporters.store import Store

__all__ = ["INTERNAL_EVENTS", "PATIENCE", "Provider", "Publisher"]

PATIENCE = 3.0
"""Seconds that a scrape waits for all sources to be read; Prometheus gives up after 10."""

_LAST_ROUND = 1.0
"""Seconds for the last round, of the two that a worker has to end."""

INTERNAL_EVENTS = Metric(
    "c2c_otel.internal.events", Kind.COUNTER, "", "What c2c-otel had to drop or could not do, by place."
)


class Provider(Protocol):
    """What `c2c_otel.metrics.Provider` offers here. ``type``: ``gauge`` or ``counter``. One of our own may have a
    ``metric``, which then says what it is."""

    name: str
    help: str
    type: str

    def labelled(self) -> Iterable[tuple[Mapping[str, object], float]]:
        """Label sets and values, as they are now."""
        ...


class Publisher:
    """All sources of one process. Makes no thread before `start` or `publish`; not to be used after a fork.

    ``registry``: None is prometheus_client's own, as soon as the application has imported it. ``providers`` is read
    anew in each round, so a list may grow. ``interval``: seconds between rounds.
    """

    def __init__(
        self,
        store: Store,
        *,
        sender: Sender | None = None,
        names: Names | None = None,
        registry: CollectorRegistry | None = None,
        providers: Iterable[Provider] = (),
        interval: float = 1.0,
        patience: float = PATIENCE,
    ) -> None:
        self.reader = StoreReader(store, sender, names)
        """To be given to the MeterProvider of the process."""
        self._store = store
        self._prometheus_client = PrometheusClientSource(store, registry)
        self._providers = providers
        self._provider_writers: dict[Provider, StoreWriter] = {}
        self._internal = StoreWriter(store)
        self._interval = interval
        self._patience = patience
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._rounds = Rounds(self._round)
        self._stopping = threading.Event()
        self._ticker: threading.Thread | None = None
        self._published = 0.0

    @property
    def sdk_metrics(self) -> set[Metric]:
        """The metrics in the store that came from the OpenTelemetry SDK, which exports them by itself too."""
        return self.reader.writer.metrics

    def start(self) -> None:
        """Publish each interval from now on. Idempotent."""
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, name="c2c_otel_publish", daemon=True)
            self._ticker.start()

    def stop(self) -> None:
        """Publish a last time, for at most a second, and end the threads. Idempotent."""
        if not self._stopping.is_set():
            self._stopping.set()
            self.publish(_LAST_ROUND)
            self._rounds.close()

    def publish(self, timeout: float | None = None) -> bool:
        """Read all sources now. Those who ask at the same time share a round that began after they asked.

        False if a source had not been read within ``timeout`` seconds (default: the patience).
        """
        complete = self._rounds.run(self._patience if timeout is None else timeout)
        if not complete:
            with self._lock:
                stuck = ", ".join(sorted(self._busy)) or "a source"
            guard.count("failed.publish.slow")
            guard.warn_once(
                f"publish.slow.{stuck}",
                "Metrics are incomplete: %s did not answer in time; it is left out until it does.",
                stuck,
            )
        return complete

    def state(self) -> dict[str, object]:
        """How it is doing: the ``age`` of the last complete round in seconds (None: there was none), whether its
        ``thread`` runs, and the sources that are being read: ``busy``."""
        with self._lock:
            busy = sorted(self._busy)
        return {
            "age": time.monotonic() - self._published if self._published else None,
            "thread": None if self._ticker is None else self._ticker.is_alive(),
            "busy": busy,
        }

    def _tick(self) -> None:
        while not self._stopping.wait(self._interval):
            self.publish()

    # -- a round ----------------------------------------------------------------------------------------------

    def _round(self, go_on: Callable[[], bool]) -> None:
        for name, read in self._sources():
            if not go_on():
                return
            self._read(name, read)
        self._published = time.monotonic()

    def _sources(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "opentelemetry", self.reader.read
        yield from self._prometheus_client.parts()
        providers = list(self._providers)
        for gone in self._provider_writers.keys() - set(providers):
            self._provider_writers.pop(gone).clear()
        for provider in providers:
            yield f"provider.{provider.name}", lambda provider=provider: self._read_provider(provider)  # type: ignore[misc] # mypy cannot infer a lambda with a default
        yield "internal", self._read_internal

    def _read(self, name: str, read: Callable[[], None]) -> None:
        with self._lock:
            if name in self._busy:  # another thread hangs in it
                return
            self._busy.add(name)
        try:
            read()
        except Exception:
            guard.failed(f"publish.{name}")
        finally:
            with self._lock:
                self._busy.discard(name)

    def _read_provider(self, provider: Provider) -> None:
        writer = self._provider_writers.get(provider)
        if writer is None:
            writer = self._provider_writers[provider] = StoreWriter(self._store)
        metric = getattr(provider, "metric", None)
        if metric is None:
            kind = Kind.COUNTER if provider.type == "counter" else Kind.GAUGE_LAST
            metric = Metric(provider.name, kind, "", provider.help, exact=True)
        writer.begin()
        for labels, value in provider.labelled():
            named: Labels = tuple(sorted((str(name), str(text)) for name, text in labels.items()))
            if metric.kind is Kind.COUNTER:
                writer.total(metric, named, float(value))
            else:
                writer.gauge(metric, named, float(value))
        writer.finish()

    def _read_internal(self) -> None:
        for place, count in list(guard.tally.items()):
            self._internal.total(INTERNAL_EVENTS, (("place", place),), float(count))
