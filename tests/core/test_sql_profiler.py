"""Plans of slow statements, from real databases; and that whoever sent them notices nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from c2c_otel import broadcast, shared, sql_plans, sql_profiler, sql_profiling
from c2c_otel.instrumentation import sqlalchemy as instrumentation
from c2c_otel.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from c2c_otel.testing import Captured
from c2c_otel_exporters import background, guard
from tests.servers import Postgres

LOGGER = "c2c_otel.sql_profiler"
On = Callable[..., sql_profiling.Profiler]


@pytest.fixture
def captured(c2c_telemetry: Captured, monkeypatch: pytest.MonkeyPatch) -> Iterator[Captured]:
    monkeypatch.setattr(shared, "_topics", {})
    SQLAlchemyInstrumentor().instrument()
    background.allow()
    yield c2c_telemetry
    sql_profiler._switch(None)
    background.allow(False)
    SQLAlchemyInstrumentor().uninstrument()


@pytest.fixture
def on(captured: Captured, caplog: pytest.LogCaptureFixture) -> On:
    caplog.set_level(logging.INFO, LOGGER)

    def on(**options: Any) -> sql_profiling.Profiler:
        sql_profiler.enable(**{"min_seconds": 0, **options})
        assert sql_profiler.active is not None
        captured.clear()
        return sql_profiler.active

    return on


@pytest.fixture
def sqlite() -> Iterator[sa.Engine]:
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE hello (id INTEGER PRIMARY KEY, value TEXT)"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def tables(postgres: Postgres) -> Postgres:
    for statement in (
        "DROP SCHEMA IF EXISTS profiled CASCADE",
        "CREATE SCHEMA profiled",
        "CREATE TABLE profiled.item (id int PRIMARY KEY, name text)",
        "INSERT INTO profiled.item SELECT n, 'name ' || n FROM generate_series(1, 1000) n",
        "ANALYZE profiled.item",
        "CREATE SEQUENCE profiled.number",
        "CREATE VIEW profiled.numbered AS SELECT id, nextval('profiled.number') AS n FROM profiled.item WHERE id < 3",
        "CREATE VIEW profiled.few AS SELECT * FROM profiled.item WHERE id < 10",
        "CREATE FUNCTION profiled.touch(int) RETURNS int LANGUAGE sql AS 'SELECT $1'",  # volatile: it says nothing
        "CREATE FUNCTION profiled.plain(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1'",
        "CREATE FUNCTION public.shout(profiled.item) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT ''x'''",
        "CREATE FUNCTION profiled.eq(int, int) RETURNS bool LANGUAGE sql VOLATILE AS 'SELECT $1 = $2'",
        "CREATE OPERATOR profiled.~=~ (leftarg = int, rightarg = int, function = profiled.eq)",
        "CREATE FUNCTION profiled.add(int, int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1 + $2'",
        "CREATE AGGREGATE profiled.total(int) (sfunc = profiled.add, stype = int, initcond = '0')",
        "CREATE FUNCTION profiled.fails() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN"
        " IF current_setting(''transaction_read_only'') = ''on'' THEN RAISE ''secret''; END IF; RETURN 1; END'",
        "CREATE TABLE profiled.guarded (id int)",
        "ALTER TABLE profiled.guarded ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY p ON profiled.guarded USING (profiled.touch(id) > 0)",
    ):
        postgres.execute(statement)
    return postgres


@pytest.fixture(params=["psycopg", "psycopg2"])
def pg(request: pytest.FixtureRequest, tables: Postgres) -> Iterator[sa.Engine]:
    """One connection, and nobody waits for a second one."""
    engine = make(tables, request.param, pool_size=1, max_overflow=0, pool_timeout=0.1)
    yield engine
    engine.dispose()


def make(tables: Postgres, driver: str = "psycopg", **options: Any) -> sa.Engine:
    """An engine whose dialect has asked its first questions."""
    engine = sa.create_engine(tables.dsn(driver=driver), **options)
    with engine.connect():
        pass
    return engine


def plans(captured: Captured, profiler: sql_profiling.Profiler) -> list[str]:
    """Of all SELECTs that have ended."""
    assert profiler.wait(20)
    found = [(span.attributes or {}).get(sql_profiling.ATTRIBUTE) for span in captured.spans]
    return [str(plan) for plan in found if plan is not None]


def selects(captured: Captured) -> list[ReadableSpan]:
    return [span for span in captured.spans if span.name.startswith("SELECT")]


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


# -- SQLite -----------------------------------------------------------------------------------------------------------


def test_sqlite(sqlite: sa.Engine, captured: Captured, on: On, caplog: pytest.LogCaptureFixture) -> None:
    profiler = on()
    with sqlite.connect() as connection:
        connection.execute(sa.text("SELECT value FROM hello WHERE id = :id"), {"id": 42})
        connection.execute(sa.text("SELECT id FROM hello WHERE value = :value ORDER BY value"), {"value": "x"})
    first, second = plans(captured, profiler)
    assert first == "SEARCH hello USING INTEGER PRIMARY KEY (rowid=?)"
    assert second.splitlines()[0] == "SCAN hello"
    message = logged(caplog)[0]
    assert "SELECT value FROM hello WHERE id = ?" in message
    assert "parameters: (42,)" in message
    assert message.endswith(first)
    assert [span.name for span in captured.spans] == ["SELECT hello", "SELECT hello", "ROLLBACK"]
    assert captured.statsd_names() == [
        "sql.SELECT_FROM_hello_WHERE_id____",
        "sql.SELECT_FROM_hello_WHERE_value_____ORDER_BY_value",
    ]


def test_rows_that_are_not_fetched_yet_stay(sqlite: sa.Engine, captured: Captured, on: On) -> None:
    profiler = on()
    with sqlite.begin() as connection:
        connection.execute(sa.text("INSERT INTO hello VALUES (1, 'a'), (2, 'b'), (3, 'c')"))
        rows = connection.execute(sa.text("SELECT id FROM hello ORDER BY id"))
        assert rows.fetchone() == (1,)
        connection.execute(sa.text("SELECT count(*) FROM hello"))
        assert rows.fetchall() == [(2,), (3,)]
    assert len(plans(captured, profiler)) == 2


def test_sqlite_sees_what_is_not_committed(sqlite: sa.Engine, captured: Captured, on: On) -> None:
    profiler = on()
    with sqlite.connect() as connection:
        connection.execute(sa.text("CREATE TEMP TABLE gone (a)"))
        connection.execute(sa.text("SELECT a FROM gone"))
    assert plans(captured, profiler) == ["SCAN gone"]


def test_sqlite_with_a_row_factory(sqlite: sa.Engine, captured: Captured, on: On) -> None:
    profiler = on()
    with sqlite.connect() as connection:
        connection.connection.driver_connection.row_factory = lambda cursor, row: dict(enumerate(row))  # type: ignore[union-attr] # sqlite3's
        connection.exec_driver_sql("SELECT 1 FROM hello")
    assert plans(captured, profiler) == ["SCAN hello"]


def test_a_failing_explain_is_said(sqlite: sa.Engine, captured: Captured, on: On, caplog: Any) -> None:
    profiler = on()
    with sqlite.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.set_authorizer(None)
        connection.execute(sa.text("CREATE TEMP TABLE t (a)"))
        sa.event.listen(connection, "after_cursor_execute", lambda *_: driver.execute("DROP TABLE IF EXISTS t"))
        connection.execute(sa.text("SELECT a FROM t WHERE a = 'it is secret'")).fetchall()
    [plan] = plans(captured, profiler)
    assert plan.startswith("no plan: OperationalError: no such table")


# -- which statements -------------------------------------------------------------------------------------------------


def test_only_selects(sqlite: sa.Engine, captured: Captured, on: On) -> None:
    profiler = on()
    with sqlite.begin() as connection:
        for statement in (
            "INSERT INTO hello VALUES (1, 'a')",
            "UPDATE hello SET value = 'b'",
            "WITH q AS (SELECT 1) INSERT INTO hello SELECT 7, 'x' FROM q",
            "DELETE FROM hello",
            "PRAGMA user_version",
            "EXPLAIN QUERY PLAN SELECT 1",
        ):
            connection.execute(sa.text(statement))
    assert profiler.wait(1)
    assert not [span for span in captured.spans if sql_profiling.ATTRIBUTE in (span.attributes or {})]
    assert len(captured.spans) == 7


@pytest.mark.parametrize(
    "statement",
    [
        "select id from hello",
        "/* first */ -- second\n SELECT id FROM hello",
        "with q as (select id from hello) select * from q",
        "WITH q AS (SELECT id FROM hello), r AS (SELECT * FROM q) SELECT id FROM hello",
        "SELECT id FROM hello WHERE value LIKE 'a;%'",
        "SELECT id FROM hello ;",
    ],
)
def test_every_form_of_select(sqlite: sa.Engine, captured: Captured, on: On, statement: str) -> None:
    profiler = on()
    with sqlite.connect() as connection:
        connection.exec_driver_sql(statement)
    assert profiler.wait(1)
    [span] = [span for span in captured.spans if span.name != "ROLLBACK"]
    assert "SCAN hello" in str((span.attributes or {})[sql_profiling.ATTRIBUTE])


def test_parentheses_and_compounds(pg: sa.Engine, captured: Captured, on: On) -> None:
    profiler = on()
    with pg.connect() as connection:
        connection.execute(sa.text("(SELECT id FROM profiled.item) UNION ALL (SELECT 1)"))
    [plan] = plans(captured, profiler)
    assert plan.startswith("Append ")


def test_only_slow_ones_and_the_explain_is_not_counted(
    sqlite: sa.Engine, captured: Captured, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test's clock moves when a statement with "slow" in it runs, and, much more, when it is explained."""

    def moved(statement: str) -> None:
        if "slow" in statement:
            captured.clock.advance(0.6)

    def explained(*args: Any) -> str:
        captured.clock.advance(100)
        return of_sqlite(*args)

    of_sqlite = sql_plans.of_sqlite
    monkeypatch.setattr(sql_plans, "of_sqlite", explained)
    profiler = on(min_seconds=0.5)
    with sqlite.connect() as connection:
        connection.connection.driver_connection.set_trace_callback(moved)  # type: ignore[union-attr] # sqlite3's
        connection.execute(sa.text("SELECT id FROM hello"))
        connection.execute(sa.text("SELECT id AS slow FROM hello"))
    assert profiler.wait(1)
    quick, slow = selects(captured)
    assert sql_profiling.ATTRIBUTE not in (quick.attributes or {})
    assert (slow.attributes or {})[sql_profiling.ATTRIBUTE] == "SCAN hello"
    assert slow.end_time is not None and slow.start_time is not None
    assert 0.6e9 <= slow.end_time - slow.start_time < 0.7e9
    assert captured.statsd[-1] == "sql.SELECT_FROM_hello:600|ms"


