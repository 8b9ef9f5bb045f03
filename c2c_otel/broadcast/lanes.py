"""A thread for each channel: a callback that takes its time, or never ends, holds up its own channel alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from c2c_otel_exporters import guard

__all__ = ["IDLE_SECONDS", "LIMIT", "Lane", "Lanes"]

LIMIT = 64
"""What may wait in one channel; more is dropped."""

IDLE_SECONDS = 60.0
"""A thread that had nothing to do for so long ends; the next job starts another."""

Job = Callable[[], None]


class Lane:
    """The jobs of one channel, one after the other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, job: Job) -> bool:
        """Let it be done. False where too much waits already, or no thread can be had."""
        with self._changed:
            if len(self._jobs) >= LIMIT:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"c2c_broadcast_{self._name}", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the interpreter ends, or the system has no thread left
                    self._thread = None
                    return False
            self._jobs.append(job)
            self._changed.notify()
            return True

    def clear(self) -> None:
        """Forget what waits."""
        with self._changed:
            self._jobs.clear()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:
                guard.failed("broadcast.callback")
            except SystemExit:  # ends the job, not the lane
                guard.count("broadcast.callback_exited")

    def _next(self) -> Job | None:
        with self._changed:
            while not self._jobs:
                if not self._changed.wait(IDLE_SECONDS) and not self._jobs:
                    self._thread = None
                    return None
            return self._jobs.popleft()


class Lanes:
    """One lane a channel, made when it is first needed."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._lock = threading.Lock()

    def put(self, channel: str, job: Job) -> bool:
        """As `Lane.put`, on the channel's lane."""
        with self._lock:
            lane = self._lanes.get(channel)
            if lane is None:
                lane = self._lanes[channel] = Lane(channel)
        return lane.put(job)

    def clear(self) -> None:
        """Forget what waits in all of them."""
        for lane in list(self._lanes.values()):
            lane.clear()
