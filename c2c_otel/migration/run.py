"""All files of an application: what would change, what has changed, what is left for a person."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from c2c_otel.migration import files, names
from c2c_otel.migration.change import Note, Rewritten, Unparsable

__all__ = ["File", "diff", "look", "write"]


@dataclasses.dataclass(frozen=True)
class File:
    """``before`` and ``after`` are equal where nothing is to be done; ``trouble`` says why the file was left alone."""

    path: Path
    before: str = ""
    after: str = ""
    notes: tuple[Note, ...] = ()
    trouble: str = ""

    @property
    def changes(self) -> bool:
        return self.before != self.after


def look(root: Path, image: str) -> Iterator[File]:
    """Each file that has something to do with the predecessor, or is in need of a person. Nothing is written."""
    for path in files.find(root):
        rewrite = files.rewriter(path, image)
        if rewrite is None:
            continue
        try:
            raw = path.read_bytes()
        except OSError as error:
            yield File(path, trouble=f"cannot be read: {error.strerror}")
            continue
        if len(raw) > files.MOST_BYTES or b"\0" in raw or not _concerns(raw):
            continue
        try:
            before = raw.decode()
            done: Rewritten = rewrite(before)
        except UnicodeDecodeError:
            yield File(path, trouble="is not UTF-8")
        except Unparsable as error:
            yield File(path, trouble=f"cannot be parsed: {error}")
        else:
            yield File(path, before, done.text, tuple(sorted(set(done.notes))))


def _concerns(raw: bytes) -> bool:
    """A setting that means something else now is of interest wherever it is."""
    return any(word in raw for word in (names.OLD.encode(), names.NEW.encode(), b"c2c.", b"C2C_", b"STATS_VIEW"))


def diff(file: File, root: Path) -> str:
    """A unified diff, as ``patch`` takes it."""
    name = _name(file.path, root)
    lines = difflib.unified_diff(
        file.before.splitlines(keepends=True), file.after.splitlines(keepends=True), f"a/{name}", f"b/{name}"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _name(path: Path, root: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()


def write(file: File) -> None:
    """In the place of what was there, whole or not at all, with its mode. Raises OSError."""
    path = file.path.resolve()  # a link that was named itself stays one
    mode = path.stat().st_mode
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as output:
            output.write(file.after)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
