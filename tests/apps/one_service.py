"""An application of several workers with something wrong in it: a leak, a thread that is blocked, a slow query.

``/state`` tells what the answering worker knows of all that can be changed in all of them. ``APP_SQL``: an SQLAlchemy
URL of PostgreSQL.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import sqlalchemy
from pyramid.config import Configurator

from c2c_otel import db_maintenance, sql_profiler, stats

SLOW = "SELECT count(*) FROM generate_series(1, :rows) AS a (n), generate_series(1, :rows) AS b (n) WHERE a.n < b.n"
QUICK = "SELECT 1 AS quick"

_gate = threading.Event()
_kept: list[Any] = []


class Leaked:
    """What a request leaves behind."""


class Planted:
    """One for each process, of 200 KB."""

    def __init__(self) -> None:
        self.content = ["x" * 200_000]


planted = Planted()


def _wait_for_ever() -> None:
    _gate.wait()


def state(request: Any) -> dict[str, Any]:
    """Of this worker."""
    logger = logging.getLogger(request.params.get("logger", "one_service"))
    mode = sql_profiler.mode()
    return {
        "pid": os.getpid(),
        "level": logging.getLevelName(logger.getEffectiveLevel()),
        "readonly": db_maintenance.is_readonly(),
        "profiler": None if mode is None else mode.min_seconds,
    }


def leak(request: Any) -> dict[str, Any]:
    """Keeps seven objects."""
    _kept.extend(Leaked() for _ in range(7))
    return {"pid": os.getpid()}


def block(request: Any) -> dict[str, Any]:
    """Starts a thread that waits for what nobody does."""
    threading.Thread(target=_wait_for_ever, name="one_service_blocked", daemon=True).start()
    return {"pid": os.getpid()}


def query(request: Any) -> dict[str, Any]:
    """A slow statement and a quick one."""
    with request.registry.engine.connect() as connection:
        connection.execute(sqlalchemy.text(SLOW), {"rows": 700})
        connection.execute(sqlalchemy.text(QUICK))
    stats.increment_counter(["one_service", "query"])
    return {"pid": os.getpid()}


def main() -> Any:
    """``gunicorn tests.apps.one_service:main()``"""
    config = Configurator(settings={})
    config.include("c2c_otel")
    if "APP_SQL" in os.environ:
        config.registry.engine = sqlalchemy.create_engine(os.environ["APP_SQL"], pool_size=1, max_overflow=1)
    for view in (state, leak, block, query):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__, renderer="json")
    return config.make_wsgi_app()
