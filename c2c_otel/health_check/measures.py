"""What is measured of a check: counters and timers with the names that c2cwsgiutils gave them, and gauges.

On /metrics the last result of a check is that of the worker that ran it last, and its age is the youngest of all.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from c2c_otel import metrics, telemetry
from c2c_otel_exporters import guard, names
from c2c_otel_exporters.model import Kind, Metric

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from c2c_otel.health_check.runner import Runner

__all__ = ["AGE", "RUNS", "SUCCESS", "alembic_timed", "alembic_version", "database_timed", "result", "show_ages"]

RUNS = Metric("c2c_otel.health_check.runs", Kind.COUNTER, "", "Health checks that were run, by outcome.")
SUCCESS = Metric("c2c_otel.health_check.success", Kind.GAUGE_LAST, "", "Last result of a health check: 1 or 0.")
AGE = Metric("c2c_otel.health_check.age", Kind.GAUGE_MIN, "s", "Time since a health check was last run.")
ALEMBIC = Metric("c2c_otel.alembic.version", Kind.COUNTER, "", "Databases seen at a version by a health check.")


def result(name: str, ok: bool) -> None:
    """A check was run: ``health_check.{name}.{success|failure}``, and its gauge."""
    telemetry.get().sink.counter(_run, name, "success" if ok else "failure").add()
    parts = telemetry.get().parts
    if parts is not None:
        parts.store.gauge(SUCCESS, (("check", name),)).set(float(ok))


def database_timed(con: str, seconds: float, span: Span | None) -> None:
    """``sql.manual.health_check.db.{con}``"""
    telemetry.get().sink.timer(_database, con).observe(seconds, span)


def alembic_timed(ini: str, con: str, seconds: float, span: Span | None) -> None:
    """``sql.manual.health_check.alembic.{ini}.{con}``"""
    telemetry.get().sink.timer(_alembic, ini, con).observe(seconds, span)


def alembic_version(name: str, version: str) -> None:
    """A database was found at this version: ``alembic_version.{name}.{version}``"""
    telemetry.get().sink.counter(_alembic_version, name, version).add()


# -- names ----------------------------------------------------------------------------------------------------------


def _run(name: str, outcome: str) -> names.Series:
    tags = (("name", name), ("outcome", outcome))
    labels = (("check", name), ("outcome", outcome))
    return names.Series(("health_check", name, outcome), ("health_check",), tags, (), (), RUNS, labels)


def _timed(stem: tuple[str, ...], tags: names.Tags) -> names.Series:
    parts = (*stem, *(value for _, value in tags))
    labels = tuple(sorted((("key", "/".join(stem)), *tags)))
    return names.Series(parts, stem, tuple(sorted(tags)), (), (), names.TIMER, labels)


def _database(con: str) -> names.Series:
    return _timed(("sql", "manual", "health_check", "db"), (("con", con),))


def _alembic(ini: str, con: str) -> names.Series:
    return _timed(("sql", "manual", "health_check", "alembic"), (("conf", ini), ("con", con)))


def _alembic_version(name: str, version: str) -> names.Series:
    tags = (("name", name), ("version", version))
    labels = (("section", name), ("version", version))
    return names.Series(("alembic_version", name, version), ("alembic_version",), tags, (), (), ALEMBIC, labels)


# -- ages -------------------------------------------------------------------------------------------------------------


class _Ages(metrics.Provider):
    """Seconds since this worker has last run each of its checks."""

    metric = AGE

    def __init__(self) -> None:
        super().__init__(AGE.name, AGE.help, extend=False)

    def get_data(self) -> Iterable[tuple[Mapping[str, Any], float]]:
        now = time.time()
        return [({"check": name}, max(0.0, now - at)) for runner in list(_runners) for name, at in runner.last_runs()]


_runners: weakref.WeakSet[Runner] = weakref.WeakSet()
_ages = _Ages()


def show_ages(runner: Runner) -> None:
    """On /metrics, for as long as it lives."""
    try:
        _runners.add(runner)
        metrics.add_provider(_ages)
    except Exception:
        guard.failed("health_check.ages")
