"""Redis clients from the settings: one server, or what sentinels say is the master.

Nothing connects before the first command, and no command waits longer than its timeouts: two seconds to connect, two
for an answer, where ``C2C_REDIS_OPTIONS`` does not say otherwise; nothing is tried twice. Clients are made once for a
process; a forked child makes its own. No name or message that leaves this module has credentials in it: `describe`,
`reason`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from c2c_otel import redis_options
from c2c_otel.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from redis import Redis
    from redis.connection import ConnectionPool

__all__ = ["Connection", "check", "configured", "connection", "describe", "master", "own", "quiet", "reason", "replica"]

TIMEOUT_SECONDS = 2.0
"""For a connection, and for an answer: a Redis in the same network that needs longer is not well."""

_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")

_OF_SENTINEL = ("min_other_sentinels", "force_master_ip")

SENTINEL_SECONDS = 0.5
"""The same for a sentinel: they are asked one after the other, and the first may be the one that is away."""


def configured(settings: Settings) -> bool:
    """Whether the settings name a Redis."""
    return bool(settings.redis_sentinels or settings.redis_url)


def describe(settings: Settings) -> str:
    """The Redis of these settings for people, without credentials: ``redis://host:6379/0``,
    ``sentinel://host:26379,host2:26379/mymaster/0``; empty where there is none."""
    if settings.redis_sentinels:
        addresses = ",".join(map(str, settings.redis_sentinels))
        return f"sentinel://{addresses}/{settings.redis_servicename}/{settings.redis_db or 0}"
    if not settings.redis_url:
        return ""
    parts = urlsplit(settings.redis_url)
    if parts.scheme == "unix":
        return f"unix://{unquote(parts.path)}"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or 6379}/{parts.path.strip('/') or settings.redis_db or 0}"


def reason(settings: Settings, error: BaseException) -> str:
    """Why a command failed, for a log or an answer."""
    from redis.sentinel import MasterNotFoundError

    if isinstance(error, MasterNotFoundError):  # its text has what the clients of the sentinels are made of
        return f"no sentinel that answers knows the master {settings.redis_servicename}"
    text = str(error) or type(error).__name__
    for secret in _secrets(settings):
        text = text.replace(secret, "***")
    return text


def _secrets(settings: Settings) -> Iterator[str]:
    if settings.redis_url:
        password = urlsplit(settings.redis_url).password
        if password:
            yield password
            yield unquote(password)
    for name, value in settings.redis_options:
        if name.endswith("password") and value:
            yield value


def check(settings: Settings) -> None:
    """Raises `ConfigurationError` where a client cannot be made from the settings: an argument that the client of this
    server (or the installed redis-py) does not take, a file of certificates that is not there."""
    if not configured(settings):
        return
    try:
        connection(settings)
    except Exception as error:
        name = "C2C_REDIS_SENTINELS" if settings.redis_sentinels else "C2C_REDIS_URL"
        raise ConfigurationError(
            name, describe(settings), "with C2C_REDIS_OPTIONS, what makes a Redis client", f"{reason(settings, error)}."
        ) from None
    for option in _FILES:
        path = own(settings).connection_pool.connection_kwargs.get(option)
        if path and not os.access(path, os.R_OK):
            raise ConfigurationError("C2C_REDIS_OPTIONS", path, "what can be read", part=f"the option {option}")


def master(settings: Settings) -> Redis:
    """The client for what is written, shared by all threads. Behind sentinels it follows the master."""
    return _client(settings, "master")


def replica(settings: Settings) -> Redis:
    """The client of a replica, where sentinels know one that is well; else of the master."""
    return _client(settings, "replica" if settings.redis_sentinels else "master")


def own(settings: Settings) -> Redis:
    """The client of our own machinery: to the master, with undecoded answers whatever the options say."""
    return _client(settings, "own")


class Connection(Protocol):
    """What is used of a connection of redis-py, which has no types for it. All raise what redis-py raises."""

    def connect(self) -> None:
        """And log in, and choose the database."""

    def send_command(self, *words: str | bytes, check_health: bool = True) -> None:
        """Does not wait for the answer."""

    def can_read(self, timeout: float = 0) -> bool:
        """Whether there is something to read, after at most so many seconds."""

    def read_response(self) -> Any:
        """One answer or one message, within the socket's timeout."""

    def disconnect(self) -> None:
        """Idempotent. In another process than that which connected, it only closes."""


