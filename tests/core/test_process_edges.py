"""The two ends of a process: a worker that becomes another user first, and an interpreter that takes itself apart."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.workers.base import Worker

from c2c_otel import distro, telemetry

_UNREAD_BODY = """
from pyramid.config import Configurator
from pyramid.request import Request
from c2c_otel.testing import capture
config = Configurator()
config.include("c2c_otel")
config.add_route("home", "/")
config.add_view(lambda request: {}, route_name="home", renderer="json")
app = config.make_wsgi_app()
response = Request.blank("/").get_response(app)  # never closed, alive until the very end
"""


def test_a_preloaded_worker_starts_as_the_user_that_it_is_told_to_become(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    class OurWorker(Worker):
        def run(self) -> None:
            order.append("serves")

        def init_signals(self) -> None: ...

    distro._wrap_worker(SimpleNamespace(Worker=OurWorker))
    monkeypatch.setattr("gunicorn.util.set_owner_process", lambda *_, **__: order.append("becomes the user"))
    monkeypatch.setattr(telemetry, "get", lambda: SimpleNamespace(worker_started=lambda: order.append("telemetry")))
    config: Any = Config()
    app = SimpleNamespace(wsgi=lambda: order.append("application"))
    log = SimpleNamespace(close_on_exec=lambda: None)
    worker = OurWorker(1, os.getpid(), [], app, 30, config, log)
    try:
        worker.init_process()
    finally:
        worker.tmp.close()
        for descriptor in worker.PIPE:
            os.close(descriptor)
    # Once more, where another test's application has wrapped the base class too.
    assert list(dict.fromkeys(order)) == ["becomes the user", "telemetry", "application", "serves"]


def test_a_body_that_outlives_the_interpreter_says_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", _UNREAD_BODY], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
