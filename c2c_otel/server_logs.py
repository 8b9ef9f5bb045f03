"""Secrets are kept out of what the server itself logs: gunicorn's access log, and its message about a request that
failed, which name the whole address.

gunicorn writes both before it closes the body, and makes the environ of a failed request anew: so it is done where the
records are made, by a filter of its loggers, whatever the format and the handlers. The request's environ stays as it
is, for the application.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from c2c_otel_exporters import guard, masking

__all__ = ["LOGGERS", "install"]

LOGGERS = ("gunicorn.access", "gunicorn.error")

_HEADERS = ("{x-api-key}i", "{authorization}i", "{http_x_api_key}e", "{http_authorization}e")
"""gunicorn's names for what is a secret as a whole."""

_FORMATTER = logging.Formatter()


class _Mask(logging.Filter):
    """Lets every record pass, without secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            _clean(record)
        except Exception:
            guard.failed("server_logs")
        return True


_mask = _Mask()


def install() -> None:
    """Idempotent. A configuration of logging leaves the filters of loggers as they are."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_mask)


def _clean(record: logging.LogRecord) -> None:
    args = record.args
    if isinstance(args, dict):
        _clean_atoms(args)
    elif isinstance(args, tuple) and args:
        record.args = tuple([masking.mask(arg) if isinstance(arg, str) else arg for arg in args])
    elif isinstance(record.msg, str) and not args:
        record.msg = masking.mask(record.msg)
    if record.exc_info and record.exc_info[0] is not None:
        record.exc_text = masking.mask(record.exc_text or _FORMATTER.formatException(record.exc_info))


def _clean_atoms(atoms: dict[str, object]) -> None:
    """What gunicorn knows of a request: about a hundred values, nearly all of them harmless."""
    for name in _HEADERS:
        if name in atoms:
            atoms[name] = masking.MASK
    if not masking.is_suspicious("\n".join(_texts(atoms))):
        return
    for name, value in atoms.items():
        if isinstance(value, str):
            atoms[name] = masking.mask(value)


def _texts(atoms: Mapping[str, object]) -> list[str]:
    return [value for value in atoms.values() if value.__class__ is str]
