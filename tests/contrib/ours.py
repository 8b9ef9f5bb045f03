"""Our instrumentors in the place of contrib's, for contrib's own tests.

What those tests see of us is translated where it only has another name, so that the rest of each assertion counts:

- attributes: ours are the stable ones, contrib's are what OTEL_SEMCONV_STABILITY_OPT_IN says (`tests.contrib.names`)
- the instrumentation scope: ours are called ``c2c_otel.…``, contrib's after its modules
- contrib makes a span ``connect`` for each ``Engine.connect``, and ours none: its own wrapper goes on making it, so
  that tests that count spans say something of ours (but not for a test that looks at that span alone)
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import Any

from opentelemetry.instrumentation.sqlalchemy.engine import _wrap_connect
from opentelemetry.instrumentation.utils import unwrap
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.test.test_base import TestBase
from opentelemetry.trace import get_tracer
from pyramid.config import Configurator
from sqlalchemy.engine import Engine
from werkzeug.test import Client
from wrapt import wrap_function_wrapper

from c2c_otel import telemetry
from c2c_otel.distro import INSTRUMENTORS
from c2c_otel.instrumentation.sqlalchemy import SCOPE, SQLAlchemyInstrumentor
from c2c_otel_exporters.null_sink import NULL_SINK
from tests.contrib import names

__all__ = ["replace"]

_OF_CONNECT_ALONE = "::test_instrument_engine_connect "


def replace() -> None:
    """To be called before contrib's tests are imported."""
    for name, (_, module, cls) in INSTRUMENTORS.items():
        setattr(import_module(f"opentelemetry.instrumentation.{name}"), cls, getattr(import_module(module), cls))
    telemetry.Telemetry._join = lambda self: None  # type: ignore[method-assign]  # no other process is spoken to
    _with_telemetry_of_its_own(TestBase)
    _connecting(SQLAlchemyInstrumentor)
    _closing(Client)
    _late(Configurator)
    # the warnings of hooks that fail
    logging.getLogger("c2c_otel.instrumentation").parent = logging.getLogger("opentelemetry.instrumentation.redis")
    finished = InMemorySpanExporter.get_finished_spans
    InMemorySpanExporter.get_finished_spans = lambda self: tuple(map(names.translated, finished(self)))  # type: ignore[method-assign]


def _with_telemetry_of_its_own(base: Any) -> None:
    """Each test sets providers anew, which a process does not: ours looks for them again. Nothing is measured."""
    before = base.setUp

    def set_up(test: Any) -> None:
        process = telemetry.get()
        process._renew()
        process._tracer_provider = None
        process.sink = NULL_SINK
        before(test)

    base.setUp = set_up


def _closing(client: Any) -> None:
    """A WSGI server closes each body (PEP 3333), which ends the span; werkzeug's client leaves it to the test."""
    before = client.open

    def open_and_close(self: Any, *args: Any, **kwargs: Any) -> Any:
        return before(self, *args, buffered=True, **kwargs)

    client.open = open_and_close


def _late(configurator: Any) -> None:
    """Contrib reads the environment with each request, ours where the application is made; contrib's tests change it
    in between. The application is made with its first request."""
    before = configurator.make_wsgi_app

    def make_wsgi_app(self: Any) -> Any:
        made: list[Any] = []

        def application(environ: Any, start_response: Any) -> Any:
            if not made:
                made.append(before(self))
            return made[0](environ, start_response)

        return application

    configurator.make_wsgi_app = make_wsgi_app


def _connecting(instrumentor: Any) -> None:
    instrument, uninstrument = instrumentor._instrument, instrumentor._uninstrument

    def instrument_too(self: Any, **kwargs: Any) -> None:
        instrument(self, **kwargs)
        if _OF_CONNECT_ALONE in os.environ["PYTEST_CURRENT_TEST"]:
            return
        scope = names.contrib_scope(SCOPE)
        tracer = get_tracer(scope.name, scope.version, kwargs.get("tracer_provider"), scope.schema_url)
        wrap_function_wrapper(Engine, "connect", _wrap_connect(tracer))

    def uninstrument_too(self: Any, **kwargs: Any) -> None:
        unwrap(Engine, "connect")
        uninstrument(self, **kwargs)

    instrumentor._instrument, instrumentor._uninstrument = instrument_too, uninstrument_too
