"""The check of Redis: it fails where the server, or the master that the sentinels name, does not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from c2c_otel import redis_clients
from c2c_otel.settings import ConfigurationError

if TYPE_CHECKING:
    from c2c_otel.settings import Settings

__all__ = ["check", "name_of"]


def name_of(settings: Settings) -> str:
    """The server, or the sentinels, without credentials. Raises `ConfigurationError` where there is none."""
    if not redis_clients.configured(settings):
        raise ConfigurationError("C2C_REDIS_URL", "", "a Redis, here or in C2C_REDIS_SENTINELS", "Set one.")
    return redis_clients.describe(settings)


def check(settings: Settings) -> Callable[[Any], dict[str, Any]]:
    """The result tells a lot about the server: ``info``, ``dbsize``, and behind sentinels ``replica_info`` and the
    state of ``sentinel_master``. What others than the master do not answer is an ``error`` in its place."""

    def run(request: Any) -> dict[str, Any]:
        try:
            client = redis_clients.own(settings)
            found: dict[str, Any] = {"info": client.info(), "dbsize": client.dbsize()}
        except Exception as error:
            raise RuntimeError(redis_clients.reason(settings, error)) from None
        if settings.redis_sentinels:
            found["replica_info"] = _tried(settings, lambda: redis_clients.replica(settings).info("replication"))
            found["sentinel_master"] = _tried(settings, lambda: _sentinel_master(client, settings))
        return found

    return run


def _sentinel_master(client: Any, settings: Settings) -> Any:
    manager = client.connection_pool.sentinel_manager
    return manager.sentinels[0].sentinel_master(settings.redis_servicename)


def _tried(settings: Settings, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception as error:
        return {"error": redis_clients.reason(settings, error)}
