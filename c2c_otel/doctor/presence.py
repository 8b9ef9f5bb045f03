"""Which processes a run of a service has: a file each in ``{run}/processes/``, removed as the process ends.

What is left of one that is no more tells that it was killed: nobody else keeps that, gunicorn starts another one.

    {"pid": 4711, "start": "8263", "host": "web1", "namespace": "pid:[4026531836]", "parent": 4700,
     "worker": true, "born": 1700000000.5}

``start`` is the process's start time (field 22 of proc(5) stat), so that another process of the same pid is not taken
for it, and ``namespace`` tells whose pids they are (containers may share a volume and a name); ``worker``: whether
gunicorn forked it to serve.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import NamedTuple

from c2c_otel_exporters import guard

__all__ = ["Presence", "announce", "forget", "present", "withdraw"]

_DIRECTORY = "processes"
_KEPT = 20
"""Traces of the dead that are kept; the oldest go first."""

_announced: tuple[int, Path] | None = None


class Presence(NamedTuple):
    """One process that has announced itself. ``state`` is its letter in proc(5) stat (R, S, D; T: stopped; Z: zombie),
    empty where it is no more; None where that cannot be told, because it is of another host or container."""

    pid: int
    parent: int
    host: str
    worker: bool
    born: float
    state: str | None

    @property
    def name(self) -> str:
        """``hostname/pid``, as the broadcast has it."""
        return f"{self.host}/{self.pid}"


def announce(run: Path, *, worker: bool) -> None:
    """This process is there, from now until `withdraw`. Idempotent. Where it cannot be written, nothing happens."""
    global _announced
    pid = os.getpid()
    if _announced is not None and _announced[0] == pid:
        return
    path = run / _DIRECTORY / f"{pid}-{start_time(pid)}"
    content = {
        "pid": pid,
        "start": start_time(pid),
        "host": socket.gethostname(),
        "namespace": _namespace(),
        "parent": os.getppid(),
        "worker": worker,
        "born": time.time(),
    }
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        hidden = path.with_name(f".{path.name}")
        hidden.write_text(json.dumps(content), encoding="utf-8")
        hidden.rename(path)
        _announced = pid, path
        _remove_old(path.parent)
    except OSError:
        guard.count("failed.doctor.announce")


def withdraw() -> None:
    """This process ends as it should. Not what it has from its parent. Idempotent."""
    global _announced
    announced, _announced = _announced, None
    if announced is not None and announced[0] == os.getpid():
        announced[1].unlink(missing_ok=True)


def present(run: Path) -> list[Presence]:
    """All that have announced themselves, the living and those that ended without `withdraw`, oldest first."""
    found = [_read(path) for path in _files(run / _DIRECTORY)]
    return sorted((one for one in found if one is not None), key=lambda one: one.born)


def forget(run: Path) -> int:
    """Remove what the dead have left; how many that was."""
    dead = [path for path in _files(run / _DIRECTORY) if (one := _read(path)) is not None and one.state == ""]
    for path in dead:
        path.unlink(missing_ok=True)
    return len(dead)


def _files(directory: Path) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []


def _read(path: Path) -> Presence | None:
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
        pid, host = int(text["pid"]), str(text["host"])
        here = (host, text["namespace"]) == (socket.gethostname(), _namespace())
        state = process_state(pid, str(text["start"])) if here else None
        return Presence(pid, int(text["parent"]), host, bool(text["worker"]), float(text["born"]), state)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove_old(directory: Path) -> None:
    dead = [(one.born, path) for path in _files(directory) if (one := _read(path)) is not None and one.state == ""]
    for _, path in sorted(dead)[:-_KEPT]:
        path.unlink(missing_ok=True)


def start_time(pid: int) -> str:
    """Clock ticks from boot to the start of a process; ``0`` where that is not known."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else "0"


def process_state(pid: int, start: str) -> str | None:
    """See `Presence.state`."""
    if not Path("/proc/self/stat").exists():
        return None
    fields = _stat(pid)
    return fields[0] if len(fields) > 19 and fields[19] == start else ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it leads nowhere, its text is what counts
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """The fields of proc(5) stat from the third on; none where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
