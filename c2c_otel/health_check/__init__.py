"""Whether the service can do its work, for load balancers, Kubernetes and people.

    from c2c_otel.health_check import HealthCheck

    health = HealthCheck(config)
    health.add_db_session_check(models.DBSession, at_least_one_model=models.Hello)
    health.add_alembic_check(models.DBSession, "/app/alembic.ini", 3)
    health.add_custom_check("queue", lambda request: len(request.registry.queue), 2)

``{base}/health_check?max_level=3`` then runs the checks up to level 3, in parallel.
"""

from __future__ import annotations

from c2c_otel.health_check.checks import HealthCheck
from c2c_otel.health_check.database import EngineType
from c2c_otel.health_check.runner import JsonCheckException

__all__ = ["HealthCheck", "EngineType", "JsonCheckException"]
