"""Which run of a service this process belongs to, and the directories that its processes share.

``{base}/run/{id}/`` lives as long as one process of the run: each holds a shared ``flock`` on ``alive`` there.
``{base}/state/{service}/`` outlives the run. ``base`` is ``C2C_RUNTIME_DIR`` or ``c2c-otel-{uid}`` in the system's
temporary directory; it belongs to this user and is closed to others (0700).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2c_otel_exporters import guard

if TYPE_CHECKING:
    from c2c_otel.settings import Settings

__all__ = ["Run", "base_directory", "gunicorn_role", "run_id", "state_directory"]

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


class Run:
    """The directory of one run of a service, kept alive by this object. Not to be used after a fork."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.metrics = path / "metrics"
        self.sockets = path / "sockets"  # made by who listens there
        self._lock = lock

    @classmethod
    def join(cls, settings: Settings, identity: str, *, inheritable: bool = False) -> Run:
        """Make or join the directory, and remove those of runs that ended.

        ``inheritable``: the hold on the run passes through exec, as the launcher needs. Raises OSError where no
        directory can be had; `PermissionError` where it belongs to somebody else; `FileNotFoundError` where root's
        launcher would make the one that was named: gunicorn's workers may be of another account, which could not
        use it.
        """
        if inheritable and settings.runtime_dir and os.getuid() == 0 and not settings.runtime_dir.exists():
            raise FileNotFoundError(f"{settings.runtime_dir} is made by whoever serves")
        runs = base_directory(settings) / "run"
        runs.mkdir(mode=0o700, exist_ok=True)
        path = runs / (_UNSAFE.sub("_", identity) or "_")
        run = cls(path, _hold(path, inheritable))
        run.metrics.mkdir(mode=0o700, exist_ok=True)
        _remove_ended(runs, keep=path)
        return run

    def leave(self) -> None:
        """Let go of the run; the next start removes it when nobody else holds it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def base_directory(settings: Settings) -> Path:
    """The runtime directory, made if missing. Raises OSError, PermissionError where others could write to it."""
    path = settings.runtime_dir or _temporary_directory() / f"c2c-otel-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(
            f"C2C_RUNTIME_DIR is {str(path)!r}; expected a directory that belongs to uid {os.getuid()} and that "
            "nobody else may write to. Remove it or name another one."
        )
    return path


def _temporary_directory() -> Path:
    return Path(tempfile.gettempdir())


def state_directory(settings: Settings) -> Path:
    """Where what survives a restart is kept: one directory for each service name, or, for services without one, for
    each directory that services are started in. Raises as `base_directory`."""
    name = _UNSAFE.sub("_", settings.service_name) if settings.service_name else _of_here()
    path = base_directory(settings) / "state" / name
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _of_here() -> str:
    here = Path(os.path.realpath("."))
    return f"in_{_UNSAFE.sub('_', here.name)}_{hashlib.sha256(os.fsencode(here)).hexdigest()[:12]}"


def run_id(settings: Settings) -> str:
    """``C2C_SERVICE_ID``, else the arbiter's pid and start time under gunicorn, else this process's own."""
    if settings.service_id:
        return settings.service_id
    role = gunicorn_role()
    pid = role[1] if role else os.getpid()
    return f"{pid}-{_start_time(pid)}"


def gunicorn_role() -> tuple[str, int] | None:
    """``("worker" or "arbiter", the arbiter's pid)`` where a gunicorn is loading the application right now.

    Read off the call stack: gunicorn sets nothing else that tells a worker from the arbiter that preloads.
    """
    if "gunicorn" not in sys.modules:
        return None
    frame: Any = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self") if frame.f_globals.get("__name__", "").startswith("gunicorn.") else None
        if owner is not None:
            if hasattr(owner, "ppid") and hasattr(owner, "load_wsgi"):
                return "worker", int(owner.ppid)
            if hasattr(owner, "spawn_worker"):
                return "arbiter", os.getpid()
        frame = frame.f_back
    return None


def _start_time(pid: int) -> str:
    """Clock ticks from boot to the start of a process (field 22 of proc(5) stat), ``0`` where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "0"
    return text.rpartition(")")[2].split()[19]


def _hold(path: Path, inheritable: bool) -> int:
    """A descriptor with a shared lock on ``path/alive``; again if a cleaner was quicker."""
    for _ in range(50):
        path.mkdir(mode=0o700, exist_ok=True)
        try:
            lock = os.open(path / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # removed in between
            continue
        fcntl.flock(lock, fcntl.LOCK_SH)
        if _is_same(lock, path / "alive"):
            os.set_inheritable(lock, inheritable)
            return lock
        os.close(lock)
    raise OSError(f"{path} is removed as often as it is made")


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove_ended(runs: Path, keep: Path) -> None:
    for path in runs.iterdir():
        if path != keep:
            try:
                _remove_if_ended(path)
            except OSError:  # somebody else is at it, or it is not ours: the next start tries again
                guard.count("failed.runtime_dir.clean")


def _remove_if_ended(path: Path) -> None:
    if path.name.startswith("."):
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        lock = os.open(path / "alive", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # just being made
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = path.with_name(f".{uuid.uuid4().hex}")
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(lock)
