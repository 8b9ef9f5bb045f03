"""For scripts and workers without WSGI: logs, statistics, Sentry, broadcast and tracing in one call.

    from c2c_otel import setup_process

    setup_process.init()

It works under ``c2c-otel-instrument``, too, where the libraries are instrumented already. What has an application at
hand (``pyramid.paster.bootstrap``) needs it only where that does not include c2c_otel.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from c2c_otel import broadcast, debug, logging_setup, sentry, telemetry
from c2c_otel.settings import ConfigurationError, Settings

__all__ = ["init"]

_done: Settings | None = None


def init(config_file: str | Path | None = None, section: str = "main") -> Settings:
    """Set this process up, and return what it was set up with. Idempotent: only the first call counts.

    ``config_file``: an ini file (``/app/production.ini``, ``c2c:///app/production.ini#shop``), whose
    ``[app:{section}]`` counts beside the environment, and whose logging is set up; without it ``C2CWSGIUTILS_CONFIG``,
    where there is such a file. Nothing of the application is imported. Without an ini file, or logging in it,
    ``LOG_TYPE`` and ``LOG_LEVEL`` count; lines go to stderr where they are not set.

    What waits to be sent is sent at the end of the process, within seconds; SIGTERM needs a handler for that.
    Raises `c2c_otel.settings.ConfigurationError`.
    """
    global _done
    if _done is not None:
        return _done
    path, section = _file(config_file, section)
    ini = _read(path, section, named=config_file is not None) if path is not None else {}
    settings = Settings.load(ini=ini)
    _logs(path, settings)
    _measure(settings)
    sentry.configure(settings, ini)
    _take_part(settings)
    _done = settings
    return settings


def _file(config_file: str | Path | None, section: str) -> tuple[Path | None, str]:
    if config_file is None:
        found = Settings.load().config_file
        return (found if found.is_file() else None), section
    text = str(config_file)
    for scheme in ("c2c+ini://", "c2c+egg://", "c2c://"):
        text = text.removeprefix(scheme)
    path, _, fragment = text.partition("#")
    return Path(path), fragment or section


def _read(path: Path, section: str, *, named: bool) -> dict[str, Any]:
    from c2c_otel.commands import ini_file

    return ini_file.application_settings(path, section, "config_file" if named else "C2CWSGIUTILS_CONFIG")


def _logs(path: Path | None, settings: Settings) -> None:
    """As the ini file says, where it says something; else as the variables say; else text on stderr."""
    if path is not None and _has_loggers(path):
        try:
            logging_setup.setup_from_ini(path, settings)
        except Exception as error:
            raise ConfigurationError("config_file", str(path), "logging that can be set up", f"{error}.") from error
        return
    if not logging_setup.setup(settings) and not logging.getLogger().handlers:
        logging_setup.setup(dataclasses.replace(settings, log_type=("console",)))


def _has_loggers(path: Path) -> bool:
    return any(line.strip() == "[loggers]" for line in path.read_text(encoding="utf-8").splitlines())


def _measure(settings: Settings) -> None:
    """Spans and measurements of the libraries that the process uses, whenever it imports them."""
    process = telemetry.get()
    if not process.started:
        process.configure(settings)
    if settings.sdk_disabled:
        return
    from c2c_otel import distro, otlp

    otlp.check(settings)
    process.install()
    distro.instrument(settings, whole_process=False)


def _take_part(settings: Settings) -> None:
    """What operators change in the service, or ask it, reaches this process, too."""
    from c2c_otel import db_maintenance, log_levels

    log_levels.init()
    db_maintenance.init()
    if settings.debug_view_enabled:
        debug.listen()
    broadcast.init()
