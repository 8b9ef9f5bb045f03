"""State that every worker of the service has, and that outlives them: stored first, then broadcast.

A `Topic` is a mapping of names to JSON values. A change is written to the store (Redis under the broadcast prefix, else
the state part of the runtime directory, else memory), then every process is told to read it again; each hands the
whole mapping to the topic's ``apply``. So does a process that begins to listen, one that finds Redis again, and one in
which an entry has expired: to miss a message, or to see one twice, does no harm.

Reading and applying are one step under the topic's lock, so a slow ``apply`` is followed by what is newer, never by
what is older. In a process that listens, `c2c_otel.shared_watch` looks at the topics from time to time.

>>> levels = Topic("doc_levels", lambda entries: None)
>>> _ = levels.set("sqlalchemy.engine", "DEBUG")
>>> levels.entries()
{'sqlalchemy.engine': 'DEBUG'}
>>> levels.delete("sqlalchemy.engine").before
'DEBUG'
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from c2c_otel import broadcast, telemetry
from c2c_otel.broadcast import Answers
from c2c_otel.settings import Settings
from c2c_otel.shared_entries import is_living, living, values
from c2c_otel.shared_memory import MemoryBackend
from c2c_otel.shared_watch import Watch
from c2c_otel_exporters import guard

__all__ = ["Backend", "Change", "Refused", "Topic", "Unavailable", "backend", "find"]

MAX_ENTRIES = 1000
MAX_NAME = 255
MAX_VALUE_BYTES = 100_000
MAX_TOPIC_BYTES = 1_000_000
"""Of the JSON of all entries: each process reads it every few seconds."""

MAX_SECONDS = 10 * 365 * 86_400

_TELL_SECONDS = 5.0
"""How long whoever changes something waits for the other processes to have applied it."""


class Unavailable(Exception):  # noqa: N818 - the word for a state, as in HTTPServiceUnavailable
    """The store cannot be reached: nothing was changed. Views answer 503."""


class Refused(ValueError):  # noqa: N818 - what was done with the value, not what is wrong with us
    """What was to be stored is too large, or no JSON: nothing was changed. Views answer 400."""


class Backend(Protocol):
    """Where topics are kept. All methods raise `Unavailable`, and none blocks for longer than two seconds."""

    def read(self, topic: str) -> dict[str, Any]:
        """All stored entries of a topic: name -> ``{"value": JSON, "expires": epoch seconds or None}``. Those that have
        expired may be among them."""

    def write(self, topic: str, name: str, entry: Mapping[str, Any] | None) -> Any:
        """Store one entry, or remove it, atomically among all processes. Returns the entry that was there, or None."""

    def count(self, topic: str, name: str, seconds: float, increment: int = 1) -> int:
        """Add to a counter that is forgotten ``seconds`` after its first count; returns what it now is. With
        ``increment=0`` it only reads."""


@dataclasses.dataclass(frozen=True)
class Change:
    """``before`` and ``after``: the entry's value, None where there is none. ``answers``: of the processes told."""

    before: Any
    after: Any
    answers: Answers

    @property
    def missing(self) -> tuple[str, ...]:
        """The processes that did not answer in time, as ``hostname/pid``; they take the change when they can."""
        return tuple(self.answers.missing)

    @property
    def failed(self) -> dict[str, str]:
        """The processes that could not apply it, as ``hostname/pid``, and why."""
        return {
            f"{answer.get('hostname')}/{answer.get('pid')}": str(answer.get("message"))
            for answer in self.answers
            if isinstance(answer, dict) and answer.get("status") != 200
        }

    @property
    def doubts(self) -> dict[str, Any]:
        """For a view's answer: ``missing`` and ``failed``, where there are any."""
        found = {"missing": sorted(self.missing), "failed": self.failed}
        return {name: value for name, value in found.items() if value}

    def told(self, what: str, who: str) -> str:
        """A line for the log: what was changed, from what to what, by whom, and in which process it was not."""
        doubts = "".join(f"; {name}: {value}" for name, value in self.doubts.items())
        return f"{what}: {self.before} -> {self.after}, by {who or 'the service'}{doubts}"


# -- which backend ----------------------------------------------------------------------------------------------------

_choosing = threading.Lock()
_chosen: tuple[object, Backend] | None = None


