"""Logging as the settings say, where no ini file or dictConfig has done it, and the sides that need help.

``LOG_TYPE`` has one or more of ``json`` (JSON lines on stdout), ``console`` (text on stderr) and ``logstash`` (CEE by
UDP to ``LOG_HOST`` and ``LOG_PORT``). Nothing is touched unless ``LOG_TYPE`` or a level is set.
"""

from __future__ import annotations

import logging
import logging.config
import sys
from collections.abc import Callable, Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2c_otel.ini import logging_parser
from c2c_otel.pyramid_logging import JsonLogHandler, PyramidCeeSysLogHandler
from c2c_otel.settings import ConfigurationError, Settings, environment
from c2c_otel_exporters import guard, log_lines

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

__all__ = ["adopt_gunicorn", "attach_otel", "follow_gunicorn", "ini_parser", "setup", "setup_from_ini"]

_FORMAT = "%(asctime)-15s %(levelname)5s %(name)s %(message)s"
_GUNICORN = ("gunicorn.error", "gunicorn.access")


class MaskingFormatter(logging.Formatter):
    """Text without the values of the query parameter ``secret``."""

    def format(self, record: logging.LogRecord) -> str:
        return log_lines.mask(super().format(record))


def _json(_settings: Settings) -> logging.Handler:
    return JsonLogHandler("stdout")


def _logstash(settings: Settings) -> logging.Handler:
    return PyramidCeeSysLogHandler((settings.log_host, settings.log_port), max_bytes=settings.log_max_bytes)


def _console(_settings: Settings) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MaskingFormatter(_FORMAT))
    return handler


# kind: how to make its handler, the class by which one that is there already is known
_KINDS: Mapping[str, tuple[Callable[[Settings], logging.Handler], type[logging.Handler]]] = {
    "json": (_json, JsonLogHandler),
    "console": (_console, logging.StreamHandler),
    "logstash": (_logstash, PyramidCeeSysLogHandler),
}


def setup(settings: Settings) -> bool:
    """Give the root logger the handlers and level of the settings. Idempotent; True where it did something.

    What an ini file or dictConfig has set up stays: a kind that is there is not added again, and where all are
    there (or, with a level alone, any handler) the levels stay too. Plain text on a standard stream, as
    `logging.basicConfig` sets it up, gives way to the kinds that ``LOG_TYPE`` names.
    Raises `ConfigurationError` for an unknown kind.
    """
    kinds = _kinds(settings)
    level = settings.log_level or settings.other_log_level
    if not kinds and level is None:
        return False
    root = logging.getLogger()
    missing = [kind for kind in kinds if not _has(root, kind)]
    if not kinds:
        missing = [] if root.handlers else ["console"]
    if not missing:
        return False
    if kinds and "console" not in kinds:
        _remove_plain(root)
    for kind in missing:
        root.addHandler(_KINDS[kind][0](settings))
    root.setLevel(level or "INFO")
    _set_level("sqlalchemy.engine", settings.sql_log_level)
    _set_level("gunicorn.error", settings.gunicorn_log_level)
    logging.captureWarnings(True)
    return True


def _kinds(settings: Settings) -> list[str]:
    kinds = list(dict.fromkeys(kind.lower() for kind in settings.log_type or ()))
    for kind in kinds:
        if kind not in _KINDS:
            expected = "one or more of json, console, logstash, with commas between them"
            raise ConfigurationError("LOG_TYPE", ",".join(settings.log_type or ()), expected)
    return kinds


def _has(logger: logging.Logger, kind: str) -> bool:
    cls = _KINDS[kind][1]
    if cls is logging.StreamHandler:
        return any(_is_plain(handler) for handler in logger.handlers)
    return any(isinstance(handler, cls) for handler in logger.handlers)


def _is_plain(handler: logging.Handler) -> bool:
    """Text on stdout or stderr; not a subclass, which has ideas of its own."""
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return type(handler) is logging.StreamHandler and handler.stream in streams


def _remove_plain(logger: logging.Logger) -> None:
    for handler in logger.handlers[:]:
        if _is_plain(handler):
            logger.removeHandler(handler)


