"""Wrong secrets, counted for each client over all workers: who tries too often is refused for a while.

A failed try costs one count in the shared store. Who is refused is told to every worker, so that a right secret costs a
look into a dictionary. Where the store is away, each worker counts for itself.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from c2c_otel import shared
from c2c_otel_exporters import guard

__all__ = ["LIMIT", "SECONDS", "Client", "client", "failed", "init", "seconds_left"]

LIMIT = 10
"""Failed tries of one client in `SECONDS`; with the last one it is refused for as long again."""

SECONDS = 60.0

_MOST = 1000
"""Names that a worker counts by itself while the store is away, and that it holds refused by itself."""

_TOPIC = "auth_failures"
_logger = logging.getLogger("c2c_otel.auth")


class Client(NamedTuple):
    """Who asks. ``address``: for the log. ``name``: what is counted."""

    address: str
    name: str


def client(environ: Mapping[str, Any]) -> Client:
    """By REMOTE_ADDR: the peer, or whom a trusted proxy says to speak for (`c2c_otel.client_info`). What anybody may
    write into X-Forwarded-For does not count. IPv6 is counted by /64, which is what one customer has."""
    text = environ.get("REMOTE_ADDR") or ""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return Client("a local socket", "local")
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return Client(str(address), f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64")
        address = address.ipv4_mapped
    return Client(str(address), str(address))


# -- who is refused ---------------------------------------------------------------------------------------------------

_refused_everywhere: dict[str, float] = {}
_refused_here: dict[str, float] = {}
_counted_here: dict[str, tuple[int, float]] = {}
"""Name -> number and when it is forgotten (epoch seconds)."""


def seconds_left(who: Client) -> int:
    """For how many seconds (rounded up) this client is refused; 0 where it is not."""
    now = time.time()
    until = max(_refused_everywhere.get(who.name, 0.0), _refused_here.get(who.name, 0.0))
    return math.ceil(min(until - now, SECONDS)) if until > now else 0


def failed(who: Client) -> None:
    """Count a failed try; with one too many the client is refused from now on."""
    try:
        if _count(who.name) >= LIMIT:
            _refuse(who.name)
    except Exception:
        guard.failed("auth.throttle")


def _count(name: str) -> int:
    try:
        return shared.backend().count(_TOPIC, name, SECONDS)
    except (shared.Unavailable, shared.Refused):
        now = time.time()
        number, forgotten = _counted_here.get(name, (0, 0.0))
        if forgotten <= now:
            number, forgotten = 0, now + SECONDS
        _put(_counted_here, name, (number + 1, forgotten))
        return number + 1


def _refuse(name: str) -> None:
    _logger.warning("Too many wrong secrets from %s: no secret is taken from there for %d seconds", name, SECONDS)
    until = time.time() + SECONDS
    _put(_refused_here, name, until)
    try:
        init().set(name, until, SECONDS)
    except (shared.Unavailable, shared.Refused):  # away, or full
        pass  # each worker counts for itself, then


def _put(target: dict[str, Any], name: str, value: Any) -> None:
    """Set it; of too many, the one that was set first goes."""
    target.pop(name, None)
    target[name] = value
    while len(target) > _MOST:
        try:
            del target[next(iter(target))]
        except (KeyError, RuntimeError, StopIteration):  # another thread is at it
            break


def _apply(entries: Mapping[str, Any]) -> None:
    global _refused_everywhere
    _refused_everywhere = {name: float(until) for name, until in entries.items() if isinstance(until, (int, float))}


def init() -> shared.Topic:
    """Learn who is refused by other workers. Idempotent."""
    return shared.find("auth_throttled") or shared.Topic("auth_throttled", _apply)
