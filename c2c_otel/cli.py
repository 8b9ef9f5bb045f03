"""``c2c-otel COMMAND``: everything that the distribution offers to a shell, under one name.

Each command is a module of `c2c_otel.commands`, imported when it is called.

Exit codes: 0; 2 for a usage error or a setting that cannot be used (its message on stderr); else the command's own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from c2c_otel import __version__
from c2c_otel.commands import shell
from c2c_otel.commands.config import settings_page, settings_table

__all__ = ["COMMANDS", "Command", "main", "settings_page", "settings_table"]


class Command(NamedTuple):
    """``module`` has ``main(arguments: Sequence[str] | None = None) -> int``."""

    module: str
    help: str


COMMANDS = {
    "config": Command("c2c_otel.commands.config", "print every setting, its value and where that came from"),
    "doctor": Command("c2c_otel.commands.doctor", "say what is wrong, before a start or with a running service"),
    "run": Command("c2c_otel.commands.run", "serve the application of an ini file with gunicorn"),
    "alive": Command("c2c_otel.commands.alive", "say whether the service of this container answers"),
    "genversion": Command("c2c_otel.commands.genversion", "write versions.json"),
    "stats-db": Command("c2c_otel.commands.stats_db", "measure the tables of a database"),
    "check-es": Command("c2c_otel.commands.check_es", "measure how old the newest entry in Elasticsearch is"),
    "models-graph": Command("c2c_otel.commands.models_graph", "print the classes of an SQLAlchemy model as a graph"),
    "coverage-report": Command("c2c_otel.commands.coverage_report", "what COVERAGE=1 has collected, as HTML and XML"),
    "migrate": Command("c2c_otel.commands.migrate", "rewrite an application that was made for c2cwsgiutils"),
    "test-print": Command("c2c_otel.commands.test_print", "let a MapFish Print server print its examples"),
}
"""In the order in which ``--help`` shows them."""


@shell.command("c2c-otel")
def main(arguments: Sequence[str] | None = None) -> int:
    """The console script."""
    options, rest = _parser().parse_known_args(_first(arguments))
    if rest:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    words = list(sys.argv[1:] if arguments is None else arguments)
    command: Command = COMMANDS[options.command]
    status: int = import_module(command.module).main(words[1:])
    return status


def _first(arguments: Sequence[str] | None) -> list[str]:
    """What comes after the command is the command's."""
    return list(sys.argv[1:] if arguments is None else arguments)[:1]


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    parser = shell.parser(
        "c2c-otel",
        "Observability for Pyramid services.\n\ncommands:\n"
        + "\n".join(f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()),
        "c2c-otel doctor --help\nc2c-otel config --ini production.ini\nc2c-otel run --reload",
        "0; 2: usage, or a setting that cannot be used; else the command's own",
    )
    parser.add_argument("--version", action="version", version=f"c2c-otel {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of those above")
    return parser


if __name__ == "__main__":
    sys.exit(main())
