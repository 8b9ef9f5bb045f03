"""A response body whose closing ends the request.

What a server finds out about a body stays true: a list of one element still has a length of one (servers derive
Content-Length from that), and a ``wsgi.file_wrapper`` stays the server's own object (it may use sendfile).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from c2c_otel.instrumentation.exchange import Exchange
from c2c_otel_exporters import guard

__all__ = ["wrap"]

_new = object.__new__


def wrap(body: Iterable[bytes], exchange: Exchange) -> Iterable[bytes]:
    """The body to give to the server: its ``close()`` finishes the exchange."""
    try:
        if body.__class__ is list or body.__class__ is tuple:
            chunks: _Chunks = _new(_Chunks)
            chunks._body = body
            chunks._exchange = exchange
            chunks.close = exchange.finish
            return chunks
        wrapper = exchange.environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper) and _hook_close(body, exchange):
            return body
        return _SizedBody(body, exchange) if hasattr(body, "__len__") else _Body(body, exchange)
    except Exception:
        guard.failed("pyramid.body")
        exchange.finish()
        return body


def _hook_close(body: Any, exchange: Exchange) -> bool:
    """Make the server's file object finish the exchange when it is closed; False where it takes no attributes."""
    close: Callable[[], None] | None = getattr(body, "close", None)
    own = "close" in getattr(body, "__dict__", ())

    def close_and_finish() -> None:
        try:
            if own:
                body.close = close
            else:
                del body.close  # the class's comes to light again, and the body no longer refers to itself
            if close is not None:
                close()
        finally:
            exchange.finish()

    try:
        body.close = close_and_finish
    except AttributeError:
        return False
    return True


class _Finishing:
    """Ends its exchange when it is closed, or when nobody has closed it and nobody can any more."""

    __slots__ = ("_body", "_exchange")

    def __init__(self, body: Any, exchange: Exchange) -> None:
        self._body = body
        self._exchange = exchange

    def close(self) -> None:
        exchange = self._exchange
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                _called(exchange, close)
        finally:
            exchange.finish()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not (self._exchange.finished or is_finalizing()):  # then modules are empty, and telemetry has ended
            self._exchange.finish()


class _Chunks:
    """A list or tuple: no code of the application runs while it is sent. It is no list itself: WebOb does not close
    those."""

    __slots__ = ("_body", "_exchange", "close")

    _body: Any
    _exchange: Exchange
    close: Callable[[], None]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def __len__(self) -> int:
        return len(self._body)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not (self._exchange.finished or is_finalizing()):
            self._exchange.finish()


class _Body(_Finishing):
    """Any other iterable: each of its steps runs in the context of its request, on whatever thread."""

    __slots__ = ("_step",)

    def __init__(self, body: Any, exchange: Exchange) -> None:
        super().__init__(body, exchange)
        self._step: Callable[[], bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        if self._step is None:  # an iterator's own iterator is itself: b"".join() asks twice
            self._step = _called(self._exchange, iter, self._body).__next__
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        step = self._step
        if step is None:
            raise TypeError("next() before iter()")
        previous = exchange.resume()
        try:
            return step()
        except StopIteration:
            raise
        except BaseException as error:
            exchange.broken(error)
            raise
        finally:
            exchange.pause(previous)


class _SizedBody(_Body):
    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)


def _called(exchange: Exchange, function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)`` as a step of the body."""
    previous = exchange.resume()
    try:
        return function(*args)
    except BaseException as error:
        exchange.broken(error)
        raise
    finally:
        exchange.pause(previous)
