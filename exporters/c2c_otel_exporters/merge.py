"""The measurements of all processes of a service, living and dead, as if one had made them.

    scraper = Scraper(directory, store)   # keeps what it learnt about each file
    families = scraper.families()

Nothing is locked: the archive of the dead is replaced as a whole, and if that happened while its neighbours were
read, they are read again.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from c2c_otel_exporters import guard
from c2c_otel_exporters.archive import ARCHIVE, OpenedLayout, compact, open_layout, warn_unreadable
from c2c_otel_exporters.epoch import Epoch
from c2c_otel_exporters.layout import CorruptError
from c2c_otel_exporters.mapped import SUFFIX, is_alive
from c2c_otel_exporters.model import Family, Kind, Metric, Sample
from c2c_otel_exporters.series import Keys, Layout, Totals
from c2c_otel_exporters.store import Store

__all__ = ["Scraper", "compact", "reset_stats", "scrape"]

_DEAD_FILES = 4
"""More than so many, and a scrape compacts."""

_ATTEMPTS = 200
_PAUSE_SECONDS = 0.002

_UNSHARED = Metric("c2c_otel.metrics.unshared", Kind.GAUGE_MAX)


class _Gathered(NamedTuple):
    layouts: list[tuple[Layout, bool]]  # and whether its owner lives
    dead: int


class Scraper:
    """Reads one directory again and again. Thread-safe. ``own``: the store of this process, for what it cannot share.

    Holds one descriptor and one mapping for each file until that is gone. Not to be used after a fork.
    """

    def __init__(self, directory: Path | None, own: Store | None = None, *, max_series: int | None = None) -> None:
        self._directory = directory
        self._own = own
        self._max_series = max_series or (own.max_series if own is not None else 2000)
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._keys = Keys()
        self._archive: OpenedLayout | None = None
        self._archive_identity: tuple[int, int] | None = None
        self._files: dict[str, OpenedLayout] = {}
        self._dead: set[str] = set()
        self._unreadable: set[str] = set()
        self._local: Layout | None = None

    def families(self) -> list[Family]:
        """All metrics, the oldest first. Raises OSError if the directory cannot be read."""
        with self._lock:
            families, dead = self._read()
            if dead > _DEAD_FILES:
                self._compact()
            if len(self._keys.known) > 1000 + 4 * sum(layout.size() for layout in self._opened()):
                self._close()
        if comments := self.comments():
            families.append(Family(_UNSHARED._replace(help=comments[0]), {(): Sample((1.0, time.time()))}))
        return families

    def comments(self) -> tuple[str, ...]:
        """What whoever reads the metrics should know about them."""
        if self._own is None or self._own.shared:
            return ()
        return (f"These metrics are of process {os.getpid()} alone as far as it cannot share them: {self._own.reason}",)

    def reset_stats(self) -> None:
        """Begin stats.json anew. Raises OSError."""
        if self._own is not None:
            self._own.reset_stats()
        elif self._directory is not None:
            reset_stats(self._directory)

    def close(self) -> None:
        """Unmap everything. It may be used again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        for layout in self._opened():
            layout.source.close()
        self._forget()

    def _opened(self) -> list[OpenedLayout]:
        archive = [] if self._archive is None else [self._archive]
        return [*self._files.values(), *archive]

    def _compact(self) -> None:
        assert self._directory is not None
        try:
            compact(self._directory, self._max_series, self._keys)
        except OSError as error:
            guard.dropped("metrics.compaction", reason=f"files of ended processes stay as they are: {error}")

    def _read(self) -> tuple[list[Family], int]:
        if self._directory is None:
            return self._add_up(_Gathered([], 0)), 0
        for attempt in range(_ATTEMPTS):
            self._update_archive()
            gathered = self._gather(self._directory)
            families = self._add_up(gathered)
            if self._is_current():
                return families, gathered.dead
            if attempt > 2:
                time.sleep(_PAUSE_SECONDS)
        raise OSError(f"the archive in {self._directory} is replaced faster than it can be read")

    def _add_up(self, gathered: _Gathered) -> list[Family]:
        own, directory = self._own, self._directory
        totals = Totals(Epoch.read(directory) if directory is not None else own.epoch() if own is not None else 0.0)
        for layout, alive in gathered.layouts:
            totals.add(layout, alive=alive)
        if own is not None:
            if self._local is None:
                self._local = Layout(self._keys, own.local())
            self._local.update()
            totals.add(self._local, alive=True)
        return totals.families(self._max_series)

    def _identity(self) -> tuple[int, int] | None:
        assert self._directory is not None
        try:
            status = (self._directory / ARCHIVE).stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _is_current(self) -> bool:
        return self._identity() == self._archive_identity

    def _update_archive(self) -> None:
        """No other file can have the identity of one that is mapped, so a changed archive is always noticed."""
        assert self._directory is not None
        identity = self._identity()
        if identity == self._archive_identity:
            return
        old, self._archive = self._archive, open_layout(self._directory / ARCHIVE, self._keys)
        self._archive_identity = identity if self._archive is None else self._archive.source.identity
        if old is not None:
            old.source.close()

    def _gather(self, directory: Path) -> _Gathered:
        merged = self._archive.merged if self._archive is not None else frozenset()
        names = {path.name for path in directory.iterdir() if path.name.endswith(SUFFIX)} - merged
        for name in self._files.keys() - names:
            self._files.pop(name).source.close()
        self._dead &= names
        self._unreadable &= names
        layouts: list[tuple[Layout, bool]] = []
        for name in sorted(names):
            layout = self._file(directory / name)
            if layout is not None:
                layouts.append((layout, name not in self._dead))
        if self._archive is not None:
            layouts.append((self._archive, False))
        return _Gathered(layouts, len(self._dead - self._unreadable))

    def _file(self, path: Path) -> OpenedLayout | None:
        """None where the file is gone, then the archive is another one too, or cannot be read."""
        name = path.name
        if name in self._unreadable:
            return None
        layout = self._files.get(name)
        try:
            if name not in self._dead and not is_alive(path, layout.source.size if layout is not None else 0):
                self._dead.add(name)
            if layout is not None:
                layout.update()
                return layout
        except FileNotFoundError:
            return None
        except CorruptError as error:
            warn_unreadable(path, error)
            if layout is not None:
                self._files.pop(name).source.close()
                layout = None
        else:
            layout = open_layout(path, self._keys)
        if layout is None:
            self._unreadable.add(name)
        else:
            self._files[name] = layout
        return layout


def scrape(directory: Path | None, own: Store | None = None) -> list[Family]:
    """Read once; use a `Scraper` to read again. Raises OSError if the directory cannot be read."""
    scraper = Scraper(directory, own)
    try:
        return scraper.families()
    finally:
        scraper.close()


def reset_stats(directory: Path) -> None:
    """Begin stats.json anew, for all processes of the service. Raises OSError."""
    epoch = Epoch(directory)
    try:
        epoch.bump()
    finally:
        epoch.close()
