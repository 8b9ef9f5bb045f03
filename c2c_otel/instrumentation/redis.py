"""redis: a span and a measurement for each command and each pipeline, synchronous, asynchronous and cluster.

The methods that are wrapped are those of the contrib package, and so is the interface; what differs: a pipeline's
name does not list its commands (that was unbounded), the attributes are the stable ones only, and what FT.SEARCH
found is not copied into the span. A loop of ``PubSub.get_message`` makes no spans: it sends no command.

Spans carry the stable semantic conventions: https://opentelemetry.io/docs/specs/semconv/database/redis/
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Token
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
from opentelemetry import context as otel_context
from opentelemetry.context.context import Context
from opentelemetry.instrumentation.redis import RedisInstrumentor as _Contrib
from opentelemetry.trace import Span, SpanKind, Tracer, TracerProvider
from wrapt import wrap_function_wrapper

from c2c_otel import telemetry
from c2c_otel._sdk_private import current
from c2c_otel.instrumentation import client
from c2c_otel.instrumentation.client import ALSO_SUPPRESSED, SUPPRESSED
from c2c_otel.patches import Patches
from c2c_otel.pending import Given
from c2c_otel.tracing import attach_span, detach
from c2c_otel_exporters import guard, names

__all__ = ["RedisInstrumentor"]

SCOPE = "c2c_otel.redis"

_MAX_TEXT = 1000
"""Characters of ``db.query.text``; a pipeline of thousands of commands is cut."""

_COMMAND = re.compile(r"[A-Z0-9_.|-]{1,40}( [A-Z0-9_.|-]{1,40})?\Z")
_INSTRUMENTED = "_is_instrumented_by_opentelemetry"  # contrib's mark, which its uninstrument_client looks for
_logger = logging.getLogger("c2c_otel.instrumentation")

_COMMANDS: tuple[tuple[type[Any], str], ...] = (
    (redis.Redis, "execute_command"),
    (redis.client.Pipeline, "immediate_execute_command"),
    (redis.cluster.RedisCluster, "execute_command"),
)
_PIPELINES: tuple[type[Any], ...] = (redis.client.Pipeline, redis.cluster.ClusterPipeline)
_ASYNC_COMMANDS: tuple[tuple[type[Any], str], ...] = (
    (redis.asyncio.Redis, "execute_command"),
    (redis.asyncio.client.Pipeline, "immediate_execute_command"),
    (redis.asyncio.cluster.RedisCluster, "execute_command"),
)
_ASYNC_PIPELINES: tuple[type[Any], ...] = (redis.asyncio.client.Pipeline, redis.asyncio.cluster.ClusterPipeline)

_Hook = Callable[..., Any] | None


class RedisInstrumentor(_Contrib):
    """``instrument(tracer_provider=None, request_hook=None, response_hook=None)``, and `instrument_client` for a
    single client, as contrib's. ``C2C_TRACK_REDIS`` off: the wrappers pass everything through."""

    _instance = None  # contrib keeps its singleton on the class, where a subclass would find it
    _patches: Patches | None = None

    def _instrument(self, **kwargs: Any) -> None:
        calls = Calls(**kwargs)
        self._patches = calls.patches
        for owner, name in _COMMANDS:
            calls.patches.replace(owner, name, calls.commands)
        for owner in _PIPELINES:
            wrap_function_wrapper(owner, "execute", calls.pipeline)
        for owner, name in _ASYNC_COMMANDS:
            wrap_function_wrapper(owner, name, calls.async_command)
        for owner in _ASYNC_PIPELINES:
            wrap_function_wrapper(owner, "execute", calls.async_pipeline)

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._patches is not None:
            self._patches.undo()
            self._patches = None
        super()._uninstrument(**kwargs)

    @staticmethod
    def instrument_client(
        client: Any,
        tracer_provider: TracerProvider | None = None,
        request_hook: _Hook = None,
        response_hook: _Hook = None,
    ) -> None:
        """Instrument one client, of any of the four kinds."""
        if getattr(client, _INSTRUMENTED, False):
            _logger.warning("Attempting to instrument Redis connection while already instrumented")
            return
        calls = Calls(tracer_provider=tracer_provider, request_hook=request_hook, response_hook=response_hook)
        is_async = isinstance(client, (redis.asyncio.Redis, redis.asyncio.cluster.RedisCluster))
        command = calls.async_command if is_async else calls.command
        execute = calls.async_pipeline if is_async else calls.pipeline

        def pipeline(func: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            made = func(*args, **kwargs)
            wrap_function_wrapper(made, "execute", execute)
            if hasattr(made, "immediate_execute_command"):
                wrap_function_wrapper(made, "immediate_execute_command", command)
            return made

        wrap_function_wrapper(client, "execute_command", command)
        wrap_function_wrapper(client, "pipeline", pipeline)
        setattr(client, _INSTRUMENTED, True)


@dataclass(slots=True)
class _Target:
    """``sites``: of this server, by the number of arguments and the command as it was given, which is one of them."""

    namespace: str | None
    host: str | None
    port: int | None
    attributes: dict[str, Any]
    sites: dict[int, dict[Any, client.Site]]


class _Call:
    """One command or pipeline on its way; its span is current until `Calls.finish`."""

    __slots__ = ("command", "span", "started", "target", "token")

    span: Span
    started: float
    token: Token[Context]

    def __init__(self, command: str, target: _Target) -> None:
        self.command = command
        self.target = target


class Calls:
    """The wrappers. Stateless, so safe with any number of threads and tasks."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        request_hook: _Hook = None,
        response_hook: _Hook = None,
        **_: Any,
    ) -> None:
        self._tracers = client.tracers(SCOPE, tracer_provider)
        self._request_hook = request_hook if callable(request_hook) else None
        self._response_hook = response_hook if callable(response_hook) else None
        self.patches = Patches()

    # -- around the library's methods -------------------------------------------------------------------------

    def commands(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """What stands for ``execute_command(*args, **options)``; the first of ``args`` is the command."""
        if self._request_hook is not None or self._response_hook is not None:
            return self._with_hooks(original)
        patches, tracers, process = self.patches, self._tracked, client.process

        def execute_command(instance: Any, *args: Any, **options: Any) -> Any:
            now = current()
            if not patches.active or ((SUPPRESSED in now or ALSO_SUPPRESSED in now) and client.is_suppressed(now)):
                return original(instance, *args, **options)
            try:
                try:
                    site = instance.connection_pool._c2c_otel_target.sites[len(args)][args[0]]
                except (AttributeError, KeyError, IndexError, TypeError):
                    site = _site(_target(instance), args)
                bound = site.bound
                if bound[0] is not process.sink or bound[3] is not tracers:
                    bound = site.bind(process.sink, tracers)
                span = bound[2](site.title, now, client.CLIENT, site.given)
            except Exception:
                guard.failed("redis.begin")
                span = None
            if span is None:
                return original(instance, *args, **options)
            started = perf_counter_ns()
            try:
                response = original(instance, *args, **options) if options else original(instance, *args)
            except BaseException as error:
                client.fail(site, span, perf_counter_ns() - started, now, error, _failed)
                raise
            client.finish(site, span, perf_counter_ns() - started, now)
            return response

        return execute_command

    def _tracked(self) -> Tracer | None:
        return self._tracers() if telemetry.get().settings.track_redis else None

    def _with_hooks(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def execute_command(instance: Any, *args: Any, **options: Any) -> Any:
            return self.command(original.__get__(instance), instance, args, options)

        return execute_command

    def command(self, func: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Around ``execute_command(*args, **options)``; the first of ``args`` is the command."""
        call = self._begin_command(instance, args, kwargs)
        if call is None:
            return func(*args, **kwargs)
        try:
            response = func(*args, **kwargs)
        except BaseException as error:
            self._finish(call, error)
            raise
        self._respond(call, instance, response)
        return response

    async def async_command(
        self, func: Callable[..., Awaitable[Any]], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As `command`, for redis.asyncio."""
        call = self._begin_command(instance, args, kwargs)
        if call is None:
            return await func(*args, **kwargs)
        try:
            response = await func(*args, **kwargs)
        except BaseException as error:
            self._finish(call, error)
            raise
        self._respond(call, instance, response)
        return response

    def pipeline(self, func: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Around ``Pipeline.execute(raise_on_error=True)``."""
        call = self._begin_pipeline(instance)
        if call is None:
            return func(*args, **kwargs)
        try:
            response = func(*args, **kwargs)
        except BaseException as error:
            self._fail_pipeline(call, instance, error)
            raise
        self._respond(call, instance, response)
        return response

    async def async_pipeline(
        self, func: Callable[..., Awaitable[Any]], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As `pipeline`, for redis.asyncio."""
        call = self._begin_pipeline(instance)
        if call is None:
            return await func(*args, **kwargs)
        try:
            response = await func(*args, **kwargs)
        except BaseException as error:
            self._fail_pipeline(call, instance, error)
            raise
        self._respond(call, instance, response)
        return response

    # -- begin and end ----------------------------------------------------------------------------------------

    def _begin_command(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
        call = None
        current = otel_context.get_current()
        if client.is_suppressed(current):
            return None
        try:
            if not telemetry.get().settings.track_redis:
                return None
            command = _command(args)
            call = _Call(command, _target(instance))
            attributes = call.target.attributes.copy()
            attributes["db.operation.name"] = command
            attributes["db.query.text"] = _text(command, len(args) - 1)
            self._start(call, command, attributes, current)
        except Exception:
            guard.failed("redis.begin")
            return None
        if self._request_hook is not None:
            client.call_hook(self._request_hook, call.span, instance, args, kwargs)
            call.started = perf_counter()
        return call

    def _begin_pipeline(self, instance: Any) -> _Call | None:
        current = otel_context.get_current()
        if client.is_suppressed(current):
            return None
        try:
            if not telemetry.get().settings.track_redis:
                return None
            queued = [_arguments(command) for command in _queue(instance)]
            if not queued:  # nothing is sent
                return None
            kind = "MULTI" if _is_transaction(instance) else "PIPELINE"
            commands = {_command(args) for args in queued}
            operation = f"{kind} {commands.pop()}" if len(commands) == 1 else kind
            call = _Call(kind, _target(instance))
            attributes = call.target.attributes.copy()
            attributes["db.operation.name"] = operation
            if len(queued) > 1:
                attributes["db.operation.batch.size"] = len(queued)
            attributes["db.query.text"] = _pipeline_text(queued)
            self._start(call, operation, attributes, current)
        except Exception:
            guard.failed("redis.begin")
            return None
        return call

    def _start(self, call: _Call, name: str, attributes: dict[str, Any], current: Any) -> None:
        call.span = self._tracers().start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        call.token = attach_span(call.span, current)
        call.started = perf_counter()

    def _respond(self, call: _Call, instance: Any, response: Any) -> None:
        seconds = perf_counter() - call.started
        try:
            if self._response_hook is not None:
                client.call_hook(self._response_hook, call.span, instance, response)
        finally:
            self._finish(call, None, seconds)

    def _fail_pipeline(self, call: _Call, instance: Any, error: BaseException) -> None:
        seconds = perf_counter() - call.started
        if not isinstance(error, redis.WatchError):
            self._finish(call, error, seconds)
            return
        # Somebody else was faster: the code that watches expects it and tries again, so the span is no error.
        try:
            if self._response_hook is not None:
                client.call_hook(self._response_hook, call.span, instance, None)
        finally:
            self._finish(call, error, seconds, expected=True)

    @staticmethod
    def _finish(call: _Call, error: BaseException | None, seconds: float | None = None, expected: bool = False) -> None:
        if seconds is None:
            seconds = perf_counter() - call.started
        try:
            detach(call.token)
            kind = None if error is None else client.error_type(error)
            if kind is not None and expected:
                call.span.set_attribute("error.type", kind)
            elif error is not None:
                _failed(call.span, error)
            target = call.target
            telemetry.get().sink.timer(
                names.redis, call.command, error is None, target.namespace, target.host, target.port, kind
            ).observe(seconds, call.span)
            call.span.end()
        except Exception:
            guard.failed("redis.finish")


def _failed(span: Span, error: BaseException) -> str:
    kind = client.failed(span, error)
    prefix, _, _ = str(error).partition(" ")
    if isinstance(error, redis.ResponseError) and prefix.isascii() and prefix.isupper():
        span.set_attribute("db.response.status_code", prefix)  # the conventions: WRONGTYPE, ERR, ...
    return kind


def _site(target: _Target, args: Sequence[Any]) -> client.Site:
    command = _command(args)
    attributes = target.attributes | {"db.operation.name": command, "db.query.text": _text(command, len(args) - 1)}

    def series(error: str | None) -> tuple[Any, ...]:
        return (names.redis, command, error is None, target.namespace, target.host, target.port, error)

    site = client.Site(command, Given(attributes), series)
    if sum(map(len, target.sites.values())) < client.MOST_SITES:
        target.sites.setdefault(len(args), {})[args[0]] = site
    return site


def _command(args: Sequence[Any]) -> str:
    """The command in capitals; ``_OTHER`` for what cannot be one, as names and series must be bounded."""
    first = args[0] if args else ""
    if isinstance(first, bytes):
        first = first.decode("ascii", "replace")
    command = first.upper() if isinstance(first, str) else ""
    return command if _COMMAND.match(command) else "_OTHER"


def _text(command: str, arguments: int) -> str:
    """The command with each argument as ``?``: keys and values are the application's data."""
    return (command + " ?" * min(arguments, _MAX_TEXT))[:_MAX_TEXT]


def _pipeline_text(queued: Sequence[Sequence[Any]]) -> str:
    lines: list[str] = []
    length = 0
    for args in queued:
        lines.append(_text(_command(args), len(args) - 1))
        length += len(lines[-1]) + 1
        if length > _MAX_TEXT:
            break
    return "\n".join(lines)[:_MAX_TEXT]


def _queue(pipeline: Any) -> Sequence[Any]:
    """The commands that wait in a pipeline; clusters keep them in a strategy, under two names."""
    strategy = getattr(pipeline, "_execution_strategy", None)
    for holder, name in (
        (strategy, "command_queue"),
        (strategy, "_command_queue"),
        (pipeline, "command_stack"),
        (pipeline, "_command_stack"),
    ):
        queue = getattr(holder, name, None)
        if queue is not None:
            return list(queue)
    return ()


def _arguments(command: Any) -> Sequence[Any]:
    """A queued command is ``(args, options)`` or has ``args``."""
    found = command.args if hasattr(command, "args") else command[0]
    return found if isinstance(found, (tuple, list)) else (found,)


def _is_transaction(pipeline: Any) -> bool:
    own = vars(pipeline)  # `transaction` is also a method of the class
    if own.get("transaction") or own.get("is_transaction") or own.get("explicit_transaction"):
        return True
    strategy = getattr(pipeline, "_execution_strategy", None)
    return strategy is not None and type(strategy).__name__.startswith("Transaction")


def _target(instance: Any) -> _Target:
    """The server, an attribute of the connection pool from then on. A cluster client has no pool of its own."""
    pool = getattr(instance, "connection_pool", None)
    if pool is None:
        return _UNKNOWN
    target = getattr(pool, "_c2c_otel_target", None)
    if not isinstance(target, _Target):
        target = _described(pool)
        pool._c2c_otel_target = target
    return target


def _described(pool: Any) -> _Target:
    settings = getattr(pool, "connection_kwargs", None)
    if settings is None:  # a pool of another kind: nothing is known
        return _UNKNOWN
    namespace = str(settings.get("db") or 0)
    service = getattr(pool, "service_name", None)
    host: str | None
    port: int | None = None
    if service is not None:  # behind Sentinel the server changes: the name of the service is what stays
        host = str(service)
    elif "path" in settings:
        host = str(settings["path"])
    else:
        host, port = str(settings.get("host", "localhost")), int(settings.get("port", 6379))
    return _make(namespace, host, port)


def _make(namespace: str | None, host: str | None, port: int | None) -> _Target:
    attributes: dict[str, Any] = {"db.system.name": "redis"}
    if namespace is not None:
        attributes["db.namespace"] = namespace
    if host is not None:
        attributes["server.address"] = host
    if port is not None:
        attributes["server.port"] = port
    return _Target(namespace, host, port, attributes, {})


_UNKNOWN = _make(None, None, None)
