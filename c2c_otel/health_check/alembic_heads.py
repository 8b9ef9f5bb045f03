"""Whether databases are at the versions that the code has migrations for.

Alembic's scripts are read once, where the check is added, in this process: nothing of its logging is set up, its
``env.py`` is not run, and ``sys.path`` is as before. A check then reads one table. Needs the extra ``alembic``.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from c2c_otel.health_check import database, measures
from c2c_otel.settings import ConfigurationError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Engine

__all__ = ["Scripts", "check", "name_of", "read"]


@dataclasses.dataclass(frozen=True)
class Scripts:
    """``heads``: sorted; none where there is no migration. ``schema``: None for the connection's own."""

    heads: tuple[str, ...]
    schema: str | None
    table: str


def name_of(ini: str, name: str) -> str:
    """``alembic_app_alembic.ini_alembic``"""
    return f"alembic_{_path_as_name(ini)}_{name}"


def _path_as_name(ini: str) -> str:
    return ini.replace("/", "_").strip("_")


def read(ini: str, name: str, schema: str | None = None, table: str | None = None) -> Scripts:
    """The heads of the scripts that the section ``name`` of an ini file leads to, and where the database keeps its
    version: as given here, else in the section (``version_table_schema``, ``version_table``). Paths in it are relative
    to the file, as if the command ran beside it. Raises `ConfigurationError`."""
    try:
        from alembic.config import Config
        from alembic.script import ScriptDirectory
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"add_alembic_check needs {error.name}. Run: pip install 'c2c-otel[alembic]'", name=error.name
        ) from error
    path = Path(ini).resolve()
    if not path.is_file():
        raise ConfigurationError("alembic_ini_path", ini, "a file")
    try:
        config = Config(str(path), ini_section=name)
        schema = schema or config.get_main_option("version_table_schema")
        table = table or config.get_main_option("version_table") or "alembic_version"
        with _importable(_taken_paths(config, path.parent)):
            _make_absolute(config, path.parent)
            scripts = ScriptDirectory.from_config(config)
            scripts.version_locations = [_absolute(place, path.parent) for place in scripts.version_locations]
            heads = tuple(sorted(scripts.get_heads()))
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise ConfigurationError(
            "alembic_ini_path", ini, f"scripts of Alembic below its section [{name}]", why
        ) from error
    return Scripts(heads, schema or None, table)


def _taken_paths(config: Config, directory: Path) -> list[str]:
    """What the scripts may import from, taken out of the configuration: Alembic would leave it in ``sys.path``."""
    paths = [_absolute(place, directory) for place in config.get_prepend_sys_paths_list() or ()]
    config.file_config.remove_option(config.config_ini_section, "prepend_sys_path")
    return [*paths, str(directory)]


def _make_absolute(config: Config, directory: Path) -> None:
    location = config.get_main_option("script_location")
    if location:
        config.set_main_option("script_location", _absolute(location, directory).replace("%", "%%"))


def _absolute(place: Any, directory: Path) -> str:
    """``package:directory`` stays as it is."""
    text = str(place)
    return text if ":" in text else str(directory / text)


@contextmanager
def _importable(paths: Sequence[str]) -> Iterator[None]:
    sys.path[:0] = paths
    try:
        yield
    finally:
        for path in paths:
            if path in sys.path:
                sys.path.remove(path)


def check(
    engines: Sequence[Engine], scripts: Scripts, ini: str, name: str, seconds: float
) -> Callable[[Any], str | list[str]]:
    """Each engine's database is at the heads; the result is the head, or a list of several."""
    expected = scripts.heads[0] if len(scripts.heads) == 1 else list(scripts.heads)

    def run(request: Any) -> str | list[str]:
        behind = []
        for engine in engines:
            started = perf_counter()
            found = _versions(engine, scripts, seconds)
            measures.alembic_timed(ini, database.name_of(engine), perf_counter() - started, trace.get_current_span())
            for version in found:
                measures.alembic_version(name, version)
            if found != scripts.heads:
                behind.append(f"{database.name_of(engine)} is at {_listed(found)}")
        if behind:
            raise RuntimeError(f"{', '.join(behind)}; the code is for {_listed(scripts.heads)}")
        return expected

    return run


def _listed(versions: Sequence[str]) -> str:
    return " and ".join(versions) or "no version"


def _versions(engine: Engine, scripts: Scripts, seconds: float) -> tuple[str, ...]:
    import sqlalchemy

    schema = scripts.schema
    if schema is None and engine.dialect.name == "postgresql":
        schema = "public"
    table = sqlalchemy.table(scripts.table, sqlalchemy.column("version_num", sqlalchemy.String), schema=schema)
    with engine.connect() as connection:
        database.limit(connection, seconds)
        try:
            return tuple(sorted(connection.scalars(sqlalchemy.select(table.c.version_num))))
        except sqlalchemy.exc.DBAPIError:
            connection.rollback()
            if not sqlalchemy.inspect(connection).has_table(scripts.table, schema):
                full = f"{schema}.{scripts.table}" if schema else scripts.table
                raise RuntimeError(f"{database.name_of(engine)} has no table {full}") from None
            raise
