"""The demo application: a small Pyramid service with SQL, Redis, outgoing calls, streaming and errors.

``production.ini`` beside this file configures it; ``acceptance_tests/run.py`` starts it on embedded defaults.
"""

from __future__ import annotations

import shutil
from typing import Any

from pyramid.config import Configurator

from c2c_otel.health_check import HealthCheck

from . import models


def main(global_config: dict[str, Any] | None = None, **settings: Any) -> Any:
    """The application factory (PasteDeploy). ``demo.include = false`` leaves c2c_otel to the launcher alone."""
    config = Configurator(settings=settings)
    if settings.get("demo.include", "true") == "true":
        config.include("c2c_otel")
        config.scan(".api")  # cornice and fast_json are what it includes
    config.include("pyramid_tm")
    session = models.includeme(config)
    config.include(".views")
    health = HealthCheck(config)
    health.add_db_session_check(session, at_least_one_model=models.Hello)
    health.add_custom_check("disk", free_disk_space, 2)
    health.add_alembic_check(session, str(models.ALEMBIC_INI), 3)
    return config.make_wsgi_app()


def free_disk_space(request: Any) -> dict[str, int]:
    """A health check; the result is shown."""
    free = shutil.disk_usage(".").free // 2**20
    if not free:
        raise RuntimeError("The disk is full")
    return {"free_mib": free}
