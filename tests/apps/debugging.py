"""An application with something to find: an object, a leak, and a thread that can be blocked."""

from __future__ import annotations

import os
import threading
from typing import Any

from pyramid.config import Configurator
from pyramid.response import Response

_gate = threading.Event()
_leaked: list[Any] = []


class Planted:
    """One for each process, of 100 KB."""

    def __init__(self) -> None:
        self.content = ["x" * 100_000]


class Leak:
    """What a request leaves behind."""


planted = Planted()


def _wait_at_the_gate() -> None:
    _gate.wait()


def block(request: Any) -> Response:
    """A thread that waits for ever; answers with the process's pid."""
    threading.Thread(target=_wait_at_the_gate, name="blocked", daemon=True).start()
    return Response(str(os.getpid()))


def leak(request: Any) -> Response:
    """Keeps as many objects as the request says."""
    _leaked.extend(Leak() for _ in range(int(request.params["count"])))
    return Response("leaked")


def main() -> Any:
    """``gunicorn tests.apps.debugging:main()``"""
    config = Configurator(settings={})
    config.include("c2c_otel")
    for view in (block, leak):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__)
    return config.make_wsgi_app()