def test_the_same_one_once(sqlite: sa.Engine, captured: Captured, on: On, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(sql_profiling.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sql_profiling, "MAX_SEEN", 2)
    on()

    def explained(*statements: str) -> list[bool]:
        captured.clear()
        with sqlite.connect() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))
        return [sql_profiling.ATTRIBUTE in (span.attributes or {}) for span in selects(captured)]

    a, b, c = (f"SELECT id FROM hello WHERE {name} = 1" for name in ("id", "value", "id + 1"))
    assert explained(a, a.replace("1", "2"), b) == [True, False, True]
    now[0] += sql_profiling.AGAIN_SECONDS - 1
    assert explained(a, b) == [False, False]
    now[0] += 1
    assert explained(a, a) == [True, False]
    assert explained(b, c) == [True, True]  # a is the one that was seen longest ago, and forgotten
    assert explained(c, a) == [False, True]


def test_another_database_is_asked_too(sqlite: sa.Engine, captured: Captured, on: On, tmp_path: Any) -> None:
    profiler = on()
    other = sa.create_engine(f"sqlite:///{tmp_path}/other.sqlite")
    for engine in (sqlite, other):
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    other.dispose()
    assert len(plans(captured, profiler)) == 2


def test_other_databases_have_no_plan(
    sqlite: sa.Engine, captured: Captured, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiler = on()
    target = instrumentation.target_of
    monkeypatch.setattr(instrumentation, "target_of", lambda c: dataclasses.replace(target(c), system="mysql"))
    with sqlite.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert plans(captured, profiler) == ["no plan: the profiler does not know mysql"]


# -- the switch -------------------------------------------------------------------------------------------------------


def test_off_nothing_happens(sqlite: sa.Engine, captured: Captured) -> None:
    assert sql_profiler.active is None and sql_profiler.mode() is None
    with sqlite.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert sql_profiling.ATTRIBUTE not in (captured.spans[0].attributes or {})


def test_on_and_off_are_said(captured: Captured, on: On, caplog: pytest.LogCaptureFixture) -> None:
    on(min_seconds=0.5, seconds=60, who="10.0.0.1 (cookie)")
    change = sql_profiler.enable(analyze=True, seconds=30)
    assert change.before.min_seconds == 0.5 and change.after.analyze and change.after.min_seconds == 0
    assert sql_profiler.mode() == change.after
    sql_profiler.disable(who="x")
    assert sql_profiler.mode() is None and sql_profiler.active is None
    said = [record.getMessage() for record in caplog.records if record.name == "c2c_otel"]
    assert said == [
        "SQL profiler: off -> on (EXPLAIN of SELECTs that take 0.5 s or more, for 60 s), by 10.0.0.1 (cookie)",
        "SQL profiler: on (EXPLAIN of SELECTs that take 0.5 s or more, for 60 s)"
        " -> on (EXPLAIN ANALYZE of SELECTs that take 0 s or more, for 30 s), by the service",
        "SQL profiler: on (EXPLAIN ANALYZE of SELECTs that take 0 s or more, for 30 s) -> off, by x",
    ]


def test_it_ends_by_itself_without_being_told(
    sqlite: sa.Engine, captured: Captured, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(seconds=60)
    later = time.time() + 61
    monkeypatch.setattr(sql_profiler.time, "time", lambda: later)
    assert sql_profiler.mode() is None
    with sqlite.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert sql_profiler.active is None
    assert sql_profiling.ATTRIBUTE not in (captured.spans[0].attributes or {})


def test_the_state_is_followed_and_what_is_odd_is_off(captured: Captured, on: On) -> None:
    profiler = on()
    topic = sql_profiler.init()
    topic.refresh()
    assert sql_profiler.active is profiler  # the same state again begins nothing anew
    topic.set("profile", {"analyze": True})
    assert sql_profiler.active is None
    assert guard.tally == {}
    for odd in (
        "on",
        {"analyze": 0, "min_seconds": 0, "until": "inf"},
        {"analyze": 0, "min_seconds": "nan", "until": 9e9},
    ):
        topic.set("profile", odd)
        assert sql_profiler.active is None


def test_a_child_does_not_inherit_it(captured: Captured, on: On) -> None:
    profiler = on()
    sql_profiler._after_fork()
    assert sql_profiler.active is None
    assert not profiler._stopped


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def test_a_planted_slow_query_is_found(
    pg: sa.Engine, captured: Captured, on: On, caplog: pytest.LogCaptureFixture
) -> None:
    profiler = on()
    slow = "SELECT count(*) FROM profiled.item a, profiled.item b WHERE a.name < b.name AND a.id > :least"
    with pg.connect() as connection, trace.get_tracer("test").start_as_current_span("request"):
        assert connection.scalar(sa.text(slow), {"least": 990}) is not None
    [plan] = plans(captured, profiler)
    assert "Nested Loop" in plan and "Seq Scan on item b" in plan and "cost=" in plan
    assert "990" not in plan and "?" in plan
    [record] = [record for record in caplog.records if record.name == LOGGER]
    assert record.levelno == logging.INFO
    message = record.getMessage()
    assert "a.id > %(least)s" in message and "990" in message.partition("parameters: ")[2]
    assert "Nested Loop" in message and "990" in message.partition("Index Cond: ")[2]
    [span] = selects(captured)
    [line] = [line for line in captured.logs if line["logger_name"] == LOGGER]
    assert span.context is not None
    assert line["span_id"] == f"{span.context.span_id:016x}"
    assert line["trace_id"] == f"{span.context.trace_id:032x}"
    assert dict(captured.tree())["request"] == [(span.name, [])]
    assert len(captured.statsd) == 1


@pytest.mark.parametrize(
    ("statement", "parameters", "expected"),
    [
        ("SELECT * FROM profiled.item WHERE name = :a AND id = :b", {"a": "it's 100%;", "b": 3}, "Index Cond"),
        ("SELECT * FROM profiled.item WHERE name LIKE 'a%' AND id < :b", {"b": 3}, "Filter: (name ~~ ?::text)"),
        ("SELECT * FROM profiled.item WHERE name LIKE 'b%%;'", {}, "Filter: (name ~~ ?::text)"),
        ("SELECT * FROM profiled.item WHERE id = ANY(:ids)", {"ids": [1, 2]}, "Index Cond"),
        ("SELECT * FROM profiled.item WHERE name = :none", {"none": None}, "One-Time Filter: false"),
        ("SELECT id % 2 FROM profiled.item", {}, "Seq Scan on item"),
    ],
)
def test_parameters(pg: sa.Engine, captured: Captured, on: On, statement: str, parameters: Any, expected: str) -> None:
    profiler = on()
    with pg.connect() as connection:
        connection.execute(sa.text(statement), parameters).fetchall()
    [plan] = plans(captured, profiler)
    assert expected in plan


def test_core_orm_and_lists(pg: sa.Engine, captured: Captured, on: On) -> None:
    profiler = on()
    metadata = sa.MetaData(schema="profiled")
    item = sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String))
    with Session(pg) as session:
        assert len(session.execute(sa.select(item).where(item.c.id.in_([1, 2, 3]))).all()) == 3
        session.execute(sa.select(item.c.name).order_by(item.c.name).limit(3)).all()
        raw = session.connection().execution_options(no_parameters=True)
        raw.exec_driver_sql("SELECT id % 3 FROM profiled.item").all()
    first, second, third = plans(captured, profiler)
    assert "Index" in first or "Filter" in first
    assert "Sort Key: name" in second
    assert third.startswith("Seq Scan")


