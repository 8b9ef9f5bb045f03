"""``c2c-otel``: what an operator asks of the distribution from a shell.

Exit codes: 0; 2 for a usage error or a setting that cannot be used (its message on stderr).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from c2c_otel import __version__
from c2c_otel.settings import ConfigurationError, Settings, rows

__all__ = ["main", "settings_page", "settings_table"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        status = run(options)
        if sys.stdout is not None:  # as it is where a shell has closed it
            sys.stdout.flush()
        return status
    except ConfigurationError as error:
        print(f"c2c-otel: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads has seen enough; the interpreter flushes once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="c2c-otel", description="Observability for Pyramid services.")
    parser.add_argument("--version", action="version", version=f"c2c-otel {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    config = commands.add_parser(
        "config",
        help="print every setting, its value and where that came from",
        epilog="example: STATSD_PREFIX=shop c2c-otel config --ini production.ini",
    )
    config.add_argument("--ini", type=Path, help="an ini file whose [app:main] is read too")
    config.add_argument("--section", default="main", help="the section app:NAME there (default: main)")
    config.add_argument("--markdown", action="store_true", help="print the reference of docs/settings.md")
    config.set_defaults(run=_config)
    return parser


def _config(options: argparse.Namespace) -> int:
    if options.markdown:
        print(settings_page())
        return 0
    ini = _ini(options.ini, options.section) if options.ini else {}
    table = [
        (row.env, _shown(value), f"{source}{' (not used yet)' if row.planned else ''}")
        for row, value, source in Settings.load(ini=ini).describe()
    ]
    widths = [max(len(line[column]) for line in table) for column in (0, 1)]
    for env, value, source in table:
        print(f"{env:<{widths[0]}}  {value:<{widths[1]}}  {source}")
    return 0


def _ini(path: Path, section: str) -> dict[str, Any]:
    """What the application would be given. Nothing of it is imported, so that it need not be installed here."""
    import plaster

    from c2c_otel.loader import Loader

    if not path.is_file():
        raise ConfigurationError("--ini", str(path), "an ini file that can be read")
    try:
        loader = Loader(plaster.PlasterURL("c2c", str(path)))
        found: dict[str, Any] = dict(loader.get_settings(f"app:{section}"))
    except Exception as error:  # of the parser
        why = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise ConfigurationError("--ini", str(path), "an ini file", why) from None
    if not found:
        raise ConfigurationError("--section", section, f"an [app:...] in {path}")
    scheme, separator, rest = found.get("use", "").partition(":")
    if not separator and scheme:
        return _ini(path, scheme) | found
    if scheme == "config":
        base, _, name = rest.partition("#")
        return _ini(path.parent / base, name or "main") | found
    return found


_USER = re.compile(r"://[^/\s@]+@")
"""The user and password of a URL, which may be in any setting."""


def _shown(value: Any) -> str:
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
        default = "" if row.default in (None, "", ()) else f"`{_shown(row.default)}`"
        planned = " *Accepted, not used yet.*" if row.planned else ""
        lines.append(f"| `{row.env}` | {f'`{row.ini}`' if row.ini else ''} | {default} | {row.help}{planned} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