def backend() -> Backend:
    """Where this process stores, by its settings as they are now. Opens nothing."""
    global _chosen
    owner, settings = _owner()
    with _choosing:
        if _chosen is None or _chosen[0] is not owner:
            _chosen = owner, _choose(settings)
        return _chosen[1]


def _owner() -> tuple[object, Settings | None]:
    """What a backend is made for: the settings; or, within `c2c_otel.testing.capture`, that capture, for which there
    are none, because nothing of it leaves the process."""
    found = telemetry.get()
    parts = getattr(found, "parts", None)
    if parts is not None and parts.captured:
        return parts, None
    return found.settings, found.settings


def _choose(settings: Settings | None) -> Backend:
    if settings is None:
        return MemoryBackend()
    if settings.redis_url or settings.redis_sentinels:
        from c2c_otel.shared_redis import RedisBackend

        return RedisBackend(settings)
    from c2c_otel.shared_files import FileBackend

    try:
        return FileBackend(settings)
    except OSError as error:
        guard.warn_once(
            "shared.memory",
            "Log levels and switches that are changed at run time are kept in memory, and gone after a restart: %s",
            error,
        )
        return MemoryBackend()


# -- topics -----------------------------------------------------------------------------------------------------------

_topics: dict[str, Topic] = {}
_watch = Watch(lambda: list(_topics.values()))


def find(name: str) -> Topic | None:
    """The topic of this name, where one has been made in this process or before it was forked."""
    return _topics.get(name)


