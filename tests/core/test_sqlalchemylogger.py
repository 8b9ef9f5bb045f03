"""Log records in a table: on SQLite and a real PostgreSQL, with the database away, and from several processes."""

from __future__ import annotations

import logging
import logging.config
import multiprocessing
import threading
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from c2c_otel import sqlalchemylogger
from c2c_otel.sqlalchemylogger import SQLAlchemyHandler
from c2c_otel_exporters import guard
from tests.servers import Postgres


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger(f"tests.{uuid.uuid4().hex}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    for handler in list(logger.handlers):
        handler.close()


def attach(logger: logging.Logger, *arguments: Any) -> SQLAlchemyHandler:
    handler = SQLAlchemyHandler(*arguments)
    logger.addHandler(handler)
    return handler


def rows(url: str, table: str = "logs", columns: str = "level, msg") -> list[Any]:
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text(f"SELECT {columns} FROM {table} ORDER BY id")).all()
    engine.dispose()
    return [tuple(row) for row in found]


def database(path: Path) -> str:
    return f"sqlite:///{path}/logs.sqlite"


def test_a_burst_is_written_in_batches_formatted_and_in_order(tmp_path: Path, logger: logging.Logger) -> None:
    url = database(tmp_path)
    handler = SQLAlchemyHandler({"url": url})
    logger.addHandler(handler)
    begun: list[int] = []
    insert = handler._insert
    handler._insert = lambda rows: (begun.append(len(rows)), insert(rows))  # type: ignore[method-assign, assignment]
    for number in range(250):
        logger.info("record %d of %s", number, {"a": 1})
    handler.flush()
    assert rows(url) == [("INFO", f"record {number} of {{'a': 1}}") for number in range(250)]
    assert len(begun) <= 5  # the first one fails: there is no table


def test_what_a_row_holds(tmp_path: Path, logger: logging.Logger) -> None:
    url = database(tmp_path)
    handler = attach(logger, {"url": url, "tablename": "events"})
    try:
        raise RuntimeError("no way")
    except RuntimeError:
        logger.exception("it failed")
    logger.warning("nul \0 and half \ud800 100 %")
    handler.flush()
    (failed, odd) = rows(url, "events", "logger, level, msg, trace, created_at")
    assert failed[:3] == (logger.name, "ERROR", "it failed")
    assert failed[3].startswith("Traceback") and failed[3].endswith("RuntimeError: no way")
    assert failed[4].startswith("20")
    assert odd[2:4] == ("nul \\0 and half \\ud800 100 %", None)


def test_expressions_are_searched_in_the_formatted_message(tmp_path: Path, logger: logging.Logger) -> None:
    url = database(tmp_path)
    handler = attach(logger, {"url": url}, "health_check$", "GET")
    for path in ("/hello", "/c2c/health_check"):
        logger.info("GET %s", path)
        logger.info("POST %s", path)
    handler.flush()
    assert rows(url) == [("INFO", "GET /hello")]


def test_two_handlers_for_one_table(tmp_path: Path, logger: logging.Logger) -> None:
    handlers = [attach(logger, {"url": database(tmp_path)}) for _ in range(2)]
    logger.info("twice")
    for handler in handlers:
        handler.flush()
    assert rows(database(tmp_path)) == [("INFO", "twice")] * 2


def test_what_writing_logs_is_not_written(tmp_path: Path) -> None:
    """The root logger at DEBUG, with SQLAlchemy's own echo: no record begets another one."""
    url = database(tmp_path)
    handler = SQLAlchemyHandler({"url": url})
    engine_logger = logging.getLogger("sqlalchemy.engine")
    level = engine_logger.level
    engine_logger.addHandler(handler)
    engine_logger.setLevel(logging.DEBUG)
    try:
        engine_logger.info("mine")
        handler.flush()
        handler.close()
    finally:
        engine_logger.setLevel(level)
        engine_logger.removeHandler(handler)
    assert rows(url) == [("INFO", "mine")]


@pytest.mark.parametrize("begun", [True, False])
def test_the_last_records_are_written_whatever_sqlalchemy_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    url = database(tmp_path)
    handler = SQLAlchemyHandler({"url": url})
    if not begun:  # as in gunicorn's arbiter, which writes when it ends
        monkeypatch.setattr(handler, "_begin", lambda: None)
    above = logging.getLogger("sqlalchemy")
    level = above.level
    above.addHandler(handler)
    above.setLevel(logging.DEBUG)
    try:
        above.info("the last one")
        logging.shutdown([weakref.ref(handler)])
    finally:
        above.setLevel(level)
        above.removeHandler(handler)
    assert rows(url) == [("INFO", "the last one")]


