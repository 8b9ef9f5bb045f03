"""Whether the replica can be used now: known beforehand, so that no request waits to find out.

A request that cannot reach the replica says so (`Replica.failed`) and goes on with the primary; from then on a thread
of ours looks at it, and no request tries until it is back. The thread looks at it each few seconds otherwise too:
for its lag, and whether it has been promoted and lives a life of its own.
"""

from __future__ import annotations

import logging
import select
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import event, exc

from c2c_otel.db import lag, scope
from c2c_otel_exporters import guard

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["Replica", "Trouble"]

Trouble = Literal["down", "lagging", "promoted"]

_SAID = {
    "down": "does not answer (%s)",
    "lagging": "is behind (%s)",
    "promoted": "is a primary of its own now%s",
}

_logger = logging.getLogger("c2c_otel")


class Replica:
    """``max_lag``: seconds, or None for any. ``interval``: seconds between two looks; one that has taken longer than
    ``patience`` counts as unanswered. Thread-safe; no thread before the first request, and a fresh one after a fork."""

    def __init__(
        self, engine: Engine, primary: Engine, *, max_lag: float | None, interval: float, patience: float
    ) -> None:
        self.engine = engine
        self._primary = primary
        self._max_lag = max_lag
        self._interval = interval
        self._patience = patience
        self._begin_afresh()
        event.listen(engine, "checkout", _check_liveness)
        lag.bound_connecting(primary)

    def _begin_afresh(self) -> None:
        self._lock = threading.Lock()
        self._trouble: Trouble | None = None
        self._looking_since: float | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closed = False

    after_fork = _begin_afresh

    def trouble(self) -> Trouble | None:
        """What keeps it from being used, as last seen. Costs nothing worth mentioning."""
        if self._thread is None and scope.current.get() is not None:
            self._start()
        since = self._looking_since
        if since is not None and self._trouble != "down" and time.monotonic() - since > self._patience:
            self._set("down", f"no answer within {self._patience:g} s")
        return self._trouble

    def failed(self, error: BaseException) -> None:
        """A request could not connect to it, or was cut off."""
        self._set("down", _first_line(error))
        self._wake.set()

    def close(self) -> None:
        """Stop looking, and wait until the connection for it is closed. The next request begins again."""
        thread, self._closed = self._thread, True
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._patience)
        self._begin_afresh()

    def _set(self, trouble: Trouble | None, why: str = "") -> None:
        """Remember, and say what has changed."""
        with self._lock:
            before, self._trouble = self._trouble, trouble
        if trouble == before:
            return
        replica, primary = _name(self.engine), _name(self._primary)
        if trouble is None:
            _logger.info("The database replica %s is used again.", replica)
        else:
            said = _SAID[trouble] % why
            _logger.warning("The database replica %s %s; %s is read from until it can be used.", replica, said, primary)

    # -- the thread ---------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_watch, args=(weakref.ref(self), self._wake), name="c2c_otel_db_replica", daemon=True
                )
                self._thread.start()

    def _look(self, pool: Any) -> None:
        self._looking_since = time.monotonic()
        try:
            state = lag.look(self.engine.dialect, pool)
        except Exception as error:
            self._set("down", _first_line(error))
            return
        finally:
            self._looking_since = None
        if state.identity is not None and lag.is_promoted(state.identity, self._primary, max(2, round(self._patience))):
            self._set("promoted")
        elif self._max_lag is not None and state.lag is not None and state.lag > self._max_lag:
            self._set("lagging", f"{state.lag:.0f} s; {self._max_lag:g} are allowed")
        else:
            self._set(None)


def _watch(reference: weakref.ref[Replica], wake: threading.Event) -> None:
    """Ends with the `Replica`, or when that is closed. Connections are made as the engine makes them, apart from its
    pool, which may be exhausted."""
    replica = reference()
    if replica is None:
        return
    pool, interval = replica.engine.pool.recreate(), replica._interval
    try:
        while replica is not None and not replica._closed:
            try:
                replica._look(pool)
            except Exception:
                guard.failed("db.replica")
            replica = None
            wake.wait(interval)
            wake.clear()
            replica = reference()
    finally:
        pool.dispose()


def _check_liveness(dbapi_connection: Any, record: Any, proxy: Any) -> None:
    """A connection from the pool whose server has gone is readable: then it is tried, and replaced. One system call,
    where SQLAlchemy's pre_ping needs a round trip each time."""
    fileno = getattr(dbapi_connection, "fileno", None)
    if fileno is None:
        return
    try:
        poll = select.poll()
        poll.register(fileno(), select.POLLIN)
        if not poll.poll(0):
            return
        _ping(dbapi_connection)
    except Exception as error:
        raise exc.DisconnectionError("the server has gone") from error


def _ping(dbapi_connection: Any) -> None:
    cursor = dbapi_connection.cursor()
    try:
        cursor.execute("SELECT 1")
    finally:
        cursor.close()
    dbapi_connection.rollback()


def _name(engine: Engine) -> str:
    return str(getattr(engine, "c2c_name", None) or engine.url.render_as_string(hide_password=True))


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}"
