"""An application that fails with the secret in its mouth, and leaves the exception to the server."""

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator


def fails(request: Any) -> Any:
    raise ValueError(f"the application saw {request.params['secret']}")


def main() -> Any:
    """``gunicorn tests.apps.auth:main()``"""
    config = Configurator(settings={})
    config.include("c2c_otel")
    config.add_route("fails", "/fails")
    config.add_view(fails, route_name="fails")
    return config.make_wsgi_app()
