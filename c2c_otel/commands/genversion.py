"""``c2c-otel-genversion [TAG] HASH``: write versions.json, which {base}/versions.json shows.

    {"main": {"git_hash": "...", "git_tag": "..."}, "packages": {"pyramid": "2.0.2", ...}, "commits": {"myapp": "..."}}

``packages`` are those that this Python can import, as their metadata names them; ``commits`` has those that were
installed from a repository, and is left out where there are none.

Exit codes: 0; 1 where the file cannot be written; 2 for a usage error.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from c2c_otel.commands import shell

__all__ = ["main", "packages", "versions"]

_PROGRAM = "c2c-otel-genversion"


@shell.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The console script."""
    parser = shell.parser(
        _PROGRAM,
        "Write the version of the application, and those of all installed packages, to versions.json.",
        'c2c-otel-genversion "$(git rev-parse HEAD)"\n'
        'c2c-otel-genversion 1.4.0 "$(git rev-parse HEAD)"\n'
        'RUN c2c-otel-genversion "$GIT_TAG" "$GIT_HASH"    # in a Dockerfile; an empty tag is none',
        "0; 1: the file cannot be written; 2: usage",
    )
    parser.add_argument("tag", metavar="TAG", nargs="?", help="the tag that was built, if any")
    parser.add_argument("hash", metavar="HASH", help="the commit that was built")
    parser.add_argument("--output", type=Path, default=Path("versions.json"), help="default: ./versions.json")
    options = parser.parse_args(arguments)
    if not options.hash.strip():
        parser.error("HASH is ''; expected the commit that was built")
    found = list(importlib.metadata.distributions())
    content = versions(options.tag, options.hash, found)
    for place in _nameless(found):
        shell.complain(_PROGRAM, f"{place} has no name or version; it is left out")
    try:
        _write(options.output, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        shell.complain(_PROGRAM, f"{options.output} cannot be written: {error.strerror}")
        return 1
    return 0


def versions(tag: str | None, commit: str, found: Iterable[importlib.metadata.Distribution]) -> dict[str, Any]:
    """The content of versions.json."""
    chosen = packages(found)
    main = {"git_hash": commit.strip()} | ({"git_tag": tag.strip()} if tag and tag.strip() else {})
    commits = {name: commit_id for name, one in chosen.items() if (commit_id := _commit(one))}
    content: dict[str, Any] = {"main": main, "packages": {name: one.version for name, one in chosen.items()}}
    return content | ({"commits": commits} if commits else {})


def packages(found: Iterable[importlib.metadata.Distribution]) -> dict[str, importlib.metadata.Distribution]:
    """By name, sorted without regard to case. Of two with the same name the first one found is the one that counts: it
    is the one that is imported."""
    chosen: dict[str, tuple[str, importlib.metadata.Distribution]] = {}
    for one in found:
        name = _name(one)
        if name:
            chosen.setdefault(name.lower().replace("_", "-").replace(".", "-"), (name, one))
    return dict(sorted(chosen.values(), key=lambda item: item[0].lower()))


def _name(one: importlib.metadata.Distribution) -> str | None:
    """None of one that is half installed, or half removed."""
    try:
        metadata: Any = one.metadata
        return metadata["Name"] if metadata is not None and metadata["Version"] else None
    except Exception:
        return None


def _nameless(found: Iterable[importlib.metadata.Distribution]) -> list[str]:
    return sorted(str(getattr(one, "_path", one)) for one in found if not _name(one))


def _commit(one: importlib.metadata.Distribution) -> str | None:
    """What PEP 610 says of a package that was installed from a repository."""
    try:
        found = json.loads(one.read_text("direct_url.json") or "{}").get("vcs_info", {}).get("commit_id")
    except (ValueError, AttributeError):
        return None
    return str(found) if found else None


def _write(path: Path, text: str) -> None:
    """As a whole or not at all; readable for whoever could read a file that is made here. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
