"""What an ini file tells an application, without importing anything of the application's."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

from c2c_otel.settings import ConfigurationError

__all__ = ["application_settings", "check_logging", "sections"]


def application_settings(path: Path, section: str = "main", name: str = "--ini") -> dict[str, Any]:
    """The options of ``[app:{section}]`` and of what it uses, as the application would be given them.

    ``name`` is what its user calls the file. Raises `ConfigurationError` where it cannot be read or parsed, has
    no such section, or refers to a variable that is not set.
    """
    import plaster

    from c2c_otel.loader import Loader

    if not path.is_file():
        raise ConfigurationError(name, str(path), "an ini file that can be read")
    try:
        loader = Loader(plaster.PlasterURL("c2c", str(path)))
        found: dict[str, Any] = dict(loader.get_settings(f"app:{section}"))
    except Exception as error:  # of the parser
        raise _unusable(name, path, "an ini file", error) from None
    if not found:
        if name == "--ini":
            raise ConfigurationError("--section", section, f"an [app:...] in {path}")
        raise ConfigurationError(name, str(path), f"an ini file with a section [app:{section}]")
    scheme, separator, rest = found.get("use", "").partition(":")
    if not separator and scheme:
        return application_settings(path, scheme, name) | found
    if scheme == "config":
        base, _, other = rest.partition("#")
        return application_settings(path.parent / base, other or "main", name) | found
    return found


def sections(path: Path, name: str) -> list[str]:
    """The names of its sections. Raises `ConfigurationError` where it is no ini file."""
    import plaster

    from c2c_otel.loader import Loader

    try:
        return list(Loader(plaster.PlasterURL("c2c", str(path))).get_sections())
    except Exception as error:  # of the parser
        raise _unusable(name, path, "an ini file", error) from None


def check_logging(path: Path, name: str) -> None:
    """Raises `ConfigurationError` where its logging refers to a variable that is not set, or to a section that is not
    there. No handler is made."""
    from c2c_otel.logging_setup import ini_parser
    from c2c_otel.settings import Settings

    try:
        parser = ini_parser(path, Settings.load())
        for kind in ("logger", "handler", "formatter"):
            keys = [key.strip() for key in parser.get(f"{kind}s", "keys", fallback="").split(",") if key.strip()]
            for key in keys:
                parser.items(f"{kind}_{key}", raw=kind == "formatter")  # whose %(...)s are those of log records
    except Exception as error:  # of the parser
        raise _unusable(name, path, "logging that can be read", error) from None


def _unusable(name: str, path: Path, expected: str, error: Exception) -> ConfigurationError:
    if isinstance(error, configparser.InterpolationMissingOptionError):
        text = " ".join(map(str, error.args))  # where the option's value is as it is written; parsers ignore its case
        written = re.search(rf"%\(({re.escape(error.reference)})\)", text, re.IGNORECASE)
        variable = written[1] if written else error.reference
        where = f"{error.option} in [{error.section}] refers to %({variable})s, which is not set."
        return ConfigurationError(name, str(path), expected, f"{where} Set the environment variable {variable}.")
    if isinstance(error, configparser.InterpolationSyntaxError):
        where = f"{error.option} in [{error.section}] has a % that begins no %(NAME)s."
        return ConfigurationError(name, str(path), expected, f"{where} Write it as %%.")
    return ConfigurationError(name, str(path), expected, f"{type(error).__name__}: {error}".replace("\n", " "))
