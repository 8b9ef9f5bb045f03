"""What the profiler is tried on: views whose time is planted, in two modules of their own.

``GET /busy``: 60 % in `tests.apps.profiler_alpha`, 30 % in `tests.apps.profiler_beta`, the rest here, of ``?ms=``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from pyramid.config import Configurator
from pyramid.response import Response

from tests.apps import profiler_alpha, profiler_beta


def busy(request: Any) -> dict[str, Any]:
    """As long as it is told, by the clock."""
    seconds = float(request.params.get("ms", 60)) / 1000
    profiler_alpha.hot(0.6 * seconds)
    profiler_beta.Beta().warm(0.3 * seconds)
    profiler_alpha.spin(0.1 * seconds, lambda: None)
    return {"pid": os.getpid()}


def quick(request: Any) -> dict[str, Any]:
    """Nothing."""
    return {"pid": os.getpid()}


def stream(request: Any) -> Response:
    """Works while its body is read."""

    def body() -> Iterator[bytes]:
        for _ in range(3):
            profiler_alpha.hot(0.01)
            yield b"part"

    return Response(app_iter=body())


def broken(request: Any) -> None:
    """Works, then fails."""
    profiler_beta.Beta().warm(0.02)
    raise ValueError("planted")


def main() -> Any:
    """``gunicorn tests.apps.profiler:main()``"""
    config = Configurator(settings={})
    config.include("c2c_otel")
    for name, view in (("busy", busy), ("quick", quick), ("stream", stream), ("broken", broken)):
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name, **({} if name in ("stream", "broken") else {"renderer": "json"}))
    return config.make_wsgi_app()
