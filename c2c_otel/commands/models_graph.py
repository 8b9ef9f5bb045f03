"""``c2c-otel-models-graph MODULE [BASE]``: see `c2c_otel.models_graph`.

Exit codes: 0; 1 where the module has no such base, or cannot be imported or configured; 2 for a usage error.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from c2c_otel.commands import shell
from c2c_otel.models_graph import ModelError, model_graph

__all__ = ["main"]

_PROGRAM = "c2c-otel-models-graph"


@shell.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The console script."""
    options = _parser().parse_args(arguments)
    try:
        text = model_graph(_imported(options.module), options.base)
    except (ImportError, ModelError) as error:
        shell.complain(_PROGRAM, error)
        return 1
    print(text, end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = shell.parser(
        _PROGRAM,
        "Print the classes of an SQLAlchemy model as a graph for Graphviz' dot, or for Doxygen's dotfile.",
        f"{_PROGRAM} myapp.models | dot -Tsvg > models.svg\n{_PROGRAM} myapp.models Animal > animals.dot",
        "0; 1: no such module or base, or a model that cannot be configured; 2: usage",
    )
    parser.add_argument("module", metavar="MODULE", help="where the classes are: myapp.models")
    parser.add_argument(
        "base",
        metavar="BASE",
        nargs="?",
        help="the class from which they are derived (default: Base, or the only declarative base there)",
    )
    return parser


def _imported(name: str) -> ModuleType:
    """The module, also where it is under the current directory: a console script does not look there."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main())
