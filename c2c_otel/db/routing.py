"""Which server a request uses, and why.

A `Routing` belongs to one pair of engines; what it answers is a `Route`. Routes are made once for each reason: each
has an engine, a view of the server's with options that SQL spans are made from, so a connection costs nothing more.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal

from c2c_otel import db_maintenance
from c2c_otel.instrumentation.sql_target import ROUTE
from c2c_otel.settings import ConfigurationError
from c2c_otel_exporters import guard

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from c2c_otel.db.watch import Replica

__all__ = ["READ_METHODS", "REASON", "ROLE", "Role", "Route", "Routing", "patterns"]

ROLE: Final = "c2c.db.role"
REASON: Final = "c2c.db.reason"
"""Attributes of SQL spans: `Route.role` and `Route.reason`."""

Role = Literal["primary", "replica"]

READ_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""They use the replica where nothing else is said."""


@dataclasses.dataclass(frozen=True, eq=False)
class Route:
    """``reason``: ``read_only``, ``chosen`` (by the application's code), ``force_master``, ``force_slave``, ``method``,
    ``no_request``, ``no_replica``, ``replica_down``, ``replica_lagging`` or ``replica_promoted``.

    ``server``: the engine that the application knows. ``engine``: the same pool, with the route's execution options.
    ``readonly``: nothing may be written."""

    role: Role
    reason: str
    server: Engine
    engine: Engine
    readonly: bool


def patterns(argument: str, expressions: Iterable[str | re.Pattern[str]] | None) -> tuple[re.Pattern[str], ...]:
    """Compiled. Raises `ConfigurationError`, which names the argument and the expression."""
    if isinstance(expressions, (str, re.Pattern)):
        expressions = (expressions,)
    compiled = []
    for expression in expressions or ():
        try:
            compiled.append(re.compile(expression))
        except (re.error, TypeError) as error:
            raise ConfigurationError(argument, expression, f"regular expressions ({error})") from error
    return tuple(compiled)


class Routing:
    """The decisions for one pair of engines. ``replica`` is None where there is only one. Thread-safe."""

    def __init__(
        self,
        primary: Engine,
        replica: Replica | None,
        force_master: tuple[re.Pattern[str], ...] = (),
        force_slave: tuple[re.Pattern[str], ...] = (),
        autocommit: Iterable[Engine] = (),
    ) -> None:
        self.primary = primary
        self.replica = replica
        self._force_master = force_master
        self._force_slave = force_slave
        self._autocommit = frozenset(autocommit)
        self._routes: dict[tuple[Role, str, bool], Route] = {}

    @property
    def looks_at_paths(self) -> bool:
        """Whether the path can make a difference."""
        return bool(self._force_master or self._force_slave)

    def of_request(self, method: str, path: str) -> Route:
        """For ``path`` as a client sees it, with the prefix under which the application is mounted."""
        if is_readonly():
            return self._reading()
        if self.replica is None:
            return self.route("primary", "no_replica")
        text = f"{method} {path}"
        if any(pattern.match(text) for pattern in self._force_master):
            return self.route("primary", "force_master")
        if method in READ_METHODS:
            return self._to_replica("method")
        if any(pattern.match(text) for pattern in self._force_slave):
            return self._to_replica("force_slave")
        return self.route("primary", "method")

    def chosen(self, role: Role) -> Route:
        """What the application's code has asked for, as far as that can be had."""
        if is_readonly():
            return self._reading()
        if self.replica is None:
            return self.route("primary", "no_replica")
        return self.route("primary", "chosen") if role == "primary" else self._to_replica("chosen")

    def outside(self) -> Route:
        """Outside of requests: scripts, threads of the application's own."""
        return self._reading() if is_readonly() else self.route("primary", "no_request")

    def instead(self, route: Route) -> Route:
        """The replica could not be reached for this one."""
        return self.route("primary", "read_only" if route.readonly else "replica_down", readonly=route.readonly)

    def _reading(self) -> Route:
        """Lag does not matter to a database that nobody writes to; the primary may be what is being maintained."""
        reachable = self.replica is not None and self.replica.trouble() != "down"
        return self.route("replica" if reachable else "primary", "read_only", readonly=True)

    def _to_replica(self, reason: str) -> Route:
        assert self.replica is not None
        trouble = self.replica.trouble()
        if trouble is not None:
            return self.route("primary", f"replica_{trouble}")
        return self.route("replica", reason)

    def route(self, role: Role, reason: str, *, readonly: bool = False) -> Route:
        """The one route with these."""
        key = (role, reason, readonly)
        route = self._routes.get(key)
        if route is None:
            server = self.replica.engine if role == "replica" and self.replica is not None else self.primary
            options: dict[str, Any] = {ROUTE: {ROLE: role, REASON: reason}}
            if readonly and server.dialect.name == "postgresql":
                options["postgresql_readonly"] = True
                if server in self._autocommit:  # in which the server asks nobody whether a statement may write
                    options["isolation_level"] = "READ COMMITTED"
            engine: Any = server.execution_options(**options)
            engine.c2c_name = getattr(server, "c2c_name", None)
            route = self._routes.setdefault(key, Route(role, reason, server, engine, readonly))
        return route


def is_readonly() -> bool:
    """The switch; off where it cannot be read."""
    try:
        return db_maintenance.is_readonly()
    except Exception:
        guard.failed("db.is_readonly")
        return False
