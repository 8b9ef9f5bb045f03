"""An application whose workers ask each other. ``APP_INIT``: it takes part by `broadcast.init`, without the include.

``/ask/{channel}?timeout=5&...``: the parameters broadcast to all, and what they answered. Channels: ``who``; ``born``,
what a worker had done when it had begun to listen; ``slow`` sleeps for ``seconds``; nobody subscribes to ``nobody``.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from pyramid.config import Configurator

from c2c_otel import broadcast

_state: dict[str, Any] = {"served": 0, "joined": [], "told": []}


def _who() -> dict[str, Any]:
    return {"thread": threading.current_thread().name}


def _born() -> dict[str, Any]:
    return dict(_state)


def _slow(seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    return {"slept": seconds}


@broadcast.decorator(expect_answers=True, timeout=5)
def tell(what: str) -> int:
    """Every worker remembers it."""
    _state["told"].append(what)
    return len(_state["told"])


def _joined() -> None:
    """State as it is stored somewhere: read by each process that begins to listen."""
    path = os.environ.get("APP_STATE")
    text = Path(path).read_text() if path else ""
    _state["joined"].append({"pid": os.getpid(), "served": _state["served"], "state": text})


for _channel, _callback in (("who", _who), ("born", _born), ("slow", _slow)):
    broadcast.subscribe(_channel, _callback)
broadcast.on_join(_joined)


def ask(request: Any) -> dict[str, Any]:
    """Ask everybody."""
    params: dict[str, Any] = dict(request.params)
    timeout = float(params.pop("timeout", 5))
    if "seconds" in params:
        params["seconds"] = float(params["seconds"])
    answers = broadcast.broadcast(request.matchdict["channel"], params, expect_answers=True, timeout=timeout)
    assert answers is not None
    return _own(answers=list(answers), missing=answers.missing)


def told(request: Any) -> dict[str, Any]:
    """A decorated function, in every worker."""
    answers = tell(what=request.matchdict["what"])
    assert answers is not None
    return _own(answers=list(answers), missing=answers.missing)


def own(request: Any) -> dict[str, Any]:
    """Who answers, and what it has seen."""
    return _own(**_state)


def _own(**more: Any) -> dict[str, Any]:
    _state["served"] += 1
    return {"pid": os.getpid(), **more}


def main() -> Any:
    """``gunicorn tests.apps.broadcast:main()``"""
    config = Configurator(settings={})
    if os.environ.get("APP_INIT"):
        broadcast.init(config)
    else:
        config.include("c2c_otel")
    for name, path, view in (("ask", "/ask/{channel}", ask), ("tell", "/tell/{what}", told), ("own", "/own", own)):
        config.add_route(name, path)
        config.add_view(view, route_name=name, renderer="json")
    return config.make_wsgi_app()
