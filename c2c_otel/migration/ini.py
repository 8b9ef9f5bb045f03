"""ini files: classes of handlers, names of loggers, what is included, filters. Sections keep their names."""

from __future__ import annotations

import configparser
import re

from c2c_otel.migration import names, settings
from c2c_otel.migration.change import Note, Rewritten, Unparsable

__all__ = ["rewrite"]

_SECTION = re.compile(r"^\[([^\]]+)\]")
_OPTION = re.compile(r"^([^\s=:#;\[][^=:]*?)([ \t]*[=:][ \t]*)(.*)$", re.DOTALL)
_FILTER = re.compile(rf"\begg:{names.OLD}#(?:client_info|sentry)[ \t]*")
_STREAM = re.compile(r"""(["'])ext://sys\.(stdout|stderr)\1""")
_OF_NAMES = frozenset({"qualname", "pyramid.includes"})
"""Options whose value may be the package alone; elsewhere that may be a label."""


def rewrite(text: str) -> Rewritten:
    """Raises `Unparsable`."""
    _check(text)
    lines = text.splitlines(keepends=True)
    handlers = _our_handlers(text)
    section = option = ""
    for index, line in enumerate(lines):
        if line.lstrip()[:1] in ("#", ";"):
            continue
        if match := _SECTION.match(line):
            section, option = match[1], ""
        elif match := _OPTION.match(line):
            option = match[1].strip().lower()
            lines[index] = match[1] + match[2] + _value(option, match[3], section in handlers)
        else:  # a further line of the option's value
            lines[index] = _value(option, line, section in handlers)
    changed = "".join(lines)
    _check(changed)
    return Rewritten(changed, (*_left(changed), *settings.notes(changed)))


def _our_handlers(text: str) -> set[str]:
    """Sections of handlers whose class is, or was, one of ours."""
    parser = _parsed(text)
    return {
        name
        for name in parser.sections()
        if name.startswith("handler_") and parser[name].get("class", "").split(".")[0] in (names.OLD, names.NEW)
    }


def _value(option: str, value: str, of_our_handler: bool) -> str:
    value = _FILTER.sub("", value) if option == "pipeline" else value
    if of_our_handler and option == "kwargs":  # the predecessor's own reader of ini files took what dictionaries have
        value = _STREAM.sub(r"sys.\2", value)
    return names.command(names.DOTTED.sub(lambda match: _name(option, match[0]), value))


def _name(option: str, old: str) -> str:
    if old == names.OLD and option not in _OF_NAMES:
        return old
    if option == "pyramid.includes" and old in names.PARTS:
        return names.NEW
    return names.text_moved(old) or old


def _left(text: str) -> list[Note]:
    """Old names that have stayed."""
    notes = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip()[:1] in ("#", ";"):
            continue
        for match in names.DOTTED.finditer(line):
            gone = names.gone(match[0])
            if gone is not None:
                notes.append(Note(number, f"{match[0]} is gone: {gone.instead}", gone.section))
        if entry := re.search(rf"egg:{names.OLD}(?![\w-])(?:#\w+)?", line):
            notes.append(Note(number, f"{entry[0]} is gone: take the filter out", "The include"))
    return notes


def _parsed(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    parser.read_string(text)
    return parser


def _check(text: str) -> None:
    try:
        _parsed(text)
    except configparser.Error as error:
        raise Unparsable(str(error).replace("\n", " ")) from None
