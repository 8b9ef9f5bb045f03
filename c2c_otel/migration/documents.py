"""Compose files and other YAML, shell scripts, Makefiles, .env files: images, commands, dotted names, requirements."""

from __future__ import annotations

import re

from c2c_otel.migration import dependencies, images, names, settings
from c2c_otel.migration.change import Note, Rewritten, Unparsable

__all__ = ["INSTALLS", "left", "rewrite", "rewrite_yaml", "words"]

_MENTION = re.compile(rf"(?<!\w){names.OLD}(?!\w)")
_BIND = re.compile(r"(?:-b|--bind)[ =]*\S*:(?P<port>\d{1,3})\b")
_IMAGE_LINE = re.compile(r"^(\s*(?:-\s+)?image:\s*)(.*)$", re.DOTALL)
INSTALLS = re.compile(r"\b(?:pip3?|poetry|pipenv|uv|pipx)\b.*\b(?:install|add)\b", re.DOTALL)
"""A shell line that names requirements."""


def rewrite(text: str, new_image: str = images.IMAGE) -> Rewritten:
    """A text of lines, whatever its language; comments with ``#`` stay."""
    lines = text.splitlines(keepends=True)
    notes: list[Note] = []
    for index, line in enumerate(lines):
        if line.lstrip().startswith("#"):
            continue
        if match := _IMAGE_LINE.match(line):
            new, unsure = images.image(match[2], new_image)
            if unsure:
                notes.append(Note(index + 1, f"which image of ours: {line.strip()}", "Image"))
            if new != match[2]:
                notes.append(Note(index + 1, images.NOT_ROOT, "Image"))
                lines[index] = match[1] + new
            continue
        lines[index] = _line(line)
    changed = "".join(lines)
    return Rewritten(changed, (*notes, *left(changed), *settings.notes(changed)))


def rewrite_yaml(text: str, new_image: str = images.IMAGE) -> Rewritten:
    """Raises `Unparsable`: templates of Helm, for example."""
    before = _shape(text)
    done = rewrite(text, new_image)
    if _shape(done.text) != before:  # pragma: no cover - a guard: words are exchanged for words
        raise Unparsable("it would be another document")
    return done


def left(text: str) -> list[Note]:
    """Old names that have stayed, and ports that are root's."""
    notes = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        for match in names.DOTTED.finditer(line):
            gone = names.gone(match[0])
            if gone is not None:
                notes.append(Note(number, f"{match[0]} is gone: {gone.instead}", gone.section))
        if _MENTION.search(line) and not (notes and notes[-1].line == number) and not images.image(line, "")[1]:
            notes.append(Note(number, f"it names {names.OLD}: {line.strip()}", "Names"))
        if (bind := _BIND.search(line)) and int(bind["port"]) < 1024:
            what = f"port {bind['port']}: who is not root may need net.ipv4.ip_unprivileged_port_start=0, or 8080"
            notes.append(Note(number, what, "Image"))
    return notes


def words(line: str) -> str:
    """Commands and dotted names."""
    return names.DOTTED.sub(lambda match: _dotted(match[0]), names.command(line))


def _line(line: str) -> str:
    line = words(line)
    return dependencies.requirement(line) if INSTALLS.search(line) else line


def _dotted(old: str) -> str:
    """The package alone may be the name of a service, or a directory."""
    return old if old == names.OLD else names.text_moved(old) or old


def _shape(text: str) -> object:
    import yaml

    try:
        return [_outline(node) for node in yaml.compose_all(text, yaml.SafeLoader)]
    except yaml.YAMLError as error:
        raise Unparsable(" ".join(str(error).split())) from None


def _outline(node: object) -> object:
    """The document without what its texts say. Nothing is constructed: tags may be anybody's."""
    value = getattr(node, "value", None)
    if isinstance(value, list):
        return [_outline(one) if not isinstance(one, tuple) else tuple(map(_outline, one)) for one in value]
    return None
