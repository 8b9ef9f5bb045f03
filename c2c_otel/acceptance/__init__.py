"""What tests of a running service need: HTTP connections that check what they get, Docker compositions, pictures.

| module | what it holds |
|---|---|
| `connection` | `Connection`: requests whose status, CORS and cache headers are checked |
| `print` | `PrintConnection`: the same for a MapFish Print server |
| `composition` | `Composition`: services under Docker Compose, from a pytest fixture |
| `utils` | waiting, floats that are about equal, where the tests run |
| `images` | pictures and screenshots, compared with those expected |
| `pytest_plugin` | the fixtures, there once c2c-otel is installed |

This package itself needs the standard library alone; ``pip install 'c2c-otel[acceptance]'`` has what the modules need.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["retry"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_log = logging.getLogger(__name__)


def retry(
    exc: type[BaseException] | tuple[type[BaseException], ...],
    tries: int = 3,
    delay: float = 0.5,  # seconds: a service that restarts is back in about two of them
    backoff: float = 2,
) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Decorates a function that is called again after these exceptions, ``tries`` times in all.

    Before the second call it waits ``delay`` seconds, before each further one ``backoff`` times longer. The exception
    of the last call, and any other one at once, is the caller's. Raises ValueError for less than one try, or a negative
    time."""
    if tries < 1 or delay < 0 or backoff < 0:
        raise ValueError(
            f"retry(tries={tries!r}, delay={delay!r}, backoff={backoff!r}): 1 try at least, no negative time"
        )

    def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
        @functools.wraps(function)
        def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            pause = delay
            for left in range(tries - 1, 0, -1):
                try:
                    return function(*args, **kwargs)
                except exc as error:
                    _log.warning("%s: %s; %s more tries, in %g s", _name(function), error, left, pause)
                    time.sleep(pause)
                    pause *= backoff
            return function(*args, **kwargs)

        return called

    return decorate


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", repr(function))
