"""What a rewriter returns."""

from __future__ import annotations

import dataclasses

__all__ = ["Note", "Rewritten", "Unparsable"]


class Unparsable(Exception):  # noqa: N818 - a verdict on the file, no failure of ours
    """A file that is not what its name says. The message says where and why; the file stays as it is."""


@dataclasses.dataclass(frozen=True, order=True)
class Note:
    """Something that a person must look at. ``line`` counts from 1 in the rewritten text, 0: the whole file.
    ``section``: a heading of docs/migrating.md."""

    line: int
    text: str
    section: str


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """A text, which may be the one that was given, and what a person must look at."""

    text: str
    notes: tuple[Note, ...] = ()
