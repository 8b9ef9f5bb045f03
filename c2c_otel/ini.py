"""What an ini file may refer to as ``%(NAME)s``: every variable of the environment, whatever its value.

A ``%`` in a value is only a ``%``. The predecessor doubled it in one place and not in another, so that a database
URL with ``%40`` in its password worked in the service and not in ``pserve``.
"""

from __future__ import annotations

import configparser
from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from pathlib import Path

__all__ = ["Verbatim", "logging_parser", "verbatim"]


class Verbatim(str):
    """A text in which the interpolation of `configparser` sees no ``%``; in all else it is the text.

    PasteDeploy hands the same values on to the parsers of further files, interpolated or not, and to the
    application: doubling the ``%`` would be undone in one of them and be visible in the other.
    """

    __slots__ = ()

    def find(self, *args: object) -> int:
        """-1 for the ``%`` that `configparser` looks for."""
        return -1 if args == ("%",) else str.find(self, *args)  # type: ignore[arg-type]  # str checks them

    def __contains__(self, part: object) -> bool:
        return part != "%" and str.__contains__(self, part)  # type: ignore[operator]  # str checks it


def verbatim(values: Mapping[str, str]) -> dict[str, str]:
    """The values, those with a ``%`` as `Verbatim`."""
    return {name: Verbatim(value) if "%" in value else value for name, value in values.items()}


class _Environment(configparser.BasicInterpolation):
    """Interpolates variables without making them options: a variable named ``LEVEL`` or ``ARGS`` would otherwise
    be one of every section that `logging.config.fileConfig` reads."""

    def __init__(self, values: Mapping[str, str]) -> None:
        # As options, without regard to case; where two variables differ only in that, the upper-case one is meant.
        ordered = sorted(values.items(), key=lambda item: item[0].isupper())
        self._values = {name.lower(): value for name, value in verbatim(dict(ordered)).items()}

    def before_get(
        self,
        parser: MutableMapping[str, Mapping[str, str]],
        section: str,
        option: str,
        value: str,
        defaults: Mapping[str, str],
    ) -> str:
        known = ChainMap(dict(defaults), self._values)
        return super().before_get(parser, section, option, value, known)


def logging_parser(path: Path, environ: Mapping[str, str], defaults: Mapping[str, str]) -> configparser.ConfigParser:
    """A parser of the file for `logging.config.fileConfig`; ``defaults`` are options of every section.

    ``here`` and ``__file__`` are known too. Raises OSError where the file cannot be read, `configparser.Error` where
    it cannot be parsed.
    """
    full = path.absolute()
    own = {"here": str(full.parent), "__file__": str(full)}
    known = {name: value.replace("%", "%%") for name, value in own.items()}
    parser = configparser.ConfigParser(known | dict(defaults), interpolation=_Environment(environ))
    with path.open(encoding="utf-8") as file:
        parser.read_file(file, str(path))
    return parser
