"""How a process comes to be instrumented: by our launcher, or by OpenTelemetry's with ``OTEL_PYTHON_DISTRO=c2c``.

Each library is instrumented when the program imports it, so that a start costs nothing for what is not used and
no entry point is scanned.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

import wrapt
from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]  # shipped without types

from c2c_otel import logging_setup, otlp, telemetry
from c2c_otel.settings import ConfigurationError, Settings, environment
from c2c_otel_exporters import guard

__all__ = ["INSTRUMENTORS", "Configurator", "Distro", "autostart", "instrument"]

INSTRUMENTORS = {
    # name: (the module whose import it waits for, our module, our class)
    "pyramid": ("pyramid.config", "c2c_otel.instrumentation.pyramid", "PyramidInstrumentor"),
    "sqlalchemy": ("sqlalchemy", "c2c_otel.instrumentation.sqlalchemy", "SQLAlchemyInstrumentor"),
    "redis": ("redis", "c2c_otel.instrumentation.redis", "RedisInstrumentor"),
    "requests": ("requests", "c2c_otel.instrumentation.requests", "RequestsInstrumentor"),
}

_OTEL_DEFAULTS = {
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http,database",  # other instrumentors then use the names ours use
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
}

_hooked: set[str] = set()
_instrumented: set[str] = set()


def autostart() -> None:
    """What sitecustomize calls in a launched program. A setting that cannot be used ends it with exit code 2."""
    try:
        settings = Settings.load()
    except ConfigurationError as error:
        _refuse(error)
    if settings.sdk_disabled:
        return
    try:
        otlp.check(settings)
        logging_setup.setup(settings)
        logging_setup.follow_gunicorn(settings)
    except ConfigurationError as error:
        _refuse(error)
    try:
        _defaults()
        instrument(settings, whole_process=True)
    except Exception:
        guard.failed("autostart")


def _refuse(error: ConfigurationError) -> NoReturn:
    print(f"c2c-otel-instrument: {error}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(2)  # sitecustomize's own exceptions are swallowed by the interpreter


def instrument(settings: Settings, *, whole_process: bool) -> None:
    """Instrument each library as soon as it is imported, which may be now. Idempotent.

    ``whole_process``: every Pyramid application made from here on; else only those that include c2c_otel.
    """
    off = settings.disabled_instrumentations
    for name in INSTRUMENTORS:
        if name in off or "*" in off or (name == "redis" and not settings.track_redis):
            continue
        if name == "pyramid" and not whole_process:
            continue
        if name not in _hooked:
            _hooked.add(name)
            _instrument_later(name)
    if settings.sql_request_id and "sqlalchemy" not in _hooked and "sql_request_id" not in _hooked:
        _hooked.add("sql_request_id")
        wrapt.register_post_import_hook(_give_request_ids, "sqlalchemy")
    follow_workers()
    if whole_process and "arbiter" not in _hooked:
        _hooked.add("arbiter")
        wrapt.register_post_import_hook(_hold_arbiter, "gunicorn.arbiter")


def follow_workers() -> None:
    """Have each worker that gunicorn forks start what it needs before its first request. Idempotent."""
    if "gunicorn" not in _hooked:
        _hooked.add("gunicorn")
        wrapt.register_post_import_hook(_wrap_worker, "gunicorn.workers.base")


def _instrument_later(name: str) -> None:
    awaited, module, cls = INSTRUMENTORS[name]
    contrib = f"opentelemetry.instrumentation.{name}"  # ours imports it; and so may the application, before the library

    def after_library(imported: Any) -> None:
        parent, _, child = awaited.rpartition(".")
        if parent:  # the import binds it only after this hook
            setattr(sys.modules[parent], child, imported)
        if not _is_being_imported(contrib):
            _instrument_now(name, module, cls)

    wrapt.register_post_import_hook(after_library, awaited)
    wrapt.register_post_import_hook(lambda _: _instrument_now(name, module, cls), contrib)


def _is_being_imported(module: str) -> bool:
    return bool(getattr(getattr(sys.modules.get(module), "__spec__", None), "_initializing", False))


def _instrument_now(name: str, module: str, cls: str) -> None:
    if name in _instrumented:
        return
    _instrumented.add(name)
    try:
        telemetry.get().install()
        ours = getattr(import_module(module), cls)
        ours().instrument(skip_dep_check=True)
        # Ours stands for contrib's, which the application may use too: both would make two spans of each call.
        ours.__base__._is_instrumented_by_opentelemetry = True
    except Exception:
        guard.failed(f"instrument.{cls}")


def _give_request_ids(_module: Any) -> None:
    """The request id in PostgreSQL's log, where the instrumentor, which sees to it, is turned off."""
    try:
        from c2c_otel import sql_request_id

        sql_request_id.install()
    except Exception:
        guard.failed("instrument.sql_request_id")


def _wrap_worker(module: Any) -> None:
    # The first thing a worker does after it has become the user of gunicorn's --user: whose files we then make.
    wrapt.wrap_function_wrapper(module, "Worker.load_wsgi", _worker_started)


def _worker_started(wrapped: Callable[..., Any], _instance: Any, args: Any, kwargs: Any) -> Any:
    try:
        telemetry.get().worker_started()
    except Exception:
        guard.failed("worker_started")
    return wrapped(*args, **kwargs)


def _hold_arbiter(_module: Any) -> None:
    telemetry.get().hold()


def _defaults() -> None:
    environ = environment()
    for name, value in _OTEL_DEFAULTS.items():
        environ.setdefault(name, value)


def _not_of_ours(record: logging.LogRecord) -> bool:
    return record.getMessage().partition(" ")[0] not in INSTRUMENTORS


class Distro(BaseDistro):  # type: ignore[misc]  # as above
    """For ``opentelemetry-instrument``: ours in place of contrib's four, all others as they come."""

    def _configure(self, **kwargs: Any) -> None:
        _defaults()
        # It looks at what contrib's need before it asks us which to load.
        loader = logging.getLogger("opentelemetry.instrumentation.auto_instrumentation._load")
        loader.addFilter(_not_of_ours)

    def load_instrumentor(self, entry_point: Any, **kwargs: Any) -> None:
        if entry_point.name in INSTRUMENTORS:
            return
        super().load_instrumentor(entry_point, **kwargs)


class Configurator:
    """The SDK set-up of that launcher: spans and measurements as under our own."""

    def configure(self, **kwargs: Any) -> None:
        autostart()
