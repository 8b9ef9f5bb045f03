"""An application with health checks, set up by the environment: ``APP_SQL`` and ``APP_SQL_SLAVE`` (SQLAlchemy URLs),
``APP_CALL`` (the URL of another service), ``APP_TROUBLE`` (a file: while its text is ``fail`` a check fails, while it
is ``hang`` one hangs)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from pyramid.config import Configurator

from c2c_otel import db
from c2c_otel.health_check import HealthCheck

_SETTINGS = {
    "sqlalchemy.url": os.environ.get("APP_SQL", "sqlite://"),
    "sqlalchemy_slave.url": os.environ.get("APP_SQL_SLAVE", ""),
}


def main() -> Any:
    config = Configurator(settings=_SETTINGS)
    config.include("c2c_otel")
    session, _, _ = db.setup_session(config, "sqlalchemy", "sqlalchemy_slave")
    health = HealthCheck(config)
    health.add_db_session_check(session)
    health.add_custom_check("trouble", _trouble)
    health.add_custom_check("who", lambda request: {"pid": os.getpid()}, 3)
    if url := os.environ.get("APP_CALL"):
        health.add_url_check(url, name="called", level=4, check_cb=lambda request, response: response.text)
    return config.make_wsgi_app()


def _trouble(request: Any) -> str:
    path = Path(os.environ.get("APP_TROUBLE", "/nowhere"))
    text = path.read_text() if path.exists() else ""
    if text == "fail":
        raise RuntimeError("asked for")
    while text == "hang":
        time.sleep(0.05)
        text = path.read_text()
    return text