def test_what_a_dialect_asks_is_left_alone(tables: Postgres, captured: Captured, on: On) -> None:
    profiler = on()
    engine = sa.create_engine(tables.dsn(driver="psycopg"))
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT id FROM profiled.item"))
    assert len(plans(captured, profiler)) == 1
    assert len(selects(captured)) > 1
    engine.dispose()


def test_server_side_cursor(pg: sa.Engine, captured: Captured, on: On) -> None:
    profiler = on()
    with pg.connect() as connection:
        rows = connection.execution_options(stream_results=True).execute(sa.text("SELECT id FROM profiled.item"))
        assert len(rows.all()) == 1000
    [plan] = plans(captured, profiler)
    assert plan.startswith("Seq Scan on item")


def test_the_transaction_stays_as_it_is(pg: sa.Engine, captured: Captured, on: On, tables: Postgres) -> None:
    """What only this session has cannot be explained; nothing else happens."""
    profiler = on()
    with pg.connect() as connection:
        connection.execute(sa.text("CREATE TEMP TABLE mine (a int)"))
        connection.execute(sa.text("CREATE TABLE profiled.uncommitted (a int)"))
        assert connection.execute(sa.text("SELECT a FROM mine")).all() == []
        assert connection.execute(sa.text("SELECT a FROM profiled.uncommitted")).all() == []
        assert profiler.wait(20)
        connection.execute(sa.text("INSERT INTO mine VALUES (1)"))
        assert connection.scalar(sa.text("SELECT count(*) FROM mine")) == 1
        assert profiler.wait(20)
        connection.rollback()
    temporary, uncommitted = plans(captured, profiler)
    assert temporary == 'no plan: UndefinedTable: relation "mine" does not exist'
    assert "profiled.uncommitted" in uncommitted and uncommitted.startswith("no plan: UndefinedTable")
    assert tables.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres' AND state LIKE 'idle in%'"
    ) == [(0,)]


