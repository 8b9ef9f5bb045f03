"""The application of an ini file, as ``c2c-otel-run`` serves it."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from c2c_otel import covered, sentry
from c2c_otel.client_info import Filter
from c2c_otel.settings import ConfigurationError, Settings

__all__ = ["create_application"]

Application = Callable[..., Any]


def create_application(configfile: str | Path | None = None) -> Application:
    """The WSGI application ``main`` of the file (default: ``C2CWSGIUTILS_CONFIG``), and logging as the file says.

    Around it is what knows the client behind proxies, and Sentry where it is set up. Raises `ConfigurationError` where
    there is no such file or it names no application, and what the application's factory raises.
    """
    settings = Settings.load()
    covered.start(settings)
    loader = _loader(configfile, settings)
    if "loggers" in loader.get_sections():
        loader.setup_logging()
    application: Application = loader.get_wsgi_app(loader.uri.fragment or "main")
    ini = _ini(loader)
    wrapped = _filtered(application, Settings.load(ini=ini), ini)
    linecache.clearcache()  # what an application's start has looked at is not needed any more
    return wrapped


def _loader(configfile: str | Path | None, settings: Settings) -> Any:
    import plaster

    from c2c_otel.loader import Loader

    name = "C2CWSGIUTILS_CONFIG" if configfile is None else "configfile"
    text = str(settings.config_file if configfile is None else configfile)
    uri = plaster.parse_uri(text)
    path = Path(uri.path)
    if not path.is_file():
        remedy = "Put it there, or name another one."
        raise ConfigurationError(name, text, "an ini file that can be read", remedy)
    return Loader(plaster.PlasterURL("c2c", str(path), uri.options, uri.fragment))


def _ini(loader: Any) -> dict[str, Any]:
    section = f"app:{loader.uri.fragment or 'main'}"
    return dict(loader.get_settings(section)) if section in loader.get_sections() else {}


def _filtered(application: Application, settings: Settings, ini: Mapping[str, Any]) -> Application:
    """Where the application has included c2c_otel, neither does anything a second time."""
    sentry.configure(settings, ini)
    return sentry.filter_wsgi_app(Filter(application, settings.trusted_proxies))
