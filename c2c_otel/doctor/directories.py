"""The runtime directory, looked at without making anything: made by the wrong user it would be in the service's way."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from c2c_otel.doctor.findings import Finding, note, ok, problem
from c2c_otel.settings import Settings

__all__ = ["Run", "base", "check", "runs"]


class Run(NamedTuple):
    """The directory of one run of a service; ``alive``: a process of it still is."""

    id: str
    path: Path
    alive: bool


def base(settings: Settings) -> Path:
    """Where it is, whether or not it is there."""
    return settings.runtime_dir or Path(tempfile.gettempdir()) / f"c2c-otel-{os.getuid()}"


def runs(settings: Settings) -> list[Run]:
    """Those of this user, the living first. Raises PermissionError where it is somebody else's."""
    return _runs_in(base(settings))


def _runs_in(directory: Path) -> list[Run]:
    try:
        paths = sorted(path for path in (directory / "run").iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [Run(path.name, path, alive) for path in paths if (alive := _is_alive(path)) is not None]
    return sorted(found, key=lambda run: (not run.alive, run.id))


def _is_alive(path: Path) -> bool | None:
    """Whether somebody holds it; None where it is no run, or just being made."""
    try:
        descriptor = os.open(path / "alive", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def check(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Finding]:
    """Whether workers can share what they have there."""
    path = base(settings)
    remedy = "Name another directory: C2C_RUNTIME_DIR=..."
    try:
        found = path.lstat()
    except FileNotFoundError:
        yield _can_be_made(path, remedy)
    except OSError as error:
        yield problem("runtime_dir", f"{path}: {error.strerror}", remedy)
    else:
        yield _usable(path, found, remedy)
    yield from _others(settings)


def _can_be_made(path: Path, remedy: str) -> Finding:
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    if os.access(parent, os.W_OK | os.X_OK):
        return ok("runtime_dir", f"{path} will be made")
    return problem("runtime_dir", f"{path} cannot be made: {parent} cannot be written to", remedy)


def _usable(path: Path, found: os.stat_result, remedy: str) -> Finding:
    if not stat.S_ISDIR(found.st_mode):
        return problem("runtime_dir", f"{path} is no directory", f"Remove it, or: {remedy}")
    if found.st_uid != os.getuid():
        return problem(
            "runtime_dir",
            f"{path} belongs to uid {found.st_uid}, this is uid {os.getuid()}",
            f"Where the service runs as uid {found.st_uid}, run the doctor so, too. Else: {remedy}",
        )
    if found.st_mode & 0o022:
        return problem("runtime_dir", f"others may write to {path}", f"Run: chmod go-w {path}")
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".doctor-") as file:
            os.posix_fallocate(file.fileno(), 0, 65536)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        full = "Make room there, or: " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return problem("runtime_dir", f"{path} cannot be used: {error.strerror}", f"{full}{remedy}")
    return ok("runtime_dir", f"{path} can be used")


def _others(settings: Settings) -> Iterator[Finding]:
    """Root, in a container, is often not who serves."""
    if settings.runtime_dir is not None or os.getuid() != 0:
        return
    for path in sorted(base(settings).parent.glob("c2c-otel-*")):
        uid = path.name.removeprefix("c2c-otel-")
        if uid.isdigit() and uid != "0" and any(run.alive for run in _runs_in(path)):
            yield note("runtime_dir", f"uid {uid} has a service running, in {path}", f"Run the doctor as uid {uid}.")