def test_a_sequence_is_not_consumed_twice(pg: sa.Engine, captured: Captured, on: On, tables: Postgres) -> None:
    tables.execute("ALTER SEQUENCE profiled.number RESTART")
    profiler = on(analyze=True)
    with pg.connect() as connection:
        for n, statement in enumerate(
            ("SELECT nextval('profiled.number')", "select \"nextval\"('profiled.number') AS b")
        ):
            assert connection.scalar(sa.text(statement)) == n + 1
        connection.execute(sa.text("SELECT * FROM profiled.numbered")).all()
    assert [plan.rpartition("\n")[2] for plan in plans(captured, profiler)] == ["not analyzed: volatile: nextval()"] * 3
    assert tables.execute("SELECT last_value FROM profiled.number") == [(4,)]


def test_for_update_after_an_own_update_does_not_block(
    pg: sa.Engine, captured: Captured, on: On, tables: Postgres
) -> None:
    profiler = on(analyze=True)
    with pg.connect() as connection:
        connection.execute(sa.text("UPDATE profiled.item SET name = 'x' WHERE id = 5"))
        connection.execute(sa.text("SELECT * FROM profiled.item WHERE id = 5 FOR UPDATE")).all()
        [plan] = plans(captured, profiler)  # while the transaction goes on
        connection.rollback()
    assert plan.startswith("LockRows")
    assert plan.endswith("not analyzed: it locks rows")
    assert "canceling" not in plan


