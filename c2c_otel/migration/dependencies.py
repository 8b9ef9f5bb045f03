"""Where an application says that it needs c2cwsgiutils: requirements, pyproject.toml, setup.cfg, Pipfile."""

from __future__ import annotations

import re
import tomllib

from c2c_otel import __version__
from c2c_otel.migration import names
from c2c_otel.migration.change import Note, Rewritten, Unparsable

__all__ = ["DISTRIBUTION", "is_requirement", "requirement", "rewrite", "rewrite_toml"]

DISTRIBUTION = "c2c-otel"

_SPECIFIER = r"(?:===|[=~!<>]=|[<>])\s*[\w.*+!-]+"
_REQUIREMENT = re.compile(
    rf"(?<![\w./@:#=-]){names.OLD}(?![\w#/.:-])"
    rf"(?:\s*\[(?P<extras>[\w\s,.-]*)\])?"
    rf"(?P<versions>\s*\(?{_SPECIFIER}(?:\s*,\s*{_SPECIFIER})*\)?)?",
    re.IGNORECASE,
)
_MENTION = re.compile(rf"(?<![\w-]){names.OLD}(?![\w-])", re.IGNORECASE)
_BROUGHT = Note(0, "c2cwsgiutils brought lxml, boltons, ujson and more; name what the application imports", "Names")
_KEY = re.compile(rf"""^(\s*)(["']?){names.OLD}\2(\s*=\s*)(.+)$""", re.IGNORECASE)
_SECTION = re.compile(rf"^\s*\[[^\]]*\b{names.OLD}\b[^\]]*\]", re.IGNORECASE)


def is_requirement(text: str) -> bool:
    """Whether a whole text is a requirement of the predecessor's distribution."""
    match = _REQUIREMENT.match(text)
    return match is not None and text[match.end() :].lstrip()[:1] in ("", ";")


def requirement(text: str) -> str:
    """All requirements in a text: ``c2cwsgiutils[standard]==4.1.1`` and the like. A pin stays a pin."""
    return _REQUIREMENT.sub(_new, text)


def _new(match: re.Match[str]) -> str:
    extras = _extras(re.split(r"[\s,]+", match["extras"] or ""))
    versions = match["versions"] or ""
    version = "" if not versions.strip() else f"{'==' if '==' in versions else '>='}{__version__}"
    return f"{DISTRIBUTION}{f'[{extras}]' if extras else ''}{version}"


def _extras(old: list[str]) -> str:
    return ",".join(sorted({new for name in old for new in names.EXTRAS.get(name.lower(), ())}))


def rewrite(text: str) -> Rewritten:
    """A requirements file, or any other text of lines in which a requirement may stand."""
    lines = text.splitlines(keepends=True)
    notes = []
    for number, line in enumerate(lines, 1):
        code, hash_, comment = line.partition("#") if not re.search(r"\S#", line) else (line, "", "")
        if not _REQUIREMENT.search(code):
            if _MENTION.search(code) and not code.lstrip().startswith("#"):
                notes.append(Note(number, f"it names {names.OLD}: {line.strip()}", "Names"))
            continue
        following = "".join(lines[number - 1 : number + 1])
        if "--hash" in following:
            notes.append(Note(number, "a requirement with hashes is resolved anew, by the tool that wrote it", "Names"))
            continue
        lines[number - 1] = requirement(code) + hash_ + comment
        notes.append(_BROUGHT)
    return Rewritten("".join(lines), tuple(dict.fromkeys(notes)))


def rewrite_toml(text: str) -> Rewritten:
    """pyproject.toml or a Pipfile: requirements, and keys of tables as Poetry and pipenv have them."""
    _check(text)
    notes = []
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        key = _KEY.match(line)
        if _SECTION.match(line):
            notes.append(Note(number, f"a table of its own for {names.OLD}: write it for {DISTRIBUTION}", "Names"))
        elif key is not None:
            lines[number - 1] = f"{key[1]}{key[2]}{DISTRIBUTION}{key[2]}{key[3]}{_value(key[4])}" + _end(line)
            notes.append(_BROUGHT)
        elif _REQUIREMENT.search(line) and not line.lstrip().startswith("#"):
            quoted = re.sub(r"""(["'])(?:(?!\1).)*\1""", _quoted, line)
            if quoted != line:
                lines[number - 1] = quoted
                notes.append(_BROUGHT)
    changed = "".join(lines)
    _check(changed)
    return Rewritten(changed, tuple(dict.fromkeys(notes)))


def _quoted(match: re.Match[str]) -> str:
    inner = match[0][1:-1]
    return match[1] + requirement(inner) + match[1] if is_requirement(inner) else match[0]


def _end(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]


def _value(value: str) -> str:
    """``"4.1.1"`` or ``{version = "4.1.1", extras = ["standard"]}``."""

    def version(match: re.Match[str]) -> str:
        return f'{match[1]}"{"" if match[2][:1].isdigit() or match[2][:2] == "==" else ">="}{__version__}"'

    def extras(match: re.Match[str]) -> str:
        new = _extras(re.findall(r"[\w-]+", match[1]))
        return "extras = [" + ", ".join(f'"{name}"' for name in new.split(",") if name) + "]"

    value = value.rstrip("\r\n")
    if quoted := re.match(r"""()["']([^"']*)["']""", value):
        return value if quoted[2] == "*" else version(quoted) + value[quoted.end() :]
    value = re.sub(r"""(version\s*=\s*)["']([^"'*]*)["']""", version, value)
    return re.sub(r"extras\s*=\s*\[([^\]]*)\]", extras, value)


def _check(text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Unparsable(str(error)) from None
