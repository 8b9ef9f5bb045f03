"""Asking the processes of runs that are alive, as one of this user's own, without taking part in anything."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from c2c_otel import doctor, redis_clients
from c2c_otel.broadcast import messages, unix_address
from c2c_otel.broadcast.node import Node
from c2c_otel.broadcast.transport import Deliver, Transport
from c2c_otel.broadcast.unix import UnixTransport
from c2c_otel.doctor import presence, state
from c2c_otel.doctor.directories import Run
from c2c_otel.settings import Settings
from c2c_otel_exporters.merge import Scraper
from c2c_otel_exporters.names import HTTP_SERVER
from c2c_otel_exporters.publish import INTERNAL_EVENTS

__all__ = ["Seen", "Totals", "look"]

_REDIS_SECONDS = 2.0


class Totals(NamedTuple):
    """What the processes of a run have measured, those that ended included. ``events``: by place, see
    `c2c_otel_exporters.guard.tally`. ``error``: why it cannot be read."""

    requests: int
    events: dict[str, int]
    error: str = ""


class Seen(NamedTuple):
    """One run. ``reports``: what each process that has answered says (`state.report`), ``missing``: the names
    (``hostname/pid``) of those asked that have not; ``seconds`` it took; ``present``: who has announced itself;
    ``unasked``: why nobody could be asked, empty where they were."""

    run: Run
    reports: list[dict[str, Any]]
    missing: tuple[str, ...]
    seconds: float
    present: list[presence.Presence]
    totals: Totals
    unasked: str = ""


def look(
    runs: Iterable[Run], settings: Settings, seconds: float
) -> tuple[list[Seen], list[dict[str, Any]], tuple[str, ...]]:
    """Ask the processes of these runs, for so many seconds at most each: over the Unix sockets of the run, and over
    Redis where one is set. Also reports of processes of other runs and hosts, and the names of such that have not
    answered."""
    seen = [_look(run, settings, seconds) for run in runs]
    if not redis_clients.configured(settings):
        return seen, [], ()
    why = state.ping(settings, _REDIS_SECONDS)
    if why:
        why = f"Redis at {redis_clients.describe(settings)} does not answer"
        return [one if one.reports else one._replace(unasked=why) for one in seen], [], ()
    begin = time.monotonic()
    reports, missing = _ask_redis(settings, seconds)
    return _together(seen, reports, missing, time.monotonic() - begin)


def _look(run: Run, settings: Settings, seconds: float) -> Seen:
    sockets = run.path / "sockets"
    begin = time.monotonic()
    reports, missing = _ask(_Asking(sockets), settings, seconds) if unix_address.members(sockets) else ([], ())
    took = time.monotonic() - begin
    return Seen(run, reports, missing, took, presence.present(run.path), _totals(run.path / "metrics", settings))


def _together(
    seen: Iterable[Seen], reports: list[dict[str, Any]], missing: tuple[str, ...], seconds: float
) -> tuple[list[Seen], list[dict[str, Any]], tuple[str, ...]]:
    """What came over Redis, sorted by run."""
    made, left, unnamed = [], reports, missing
    for one in seen:
        names = {member.name for member in one.present}
        mine = [report for report in left if f"{report['hostname']}/{report['pid']}" in names]
        left = [report for report in left if report not in mine]
        silent = tuple(name for name in unnamed if name in names)
        unnamed = tuple(name for name in unnamed if name not in names)
        took = max(one.seconds, seconds)
        made.append(one._replace(reports=one.reports + mine, missing=one.missing + silent, seconds=took))
    return made, left, unnamed


def _ask_redis(settings: Settings, seconds: float) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    from c2c_otel.broadcast import redis

    transport = redis.make(settings)
    return _ask(transport, settings, seconds) if transport is not None else ([], ())


class _Asking(UnixTransport):
    """Asks, and does not listen: nobody sees who asks."""

    def open(self, name: str, deliver: Deliver, listening: Callable[[], None], channels: Iterable[str]) -> None:
        listening()


def _ask(transport: Transport, settings: Settings, seconds: float) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    node = Node()
    with _silence():
        try:
            node.join(transport, messages.key_of(settings.secret, settings.broadcast_prefix))
            answers = node.broadcast(doctor.CHANNEL, None, True, seconds)
        except OSError:
            return [], ()
        finally:
            node.leave()
    if answers is None:
        return [], ()
    return [answer for answer in answers if isinstance(answer, dict)], answers.missing


@contextmanager
def _silence() -> Iterator[None]:
    """What the broadcast says in the log, the doctor says better."""
    logger = logging.getLogger("c2c_otel")
    before = logger.disabled, [logging.getLogger("c2c_otel.broadcast").disabled]
    logger.disabled = logging.getLogger("c2c_otel.broadcast").disabled = True
    try:
        yield
    finally:
        logger.disabled = before[0]
        logging.getLogger("c2c_otel.broadcast").disabled = before[1][0]


def _totals(directory: Path, settings: Settings) -> Totals:
    if not directory.is_dir():
        return Totals(0, {})
    scraper = Scraper(directory, max_series=settings.metrics_max_series)
    try:
        families = {family.metric.name: family.series for family in scraper.families()}
    except Exception as error:
        return Totals(0, {}, str(error) or repr(error))
    finally:
        scraper.close()
    requests = sum(sum(sample.values[:-1]) for sample in families.get(HTTP_SERVER.name, {}).values())
    events = {
        dict(labels)["place"]: int(one.values[0]) for labels, one in families.get(INTERNAL_EVENTS.name, {}).items()
    }
    return Totals(int(requests), events)
