"""Which database a SQLAlchemy connection talks to, as span attributes: worked out once for each engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ROUTE", "TARGET", "Target", "target_of"]

ROUTE = "c2c_otel_route"
"""An execution option of connections: attributes that their spans have too (`c2c_otel.db.routing`)."""

TARGET = "_c2c_otel_target"
"""An attribute of engines: the target, where all connections of one have the same."""
_ALL = "_c2c_otel_targets"

_SYSTEMS = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}
"""SQLAlchemy's dialect names that are not the conventions' ``db.system.name``."""


@dataclass(slots=True)
class Target:
    """``namespace``, ``host`` and ``port`` are None where they are not known. Copy ``attributes`` to add to it.
    ``sites`` and ``ends``: what the instrumentation remembers of statements there, and of ends of transactions."""

    system: str
    namespace: str | None
    host: str | None
    port: int | None
    attributes: dict[str, Any]
    sites: dict[Any, Any]
    ends: dict[str, Any]

    @property
    def server(self) -> tuple[str, str | None, str | None, int | None]:
        """What tells it from others."""
        return self.system, self.namespace, self.host, self.port


def target_of(connection: Any) -> Target:
    """The target of a ``sqlalchemy.engine.Connection``. The engine keeps it, or, where the URL
    names no single server (a ``creator``, several hosts), with the driver's connection."""
    engine = connection.engine
    target: Target | None = getattr(engine, TARGET, None)
    if target is not None:
        return target
    url = engine.url
    system = _system(engine.dialect)
    if url.host is None and system == "postgresql":
        info = _info(connection.connection)
        target = info.get(TARGET)
        if target is None:
            asked = _asked(system, url, connection.connection)
            known: dict[Any, Target] = engine.__dict__.setdefault(_ALL, {})  # connections to one server share it
            target = info[TARGET] = known.setdefault(asked.server, asked)
        return target
    target = _make(system, url.database, url.host, url.port)
    setattr(engine, TARGET, target)
    return target


def _system(dialect: Any) -> str:
    name = str(dialect.name)
    if getattr(dialect, "is_mariadb", False):
        return "mariadb"
    return _SYSTEMS.get(name, name)


def _info(proxy: Any) -> Any:
    """The dictionary that stays with the driver's connection; a connection that a dialect gets to know the server
    with is outside of the pool and has none."""
    try:
        return proxy.info
    except (AttributeError, NotImplementedError):
        return {}


def _asked(system: str, url: Any, connection: Any) -> Target:
    """Ask the driver; psycopg 2 and 3 know."""
    driver = getattr(connection, "driver_connection", None)
    info: Any = getattr(driver, "info", None)
    try:
        return _make(system, info.dbname, info.host, info.port)
    except Exception:  # a driver's own error: the connection may be gone
        return _make(system, url.database, None, None)


def _make(system: str, namespace: str | None, host: str | None, port: int | None) -> Target:
    attributes: dict[str, Any] = {"db.system.name": system}
    if namespace:
        attributes["db.namespace"] = namespace
    if host:
        attributes["server.address"] = host
        if port and not host.startswith("/"):
            attributes["server.port"] = int(port)
    return Target(system, namespace or None, host or None, attributes.get("server.port"), attributes, {}, {})
