"""Errors are reported to Sentry, where ``SENTRY_URL`` names one: exceptions that nobody has handled, those that an
exception view has answered with a server error, and log records of the level ``SENTRY_LEVEL``. Each once, with the ids
of the request and of the OpenTelemetry trace, without secrets.

Without ``SENTRY_URL`` nothing of sentry-sdk is imported, and the functions here do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from c2c_otel.settings import Settings

__all__ = ["capture_exceptions", "filter_wsgi_app", "includeme", "init"]

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_configured = False


def init(config: Any = None) -> None:
    """Begin to report the errors of this process, where ``SENTRY_URL`` is set. Idempotent; the include does it.

    ``config``: a Pyramid Configurator whose settings count beside the environment. Raises
    `c2c_otel.settings.ConfigurationError`.
    """
    ini = {} if config is None else config.registry.settings
    configure(Settings.load(ini=ini), ini, _packages(config))


def configure(settings: Settings, ini: Mapping[str, Any], packages: Iterable[str] = ()) -> bool:
    """`init` with settings that were loaded before; whether errors are reported."""
    global _configured
    if settings.sentry_url:
        from c2c_otel.sentry import client

        client.configure(settings, ini, packages)
        _configured = True
    return _configured


def _packages(config: Any) -> list[str]:
    """The application's own package, whose frames count even where it is installed like a library."""
    name = getattr(getattr(config, "root_package", None), "__name__", "")
    package = name.partition(".")[0]
    return [package] if package and package not in ("__main__", "pyramid", "c2c_otel") else []


@contextmanager
def capture_exceptions() -> Iterator[None]:
    """Report an exception of the block; it goes on. For what is no request: a job, a thread's loop."""
    try:
        yield
    except Exception as error:
        if _configured:
            from c2c_otel.sentry import client

            client.report(error, "capture_exceptions", handled=False)
        raise


def filter_wsgi_app(app: Wsgi) -> Wsgi:
    """The application, its exceptions reported; itself where errors are not. For what is not Pyramid's."""
    init()
    if not _configured:
        return app
    from c2c_otel.sentry.wsgi import Filter

    return Filter(app)


def includeme(config: Any) -> None:
    """`init`, and a tween around all others where errors are reported."""
    from c2c_otel import application

    settings = application.of(config.registry).settings or Settings.load(ini=config.registry.settings)
    if configure(settings, config.registry.settings, _packages(config)):
        from pyramid.tweens import INGRESS

        config.add_tween("c2c_otel.sentry.wsgi.tween_factory", under=INGRESS)