def test_a_lock_of_its_own_is_not_waited_for(
    pg: sa.Engine, captured: Captured, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_plans, "LOCK_SECONDS", 0.02)
    profiler = on()
    with pg.connect() as connection:
        connection.execute(sa.text("LOCK TABLE profiled.item IN ACCESS EXCLUSIVE MODE"))
        connection.execute(sa.text("SELECT * FROM profiled.item WHERE id = 5")).all()
        [plan] = plans(captured, profiler)
        connection.rollback()
    assert plan == "no plan: LockNotAvailable: canceling statement due to lock timeout"


def test_analyze(pg: sa.Engine, captured: Captured, on: On) -> None:
    profiler = on(analyze=True)
    with pg.connect() as connection:
        for statement in (
            "SELECT lower(name), count(*), now() FROM profiled.item AS a (b, name) WHERE b IN (1, 2) GROUP BY 1",
            "SELECT n FROM generate_series(1, 10) AS n (n) ORDER BY n",
            "SELECT profiled.plain(id), CAST(id AS numeric(3, 1)) FROM profiled.few WHERE position('n' in name) > 0",
            "WITH q (a) AS MATERIALIZED (SELECT id FROM profiled.item) SELECT row_number() OVER (ORDER BY a) FROM q",
        ):
            connection.execute(sa.text(statement)).all()
    found = plans(captured, profiler)
    assert len(found) == 4
    for plan in found:
        assert "actual time=" in plan and "Execution Time: " in plan, plan


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("SELECT profiled.touch(1)", "volatile: touch()"),
        ("SELECT random(), pg_sleep(0)", "volatile: pg_sleep(), random()"),
        ("SELECT id FROM profiled.item WHERE id IN (1, profiled.touch(2))", "volatile: touch()"),
        ("SELECT id FROM (VALUES (1), (profiled.touch(2))) AS v (id)", "volatile: touch()"),
        ("SELECT i.shout FROM profiled.item i LIMIT 1", "volatile: shout()"),
        ("SELECT (i).shout FROM profiled.item i LIMIT 1", "volatile: shout()"),
        ("SELECT profiled.total(id) FROM profiled.few", "volatile: total()"),
        ("SELECT id FROM profiled.few WHERE id OPERATOR(profiled.~=~) 2", "volatile: the operator ~=~"),
        ("SELECT pg_advisory_xact_lock/* here */(7)", "volatile: pg_advisory_xact_lock()"),
        ("SELECT id FROM profiled.item FOR KEY SHARE", "it locks rows"),
        ("SELECT id AS update FROM profiled.item", "it may change data"),
        ("SELECT 'C:\\dir' FROM profiled.item", "there are backslashes in its strings"),
    ],
)
def test_what_is_not_analyzed(tables: Postgres, captured: Captured, on: On, statement: str, why: str) -> None:
    engine = make(tables)
    profiler = on(analyze=True)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    [plan] = plans(captured, profiler)
    engine.dispose()
    assert plan.rpartition("\n")[2] == f"not analyzed: {why}"
    assert "cost=" in plan and "actual" not in plan