def connection(settings: Settings) -> Connection:
    """A new connection to the master, as those of `own`, but not connected and in no pool."""
    pool = own(settings).connection_pool
    made: Connection = pool.connection_class(**pool.connection_kwargs)
    return made


@contextmanager
def quiet() -> Iterator[None]:
    """No spans and no timers for what is done here: it is our machinery, not the service's work."""
    from opentelemetry.instrumentation.utils import suppress_instrumentation

    with suppress_instrumentation():
        yield


# -- clients of this process ------------------------------------------------------------------------------------------

_lock = threading.Lock()
_clients: dict[tuple[Any, ...], Redis] = {}


def _client(settings: Settings, role: str) -> Redis:
    key = (
        role,
        settings.redis_url,
        settings.redis_sentinels,
        settings.redis_servicename,
        settings.redis_db,
        settings.redis_options,
    )
    with _lock:
        client = _clients.get(key)
        if client is None:
            from redis import Redis

            client = _clients[key] = Redis(connection_pool=_pool(settings, role))
        return client


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _clients.clear()  # redis-py closes the parent's sockets without a word to the server


os.register_at_fork(after_in_child=_after_fork)


_FIXED: dict[str, dict[str, Any]] = {
    "master": {},
    "replica": {},
    "own": {"protocol": 2, "decode_responses": False, "health_check_interval": 0},
}

# -- pools ------------------------------------------------------------------------------------------------------------


def _pool(settings: Settings, role: str) -> ConnectionPool:
    if not configured(settings):
        raise ConfigurationError("C2C_REDIS_URL", "", "a Redis, here or in C2C_REDIS_SENTINELS", "Set one.")
    options = _defaults() | dict(settings.redis_options)
    theirs = {name: options.pop(name) for name in list(options) if name.startswith(redis_options.SENTINELS)}
    if settings.redis_sentinels:
        return _sentinel_pool(settings, role, options | _FIXED[role], theirs)
    return _url_pool(settings, options, _FIXED[role])


def _defaults() -> dict[str, Any]:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "socket_keepalive": True,
        "protocol": 2,  # what every server speaks
        "retry": Retry(NoBackoff(), 0),
    }


def _url_pool(settings: Settings, options: dict[str, Any], fixed: dict[str, Any]) -> ConnectionPool:
    from redis.connection import ConnectionPool, SSLConnection, parse_url

    for name in _OF_SENTINEL:
        options.pop(name, None)
    url = settings.redis_url or ""
    if url.startswith("unix://"):
        for name in ("socket_connect_timeout", "socket_keepalive", "ssl"):
            options.pop(name, None)
    elif options.pop("ssl", False):
        options["connection_class"] = SSLConnection
    if settings.redis_db is not None:
        options.setdefault("db", settings.redis_db)
    told = parse_url(url)  # type: ignore[no-untyped-call] # redis-py has no types there
    merged = {**options, **told, **fixed}
    if merged.get("connection_class") is SSLConnection:
        _check_names(merged)
    return ConnectionPool(**merged)


def _check_names(options: dict[str, Any]) -> None:
    """A certificate must be of the server that was named: the default of redis-py since its version 6."""
    options.setdefault("ssl_check_hostname", options.get("ssl_cert_reqs", "required") not in ("none", None))


def _sentinel_pool(settings: Settings, role: str, options: dict[str, Any], theirs: dict[str, Any]) -> ConnectionPool:
    from redis.backoff import NoBackoff
    from redis.retry import Retry
    from redis.sentinel import Sentinel, SentinelConnectionPool

    of_clients: dict[str, Any] = {
        "socket_timeout": SENTINEL_SECONDS,
        "socket_connect_timeout": SENTINEL_SECONDS,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        **{name.removeprefix(redis_options.SENTINELS): value for name, value in theirs.items()},
    }
    for kind in (options, of_clients):
        if kind.get("ssl"):
            _check_names(kind)
    sentinel = Sentinel(  # type: ignore[no-untyped-call] # redis-py has no types there
        list(settings.redis_sentinels),
        sentinel_kwargs=of_clients,
        **{name: options.pop(name) for name in _OF_SENTINEL if name in options},
    )
    if settings.redis_db is not None:
        options["db"] = settings.redis_db
    return SentinelConnectionPool(  # type: ignore[no-untyped-call] # likewise
        settings.redis_servicename, sentinel, is_master=role != "replica", **options
    )
