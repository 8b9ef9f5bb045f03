"""Settings -> engines -> a scoped session."""

from __future__ import annotations

import logging
import os
import re
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy
from sqlalchemy import Engine, event, orm
from sqlalchemy.engine import URL, make_url

from c2c_otel import application, db_maintenance, telemetry
from c2c_otel.db import pool_gauges, readonly, transactions, tween
from c2c_otel.db.lag import LIBPQ
from c2c_otel.db.routing import Routing, patterns
from c2c_otel.db.session import RoutedSession, ScopedSession
from c2c_otel.db.watch import Replica
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel_exporters import guard

__all__ = ["create_session", "setup_session"]

Expressions = Iterable[str | re.Pattern[str]] | None

_logger = logging.getLogger("c2c_otel")
_forkable: weakref.WeakSet[Any] = weakref.WeakSet()
_forks_are_heard = False


def setup_session(
    config: Any,
    master_prefix: str,
    slave_prefix: str | None = None,
    force_master: Expressions = None,
    force_slave: Expressions = None,
) -> tuple[ScopedSession, Engine, Engine]:
    """The session, the primary's engine and the replica's (the same one where there is none).

    Engines come from the settings ``{prefix}.url``, ``{prefix}.pool_size`` ... of the application and are called by
    their prefixes (``c2c_name``). There is one engine where the replica's URL is missing, empty or the primary's.
    ``force_master``, ``force_slave``: regular expressions, matched from the start of ``"GET /prefix/path"``.

    Raises `ConfigurationError`.
    """
    settings = config.registry.settings
    url = _url(f"{master_prefix}.url", settings.get(f"{master_prefix}.url"))
    slave_url = _slave_url(settings, slave_prefix)
    ours = _settings(config)

    def make(prefix: str, of: URL, more: Mapping[str, Any]) -> Engine:
        own = {key: value for key, value in settings.items() if key.startswith(f"{prefix}.")}
        own[f"{prefix}.url"] = of
        connect_args = own.pop(f"{prefix}.connect_args", None) or {}
        if more or connect_args:
            return sqlalchemy.engine_from_config(own, f"{prefix}.", connect_args={**more, **connect_args})
        return sqlalchemy.engine_from_config(own, f"{prefix}.")

    primary = _named(make(master_prefix, url, {}), master_prefix)
    replica = None
    if slave_url is not None and slave_url != url:
        assert slave_prefix is not None
        replica = _named(make(slave_prefix, slave_url, _bounds(slave_url, ours)), slave_prefix)
    autocommit = [
        engine
        for engine, prefix in ((primary, master_prefix), (replica, slave_prefix))
        if engine is not None and _is_autocommit(settings.get(f"{prefix}.isolation_level"))
    ]
    session = _session(config, ours, primary, replica, force_master, force_slave, autocommit)
    return session, session.c2c_rw_bind, session.c2c_ro_bind


def create_session(
    config: Any,
    name: str,
    url: str | URL,
    slave_url: str | URL | None = None,
    force_master: Expressions = None,
    force_slave: Expressions = None,
    **engine_config: Any,
) -> ScopedSession:
    """As `setup_session`, from URLs; ``engine_config`` goes to `sqlalchemy.create_engine` for both engines.

    They are called ``{name}_master`` and ``{name}_slave``, or ``name`` where there is one. With None for ``config``
    there is one: no request decides. Raises `ConfigurationError`.
    """
    ours = _settings(config)
    made = _url("url", url)
    slave = None if config is None or not slave_url else _url("slave_url", slave_url)
    if slave == made:
        slave = None
    primary = _named(sqlalchemy.create_engine(made, **engine_config), name if slave is None else f"{name}_master")
    replica = None
    if slave is not None:
        connect_args = {**_bounds(slave, ours), **engine_config.get("connect_args", {})}
        options = {**engine_config, "connect_args": connect_args}
        replica = _named(sqlalchemy.create_engine(slave, **options), f"{name}_slave")
    engines = [engine for engine in (primary, replica) if engine is not None]
    autocommit = engines if _is_autocommit(engine_config.get("isolation_level")) else []
    return _session(config, ours, primary, replica, force_master, force_slave, autocommit)