class Topic:
    """``apply(entries)`` is called with the whole mapping of living entries, in each process, after each change; it
    must set everything as the mapping says, and undo what is no longer in it. It may be called twice with the same,
    and must not change the topic. With ``insist`` it is called every few seconds, for what others may undo.

    One topic a name: the last one that is made counts. To be made before the process listens, or after; in an arbiter
    that preloads it waits for the workers.
    """

    def __init__(self, name: str, apply: Callable[[Mapping[str, Any]], None], *, insist: bool = False) -> None:
        self.name = name
        self._apply = apply
        self._insist = insist
        self._known: dict[str, Any] | None = None
        self._applied: dict[str, Any] | None = None
        self._next_look = 0.0
        self.renew()
        _topics[name] = self
        broadcast.subscribe(f"c2c_shared_{name}", self._told)
        broadcast.on_join(self._joined)

    def entries(self) -> dict[str, Any]:
        """Name -> value of what is stored and has not expired. Raises `Unavailable`."""
        return values(backend().read(self.name), time.time())

    def seconds_left(self) -> dict[str, float]:
        """Of those entries that expire. Raises `Unavailable`."""
        now = time.time()
        stored = living(backend().read(self.name), now)
        return {name: entry["expires"] - now for name, entry in stored.items() if entry["expires"] is not None}

    def set(self, name: str, value: Any, seconds: float | None = None) -> Change:
        """Store it, for ``seconds`` or for good, and tell every process. Raises `Unavailable`, `Refused`."""
        entry = _entry(name, value, seconds)
        self._check_room(name, entry)
        return self._tell(name, entry, backend().write(self.name, name, entry))

    def delete(self, name: str) -> Change:
        """Remove it, where it is stored, and tell every process. Raises `Unavailable`."""
        return self._tell(name, None, backend().write(self.name, name, None))

    def refresh(self) -> None:
        """Read what is stored and apply it here. Raises `Unavailable`, and what ``apply`` raises."""
        with self._lock:
            self._look()
            self._put(always=True)
        _watch.wake()

    def undo(self) -> None:
        """For tests: apply nothing, whatever is stored."""
        with self._lock:
            self._known = self._applied = None
            self._apply({})

    def _check_room(self, name: str, entry: Mapping[str, Any]) -> None:
        others = living(backend().read(self.name), time.time())
        others.pop(name, None)
        if len(others) >= MAX_ENTRIES:
            raise Refused(f"{name!r} is one too many: {MAX_ENTRIES} are set; remove some.")
        if len(json.dumps(others)) + len(json.dumps(entry)) > MAX_TOPIC_BYTES:
            raise Refused(
                f"{name!r} would make all values together longer than {MAX_TOPIC_BYTES:,} bytes; remove some."
            )

    def _tell(self, name: str, entry: Mapping[str, Any] | None, before: Any) -> Change:
        alone = isinstance(backend(), MemoryBackend)  # then the others cannot read it anywhere
        params = {"name": name, "entry": entry} if alone else {}
        answers = broadcast.broadcast(f"c2c_shared_{self.name}", params, expect_answers=True, timeout=_TELL_SECONDS)
        was = before["value"] if is_living(before, time.time()) else None
        return Change(was, None if entry is None else entry["value"], answers or Answers())

    def _told(self, name: str | None = None, entry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Of the broadcast. The answer has the form of those of callbacks that raise."""
        try:
            if name is not None and isinstance(backend(), MemoryBackend):
                backend().write(self.name, name, entry)
            self.refresh()
        except Unavailable as error:
            return {"status": 503, "message": str(error)}
        except Exception as error:
            guard.failed(f"shared.{self.name}")
            return {"status": 500, "message": f"{type(error).__name__}: {error}"[:500]}
        return {"status": 200}

    # -- in a process that listens ------------------------------------------------------------------------------------

    def _joined(self) -> None:
        if _topics.get(self.name) is not self:
            return
        try:
            self.refresh()
        except Unavailable as error:
            guard.warn_once(f"shared.{self.name}.unavailable", "What %s says is not known yet: %s", self.name, error)
        except Exception:
            guard.failed(f"shared.{self.name}")
        finally:
            _watch.start()

    def tick(self) -> float:
        """Apply what has changed by time passing, or what a message that got lost would have told. Never waits for a
        slow ``apply``. Returns the seconds to wait until the next tick."""
        if not self._lock.acquire(blocking=False):
            return 1.0
        try:
            if time.monotonic() >= self._next_look:
                try:
                    self._look()
                except Unavailable:  # what is known holds
                    guard.count(f"shared.{self.name}.unavailable")
            self._put()
        except Exception:
            guard.failed(f"shared.{self.name}")
        finally:
            self._lock.release()
        return self._pause()

    def _look(self) -> None:
        self._next_look = time.monotonic() + _watch.seconds
        found = backend()
        self._known = found.read(self.name)
        self._next_look = time.monotonic() + float(getattr(found, "look_seconds", _LOOK_SECONDS))

    def _put(self, always: bool = False) -> None:
        if self._known is None:
            return
        entries = values(self._known, time.time())
        if always or self._insist or entries != self._applied:
            self._applied = None  # where it raises, the next tick tries again
            self._apply(dict(entries))
            self._applied = entries

    def _pause(self) -> float:
        now = time.time()
        entries = living(self._known or {}, now).values()
        ends: list[float] = [entry["expires"] - now for entry in entries if entry["expires"] is not None]
        return max(0.01, min([_watch.seconds, *ends]))

    def renew(self) -> None:
        """In a forked child: nobody holds the lock."""
        self._lock = threading.RLock()


_LOOK_SECONDS = 30.0
"""How often the store is read where it does not say ``look_seconds`` itself: Redis."""


def _entry(name: str, value: Any, seconds: float | None) -> dict[str, Any]:
    """As it is stored. Raises `Refused`."""
    try:
        text = json.dumps(value, allow_nan=False)
        name.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Refused(f"{name[:100]!r} cannot be stored: {error}") from None
    if not 0 < len(name) <= MAX_NAME:
        raise Refused(f"{name[:100]!r} has {len(name)} characters; expected 1 to {MAX_NAME}.")
    if len(text) > MAX_VALUE_BYTES:
        raise Refused(f"{name!r} has a value of {len(text):,} bytes; expected {MAX_VALUE_BYTES:,} at most.")
    if seconds is not None and not 0 < seconds <= MAX_SECONDS:
        raise Refused(f"{name!r} is to be set for {seconds} seconds; expected more than 0, and ten years at most.")
    return {"value": json.loads(text), "expires": None if seconds is None else time.time() + seconds}


def _after_fork() -> None:
    global _choosing, _chosen
    _choosing = threading.Lock()
    if _chosen is not None:
        if isinstance(_chosen[1], MemoryBackend):
            _chosen[1].renew()
        else:
            _chosen = None
    for topic in _topics.values():
        topic.renew()
    _watch.renew()


os.register_at_fork(after_in_child=_after_fork)
