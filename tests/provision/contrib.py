"""The contrib instrumentors' own tests, out of their sdists, and what those need beside .venv: in .cache/contrib.

Made once, and again when it would be another. `LIBRARIES` go to a directory of their own, which stands before .venv's
where these tests run: one of them is an older SQLAlchemy, since contrib's instrumentor refuses 2.1.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

from tests.provision import venv
from tests.servers.process import Unavailable

__all__ = ["SUITES", "Contrib", "get"]

VERSION = "0.66b1"
SUITES = ("pyramid", "redis", "requests", "sqlalchemy")
"""opentelemetry-instrumentation-..., whose classes ours stand for."""

LIBRARIES = (
    f"opentelemetry-test-utils=={VERSION}",
    *("asgiref==3.13.0", "werkzeug==3.1.9"),
    *("fakeredis==2.41.0", "sortedcontainers==2.4.0"),
    *("mocket==3.15.0", "decorator==5.3.1", "h11==0.16.0", "puremagic==1.30"),
    "sqlalchemy==2.0.58",
    *("hatchling==1.33.0", "trove-classifiers==2026.9.21.13", "tomlkit==0.13.3"),  # pip asks an sdist for its name
)
"""All that .venv does not have; what else they need, it has."""

CACHE = venv.ROOT / ".cache" / "contrib"


class Contrib(NamedTuple):
    """``suites`` has a package for each of `SUITES`, called ``contrib_pyramid`` and so on; ``libraries`` are to be
    imported from before .venv's."""

    suites: Path
    libraries: Path


def get() -> Contrib:
    """Fetched where it is not there, by one process at a time. Raises Unavailable."""
    made = Contrib(CACHE / "suites", CACHE / "libraries")
    stamp = CACHE / ".made"
    key = hashlib.sha256("\0".join([VERSION, *SUITES, *LIBRARIES, sys.version]).encode()).hexdigest()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == key):
            stamp.unlink(missing_ok=True)
            _make(made)
            stamp.write_text(key)
    return made


def _make(made: Contrib) -> None:
    downloads = CACHE / "downloads"
    for directory in (*made, downloads):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
    _pip("install", "--no-deps", "--target", str(made.libraries), *LIBRARIES)
    sdists = [f"opentelemetry-instrumentation-{name}=={VERSION}" for name in SUITES]
    # pip builds an sdist's metadata to be sure of its name; with what is installed, that needs no environment each
    sources = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    _pip("download", *sources, "--dest", str(downloads), *sdists, PYTHONPATH=str(made.libraries))
    for name in SUITES:
        (archive,) = downloads.glob(f"opentelemetry_instrumentation_{name}-*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(downloads, filter="data")
        shutil.move(downloads / archive.name.removesuffix(".tar.gz") / "tests", made.suites / f"contrib_{name}")
    shutil.rmtree(downloads)


def _pip(*arguments: str, **environment: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments, "--retries", "10"]
    environ = {**os.environ, **environment}
    done = subprocess.run(command, cwd=CACHE, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        what = f"pip {arguments[0]} of contrib's tests exited with {done.returncode}"
        raise Unavailable(f"{what}: {done.stderr[-600:].strip()}")
