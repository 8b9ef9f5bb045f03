"""A service with a slow query: ``/slow`` runs it, ``/pid`` names the worker. ``APP_SQL``: an SQLAlchemy URL."""

from __future__ import annotations

import os
from typing import Any

import sqlalchemy
from pyramid.config import Configurator

SLOW = "SELECT count(*) FROM generate_series(1, :rows) AS a (n), generate_series(1, :rows) AS b (n) WHERE a.n < b.n"


def slow(request: Any) -> dict[str, Any]:
    with request.registry.engine.connect() as connection:
        found = connection.scalar(sqlalchemy.text(SLOW), {"rows": 300})
    return {"pid": os.getpid(), "found": found}


def pid(request: Any) -> dict[str, Any]:
    return {"pid": os.getpid()}


def main() -> Any:
    """``gunicorn tests.apps.sql_profiler:main()``"""
    config = Configurator(settings={})
    config.include("c2c_otel")
    config.registry.engine = sqlalchemy.create_engine(os.environ["APP_SQL"], pool_size=1, max_overflow=0)
    for view in (slow, pid):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__, renderer="json")
    return config.make_wsgi_app()