def test_a_database_that_is_away_keeps_nobody_waiting(
    tmp_path: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlalchemylogger, "CAPACITY", 20)
    monkeypatch.setattr(sqlalchemylogger, "_RETRY_SECONDS", (0.05,))
    away = tmp_path / "away"
    guard.reset()
    handler = attach(logger, {"url": f"sqlite:///{away}/logs.sqlite"})
    for number in range(30):
        logger.info("record %d", number)
    assert guard.tally["dropped.sqlalchemylogger"] == 10
    away.mkdir()  # it comes back
    handler.flush()
    assert rows(f"sqlite:///{away}/logs.sqlite") == [("INFO", f"record {number}") for number in range(20)]


def test_a_process_that_ends_gives_up_on_a_database_that_is_away(tmp_path: Path, logger: logging.Logger) -> None:
    guard.reset()
    handler = SQLAlchemyHandler({"url": f"sqlite:///{tmp_path}/away/logs.sqlite"})
    logger.addHandler(handler)
    logger.info("lost")
    handler.close()
    assert guard.tally["dropped.sqlalchemylogger"] == 1
    assert handler._thread is not None and not handler._thread.is_alive()


def test_a_child_writes_its_own_records_and_not_its_parents(tmp_path: Path, logger: logging.Logger) -> None:
    url = database(tmp_path)
    handler = attach(logger, {"url": url})
    logger.info("parent's first")
    handler.flush()
    logger.info("parent's second")

    def child() -> None:
        logger.info("child's")
        handler.close()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(20)
    assert process.exitcode == 0
    handler.flush()
    assert sorted(rows(url)) == [("INFO", "child's"), ("INFO", "parent's first"), ("INFO", "parent's second")]


@pytest.mark.parametrize("wrong", [{}, {"tablename": "logs"}, "sqlite://", None])
def test_a_handler_without_a_url(wrong: Any) -> None:
    with pytest.raises(ValueError, match="expected a dictionary with a"):
        SQLAlchemyHandler(wrong)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_postgresql_database_schema_and_table_are_made(postgres: Postgres, logger: logging.Logger, driver: str) -> None:
    name = f"logs_{uuid.uuid4().hex}"
    url = sqlalchemy.make_url(postgres.dsn("primary", name, driver)).render_as_string(hide_password=False)
    handlers = [SQLAlchemyHandler({"url": url, "tablename": "t", "tableargs": {"schema": "s p"}}) for _ in range(4)]
    for handler in handlers:
        logger.addHandler(handler)
    threads = [threading.Thread(target=lambda: [logger.info("row %d", n) for n in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for handler in handlers:
        handler.flush()
    assert len(rows(url, '"s p".t')) == 4 * 4 * 50
    (fresh,) = {row[0] for row in rows(url, '"s p".t', "created_at BETWEEN now() - interval '1 min' AND now()")}
    assert fresh is True


def test_from_an_ini_file(tmp_path: Path) -> None:
    """As the documentation has it."""
    ini = tmp_path / "logging.ini"
    name = f"tests.{uuid.uuid4().hex}"
    ini.write_text(
        f"""
[loggers]
keys = root, mine
[handlers]
keys = table
[formatters]
keys =
[logger_root]
handlers =
[logger_mine]
level = INFO
qualname = {name}
handlers = table
[handler_table]
class = c2c_otel.sqlalchemylogger.SQLAlchemyHandler
args = ({{'url': '{database(tmp_path)}', 'tablename': 'logs'}}, '/health_check')
"""
    )
    before = list(logging.getLogger().handlers)
    logging.config.fileConfig(ini, disable_existing_loggers=False)
    logging.getLogger().handlers = before
    logger = logging.getLogger(name)
    logger.info("GET /c2c/health_check")
    logger.info("GET /hello")
    (handler,) = (handler for handler in logger.handlers if isinstance(handler, SQLAlchemyHandler))
    handler.flush()
    handler.close()
    assert rows(database(tmp_path)) == [("INFO", "GET /hello")]