def _session(
    config: Any,
    ours: Settings,
    primary: Engine,
    replica: Engine | None,
    force_master: Expressions,
    force_slave: Expressions,
    autocommit: Iterable[Engine],
) -> ScopedSession:
    watched = None if replica is None else _watched(replica, primary, ours)
    routing = Routing(
        primary, watched, patterns("force_master", force_master), patterns("force_slave", force_slave), autocommit
    )
    factory = orm.sessionmaker(class_=RoutedSession, bind=primary, c2c_routing=routing)
    session = ScopedSession(factory, routing)
    transactions.register(session)
    for made in (primary, replica, watched):
        if made is not None:
            _forkable.add(made)
    _hear_of_forks()
    db_maintenance.init()
    if config is not None:
        config.include("pyramid_tm")
        tween.add(config)
    return session


def _watched(replica: Engine, primary: Engine, ours: Settings) -> Replica:
    watched = Replica(
        replica,
        primary,
        max_lag=ours.db_max_lag,
        interval=ours.db_replica_interval,
        patience=ours.db_connect_timeout,
    )
    reference = weakref.ref(watched)

    def on_error(failure: Any) -> None:
        known = reference()
        if failure.is_disconnect and failure.connection is not None and known is not None:
            known.failed(failure.original_exception)

    event.listen(replica, "handle_error", on_error)
    return watched


def _named(engine: Engine, name: str) -> Engine:
    engine.c2c_name = name  # type: ignore[attr-defined] # what health checks and gauges call it
    readonly.install(engine)
    pool_gauges.add(engine)
    return engine


# -- settings -----------------------------------------------------------------------------------------------------


def _settings(config: Any) -> Settings:
    decided = None if config is None else application.of(config.registry).settings
    return decided or telemetry.get().settings


def _slave_url(settings: Mapping[str, Any], prefix: str | None) -> URL | None:
    if not prefix:
        return None
    key = f"{prefix}.url"
    value = settings.get(key)
    if value:
        return _url(key, value)
    others = sorted(name for name in settings if name.startswith(f"{prefix}."))
    if value is None and others:
        raise ConfigurationError(key, value, f"a database URL, as there is {others[0]}", "Set it, or leave it empty.")
    _logger.info("%s is not set: there is no database replica, everything uses the primary.", key)
    return None


def _url(key: str, value: Any) -> URL:
    if isinstance(value, URL):
        return value
    try:
        return make_url(str(value or ""))
    except Exception:  # ArgumentError, ValueError: their texts have the URL with its password
        shown = value if not value else "***"
        raise ConfigurationError(key, shown, "a database URL such as postgresql+psycopg://host/name") from None


def _bounds(url: URL, ours: Settings) -> dict[str, Any]:
    """How long the replica's network may take, unless the URL says so: a request falls back after that. libpq's
    shortest connect_timeout is 2 seconds."""
    driver = url.get_driver_name()
    if url.get_backend_name() != "postgresql" or driver not in LIBPQ:
        return {}
    bounds = {
        "connect_timeout": max(2, round(ours.db_connect_timeout)),
        "tcp_user_timeout": round(ours.db_connect_timeout * 1000),
    }
    return {key: value for key, value in bounds.items() if key not in url.query}


def _is_autocommit(isolation_level: Any) -> bool:
    return str(isolation_level or "").strip().upper() == "AUTOCOMMIT"


# -- forks --------------------------------------------------------------------------------------------------------


def _hear_of_forks() -> None:
    global _forks_are_heard
    if not _forks_are_heard:
        _forks_are_heard = True
        os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    """In the child: connections and threads are the parent's."""
    for made in list(_forkable):
        try:
            if isinstance(made, Engine):
                made.dispose(close=False)
            else:
                made.after_fork()
        except Exception:
            guard.failed("db.fork")
