"""What the kernel says of a process's memory: /proc/PID/smaps."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["FIELDS", "read"]

FIELDS = {"pss": "Pss", "rss": "Rss", "size": "Size"}
"""``pss``: shared pages are divided among those who share them; ``rss``: what is in memory; ``size``: addresses."""

# proc(5): a line "from-to mode offset device inode   name", then lines "Field:   n kB".
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S{4} [0-9a-f]+ \S+ \d+ *(.*)")


def read(pid: int | str, *fields: str) -> dict[str, dict[str, int]]:
    """KiB of each of these fields by name: the file, what the kernel calls the mapping (``[heap]``), or ``[anon]``;
    mappings of one name are added up. Raises OSError where the process is gone or somebody else's, or where the
    system has no /proc."""
    wanted = {f"{FIELDS[field]}:": field for field in fields}
    found: dict[str, dict[str, int]] = {}
    sizes: dict[str, int] = {}
    with Path(f"/proc/{pid}/smaps").open(errors="replace") as lines:
        for line in lines:
            if field := wanted.get(line.partition(" ")[0]):
                sizes[field] += int(line.split()[1])
            elif match := _MAPPING.fullmatch(line.rstrip("\n")):
                sizes = found.setdefault(match[1] or "[anon]", dict.fromkeys(fields, 0))
    return found
