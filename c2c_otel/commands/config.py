"""``c2c-otel config``: every setting, its value and where that came from. The reference in the docs is made here, too.

Exit codes: 0; 2 for a usage error or a setting that cannot be used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from c2c_otel.commands import ini_file, shell
from c2c_otel.settings import Settings, rows

__all__ = ["main", "settings_page", "settings_table", "shown"]

_PROGRAM = "c2c-otel config"

_WIDE = 45
"""A longer value moves its own source to the right, not those of all settings."""


@shell.command("c2c-otel")
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the settings."""
    parser = shell.parser(
        _PROGRAM,
        "Print every setting, its value and where that came from.",
        "STATSD_PREFIX=shop c2c-otel config --ini production.ini",
        "0; 2: usage, or a setting that cannot be used",
    )
    parser.add_argument("--ini", type=Path, help="an ini file whose [app:main] is read too")
    parser.add_argument("--section", default="main", help="the section app:NAME there (default: main)")
    parser.add_argument("--markdown", action="store_true", help="print the reference of docs/settings.md")
    options = parser.parse_args(arguments)
    if options.markdown:
        print(settings_page())
        return 0
    ini = ini_file.application_settings(options.ini, options.section) if options.ini else {}
    table = [(row.env, shown(value), source) for row, value, source in Settings.load(ini=ini).describe()]
    names = max(len(env) for env, *_ in table)
    values = max(len(value) for _, value, _ in table if len(value) <= _WIDE)
    for env, value, source in table:
        print(f"{env:<{names}}  {value:<{values}}  {source}")
    return 0


_USER = re.compile(r"://[^/\s@]+@")
"""The user and password of a URL, which may be in any setting."""


def shown(value: Any) -> str:
    """A setting's value for people, without the user and password of a URL."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return _USER.sub("://***@", _text(value))


def _text(value: Any) -> str:
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return ",".join(map(str, value)) or "-"
    if hasattr(value, "items"):
        return ",".join(f"{k}={v}" for k, v in value.items()) or "-"
    return str(value)


_INTRODUCTION = """\
# Settings

An environment variable counts where it is set and not empty, else the key in the application's ini section, else the
default. Flags are on for `1`, `true`, `yes`, `on` and off for `0`, `false`, `no`, `off`. A value that cannot be used
ends the start with a message that names it. `c2c-otel config` prints what a process would run with. A `*` stands for
any name. The standard variables of OpenTelemetry that are not in the table do what they do with any OpenTelemetry SDK.

This page is made by `make docs`.
"""


def settings_page() -> str:
    """docs/settings.md."""
    return f"{_INTRODUCTION}\n{settings_table()}"


def settings_table() -> str:
    """All rows as a Markdown table, in the order of the dataclass."""
    lines = ["| Environment | ini | Default | Effect |", "|---|---|---|---|"]
    for row in rows():
        default = "" if row.default in (None, "", ()) else f"`{shown(row.default)}`"
        lines.append(f"| `{row.env}` | {f'`{row.ini}`' if row.ini else ''} | {default} | {row.help} |")
    return "\n".join(lines)
