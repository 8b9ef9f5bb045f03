"""Which version of the application this process runs: from versions.json, which c2c-otel-genversion writes."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import lru_cache
from pathlib import Path

from c2c_otel import broadcast, telemetry
from c2c_otel_exporters import names
from c2c_otel_exporters.model import Kind, Metric

__all__ = ["CHANNEL", "STARTS", "count_start", "everywhere", "follow", "get_version"]

CHANNEL = "c2c_version"

STARTS = Metric("c2c_otel.version.starts", Kind.COUNTER, "", "Processes that started, by version of the application.")

_running: str | None = None
"""What `count_start` has found first; of several applications, that of one."""
_counted_in = 0


def get_version(path: Path | None = None) -> str | None:
    """``git_hash`` of the application, or None where there is no versions.json. The file (``C2C_VERSIONS_FILE``) is
    read once: what replaces it later is not what this process runs."""
    return _read(path or telemetry.get().settings.versions_file)


@lru_cache(maxsize=8)
def _read(path: Path) -> str | None:
    try:
        found = json.loads(path.read_bytes())["main"]["git_hash"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return str(found) if found else None


# -- counted ----------------------------------------------------------------------------------------------------------


def count_start(path: Path) -> None:
    """Count ``version.{git_hash}`` once in each process that serves, from its start on."""
    global _running
    if _running is None:
        _running = get_version(path)
        if _running is not None:
            broadcast.on_join(_count)


def _count() -> None:
    global _counted_in
    if _running is not None and _counted_in != os.getpid():
        _counted_in = os.getpid()
        telemetry.get().sink.counter(_start, _running).add()


def _start(version: str) -> names.Series:
    tags = (("version", version),)
    return names.Series(("version", version), ("version",), tags, (), (), STARTS, tags)


# -- asked ------------------------------------------------------------------------------------------------------------


def follow(path: Path) -> None:
    """Answer other processes with the version of this one."""
    broadcast.subscribe(CHANNEL, lambda: get_version(path))


def everywhere(seconds: float) -> Counter[str]:
    """How many processes of the service run which version; those that do not answer in time, or have none, are left
    out."""
    answers = broadcast.broadcast(CHANNEL, expect_answers=True, timeout=seconds)
    return Counter(answer for answer in answers or () if isinstance(answer, str))
