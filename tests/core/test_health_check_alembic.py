"""The check of the database's version: Alembic's scripts in this process, and what they leave as it was."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pyramid.config import Configurator
from pyramid.request import Request

from c2c_otel import db
from c2c_otel.health_check import HealthCheck, alembic_heads
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel.testing import capture

MIGRATION = """
revision = {revision!r}
down_revision = {down!r}
branch_labels = None
depends_on = None


def upgrade():
    raise AssertionError("a health check migrates nothing")
"""


class Project:
    """``alembic.ini`` with its scripts in a directory of a test; ``env.py`` must not be run."""

    def __init__(self, directory: Path, *more: str, location: str = "migrations", section: str = "alembic") -> None:
        self.directory = directory
        self.ini = directory / "alembic.ini"
        self.versions = directory / "migrations" / "versions"
        self.versions.mkdir(parents=True)
        (directory / "migrations" / "env.py").write_text("raise AssertionError('env.py was run')\n")
        lines = [f"[{section}]", f"script_location = {location}", "path_separator = os", *more]
        self.ini.write_text("\n".join(lines) + "\n")

    def add(self, revision: str, down: object = None, before: str = "") -> None:
        (self.versions / f"{revision}.py").write_text(before + MIGRATION.format(revision=revision, down=down))


class Database:
    """A primary and a replica, as two SQLite files, and a service that checks them."""

    def __init__(self, directory: Path) -> None:
        urls = {name: f"sqlite:///{directory / name}.sqlite" for name in ("sqlalchemy", "sqlalchemy_slave")}
        self.config = Configurator(
            settings={"c2c.health_check_cache_seconds": "0", **{f"{name}.url": url for name, url in urls.items()}}
        )
        self.config.include("c2c_otel")
        self.session, self.rw, self.ro = db.setup_session(self.config, "sqlalchemy", "sqlalchemy_slave")
        self.health = HealthCheck(self.config)
        self._wsgi: Any = None

    def stamp(self, engine: sa.Engine, *versions: str, table: str = "alembic_version") -> None:
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
            connection.execute(sa.text(f"CREATE TABLE {table} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
            for version in versions:
                connection.execute(sa.text(f"INSERT INTO {table} VALUES (:version)"), {"version": version})

    def get(self) -> Any:
        if self._wsgi is None:
            self._wsgi = self.config.make_wsgi_app()
        return Request.blank("/c2c/health_check?max_level=9").get_response(self._wsgi).json

    def only(self) -> Any:
        """What is said of the one check."""
        body = self.get()
        ((_, found),) = [*body["successes"].items(), *body["failures"].items()]
        return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.add("aaa")
    project.add("bbb", "aaa")
    return project


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    database.session.dispose()


def test_both_databases_are_at_the_head(project: Project, database: Database) -> None:
    database.health.add_alembic_check(database.session, str(project.ini), 3)
    name = f"alembic_{str(project.ini).strip('/').replace('/', '_')}_alembic"
    database.stamp(database.rw, "bbb")
    database.stamp(database.ro, "aaa")
    failure = database.get()["failures"][name]
    assert failure["message"] == "sqlalchemy_slave is at aaa; the code is for bbb"
    database.stamp(database.rw)
    assert database.only()["message"] == "sqlalchemy is at no version, sqlalchemy_slave is at aaa; the code is for bbb"
    for engine in (database.rw, database.ro):
        database.stamp(engine, "bbb")
    success = database.get()["successes"][name]
    assert (success["result"], success["level"]) == ("bbb", 3)


def test_names() -> None:
    assert alembic_heads.name_of("/app/alembic.ini", "alembic") == "alembic_app_alembic.ini_alembic"
    assert alembic_heads.name_of("alembic.ini", "main") == "alembic_alembic.ini_main"


def test_several_heads(project: Project, database: Database) -> None:
    project.add("ccc", "aaa")
    database.health.add_alembic_check(database.session, str(project.ini))
    for engine in (database.rw, database.ro):
        database.stamp(engine, "ccc")
    assert database.only()["message"] == (
        "sqlalchemy is at ccc, sqlalchemy_slave is at ccc; the code is for bbb and ccc"
    )
    for engine in (database.rw, database.ro):
        database.stamp(engine, "ccc", "bbb")
    assert database.only()["result"] == ["bbb", "ccc"]


def test_without_migrations(tmp_path: Path, database: Database) -> None:
    project = Project(tmp_path)
    database.health.add_alembic_check(database.session, str(project.ini))
    for engine in (database.rw, database.ro):
        database.stamp(engine)
    assert database.only()["result"] == []


def test_a_database_without_the_table(project: Project, database: Database) -> None:
    database.health.add_alembic_check(database.session, str(project.ini))
    assert database.only()["message"] == "sqlalchemy has no table alembic_version"
    with database.rw.begin() as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (something INTEGER)"))
    assert database.only()["message"] == "OperationalError"


def test_where_the_version_is_kept(tmp_path: Path) -> None:
    project = Project(tmp_path, "version_table = of_ini", "version_table_schema = schema_of_ini")
    project.add("aaa")
    assert alembic_heads.read(str(project.ini), "alembic") == (
        alembic_heads.Scripts(("aaa",), "schema_of_ini", "of_ini")
    )
    given = alembic_heads.read(str(project.ini), "alembic", "schema", "table")
    assert given == alembic_heads.Scripts(("aaa",), "schema", "table")


def test_a_table_of_another_name(project: Project, database: Database) -> None:
    database.health.add_alembic_check(database.session, str(project.ini), version_table="mine")
    for engine in (database.rw, database.ro):
        database.stamp(engine, "bbb", table="mine")
    assert database.only()["result"] == "bbb"


def test_another_section(tmp_path: Path, database: Database) -> None:
    project = Project(tmp_path, section="main")
    project.add("aaa")
    database.health.add_alembic_check(database.session, str(project.ini), name="main")
    assert database.health.checks[0].name.endswith("alembic.ini_main")
    with pytest.raises(ConfigurationError, match=r"below its section \[alembic\]"):
        database.health.add_alembic_check(database.session, str(project.ini))


@pytest.mark.parametrize("location", ["migrations", "./migrations", "%(here)s/migrations"])
def test_paths_are_relative_to_the_ini(tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    project = Project(tmp_path, location=location)
    project.add("aaa")
    assert alembic_heads.read(str(project.ini), "alembic").heads == ("aaa",)


def test_several_places_of_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    project = Project(tmp_path, "version_locations = migrations/versions:more")
    project.add("aaa")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "bbb.py").write_text(MIGRATION.format(revision="bbb", down="aaa"))
    assert alembic_heads.read(str(project.ini), "alembic").heads == ("bbb",)


def test_a_relative_ini(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.directory)
    assert alembic_heads.read("alembic.ini", "alembic").heads == ("bbb",)


@pytest.mark.parametrize("text", [None, "[alembic]\n", "[other]\n", "no ini", "[alembic]\nscript_location = nowhere\n"])
def test_what_cannot_be_read_fails_at_the_start(tmp_path: Path, text: str | None) -> None:
    ini = tmp_path / "alembic.ini"
    if text is not None:
        ini.write_text(text)
    with pytest.raises(ConfigurationError, match=r"alembic_ini_path is '/.*alembic.ini'; expected"):
        alembic_heads.read(str(ini), "alembic")


def test_a_broken_script_fails_at_the_start(project: Project) -> None:
    project.add("ddd", "bbb", before="import not_to_be_found\n")
    with pytest.raises(ConfigurationError, match="No module named 'not_to_be_found'"):
        alembic_heads.read(str(project.ini), "alembic")


_PROCESS = """
import json, logging, os, sys, warnings
sys.path.append(sys.argv[2])
before = sys.path[:], logging.root.level, logging.root.handlers[:], logging.getLogger("alembic").level, os.getcwd()
from c2c_otel.health_check import alembic_heads
scripts = alembic_heads.read(sys.argv[1], "alembic")
logger = logging.getLogger("alembic")
after = sys.path[:], logging.root.level, logging.root.handlers[:], logger.level, os.getcwd()
assert before == after, (before, after)
assert not logger.disabled, "disabled"
assert {type(one).__name__ for one in logger.handlers} <= {"NullHandler"}, logger.handlers
print(json.dumps(scripts.heads))
"""


def test_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    """Scripts import what lies beside the ini, and what ``prepend_sys_path`` names: for as long as they are read."""
    logs = ["[loggers]", "keys = root", "[handlers]", "keys =", "[formatters]", "keys =", "[logger_root]"]
    project = Project(tmp_path, "prepend_sys_path = lib", *logs, "level = DEBUG", "handlers =")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "of_lib.py").write_text("")
    (tmp_path / "beside.py").write_text("")
    project.add("aaa", before="import beside, of_lib\n")
    environment = [sys.executable, "-W", "ignore", "-c", _PROCESS, str(project.ini), str(Path.cwd())]
    done = subprocess.run(environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["aaa"]


def test_without_alembic(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "alembic"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "alembic", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'c2c-otel\[alembic\]'"):
        alembic_heads.read(str(project.ini), "alembic")


@pytest.mark.parametrize("tags", [False, True])
def test_what_is_measured(project: Project, database: Database, tags: bool, caplog: pytest.LogCaptureFixture) -> None:
    database.health.add_alembic_check(database.session, str(project.ini))
    for engine in (database.rw, database.ro):
        database.stamp(engine, "bbb")
    with capture(Settings(statsd_use_tags=tags)) as captured, caplog.at_level(logging.DEBUG):
        assert database.only()["result"] == "bbb"
        lines = [line for line in captured.statsd if line.startswith(("alembic", "sql.manual"))]
        count = captured.value("c2c_otel_alembic_version_total", section="alembic", version="bbb")
    assert count == 2
    assert not [record for record in caplog.records if record.name.startswith("alembic")]
    ini = str(project.ini)
    if tags:
        assert lines.count("alembic_version:1|c|#name:alembic,version:bbb") == 2
        tails = {line.partition("|ms")[2] for line in lines if "manual" in line}
        assert tails == {f"|#con:{con},conf:{ini}" for con in ("sqlalchemy", "sqlalchemy_slave")}
    else:
        assert lines.count("alembic_version.alembic.bbb:1|c") == 2
        stem = "sql.manual.health_check.alembic." + "".join(c if c.isalnum() else "_" for c in ini)
        names = {line.partition(":")[0] for line in lines if "manual" in line}
        assert names == {f"{stem}.{con}" for con in ("sqlalchemy", "sqlalchemy_slave")}
