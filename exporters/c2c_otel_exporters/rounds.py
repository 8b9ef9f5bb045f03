"""Work that several threads want done now, done once for all of them, on a thread that may be left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Rounds"]

_GRACE = 1.0
"""Seconds that a thread which takes over from a stuck one is given for its round."""


class _NoThreadError(Exception):
    """None can be started: the interpreter is ending."""


class Rounds:
    """``work(go_on)`` runs for whoever calls `run`; it asks ``go_on()`` now and then and returns if that is False.

    A thread is made with the first `run`. It is daemonic: what hangs does not keep the process from ending.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], None]) -> None:
        self._work = work
        self._condition = threading.Condition()
        self._asked = 0
        self._done = 0
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, timeout: float) -> bool:
        """Have a round that begins after now. False if it was not over in time; another thread then takes over.

        Raises what the work raised.
        """
        try:
            return self._ask(timeout)
        except _NoThreadError:
            self._work(lambda: True)
            return True

    def _ask(self, timeout: float) -> bool:
        with self._condition:
            if self._closed:
                return True
            self._asked += 1
            ticket = self._asked
            thread = self._thread or self._begin()
            self._condition.notify_all()
            complete = self._condition.wait_for(lambda: self._done >= ticket, timeout)
            if not complete:
                if self._thread is thread:
                    self._begin()
                self._condition.wait_for(lambda: self._done >= ticket, min(timeout, _GRACE))
            error, self._error = self._error, None
        if error is not None:
            raise error
        return complete

    def close(self) -> None:
        """The thread ends after its round, if it has one, and there are no more rounds."""
        with self._condition:
            self._closed = True
            self._thread = None
            self._condition.notify_all()

    def _begin(self) -> threading.Thread:
        thread = threading.Thread(target=self._loop, name="c2c_otel_publish_round", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError as error:
            self._thread = None
            raise _NoThreadError from error
        return thread

    def _loop(self) -> None:
        me = threading.current_thread()
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._thread is not me or self._asked > self._done)
                if self._thread is not me:
                    return
                ticket = self._asked
            error: BaseException | None = None
            try:
                self._work(lambda: self._thread is me)
            except BaseException as raised:
                error = raised
            with self._condition:
                if self._thread is not me:
                    return
                self._done, self._error = ticket, error
                self._condition.notify_all()
