"""What reports the failures of requests: a tween around all others, and a filter for any WSGI application.

Both keep what the application tells sentry-sdk during a request (tags, the user, breadcrumbs) to that request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import sentry_sdk
from pyramid.httpexceptions import HTTPException

from c2c_otel import current_request
from c2c_otel.sentry import client, events

__all__ = ["Filter", "tween_factory"]

_SERVER_ERROR = 500

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


def _failed(error: BaseException) -> bool:
    """Whether an exception is a failure: an HTTP exception is an answer, Ctrl-C is somebody's wish."""
    return not isinstance(error, HTTPException | KeyboardInterrupt | GeneratorExit)


def tween_factory(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """Reports what no exception view has answered, and what one has answered with a server error."""

    def tween(request: Any) -> Any:
        token = None
        if current_request.get() is None:
            token = events.serving.set(request.environ)
            request.c2c_request_id  # noqa: B018 - is kept in the environ from here on
        try:
            with sentry_sdk.isolation_scope() as scope:
                scope.clear_breadcrumbs()
                try:
                    response = handler(request)
                except BaseException as error:
                    if _failed(error):
                        client.report(error, "pyramid", handled=False)
                    raise
                answered = request.exception
                if answered is not None and response.status_int >= _SERVER_ERROR and _failed(answered):
                    client.report(answered, "pyramid", handled=True)
                return response
        finally:
            if token is not None:
                events.serving.reset(token)

    return tween


class Filter:
    """A WSGI application whose exceptions are reported; those of its body, too."""

    def __init__(self, app: Wsgi) -> None:
        self.app = app

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        token = events.serving.set(environ)
        try:
            with sentry_sdk.isolation_scope() as scope:
                scope.clear_breadcrumbs()  # those of before have no request, or another
                try:
                    body = self.app(environ, start_response)
                except BaseException as error:
                    if _failed(error):
                        client.report(error, "wsgi", handled=False)
                    raise
        finally:
            events.serving.reset(token)
        return body if body.__class__ in (list, tuple) else _Body(body, environ)


class _Body:
    """The body of an answer, whose steps and whose end may fail as well."""

    def __init__(self, body: Iterable[bytes], environ: Environ) -> None:
        self._body = body
        self._environ = environ
        self._next: Callable[[], bytes] | None = None

    def _guarded(self, step: Callable[[], Any]) -> Any:
        token = events.serving.set(self._environ)
        try:
            return step()
        except StopIteration:
            raise
        except BaseException as error:
            if _failed(error):
                client.report(error, "wsgi", handled=False)
            raise
        finally:
            events.serving.reset(token)

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        if self._next is None:
            self._next = self._guarded(lambda: iter(self._body).__next__)
        chunk: bytes = self._guarded(self._next)
        return chunk

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            self._guarded(close)
