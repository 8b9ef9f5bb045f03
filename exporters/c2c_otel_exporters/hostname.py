"""The host's full name, for the ``host`` field of log lines, without ever waiting for a name server.

``socket.getfqdn`` asks one, and where none answers that takes many seconds: at the first log line. Here the
host's own name and the hosts file answer; only where they know no full name, and only where threads are
allowed, a thread asks the resolver once, and lines have the short name until it answers.
"""

from __future__ import annotations

import socket
from pathlib import Path

from c2c_otel_exporters import background

__all__ = ["host_name", "reset"]

_HOSTS = Path("/etc/hosts")
_name: str | None = None
_settled = False


def host_name() -> str:
    """The best name known at this moment; the first call reads the hosts file, later ones a variable."""
    global _name, _settled
    if _name is None:
        _name, _settled = _local_name()
    if not _settled and background.allowed():
        _settled = True
        background.run(_ask, "c2c-otel-host-name")
    return _name


def reset() -> None:
    """Forget what was found (tests)."""
    global _name, _settled
    _name, _settled = None, False


def _local_name() -> tuple[str, bool]:
    """The name, and whether there is nothing better to be had by asking the resolver."""
    name = socket.gethostname()
    if "." in name:
        return name, True
    try:
        text = _HOSTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return name, False
    found = False
    for line in text.splitlines():
        names = line.partition("#")[0].split()[1:]
        if name in names:
            found = True
            full = next((other for other in names if other.startswith(f"{name}.")), None)
            if full is not None:
                return full, True
    return name, found


def _ask() -> None:
    global _name
    try:
        name = socket.getfqdn()
    except OSError:
        return
    if name and not name.startswith("localhost"):
        _name = name
