"""The demo application: a small Pyramid service with SQL, Redis, outgoing calls, streaming and errors.

``production.ini`` beside this file configures it; ``acceptance_tests/run.py`` starts it on embedded defaults.
"""

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator

from . import models


def main(global_config: dict[str, Any] | None = None, **settings: Any) -> Any:
    """The application factory (PasteDeploy). ``demo.include = false`` leaves c2c_otel to the launcher alone."""
    config = Configurator(settings=settings)
    if settings.get("demo.include", "true") == "true":
        config.include("c2c_otel")
    config.include("pyramid_tm")
    models.includeme(config)
    config.include(".views")
    return config.make_wsgi_app()
