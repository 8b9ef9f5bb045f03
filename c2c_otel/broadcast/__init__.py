"""Ask every process of the service: one protocol, and three ways for its messages to travel.

A process subscribes callbacks to channels. A broadcast reaches the callbacks of every process of the service, the
sender's own included, and brings back what they answered:

>>> subscribe("doc_hello", lambda name: {"hello": name})
>>> broadcast("doc_hello", {"name": "you"}, expect_answers=True)[0]["hello"]
'you'
>>> unsubscribe("doc_hello")
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

from c2c_otel.broadcast.node import Answers, Node

__all__ = ["Answers", "broadcast", "decorator", "get", "init", "on_join", "subscribe", "unsubscribe"]

_node = Node()


def get() -> Node:
    """This process's part in the broadcast."""
    return _node


def init(config: Any = None) -> None:
    """Take part now, from a process that serves no application (a daemon, a script). Idempotent.

    ``config``: a Pyramid Configurator whose settings count beside the environment. In a gunicorn that preloads, its
    workers take part, not the arbiter. Raises `c2c_otel.settings.ConfigurationError` for an ini value that cannot be
    used.
    """
    from c2c_otel import telemetry
    from c2c_otel.settings import Settings

    process = telemetry.get()
    if config is not None and not process.started:
        process.configure(Settings.load(ini=config.registry.settings))
    process.take_part()


def subscribe(channel: str, callback: Callable[..., Any]) -> None:
    """Call ``callback(**params)`` for each broadcast on this channel, on a thread of that channel; what it returns is
    the answer (JSON). One callback a channel: the last one wins."""
    _node.subscribe(channel, callback)


def unsubscribe(channel: str) -> None:
    """No more calls from this channel; nothing happens where there was no subscription."""
    _node.unsubscribe(channel)


def on_join(callback: Callable[[], None]) -> None:
    """Call it whenever this process has begun (or begun again, after Redis was away) to listen; at once where it
    listens already. What is stored is read here, so that no change falls between the reading and the listening."""
    _node.on_join(callback)


def broadcast(
    channel: str, params: Mapping[str, Any] | None = None, expect_answers: bool = False, timeout: float = 10
) -> Answers | None:
    """Send ``params`` (JSON) to every process. Without ``expect_answers`` None, at once. Else the answers after at most
    ``timeout`` seconds, None in the place of each that did not come; dictionaries have hostname and pid added."""
    return _node.broadcast(channel, params, expect_answers, timeout)


def decorator(
    channel: str | None = None, expect_answers: bool = False, timeout: float = 10
) -> Callable[[Callable[..., Any]], Callable[..., Answers | None]]:
    """A function of keyword arguments that runs in every process when one of them calls it."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Answers | None]:
        name = channel or f"c2c_decorated_{function.__module__}.{function.__name__}"
        subscribe(name, function)

        @functools.wraps(function)
        def everywhere(*args: Any, **kwargs: Any) -> Answers | None:
            if args:
                raise TypeError(f"{function.__name__} is called in every process: name its arguments")
            return broadcast(name, kwargs, expect_answers, timeout)

        return everywhere

    return decorate


os.register_at_fork(after_in_child=_node.after_fork)
