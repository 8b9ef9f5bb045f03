"""The memory of a process, by what is mapped there."""

from __future__ import annotations

from typing import Any

from c2c_otel import smaps

__all__ = ["dump_memory_maps"]


def dump_memory_maps(pid: int | str = "self") -> list[dict[str, Any]]:
    """``{"name", "pss_kb", "rss_kb", "size_kb"}`` of each file or other mapping, biggest ``pss_kb`` first; those
    without any are left out. Nothing of a process that is gone or may not be read, or where there is no /proc."""
    try:
        mappings = smaps.read(pid, "pss", "rss", "size")
    except OSError:
        return []
    found = [
        {"name": name, "pss_kb": sizes["pss"], "rss_kb": sizes["rss"], "size_kb": sizes["size"]}
        for name, sizes in mappings.items()
        if sizes["pss"]
    ]
    return sorted(found, key=lambda one: (-int(one["pss_kb"]), str(one["name"])))
