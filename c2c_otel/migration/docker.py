"""Dockerfiles: the base image, commands, requirements. Who runs as whom."""

from __future__ import annotations

import dataclasses
import re

from c2c_otel.migration import dependencies, documents, images, settings
from c2c_otel.migration.change import Note, Rewritten, Unparsable

__all__ = ["USER", "rewrite"]

USER = "10001"
"""As in our Dockerfile: a number, so that Kubernetes can see that it is not root."""

_INSTRUCTION = re.compile(r"^\s*([A-Za-z]+)(?=\s)")
_KNOWN = frozenset({
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER",
    "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
})  # fmt: skip
_HERE = re.compile(r"\s*(?:RUN|COPY|ADD)\s", re.IGNORECASE)


@dataclasses.dataclass
class _Instruction:
    """``lines``: indices of its first and last line; ``name`` in capitals."""

    name: str
    first: int
    last: int


def rewrite(text: str, new_image: str = images.IMAGE) -> Rewritten:
    """Raises `Unparsable`. Stages from the old image go on as root, as they did, and end as the image's user."""
    lines = text.splitlines(keepends=True)
    instructions = _instructions(lines)
    notes: list[Note] = []
    before: dict[int, str] = {}
    after: dict[int, str] = {}
    for position, instruction in enumerate(instructions):
        span = range(instruction.first, instruction.last + 1)
        if instruction.name == "FROM":
            was = "".join(lines[index] for index in span)
            new, unsure = images.image(was, new_image)
            if unsure:
                notes.append(Note(instruction.first + 1, f"which image of ours: {was.strip()}", "Image"))
            if new != was:
                lines[instruction.first : instruction.last + 1] = _same_count(new, len(span))
                _users(instructions, position, before, after)
                notes.append(Note(instruction.first + 1, images.NOT_ROOT, "Image"))
            continue
        installs = documents.INSTALLS.search("".join(lines[index] for index in span)) is not None
        for index in span:
            if not lines[index].lstrip().startswith("#"):
                lines[index] = _line(lines[index], installs)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    out = []
    for index, line in enumerate(lines):
        if index in before:
            out.append(before[index] + end)
        out.append(line if line.endswith("\n") or index not in after else line + end)
        if index in after:
            out.append(after[index] + end)
    changed = "".join(out)
    _instructions(changed.splitlines(keepends=True))
    return Rewritten(changed, (*(_moved(note, before, after) for note in notes), *_left(changed)))


def _line(line: str, installs: bool) -> str:
    line = documents.words(line)
    return dependencies.requirement(line) if installs else line


def _users(instructions: list[_Instruction], start: int, before: dict[int, str], after: dict[int, str]) -> None:
    """Root where the stage installs, and the image's user from there on, unless the stage says who."""
    stage = []
    for instruction in instructions[start + 1 :]:
        if instruction.name == "FROM":
            break
        stage.append(instruction)
    if not any(instruction.name == "RUN" for instruction in stage):
        return
    if any(instruction.name == "USER" for instruction in stage):
        return
    after[instructions[start].last] = "USER root"
    ends = [instruction for instruction in stage if instruction.name in ("CMD", "ENTRYPOINT")]
    if ends and all(one.name not in ("RUN",) for one in stage[stage.index(ends[0]) :]):
        before[ends[0].first] = f"USER {USER}"
    else:
        after[stage[-1].last] = f"USER {USER}"


def _moved(note: Note, before: dict[int, str], after: dict[int, str]) -> Note:
    more = sum(index < note.line for index in before) + sum(index < note.line - 1 for index in after)
    return dataclasses.replace(note, line=note.line + more)


def _left(text: str) -> list[Note]:
    return [*documents.left(text), *settings.notes(text)]


def _same_count(text: str, count: int) -> list[str]:
    lines = text.splitlines(keepends=True)
    assert len(lines) == count
    return lines


def _instructions(lines: list[str]) -> list[_Instruction]:
    """Raises `Unparsable` for a line that begins with no instruction."""
    found: list[_Instruction] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        if not line.strip() or line.lstrip().startswith("#"):
            index += 1
            continue
        match = _INSTRUCTION.match(line)
        if match is None or match[1].upper() not in _KNOWN:
            raise Unparsable(f"line {index + 1}: no instruction: {line.strip()[:40]}")
        last = _last(lines, index)
        found.append(_Instruction(match[1].upper(), index, last))
        index = last + 1
    return found


def _last(lines: list[str], index: int) -> int:
    """The last line of an instruction: continued by a backslash, or a here-document."""
    here = re.findall(r"<<-?\s*[\"']?(\w+)[\"']?", lines[index]) if _HERE.match(lines[index]) else []
    while lines[index].rstrip().endswith("\\") and index + 1 < len(lines):
        index += 1
        while index + 1 < len(lines) and (not lines[index].strip() or lines[index].lstrip().startswith("#")):
            index += 1
    for word in here:
        while index + 1 < len(lines) and lines[index].strip() != word:
            index += 1
    return index
