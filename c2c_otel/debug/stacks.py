"""Where each thread is: the answer of each process to debug/stacks, and all of them together."""

from __future__ import annotations

import linecache
import sys
import threading
import tokenize
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["dump_stacks", "merged"]

_FRAMES = 200
"""Frames of one stack, the innermost ones."""

_ALL_FRAMES = 20_000
"""Frames of one answer; stacks are left out that do not fit."""

_SOURCE_BYTES = 4_000_000
"""Source that is read for one answer; what is not is shown without its code."""

Stack = tuple[tuple[str, int, str], ...]


def dump_stacks() -> dict[str, Any]:
    """``{"stacks": [{"frames": [{"file", "line", "function", "code"?}], "threads": ["name(id)"]}]}``, outermost frame
    first; threads that are at the same place are one stack."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks: dict[Stack, list[str]] = {}
    left = _ALL_FRAMES
    for ident, frame in sys._current_frames().items():
        stack = _stack(frame)
        if stack not in stacks:
            if len(stack) > left:
                continue
            left -= len(stack)
        stacks.setdefault(stack, []).append(f"{_text(names.get(ident, ''))}({ident})")
    code = _code(stacks)
    return {
        "stacks": [
            {"frames": [_frame(place, code) for place in stack], "threads": sorted(threads)}
            for stack, threads in stacks.items()
        ]
    }


def merged(answers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The stacks of all processes, those of most threads first; threads are ``host/pid/name(id)``. What is no answer of
    `dump_stacks` is left out."""
    found: dict[Stack, dict[str, Any]] = {}
    for answer in answers:
        process = f"{answer.get('hostname')}/{answer.get('pid')}"
        for stack in answer.get("stacks") or ():
            key = tuple((frame["file"], frame["line"], frame["function"]) for frame in stack["frames"])
            same = found.setdefault(key, {"frames": stack["frames"], "threads": []})
            same["threads"] += [f"{process}/{thread}" for thread in stack["threads"]]
    return sorted(found.values(), key=lambda stack: -len(stack["threads"]))


def _stack(frame: FrameType | None) -> Stack:
    places: list[tuple[str, int, str]] = []
    while frame is not None and len(places) < _FRAMES:
        places.append((_text(frame.f_code.co_filename), frame.f_lineno or 0, _text(frame.f_code.co_name)))
        frame = frame.f_back
    return tuple(reversed(places))


def _frame(place: tuple[str, int, str], code: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    file, line, function = place
    shown: dict[str, Any] = {"file": file, "line": line, "function": function}
    if text := code.get((file, line)):
        shown["code"] = text
    return shown


def _code(stacks: Iterable[Stack]) -> dict[tuple[str, int], str]:
    """The lines of source at these places. Files are read and let go: `linecache` keeps all of them for ever."""
    wanted: dict[str, set[int]] = {}
    for stack in stacks:
        for file, line, _ in stack:
            wanted.setdefault(file, set()).add(line)
    left = _SOURCE_BYTES
    found = {}
    for file, numbers in wanted.items():
        kept = linecache.cache.get(file)
        if kept is not None and len(kept) == 4:
            lines: list[str] = kept[2]
        else:
            lines, length = _read(file, left)
            left -= length
        for number in numbers:
            if 0 < number <= len(lines) and (text := _text(lines[number - 1].strip())):
                found[file, number] = text[:300]
    return found


def _read(file: str, most: int) -> tuple[list[str], int]:
    """The lines of a source file and its length in bytes; nothing of one that is longer, or cannot be read."""
    try:
        if (length := Path(file).stat().st_size) > most:
            return [], 0
        with tokenize.open(file) as source:
            return source.readlines(), length
    except (OSError, SyntaxError, ValueError):  # no such file (<string>, a zip), no such coding
        return [], 0


def _text(value: str) -> str:
    """What JSON can hold: file names may have surrogates."""
    return value.encode("utf-8", "backslashreplace").decode()
