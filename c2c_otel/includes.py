"""What ``config.include("c2c_otel")`` does, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from c2c_otel import application, telemetry
from c2c_otel.settings import Settings

__all__ = ["INCLUDES", "includeme"]


def tracking(config: Any) -> None:
    """Spans and measurements for this application, and for the libraries that it uses. Where they are turned off,
    it still has our views and ``request.c2c_request_id``."""
    from c2c_otel import distro, otlp, redis_clients
    from c2c_otel.instrumentation.pyramid import PyramidInstrumentor

    settings = application.of(config.registry).settings or telemetry.get().settings
    on = not settings.sdk_disabled
    if redis_clients.configured(settings):
        redis_clients.check(settings)
    if on:
        otlp.check(settings)
        distro.instrument(settings, whole_process=False)
    traced = on and not {"pyramid", "*"} & set(settings.disabled_instrumentations)
    PyramidInstrumentor.instrument_config(config, traced=traced)


def logs(config: Any) -> None:
    """Logging from LOG_TYPE and LOG_LEVEL, where they are set and the application's ini has not done it."""
    from c2c_otel import logging_setup

    logging_setup.setup(application.of(config.registry).settings or telemetry.get().settings)


def cornice(config: Any) -> None:
    """Cornice is included by the first service that is added: included, it costs each request 45 us."""
    config.add_settings({"handle_exceptions": False})
    if hasattr(config.registry, "cornice_services"):
        return
    config.add_directive("add_cornice_service", _cornice_directive("add_cornice_service"))
    config.add_directive("add_cornice_resource", _cornice_directive("add_cornice_resource"))


def _cornice_directive(name: str) -> Callable[..., Any]:
    def directive(config: Any, *args: Any, **kwargs: Any) -> Any:
        config.include("cornice")  # its own directives take the place of these
        return getattr(config, name)(*args, **kwargs)

    return directive


INCLUDES: tuple[str | Callable[[Any], None], ...] = (
    logs,
    "c2c_otel.sentry",
    "pyramid_tm",
    cornice,
    "c2c_otel.renderers",
    tracking,
    "c2c_otel.errors",
)
"""Included in this order. Our views are not among them: c2c_otel.admin.VIEWS live beside the application."""


def includeme(config: Any) -> None:
    """Settings from the environment and the application's ini, then each of `INCLUDES`. Idempotent.

    Raises `ConfigurationError` for a setting that cannot be used.
    """
    decided = application.of(config.registry)
    if decided.included:
        return
    decided.settings = Settings.load(ini=config.registry.settings)
    decided.included = True
    decided.route_prefix = config.route_prefix
    telemetry.get().configure(decided.settings)
    for included in INCLUDES:
        config.include(included)
