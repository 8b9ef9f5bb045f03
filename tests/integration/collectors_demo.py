"""The demo application as the tests of collectors start it: under the launcher, by its production.ini."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path

from tests.servers import Gunicorn, Postgres, Redis

__all__ = ["APP", "LINT", "counted", "database", "demo", "internal_failures", "metric"]

APP = "acceptance_tests.app.wsgi"

LINT = {
    "pod_process_smap_pss_kb metric names should not contain abbreviated units",
    'db_client_connection_count non-histogram and non-summary metrics should not have "_count" suffix',
}
"""All that promtool has against names of ours: what dashboards know, and OpenTelemetry's own name."""

_databases = itertools.count(1)


def database(postgres: Postgres) -> str:
    """The URL of a fresh database, whose ``application_name`` is ours to choose."""
    name = f"collectors_{next(_databases)}"
    postgres.execute(f"CREATE DATABASE {name}")
    return postgres.dsn(dbname=name, driver="psycopg")


def demo(
    *args: str,
    postgres: Postgres | None = None,
    redis: Redis | None = None,
    sqlite: Path | None = None,
    env: Mapping[str, str] | None = None,
    app: str = APP,
) -> Gunicorn:
    """Not started yet. Without `postgres` on a file in the directory `sqlite`, without `redis` without cache."""
    environ = {
        "SQLALCHEMY_URL": database(postgres)
        if postgres
        else f"sqlite:///{sqlite}/demo.sqlite"
        if sqlite
        else "sqlite://",
        "DEMO_REDIS_URL": redis.url if redis else "",
        "C2C_SQL_REQUEST_ID": "1",
        **(env or {}),
    }
    return Gunicorn(app, *(args or ("-w", "2", "--threads", "4")), env=environ)


_LINE = re.compile(r"^(\w+)(?:\{(.*?)\})? (\S+)", re.M)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def metric(scrape: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    return sum(
        float(value)
        for found, text, value in _LINE.findall(scrape)
        if found == name and labels.items() <= dict(_LABEL.findall(text)).items()
    )


def counted(scrape: str) -> dict[str, float]:
    """The samples that must not fall: of counters, and of the buckets, counts and sums of histograms."""
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", scrape, re.M))
    found = {}
    for name, labels, value in _LINE.findall(scrape):
        family = re.sub(r"_(bucket|count|sum)$", "", name)
        if kinds.get(name) == "counter" or kinds.get(family) in ("histogram", "summary"):
            found[f"{name}{{{labels}}}"] = float(value)
    return found


def internal_failures(scrape: str) -> list[str]:
    """The places where our own code failed."""
    return re.findall(r'c2c_otel_internal_events_total\{[^}]*place="(failed\.[^"]*)"', scrape)
