"""One thread a process that looks at its topics from time to time.

It is there for what no message tells: that an entry has expired, that somebody else has undone what was applied, and
what was said while this process could not hear. One thread does all three, for as long as the process listens; a
timer for each entry would be more threads, and would still leave a lost message unnoticed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from c2c_otel import broadcast
from c2c_otel_exporters import guard

__all__ = ["Watch"]


class Watched(Protocol):
    """What `c2c_otel.shared.Topic` offers here."""

    def tick(self) -> float:
        """Look; returns the seconds until the next look."""


class Watch:
    """Calls each topic's ``tick`` after at most ``seconds``. No thread before `start`."""

    seconds = 5.0

    def __init__(self, topics: Callable[[], Sequence[Watched]]) -> None:
        self._topics = topics
        self.renew()

    def renew(self) -> None:
        """In a forked child: no thread, and locks that nobody holds."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """From now on, until this process no longer listens. Idempotent."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="c2c_otel_shared", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the interpreter is shutting down, or the system has no thread left
                    self._thread = None
                    guard.count("dropped.shared.watch")

    def wake(self) -> None:
        """Something new may end sooner than what is being waited for."""
        self._wake.set()

    def stop(self, timeout: float = 5) -> None:
        """For tests: no longer, whoever listens. Waits for the thread."""
        with self._lock:
            self._stopping, thread = True, self._thread
        self._wake.set()
        if thread is not None:
            thread.join(timeout)

    def _run(self) -> None:
        listened = False  # it is started while the process is about to
        while True:
            self._wake.wait(self._pause())
            self._wake.clear()
            with self._lock:
                if self._stopping or (listened and not broadcast.get().joined):
                    self._thread = None
                    return
                listened = broadcast.get().joined

    def _pause(self) -> float:
        try:
            return min((topic.tick() for topic in self._topics()), default=self.seconds)
        except Exception:
            guard.failed("shared.watch")
            return self.seconds
