"""Sessions that ask, statement by statement, which server the current request uses.

Nothing is shared and nothing is swapped: the engine is looked up when a session needs one, so it does not matter who
made the session, on which thread, or whether it is the scoped one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc, orm
from sqlalchemy.util import ScopedRegistry

from c2c_otel.db import pool_gauges, readonly, scope

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm.session import SessionTransaction

    from c2c_otel.db.routing import Route, Routing

__all__ = ["RoutedSession", "ScopedSession"]


class RoutedSession(orm.Session):
    """A session on two engines. One that is given another ``bind``, or ``binds``, uses those."""

    def __init__(self, *args: Any, c2c_routing: Routing, **kwargs: Any) -> None:
        kwargs.setdefault("bind", c2c_routing.primary)
        super().__init__(*args, **kwargs)
        self._routing = c2c_routing
        self._has_binds = bool(kwargs.get("binds"))
        self._root: SessionTransaction | None = None
        self._begun: dict[Engine, Engine] = {}
        self.c2c_transaction_manager = scope.transaction_manager()
        """Whose transactions it was made for."""

    def get_bind(
        self,
        mapper: Any = None,
        *,
        clause: Any = None,
        bind: Engine | Connection | None = None,
        **kwargs: Any,
    ) -> Engine | Connection:
        """The engine for what is executed now. With a mapper or a clause its connection is made, so that where the
        replica cannot be reached the answer is the primary."""
        if bind is not None:
            return bind
        if self._is_bound_otherwise():
            return super().get_bind(mapper, clause=clause, **kwargs)
        route, decided_in = scope.route(self._routing)
        if mapper is None and clause is None:
            return route.server
        return self._begin(route, decided_in)

    def connection(self, bind_arguments: Any = None, execution_options: Any = None) -> Connection:
        """As `sqlalchemy.orm.Session.connection`."""
        if not (bind_arguments and bind_arguments.get("bind") is not None) and not self._is_bound_otherwise():
            bind = self._begin(*scope.route(self._routing), {} if execution_options is None else execution_options)
            return super().connection(bind_arguments={"bind": bind})
        return super().connection(bind_arguments, execution_options)

    def _is_bound_otherwise(self) -> bool:
        return self._has_binds or self.bind is not self._routing.primary

    def _begin(self, route: Route, decided_in: scope.Scope | None, options: Any = None) -> Engine:
        """The engine for this route in the current transaction, which has one for each server, whatever sent it there.
        The connection is made if ``options`` for it are given, or if it must be seen whether it can be made."""
        root = self.get_transaction()
        if root is None:
            if not self.autobegin:
                return route.engine
            root = self.begin()
        if root is not self._root:
            self._root = root
            self._begun = {}
        begun = self._begun.get(route.server)
        if begun is not None:
            return begun
        if route.role == "replica":
            try:
                root.connection(None, options, bind=route.engine)
            except exc.DBAPIError as error:
                assert self._routing.replica is not None
                self._routing.replica.failed(error)
                route = self._routing.instead(route)
                if decided_in is not None:
                    decided_in.decided[self._routing] = route
                return self._begin(route, decided_in, options)
        elif options is not None:
            root.connection(None, options, bind=route.engine)
        if route.readonly:
            readonly.restrict(root.connection(None, bind=route.engine))
        self._begun[route.server] = route.engine
        return route.engine


class _Registry(ScopedRegistry[RoutedSession]):
    """One session for each request; outside of requests, one for each thread."""

    __slots__ = ("_local",)

    def __init__(self, createfunc: Any) -> None:
        super().__init__(createfunc, scopefunc=scope.current.get)
        self._local = threading.local()

    def __call__(self) -> RoutedSession:
        held = self._held()
        session = held.get(self)
        if session is None:
            session = held[self] = self.createfunc()
        return session

    def has(self) -> bool:
        return self in self._held()

    def set(self, obj: RoutedSession) -> None:
        self._held()[self] = obj

    def clear(self) -> None:
        self._held().pop(self, None)

    def _held(self) -> dict[object, Any]:
        request = scope.current.get()
        if request is not None:
            return request.sessions
        if not hasattr(self._local, "held"):
            self._local.held = {}
        held: dict[object, Any] = self._local.held
        return held


class ScopedSession(orm.scoped_session[RoutedSession]):
    """The registry that `setup_session` gives: used as a session, called for the session itself.

    ``c2c_rw_bind`` and ``c2c_ro_bind`` are the engines; they are one where there is no replica.
    """

    def __init__(self, session_factory: orm.sessionmaker[RoutedSession], routing: Routing) -> None:
        super().__init__(session_factory)
        self.registry = _Registry(session_factory)
        self._routing = routing
        self.c2c_rw_bind: Engine = routing.primary
        self.c2c_ro_bind: Engine = routing.primary if routing.replica is None else routing.replica.engine

    def dispose(self) -> None:
        """Close this context's session and all connections that are not in use, and stop looking at the replica.
        For tests, and for scripts that end."""
        self.remove()
        if self._routing.replica is not None:
            self._routing.replica.close()
        for engine in {self.c2c_rw_bind, self.c2c_ro_bind}:
            pool_gauges.discard(engine)
            engine.dispose()
