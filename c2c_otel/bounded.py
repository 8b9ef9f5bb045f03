"""Work that may wait on a name server, a connection or a silent peer, for a caller who can wait only so long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

__all__ = ["call"]

T = TypeVar("T")

_MAX_LEFT_BEHIND = 8
"""Threads that nobody waits for any more; with so many, what they wait for is away, and no more are started."""

_left: set[threading.Thread] = set()


def call(job: Callable[[], T], seconds: float, name: str = "c2c_otel_bounded") -> T:
    """What ``job()`` returns or raises, on a daemon thread with the caller's context; TimeoutError after ``seconds``.

    The thread is then left behind, and goes on: the job itself sees to it that what it does late does no harm.
    """
    for thread in tuple(_left):  # after a fork, those of the parent are not alive
        if not thread.is_alive():
            _left.discard(thread)
    if len(_left) >= _MAX_LEFT_BEHIND:
        raise TimeoutError(f"{len(_left)} earlier calls have not come back")
    came: list[tuple[T | None, BaseException | None]] = []
    context = copy_context()

    def run() -> None:
        try:
            came.append((context.run(job), None))
        except BaseException as error:
            came.append((None, error))

    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending, or the system has no thread left
        return job()
    thread.join(seconds)
    if not came:
        _left.add(thread)
        raise TimeoutError(f"no answer within {seconds:g} s")
    value, error = came[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value] # it is what the job returned, as there is no error
