"""Short helper threads, for what may wait on a name server, and only in a process that may have threads.

A process that forks (gunicorn's arbiter) must not: the child inherits what the thread held. Nobody knows that
better than who starts the telemetry, so threads are off until `allow` is called in this very process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

__all__ = ["allow", "allowed", "run"]

_pid: int | None = None


def allow(yes: bool = True) -> None:
    """Threads may be started in this process (not in its children, which must say so again)."""
    global _pid
    _pid = os.getpid() if yes else None


def allowed() -> bool:
    """Whether `run` may start a thread here."""
    return _pid is not None and _pid == os.getpid()


def run(job: Callable[[], None], name: str) -> threading.Thread | None:
    """Start ``job`` in a daemon thread; None where that is not allowed, or no longer possible (at exit)."""
    if not allowed():
        return None
    thread = threading.Thread(target=job, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is shutting down, or the system has no thread left
        return None
    return thread
