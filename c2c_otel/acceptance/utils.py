"""Waiting for a service, comparing structures of floats, and where the tests run.

``skipIfCI`` and ``DOCKER_GATEWAY`` depend on the environment and are made when they are first asked for. pytest is
needed by ``skipIfCI`` and ``approx`` alone, requests by ``wait_url``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from c2c_otel import settings
from c2c_otel.acceptance._extra import missing
from c2c_otel.acceptance.network import default_gateway, in_docker, is_loopback
from c2c_otel_exporters import masking

if TYPE_CHECKING:
    import pytest

__all__ = ["DEFAULT_TIMEOUT", "DOCKER_GATEWAY", "approx", "in_docker", "retry_timeout", "skipIfCI", "wait_url"]

DEFAULT_TIMEOUT = 60.0
"""Seconds: a composition with a database is up in about half of that."""

DOCKER_GATEWAY: str
"""Where ports that services publish are reached: on the gateway from inside a container, else on localhost."""

skipIfCI: pytest.MarkDecorator  # noqa: N816 # the name that tests have always used
"""Marks tests that are not run where the environment says ``IN_CI=1``."""

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


def wait_url(url: str, timeout: float = DEFAULT_TIMEOUT) -> None:
    """Until a GET of the URL (after redirects) is answered with 200.

    Raises AssertionError "Timeout: " with the last failure after ``timeout`` seconds."""
    try:
        import requests
    except ImportError as error:
        raise missing("wait_url", error) from error

    shown = masking.mask(url)
    host = is_loopback(url)
    proxies = {"no_proxy": host} if host else {}
    # one that takes the connection and never answers must not have the whole time: its port may soon be another's
    each = (max(min(timeout, 5.0), 1.0), max(timeout / 4, 1.0))

    def answers() -> bool:
        _log.info("Waiting for %s", shown)
        with requests.get(url, timeout=each, proxies=proxies) as response:
            if response.status_code != 200:
                raise AssertionError(f"{shown} answers {response.status_code}")
        return True

    retry_timeout(answers, timeout=timeout)
    _log.info("%s is there", shown)


def retry_timeout(what: Callable[[], _T | None], timeout: float = DEFAULT_TIMEOUT, interval: float = 0.5) -> _T:
    """Calls ``what`` every ``interval`` seconds until it returns something true, and returns that.

    Its exceptions are for the next call to mend, but for a NameError, which is a mistake in the test. Raises
    AssertionError "Timeout: " with the last failure after ``timeout`` seconds; ``what`` is called once at least."""
    deadline = time.monotonic() + timeout
    while True:
        cause: Exception | None = None
        try:
            answer = what()
            if answer:
                return answer
            problem = f"still {answer!r}"
        except NameError:
            raise
        except Exception as error:
            cause, problem = error, masking.mask(str(error)) or type(error).__name__
        _log.info("Not yet: %s", problem)
        left = deadline - time.monotonic()
        if left <= 0:
            raise AssertionError(f"Timeout: {problem}") from cause
        time.sleep(min(interval, left))


def approx(struct: Any, **kwargs: Any) -> Any:
    """A copy of lists, tuples and dictionaries, however nested, in which floats are ``pytest.approx(float, **kwargs)``.

    For the right side of ``==``: ``assert answer == approx({"bbox": [5.1, 45.8]}, abs=0.01)``. A set is left as it is:
    its members are looked up, not compared."""
    try:
        import pytest
    except ImportError as error:
        raise missing("approx", error) from error

    def copied(value: Any) -> Any:
        if isinstance(value, float):
            return pytest.approx(value, **kwargs)
        if isinstance(value, Mapping):
            return {key: copied(item) for key, item in value.items()}
        if isinstance(value, tuple):
            items = map(copied, value)
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if isinstance(value, list):
            return [copied(item) for item in value]
        return value

    return copied(struct)


def __getattr__(name: str) -> Any:
    if name == "DOCKER_GATEWAY":
        return default_gateway() if in_docker() else "localhost"
    if name == "skipIfCI":
        try:
            import pytest
        except ImportError as error:
            raise missing("skipIfCI", error) from error
        return pytest.mark.skipif(settings.flag("IN_CI", None, {}), reason="not run where IN_CI=1")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
