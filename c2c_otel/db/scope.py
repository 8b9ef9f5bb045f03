"""The request whose sessions are in use, and what was decided for it.

A `Scope` is made by our tween and lies in a context variable: what runs in other threads or greenlets does not see
it, and has sessions of its own. A subrequest that runs through the tweens has a scope of its own; one that does not
belongs to the request that made it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import transaction

from c2c_otel_exporters import guard

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from c2c_otel.db.routing import Role, Route, Routing

__all__ = [
    "ENVIRON_KEY",
    "Scope",
    "current",
    "primary",
    "replica",
    "route",
    "transaction_manager",
    "use_primary",
    "use_replica",
]

ENVIRON_KEY: Final = "c2c_otel.db.scope"
"""Of the WSGI environ."""

current: ContextVar[Scope | None] = ContextVar("c2c_otel_db_scope", default=None)
"""The scope of the request that runs in this context."""

_choice: ContextVar[Role | None] = ContextVar("c2c_otel_db_choice", default=None)


class Scope:
    """One request. One thread at a time touches it. ``sessions``: by the registry that made them."""

    __slots__ = ("choice", "decided", "request", "sessions")

    def __init__(self, request: Any) -> None:
        self.request = request
        self.sessions: dict[object, Session] = {}
        self.choice: Role | None = None
        self.decided: dict[Routing, Route] = {}

    def route(self, routing: Routing) -> Route:
        """Decided with the first statement, and kept."""
        route = self.decided.get(routing)
        if route is None:
            if self.choice is None:
                path = _path(self.request) if routing.looks_at_paths else ""  # 5 us
                route = routing.of_request(self.request.method, path)
            else:
                route = routing.chosen(self.choice)
            self.decided[routing] = route
        return route

    def close(self) -> None:
        """The request is over: its connections go back to their pools. What a transaction around the request
        (``repoze.tm``, a test) will commit is left to it."""
        sessions, self.sessions = self.sessions, {}
        environ = self.request.environ
        if not sessions or "repoze.tm.active" in environ or "tm.active" in environ:
            return
        for session in sessions.values():
            try:
                if session.in_transaction():  # nobody else will end it, and the thread's next request must not find it
                    _manager_of(self.request).abort()
                    session.close()
            except Exception:
                guard.failed("db.scope")


def route(routing: Routing) -> tuple[Route, Scope | None]:
    """For a statement that is executed now; the scope it was decided in, if it was in one."""
    choice, scope = _choice.get(), current.get()
    if choice is not None:
        return routing.chosen(choice), None
    if scope is not None:
        return scope.route(routing), scope
    return routing.outside(), None


def _path(request: Any) -> str:
    try:
        return str(request.path)
    except UnicodeDecodeError:  # no route matches it either
        environ = request.environ
        return f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"


# -- what the application may choose ------------------------------------------------------------------------------


def use_primary(request: Any) -> None:
    """From here on this request uses the primary. Objects that it has loaded before stay as they are."""
    _use(request, "primary")


def use_replica(request: Any) -> None:
    """From here on this request uses the replica, if there is one that can be used."""
    _use(request, "replica")


def _use(request: Any, role: Role) -> None:
    scope = getattr(request, "environ", {}).get(ENVIRON_KEY) or current.get()
    if scope is not None:
        scope.choice = role
        scope.decided.clear()


def primary() -> Any:
    """``with primary():`` statements of this block go to the primary, in a request or outside of one."""
    return _block("primary")


def replica() -> Any:
    """``with replica():`` statements of this block go to the replica, if there is one that can be used."""
    return _block("replica")


@contextmanager
def _block(role: Role) -> Iterator[None]:
    token = _choice.set(role)
    try:
        yield
    finally:
        _choice.reset(token)


# -- transactions -------------------------------------------------------------------------------------------------


def transaction_manager() -> Any:
    """Of the request that runs, also where ``tm.manager_hook`` makes one for each request; else of the thread."""
    scope = current.get()
    return _manager_of(None if scope is None else scope.request)


def _manager_of(request: Any) -> Any:
    return getattr(request, "tm", None) or transaction.manager
