"""Checks of other services by HTTP. The request id and the trace go with the call, as with each that the
instrumented `requests` sends. Needs the extra ``requests``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from c2c_otel.health_check import wording
from c2c_otel.instrumentation.wsgi_attributes import redacted_query

__all__ = ["check", "name_of"]

Maybe = Any
"""A value, or a function of the request that returns it."""


def name_of(url: Maybe) -> str:
    """The URL without user, password and what looks like a secret in its query; of a function, its name."""
    if callable(url):
        return str(getattr(url, "__name__", type(url).__name__))
    parts = urlsplit(str(url))
    query = redacted_query(parts.query)
    return wording.clean(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query)))


def check(
    url: Maybe, params: Maybe, headers: Maybe, check_cb: Callable[[Any, Any], Any] | None, timeout: float
) -> Callable[[Any], Any]:
    """GET; an answer that is an error fails. ``check_cb(request, response)`` gives the result."""
    try:
        import requests
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"add_url_check needs {error.name}. Run: pip install 'c2c-otel[requests]'", name=error.name
        ) from error

    def run(request: Any) -> Any:
        def made(value: Maybe) -> Any:
            return value(request) if callable(value) else value

        response = requests.get(made(url), params=made(params), headers=made(headers), timeout=timeout)
        try:
            response.raise_for_status()
            return None if check_cb is None else check_cb(request, response)
        finally:
            response.close()

    return run
