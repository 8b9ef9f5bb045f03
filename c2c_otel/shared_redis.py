"""Shared state in Redis: the backend of `c2c_otel.shared` where a Redis is configured.

Under the broadcast prefix, so that two services on one Redis keep theirs apart:

    {prefix}state:{topic}         hash: name -> JSON entry ``{"value": JSON, "expires": epoch seconds or null}``
    {prefix}count:{topic}:{name}  a counter with an expiry

What changes something is one script, which Redis runs at once and alone. It carries a deadline by the clock of Redis
itself: a Redis that was stopped and goes on does not carry out what nobody waits for any more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from c2c_otel import bounded, redis_clients
from c2c_otel.settings import Settings
from c2c_otel.shared import Unavailable
from c2c_otel_exporters import guard

__all__ = ["RedisBackend"]

T = TypeVar("T")

_SECONDS = 1.9
"""For all of one call, name servers and sentinels included."""

_WAY_BACK = 0.3
"""What of it is left for the answer, once Redis has begun."""

_KEEP_EXPIRED = 86_400
"""Seconds that an entry is kept after it has expired: the clocks of hosts may differ."""

_IN_TIME = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
if now > tonumber(ARGV[1]) then return redis.error_reply('LATE nobody waits for it any more') end
"""

_WRITE = f"""{_IN_TIME}
local before = redis.pcall('HGET', KEYS[1], ARGV[2])
if type(before) == 'table' then return before end
local done
if ARGV[3] == '' then
  done = redis.pcall('HDEL', KEYS[1], ARGV[2])
else
  done = redis.pcall('HSET', KEYS[1], ARGV[2], ARGV[3])
end
if type(done) == 'table' then return done end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local read, entry = pcall(cjson.decode, all[i + 1])
  if read and type(entry) == 'table' and type(entry['expires']) == 'number'
      and entry['expires'] < now - {_KEEP_EXPIRED} then
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return before
"""

_COUNT = f"""{_IN_TIME}
local found = redis.call('TYPE', KEYS[1])['ok']
if found ~= 'none' and (found ~= 'string' or not string.match(redis.call('GET', KEYS[1]), '^%-?%d+$')) then
  local done = redis.pcall('DEL', KEYS[1])
  if type(done) == 'table' then return done end
end
if ARGV[2] == '0' then return tonumber(redis.call('GET', KEYS[1]) or '0') end
local total = redis.pcall('INCRBY', KEYS[1], ARGV[2])
if type(total) == 'table' then return total end
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return total
"""


class RedisBackend:
    """See `c2c_otel.shared.Backend`. Connects with the first call, and in a forked child anew."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prefix = settings.broadcast_prefix

    def read(self, topic: str) -> dict[str, Any]:
        """See `Backend.read`. What is not an entry is left out, and said in the log once."""
        key = self._key(topic)
        try:
            stored = self._do(lambda client, until: client.hgetall(key))
        except _WrongTypeError:
            self._corrupt(key)
            return {}
        found = {}
        for name, text in stored.items():
            entry = self._entry(key, text)
            if entry is not None:
                found[name.decode(errors="replace")] = entry
        return found

    def write(self, topic: str, name: str, entry: Mapping[str, Any] | None) -> Any:
        """See `Backend.write`."""
        key = self._key(topic)
        text = "" if entry is None else json.dumps(entry)
        try:
            before = self._do(lambda client, until: client.eval(_WRITE, 1, key, until(), name, text))
        except _WrongTypeError as error:
            raise Unavailable(f"In {redis_clients.describe(self._settings)}, {key} is no hash.") from error
        return None if before is None else self._entry(key, before)

    def count(self, topic: str, name: str, seconds: float, increment: int = 1) -> int:
        """See `Backend.count`."""
        key = f"{self._prefix}count:{topic}:{name}"
        milliseconds = max(1, round(seconds * 1000))
        return int(self._do(lambda client, until: client.eval(_COUNT, 1, key, until(), increment, milliseconds)))

    def _key(self, topic: str) -> str:
        return f"{self._prefix}state:{topic}"

    def _do(self, job: Callable[[Any, Callable[[], str]], T]) -> T:
        """``job(client, until)``, where ``until()`` is the time of Redis at which the caller has given up."""
        settings = self._settings
        end = time.monotonic() + _SECONDS

        def work() -> T:
            client = redis_clients.own(settings)

            def until() -> str:
                seconds, microseconds = client.time()
                return repr(seconds + microseconds / 1e6 + max(0.0, end - time.monotonic() - _WAY_BACK))

            with redis_clients.quiet():
                return job(client, until)

        import redis

        try:
            return bounded.call(work, _SECONDS, "c2c_otel_shared_redis")
        except redis.ResponseError as error:
            if isinstance(error, redis.ReadOnlyError):  # it was the master: the next connection finds the one that is
                redis_clients.own(settings).connection_pool.disconnect(inuse_connections=False)
            if str(error).startswith("WRONGTYPE"):
                raise _WrongTypeError from error
            raise self._unavailable(error) from error
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(f"{redis_clients.describe(self._settings)}: {redis_clients.reason(self._settings, error)}")

    def _entry(self, key: str, text: bytes) -> dict[str, Any] | None:
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict) and "value" in entry:
            expires = entry.setdefault("expires", None)
            if expires is None or isinstance(expires, int | float):
                return entry
        self._corrupt(key)
        return None

    def _corrupt(self, key: str) -> None:
        guard.count("shared.corrupt")
        place = redis_clients.describe(self._settings)
        guard.warn_once(f"shared.corrupt.{key}", "In %s, %s has what c2c-otel has not written: ignored.", place, key)


class _WrongTypeError(Exception):
    """Somebody else has put something else under our key."""
