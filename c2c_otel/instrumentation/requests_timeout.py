"""Outgoing calls without a timeout: they get ``C2C_REQUESTS_DEFAULT_TIMEOUT``, or their call site is warned about.

A call without timeout can hold a worker's thread for ever.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from requests.models import PreparedRequest

from c2c_otel import telemetry
from c2c_otel_exporters import guard

__all__ = ["apply", "forget"]

_logger = logging.getLogger("c2c_otel.requests")

_MAX_SITES = 1000
"""Call sites that are remembered; code that is generated anew for each call must not fill the memory or the log."""

_PACKAGES = frozenset({"c2c_otel", "requests", "urllib3", "wrapt"})
_POSITION = 1
"""Of ``timeout`` in ``HTTPAdapter.send(request, stream, timeout, verify, cert, proxies)``, after ``request``."""

_warned: set[tuple[str, int]] = set()


def apply(
    request: PreparedRequest, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of ``HTTPAdapter.send`` after the request, with a timeout where one is to be had."""
    given = args[_POSITION] if len(args) > _POSITION else kwargs.get("timeout")
    if given is not None:
        return args, kwargs
    try:
        default = telemetry.get().settings.requests_default_timeout
        if default is None:
            _warn(request)
        elif len(args) > _POSITION:
            args = (*args[:_POSITION], default, *args[_POSITION + 1 :])
        else:
            kwargs = {**kwargs, "timeout": default}
    except Exception:
        guard.failed("requests.timeout")
    return args, kwargs


def forget() -> None:
    """Warn about each call site once more (tests)."""
    _warned.clear()


def _warn(request: PreparedRequest) -> None:
    site = _call_site()
    if site in _warned or len(_warned) >= _MAX_SITES:
        return
    _warned.add(site)
    host = (request.url or "").partition("://")[2].partition("/")[0].rpartition("@")[2]
    _logger.warning(
        "%s:%d calls %s %s without timeout: it may wait for ever. Give one, or set C2C_REQUESTS_DEFAULT_TIMEOUT.",
        *site,
        request.method,
        host,
    )


def _call_site() -> tuple[str, int]:
    """File and line of the nearest frame that belongs to neither requests nor us."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _PACKAGES:
            break
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
