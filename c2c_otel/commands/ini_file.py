"""What an ini file tells an application, without importing anything of the application's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from c2c_otel.settings import ConfigurationError

__all__ = ["application_settings"]


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
        why = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise ConfigurationError(name, str(path), "an ini file", why) from None
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