def test_row_level_security_is_looked_at(tables: Postgres, captured: Captured, on: On) -> None:
    engine = make(tables)
    profiler = on(analyze=True)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT * FROM profiled.guarded"))
    [plan] = plans(captured, profiler)
    engine.dispose()
    assert plan.endswith("not analyzed: volatile: touch()")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1; SELECT nextval('profiled.number')",
        "SELECT 1; COMMIT; INSERT INTO profiled.item VALUES (-1, 'injected')",
        "SELECT 1 /* ' */; INSERT INTO profiled.item VALUES (-1, 'injected'); --'",
        "SELECT 'a\\'; COMMIT; INSERT INTO profiled.item VALUES (-1, 'injected'); --'",
    ],
)
def test_several_statements_are_not_explained(tables: Postgres, captured: Captured, on: On, statement: str) -> None:
    """Only the first one would be, the others would run."""
    tables.execute("ALTER SEQUENCE profiled.number RESTART")
    engine = make(tables, "psycopg2")
    profiler = on()
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
        connection.rollback()
    tables.execute("DELETE FROM profiled.item WHERE id < 0")
    assert plans(captured, profiler) == ["no plan: there may be more than one statement"]
    engine.dispose()
    assert tables.execute("SELECT count(*) FROM profiled.item WHERE id < 0") == [(0,)]
    assert tables.execute("SELECT last_value FROM profiled.number") == [(1,)]


def test_what_a_driver_writes_into_the_statement_is_looked_at(tables: Postgres, captured: Captured, on: On) -> None:
    from psycopg2.extensions import AsIs

    tables.execute("ALTER SEQUENCE profiled.number RESTART")
    engine = make(tables, "psycopg2")
    profiler = on(analyze=True)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT %(what)s", {"what": AsIs("nextval('profiled.number')")})
        connection.exec_driver_sql("SELECT 2, %(what)s", {"what": AsIs("1; SELECT nextval('profiled.number')")})
    first, second = plans(captured, profiler)
    engine.dispose()
    assert first.endswith("not analyzed: volatile: nextval()")
    assert second == "no plan: there may be more than one statement"
    assert tables.execute("SELECT last_value FROM profiled.number") == [(2,)]


def test_data_modifying_with_and_into(tables: Postgres, captured: Captured, on: On) -> None:
    engine = make(tables)
    profiler = on(analyze=True)
    with engine.connect() as connection:
        connection.execute(sa.text("WITH q AS (DELETE FROM profiled.item WHERE id = 1 RETURNING *) SELECT * FROM q"))
        connection.execute(sa.text("SELECT id INTO profiled.copy FROM profiled.item"))
        connection.rollback()
    assert plans(captured, profiler) == ["no plan: it changes data"] * 2
    engine.dispose()