def _set_level(name: str, level: str | None) -> None:
    if level is not None:
        logging.getLogger(name).setLevel(level)


def setup_from_ini(path: str | Path, settings: Settings, defaults: Mapping[str, str] | None = None) -> None:
    """`logging.config.fileConfig`, where the file may say ``%(NAME)s`` for every variable of the environment.

    Loggers that exist stay enabled. ``defaults`` come before the environment. Raises OSError or `configparser.Error`,
    or what a handler of the file raises.
    """
    logging.config.fileConfig(ini_parser(path, settings, defaults), disable_existing_loggers=False)
    logging.captureWarnings(True)
    _reattach_otel()


def ini_parser(path: str | Path, settings: Settings, defaults: Mapping[str, str] | None = None) -> ConfigParser:
    """What `setup_from_ini` reads the file with: the variables of the log settings are known even where they are not
    set, with their defaults. Raises OSError or `configparser.Error`."""
    values = {
        "LOG_TYPE": ",".join(settings.log_type or ("console",)),
        "LOG_LEVEL": settings.log_level or settings.other_log_level or "INFO",
        "OTHER_LOG_LEVEL": settings.other_log_level or settings.log_level or "INFO",
        "LOG_HOST": settings.log_host,
        "LOG_PORT": str(settings.log_port),
        "SQL_LOG_LEVEL": settings.sql_log_level or "WARN",
        "GUNICORN_LOG_LEVEL": settings.gunicorn_log_level or "WARN",
    }
    given = {name: value for name, value in environment().items() if value or name not in values}
    return logging_parser(Path(path), values | given, defaults or {})


def adopt_gunicorn(settings: Settings) -> bool:
    """Let gunicorn's own loggers write as the root logger does. Idempotent; True where it did something.

    gunicorn gives ``gunicorn.error`` and ``gunicorn.access`` handlers of their own, when its arbiter starts and when
    it reloads, and does not let them propagate. Those that write to a standard stream are exchanged for the root
    logger's JSON and CEE handlers; files and syslog stay. Without such handlers at the root nothing is done.
    """
    ours = [h for h in logging.getLogger().handlers if isinstance(h, (JsonLogHandler, PyramidCeeSysLogHandler))]
    changed = False
    for name in _GUNICORN if ours else ():
        logger = logging.getLogger(name)
        replaced = [h for h in logger.handlers if getattr(h, "_gunicorn", False) and _is_plain(h)]
        for handler in replaced:
            logger.removeHandler(handler)
        for handler in ours if replaced else ():
            logger.addHandler(handler)
        changed = changed or bool(replaced)
    if changed or settings.log_type:
        _set_level("gunicorn.error", settings.gunicorn_log_level)
    return changed


def follow_gunicorn(settings: Settings) -> None:
    """Call `adopt_gunicorn` whenever gunicorn sets its loggers up: at its start, at each reload. Idempotent.

    Waits for gunicorn's import, if that is still to come; to be called before gunicorn's arbiter starts.
    """
    import wrapt

    def wrap(module: Any) -> None:
        if not isinstance(module.Logger.setup, wrapt.FunctionWrapper):
            wrapt.wrap_function_wrapper(module, "Logger.setup", adopt)

    def adopt(wrapped: Callable[..., Any], _instance: Any, args: Any, kwargs: Any) -> Any:
        result = wrapped(*args, **kwargs)
        try:
            adopt_gunicorn(settings)
        except Exception:
            guard.failed("logging.adopt_gunicorn")
        return result

    wrapt.register_post_import_hook(wrap, "gunicorn.glogging")


_attached: LoggerProvider | None = None


def attach_otel(logger_provider: LoggerProvider | None) -> None:
    """Send every log record to the provider too, those of loggers that do not propagate included. Idempotent.

    Call it again after the application was made: configuring logging takes all handlers off. None takes it back.
    """
    from c2c_otel import otel_logging

    global _attached
    _attached = logger_provider
    if logger_provider is None:
        otel_logging.detach()
    else:
        otel_logging.attach(logger_provider)


def _reattach_otel() -> None:
    if _attached is not None:
        attach_otel(_attached)
