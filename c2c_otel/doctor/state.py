"""What a process says of itself when the doctor asks it. Nothing of it is secret, and none of it takes long."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from c2c_otel import __version__, bounded, broadcast, redis_clients, telemetry
from c2c_otel.settings import Settings
from c2c_otel_exporters import exported, guard
from c2c_otel_exporters.null_sink import NULL_SINK

if TYPE_CHECKING:
    from c2c_otel.parts import Parts

__all__ = ["configured", "ping", "report"]

_REDIS_SECONDS = 1.5


def report() -> dict[str, Any]:
    """JSON: what runs in this process, what it has sent, what has failed. ``hostname`` and ``pid`` are added by who
    carries it."""
    process = telemetry.get()
    settings, parts = process.settings, process.parts
    return {
        "version": __version__,
        "parent": os.getppid(),
        "service": settings.service_name,
        "telemetry": _telemetry(process),
        "settings": configured(settings),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "publisher": parts.publisher.state() if parts is not None else None,
        "statsd": parts.sender.state() if parts is not None and hasattr(parts.sender, "state") else None,
        "ended": sorted(_ended(parts)) if parts is not None else [],
        "exporters": [_shown(one) for one in exported.states()],
        "store": None if parts is None else {"shared": parts.store.shared, "reason": parts.store.reason},
        "transport": _transport(),
        "sentry": _sentry(),
        "redis": _redis(settings),
        "events": dict(guard.tally),
    }


def configured(settings: Settings) -> list[list[str]]:
    """``[name, value, source]`` of each setting that is not a default, secrets masked."""
    from c2c_otel.commands.config import shown

    return [[row.env, shown(value), source] for row, value, source in settings.describe() if source != "default"]


def _telemetry(process: telemetry.Telemetry) -> str:
    """``on``, ``off`` (by a setting), ``failed``, ``held`` (an arbiter), ``not started``."""
    if process.started:
        return "on"
    if process.settings.sdk_disabled:
        return "off"
    if process.sink is NULL_SINK:
        return "failed"
    return "held" if process.held else "not started"


def _ended(parts: Parts) -> Iterator[str]:
    """The signals whose exporter has a thread that does not run any more."""
    logs = getattr(parts.logger_provider, "_multi_log_record_processor", None)
    of_signal = {
        "traces": parts.span_processors,
        "metrics": parts.metric_readers,
        "logs": getattr(logs, "_log_record_processors", ()),
    }
    for signal, exporting in of_signal.items():
        for one in exporting:
            batch = getattr(one, "_batch_processor", None)
            thread = getattr(batch, "_worker_thread", None) or getattr(one, "_thread", None)
            if isinstance(thread, threading.Thread) and not thread.is_alive():
                yield signal


def _shown(exports: Mapping[str, Any]) -> dict[str, Any]:
    from c2c_otel.commands.config import shown

    return {**exports, "endpoint": shown(exports["endpoint"])}


def _transport() -> str:
    transport = broadcast.get().transport
    return type(transport).__name__ if transport is not None else "none"


def _sentry() -> bool:
    sdk = sys.modules.get("sentry_sdk")
    return bool(sdk is not None and sdk.is_initialized())


def _redis(settings: Settings) -> dict[str, Any] | None:
    """None where no Redis is set."""
    if not redis_clients.configured(settings):
        return None
    error = ping(settings, _REDIS_SECONDS)
    return {"address": redis_clients.describe(settings), "reachable": not error, "error": error}


def ping(settings: Settings, seconds: float) -> str:
    """Why the Redis of these settings does not answer; empty where it does."""

    def ask() -> None:
        with redis_clients.quiet():
            redis_clients.own(settings).ping()

    try:
        bounded.call(ask, seconds, "c2c_doctor_redis")
    except Exception as error:
        return redis_clients.reason(settings, error)
    return ""
