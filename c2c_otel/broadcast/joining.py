"""Which transport a process takes: Redis where one is set, else Unix sockets in the run's directory, else none."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from c2c_otel import broadcast, runtime_dir
from c2c_otel.broadcast import messages
from c2c_otel.broadcast.unix import UnixTransport
from c2c_otel_exporters import guard

if TYPE_CHECKING:
    from c2c_otel.broadcast.transport import Transport
    from c2c_otel.runtime_dir import Run
    from c2c_otel.settings import Settings

__all__ = ["join", "leave"]


class _Membership:
    """``run``: a hold on the run's directory, where telemetry has none."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.begun = False
        self.run: Run | None = None

    def transport(self, settings: Settings, run: Run | None, run_id: str) -> Transport | None:
        """Not open yet. Raises OSError where there is no run directory to be had."""
        if settings.redis_url or settings.redis_sentinels:
            from c2c_otel.broadcast import redis

            made = redis.make(settings)
            if made is not None:
                return made
        if run is None:
            run = self.run = runtime_dir.Run.join(settings, run_id)
        return UnixTransport(run.sockets)

    def let_go(self) -> None:
        self.begun = False
        run, self.run = self.run, None
        if run is not None:
            run.leave()


_membership = _Membership()


def join(settings: Settings, run: Run | None, run_id: str) -> None:
    """Let the process's node take part, with others where that is possible. Idempotent. ``run``: telemetry's."""
    with _membership.lock:
        if _membership.begun:
            return
        _membership.begun = True
    node = broadcast.get()
    key = messages.key_of(settings.secret, settings.broadcast_prefix)
    try:
        node.join(_membership.transport(settings, run, run_id), key)
    except OSError as error:
        guard.warn_once("broadcast", "Broadcasts reach this process alone, not all workers: %s", error)
        node.join(None, key)


def leave() -> None:
    """Take no further part. Idempotent."""
    broadcast.get().leave()
    _membership.let_go()


def _after_fork() -> None:
    _membership.lock = threading.Lock()
    _membership.let_go()


os.register_at_fork(after_in_child=_after_fork)