def test_a_second_run_has_a_time_limit(
    tables: Postgres, captured: Captured, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(tables)
    profiler = on(analyze=True)
    limit = sql_plans._Postgres._limit
    monkeypatch.setattr(
        sql_plans._Postgres, "_limit", lambda self, cursor, seconds: limit(self, cursor, 0.001 if seconds == 10 else 5)
    )
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT count(*) FROM profiled.item a, profiled.item b WHERE a.name < b.name"))
    [plan] = plans(captured, profiler)
    engine.dispose()
    assert "cost=" in plan
    assert plan.endswith("not analyzed: QueryCanceled: canceling statement due to statement timeout")


def test_errors_about_values_are_told_without_them(tables: Postgres, captured: Captured, on: On) -> None:
    engine = make(tables)
    profiler = on(analyze=True)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT profiled.fails()"))
    [plan] = plans(captured, profiler)
    engine.dispose()
    assert plan.endswith("not analyzed: RaiseException")


@pytest.mark.parametrize("isolation", ["AUTOCOMMIT", "SERIALIZABLE"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_it_is_read_only_whatever_the_engine_says(
    tables: Postgres, captured: Captured, on: On, isolation: Any, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even for a function that lies about what it does."""
    tables.execute("ALTER SEQUENCE profiled.number RESTART")
    tables.execute(
        "CREATE OR REPLACE FUNCTION profiled.liar() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT profiled.next()'"
        if tables.execute("SELECT to_regproc('profiled.next')") != [(None,)]
        else "CREATE FUNCTION profiled.next() RETURNS bigint LANGUAGE sql STABLE"
        " AS 'SELECT nextval(''profiled.number'')'"
    )
    engine = make(tables, driver, isolation_level=isolation)
    profiler = on(analyze=True)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT profiled.next()"))
    [plan] = plans(captured, profiler)
    engine.dispose()
    assert plan.partition("\n")[2].partition(": ")[2].startswith("ReadOnlySqlTransaction")
    assert tables.execute("SELECT last_value, is_called FROM profiled.number") == [(1, True)]


def test_the_pools_listeners_prepare_the_connection(pg: sa.Engine, captured: Captured, on: On) -> None:
    @sa.event.listens_for(pg, "connect")
    def search_path(driver: Any, entry: Any) -> None:
        driver.cursor().execute("SET SESSION search_path = profiled")
        driver.commit()
        entry.info["seen"] = True

    pg.dispose()
    profiler = on()
    with pg.connect() as connection:
        connection.execute(sa.text("SELECT id FROM item"))
    [plan] = plans(captured, profiler)
    assert plan.startswith("Seq Scan on item")


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_creator_without_a_connection_for_us(tables: Postgres, captured: Captured, on: On, autocommit: bool) -> None:
    import psycopg

    one = psycopg.connect(tables.dsn(), autocommit=autocommit)
    another = psycopg.connect(tables.dsn())
    another.execute("CREATE TEMP TABLE precious (a int)")
    given = iter([one, one, another])
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: next(given), poolclass=StaticPool)
    with engine.connect():
        pass
    profiler = on()
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT id FROM profiled.item"))
        assert profiler.wait(20)
        connection.execute(sa.text("SELECT id FROM profiled.item WHERE id = 1"))
        found = plans(captured, profiler)
        assert connection.scalar(sa.text("SELECT 1")) == 1
        assert profiler.wait(20)
    assert found == ["no plan: the engine gives no other connection"] * 2
    assert another.execute("SELECT * FROM precious").fetchall() == []  # in its transaction still
    another.close()
    engine.dispose()


def test_the_database_is_away(tables: Postgres, captured: Captured, on: On) -> None:
    ports = iter([tables.ports["primary"], 1])

    def connect() -> Any:
        import psycopg

        return psycopg.connect(f"postgresql://postgres@127.0.0.1:{next(ports)}/postgres")

    engine = sa.create_engine("postgresql+psycopg://", creator=connect)
    with engine.connect():
        pass
    profiler = on()
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT id FROM profiled.item"))
    [plan] = plans(captured, profiler)
    engine.dispose()
    assert plan.startswith("no plan: OperationalError: ")


def test_asyncio(tables: Postgres, captured: Captured, on: On) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    async def main() -> None:
        engine = create_async_engine(tables.dsn(driver="psycopg"), pool_size=1, max_overflow=0)
        async with engine.connect():
            pass
        on(analyze=True)
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT id FROM profiled.item WHERE name = :n"), {"n": "x"})
        await engine.dispose()

    asyncio.run(main())
    profiler = sql_profiler.active
    assert profiler is not None
    [plan] = plans(captured, profiler)
    assert "Seq Scan on item" in plan and "actual time=" in plan


def test_our_own_statements_are_not_seen(pg: sa.Engine, captured: Captured, on: On) -> None:
    """Neither as spans, nor by the application's listeners, nor in SQLAlchemy's log."""
    seen: list[str] = []
    sa.event.listen(pg, "before_cursor_execute", lambda c, cursor, statement, *_: seen.append(statement))
    profiler = on(analyze=True)
    with pg.connect() as connection:
        connection.execute(sa.text("SELECT id FROM profiled.item"))
    plans(captured, profiler)
    assert seen == ["SELECT id FROM profiled.item"]
    assert [span.name for span in captured.spans if span.name != "ROLLBACK"] == ["SELECT profiled.item"]
    assert len(captured.statsd) == 1


def test_no_connection_is_left(pg: sa.Engine, captured: Captured, on: On, tables: Postgres) -> None:
    count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    before = tables.execute(count)
    profiler = on(analyze=True)
    with pg.connect() as connection:
        for column in ("id", "name", "1", "oops"):
            try:
                connection.execute(sa.text(f"SELECT {column}, * FROM profiled.item"))
            except sa.exc.ProgrammingError:
                connection.rollback()
    assert profiler.wait(20)
    for _ in range(100):
        if tables.execute(count) == before:
            break
        time.sleep(0.05)
    assert tables.execute(count) == before


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """PostgreSQL that gives no plan until the event is set."""
    event, begun = threading.Event(), threading.Event()

    def plan(asked: sql_plans.Asked, analyze: bool, seconds: float) -> str:
        begun.set()
        assert event.wait(20)
        return "a plan"

    monkeypatch.setattr(sql_plans, "of_postgresql", plan)
    event.begun = begun  # type: ignore[attr-defined] # for the tests below
    yield event
    event.set()


def test_few_wait(tables: Postgres, captured: Captured, on: On, stuck: threading.Event) -> None:
    engine = make(tables)
    profiler = on()
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT id FROM profiled.item")
    assert stuck.begun.wait(20)  # type: ignore[attr-defined] # the fixture's
    names = [f"SELECT id FROM profiled.item WHERE id{' + id' * n} > 0" for n in range(30)]
    with engine.connect() as connection:
        for statement in names:
            connection.exec_driver_sql(statement)
    assert len(selects(captured)) == 30 - sql_profiling.MAX_WAITING
    assert guard.tally["dropped.sql_profiler.plan"] == 30 - sql_profiling.MAX_WAITING
    stuck.set()
    assert profiler.wait(20)
    assert len(selects(captured)) == 31
    with engine.connect() as connection:
        connection.exec_driver_sql(names[-1])  # one that was dropped comes again
    assert profiler.wait(20)
    assert (selects(captured)[-1].attributes or {})[sql_profiling.ATTRIBUTE] == "a plan"
    engine.dispose()


@pytest.mark.parametrize("leaving", [False, True])
def test_spans_are_not_lost_when_it_stops(
    tables: Postgres, captured: Captured, on: On, stuck: threading.Event, leaving: bool
) -> None:
    engine = make(tables)
    profiler = on()
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT id FROM profiled.item")
        assert stuck.begun.wait(20)  # type: ignore[attr-defined] # the fixture's
        connection.exec_driver_sql("SELECT id FROM profiled.item WHERE id = 1")
    if leaving:
        sql_profiler._at_exit()
        assert len(selects(captured)) == 2
    else:
        sql_profiler.disable()
        assert len(selects(captured)) == 1
    stuck.set()
    found = sorted(plans(captured, profiler))
    gone = "no plan: the profiler was switched off"
    assert found == ([gone, gone] if leaving else ["a plan", gone])
    engine.dispose()


def test_without_threads_nothing_waits(tables: Postgres, captured: Captured, on: On) -> None:
    engine = make(tables)
    on()
    background.allow(False)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT id FROM profiled.item")
    engine.dispose()
    [span] = selects(captured)
    assert sql_profiling.ATTRIBUTE not in (span.attributes or {})


def test_what_is_too_long(sqlite: sa.Engine, captured: Captured, on: On, caplog: pytest.LogCaptureFixture) -> None:
    profiler = on()
    with sqlite.connect() as connection:
        connection.exec_driver_sql("SELECT id FROM hello WHERE value = ?", (b"x" * 200_000,))
        connection.exec_driver_sql(f"SELECT '{'y' * 200_000}'")
    assert plans(captured, profiler) == ["no plan: it is too long"] * 2
    assert all(len(message) < 12_000 for message in logged(caplog))


def test_what_is_shown_is_cut(sqlite: sa.Engine, captured: Captured, on: On, caplog: pytest.LogCaptureFixture) -> None:
    profiler = on()

    class Odd(int):
        def __repr__(self) -> str:
            raise RuntimeError

    with sqlite.connect() as connection:
        connection.exec_driver_sql("SELECT " + " UNION ALL SELECT ".join(["id FROM hello"] * 400))
        marks = ", ".join("?" * 90)
        connection.exec_driver_sql(
            f"SELECT id FROM hello WHERE value IN ({marks})", tuple("z" * 300 for _ in range(90))
        )
        connection.exec_driver_sql("SELECT value FROM hello WHERE id = ?", (Odd(3),))
    first, *_ = plans(captured, profiler)
    assert len(first) <= sql_profiling.MAX_ATTRIBUTE
    long, many, odd = logged(caplog)
    assert len(long) < 40_000
    parameters = many.partition("parameters: ")[2].partition("\n")[0]
    assert len(parameters) < 1_100
    assert "parameters: " in odd


def test_a_failure_of_ours_is_not_the_applications(
    sqlite: sa.Engine, captured: Captured, on: On, monkeypatch: pytest.MonkeyPatch
) -> None:
    on()
    monkeypatch.setattr(sql_plans, "of_sqlite", lambda *_: 1 / 0)
    guard.strict(False)
    try:
        with sqlite.connect() as connection:
            assert connection.scalar(sa.text("SELECT 1")) == 1
    finally:
        guard.strict(None)
    assert guard.tally["failed.sql_profiler.offer"] == 1
    assert len(selects(captured)) == 1


def test_by_events(sqlite: sa.Engine, captured: Captured, on: On, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way out where SQLAlchemy has other internals."""
    SQLAlchemyInstrumentor().uninstrument()
    monkeypatch.setattr(instrumentation, "_STATEMENTS", ("_of_another_version",))
    SQLAlchemyInstrumentor().instrument()
    profiler = on()
    with sqlite.connect() as connection:
        connection.execute(sa.text("SELECT id FROM hello"))
    assert plans(captured, profiler) == ["SCAN hello"]
    guard.reset()


def test_the_store_is_away(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise shared.Unavailable("away")

    monkeypatch.setattr(shared, "backend", away)
    with pytest.raises(shared.Unavailable):
        sql_profiler.enable()
    assert sql_profiler.active is None


def test_a_process_that_joins_has_it(captured: Captured, on: On) -> None:
    on()
    sql_profiler._switch(None)  # as in a process that has just begun
    broadcast.get()
    sql_profiler.init()._joined()
    assert sql_profiler.mode() is not None


def test_the_documentations_example() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    section = page.partition("## SQL profiler\n")[2].partition("\n## ")[0]
    example = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert example is not None
    exec(example[1], {})
    assert sql_profiler.active is None
