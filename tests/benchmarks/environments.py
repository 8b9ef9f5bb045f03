"""An environment for each peer and the chart, in .cache/bench: made once, and again when it would be another."""

from __future__ import annotations

import fcntl
import hashlib
import sys
from pathlib import Path

from tests.provision import venv

CACHE = venv.ROOT / ".cache" / "bench"

_BARE = ["pyramid", "sqlalchemy", "redis", "requests", "gunicorn"]
_CONTRIB = [f"opentelemetry-instrumentation-{name}==0.66b1" for name in ("pyramid", "sqlalchemy", "redis", "requests")]
_PINS = ["pyramid<2", "sqlalchemy<1.5", "redis<4", "requests", "gunicorn", "setuptools<81"]

_CONSTRAINED = ["--constraint", str(venv.CONSTRAINTS)]

WANTED = {
    "bare": [*_BARE, *_CONSTRAINED],
    "contrib": [
        *_BARE,
        *_CONTRIB,
        "greenlet",  # its SQLAlchemy instrumentor imports the asyncio side, which wants it
        "opentelemetry-instrumentation-logging==0.66b1",
        "opentelemetry-exporter-prometheus==0.66b1",
        *_CONSTRAINED,
    ],
    "ours": [*_BARE, "--editable", ".[otlp,postgresql,requests]", *_CONSTRAINED],
    # its metadata leaves the choice of most of what its include imports to extras that need a C compiler
    "4.1.1": [
        "c2cwsgiutils==4.1.1",
        *_PINS,
        *["cornice", "pyramid_tm", "ujson", "sentry-sdk", "zope.sqlalchemy", "cee_syslog_handler", "boltons", "pyyaml"],
    ],
    # [all] without what wants a C compiler and PostgreSQL's headers: psycopg2, which comes compiled here
    "6.1.10": [
        "c2cwsgiutils[alembic,broadcast,debug,oauth2,sentry,tests]==6.1.10",
        *_BARE,
        "setuptools<81",
        *["cornice", "prometheus-client", "psycopg2-binary", "pyramid-tm", "pyramid-mako"],
        *["sqlalchemy-utils", "zope.interface", "zope.sqlalchemy"],
        *_CONSTRAINED,
    ],
    "ddtrace": [*_BARE, "ddtrace==4.16.0", *_CONSTRAINED],
    "sentry-sdk": [*_BARE, "sentry-sdk==2.75.0", *_CONSTRAINED],
    "chart": ["matplotlib==3.11.2"],
}
"""Environment -> what pip installs there."""

ENVIRONMENT = {
    "bare": "bare",
    "bare-include": "ours",  # pyramid_tm and cornice are there
    "bare-4.1.1": "4.1.1",  # the same pins; nothing of c2cwsgiutils is imported
    "contrib": "contrib",
    "ours": "ours",
    "ours-include": "ours",
    "4.1.1": "4.1.1",
    "bare-6.1.10": "6.1.10",  # likewise
    "6.1.10": "6.1.10",
    "ddtrace": "ddtrace",
    "sentry-sdk": "sentry-sdk",
    "tween": "bare",
    "tween-clocks": "bare",
    "tween-update": "bare",
}
"""Peer -> the environment it runs in."""


def python(peer: str) -> str:
    """The interpreter of a peer."""
    return interpreter(ENVIRONMENT[peer])


def interpreter(name: str) -> str:
    """The Python of an environment; made first where it is not there, by one process at a time."""
    directory = CACHE / name
    stamp = directory / ".made"
    key = _key(name)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == key and venv.runs(directory)):
            print(f"environment of {name}", flush=True)
            venv.create(directory)
            venv.pip(directory, "install", *WANTED[name])
            stamp.write_text(key)
    return venv.python(directory)


def _key(name: str) -> str:
    """Changes with what pip is told, the pins and the Python; ours, which is editable, with its metadata."""
    parts = [sys.version, str(venv.ROOT), repr(WANTED[name]), venv.CONSTRAINTS.read_text()]
    if name == "ours":
        parts.append(Path(venv.ROOT, "pyproject.toml").read_text())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
