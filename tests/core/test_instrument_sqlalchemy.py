"""Statements, commits and rollbacks of real databases: SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor as Contrib
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy.engine import Connection
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from c2c_otel.instrumentation import sqlalchemy as ours
from c2c_otel.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from c2c_otel.testing import Captured
from c2c_otel_exporters import guard
from tests.servers import Postgres


class Base(DeclarativeBase):
    pass


class Hello(Base):
    __tablename__ = "hello"
    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(unique=True)


@pytest.fixture
def captured(c2c_telemetry: Captured) -> Iterator[Captured]:
    SQLAlchemyInstrumentor().instrument()
    yield c2c_telemetry
    SQLAlchemyInstrumentor().uninstrument()


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    """Made before `captured` instruments, where a test names it first."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def pg_tables(postgres: Postgres) -> Postgres:
    engine = sa.create_engine(postgres.dsn(driver="psycopg"))
    Base.metadata.create_all(engine)
    engine.dispose()
    return postgres


@pytest.fixture(params=["psycopg", "psycopg2"])
def pg_engine(request: pytest.FixtureRequest, pg_tables: Postgres) -> Iterator[sa.Engine]:
    engine = sa.create_engine(pg_tables.dsn(driver=request.param))
    with engine.connect():  # what a dialect asks its first connection is no concern of the tests
        pass
    yield engine
    engine.dispose()


def names(captured: Captured) -> list[str]:
    return [span.name for span in captured.spans]


def test_statement_and_commit(engine: sa.Engine, captured: Captured) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO hello (value) VALUES (:value)"), {"value": "secret"})
    statement, commit = captured.spans
    assert (statement.name, statement.kind) == ("INSERT hello", SpanKind.CLIENT)
    assert dict(statement.attributes or {}) == {
        "db.system.name": "sqlite",
        "db.query.text": "INSERT INTO hello (value) VALUES (?)",
        "db.query.summary": "INSERT hello",
        "db.operation.name": "INSERT",
    }
    assert (commit.name, commit.kind) == ("COMMIT", SpanKind.CLIENT)
    assert (commit.attributes or {})["db.operation.name"] == "COMMIT"
    assert captured.statsd_names() == ["sql.INSERT_INTO_hello", "sql.commit"]


def test_literals_do_not_get_into_spans(engine: sa.Engine, captured: Captured) -> None:
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT id FROM hello WHERE value = 'secret' AND id = 42"))
    text = str((captured.spans[0].attributes or {})["db.query.text"])
    assert "secret" not in text
    assert "42" not in text


def test_a_session_that_only_reads_rolls_back(engine: sa.Engine, captured: Captured) -> None:
    with Session(engine) as session:
        session.scalars(sa.select(Hello)).all()
    assert names(captured) == ["SELECT hello", "ROLLBACK"]
    assert captured.statsd_names() == ["sql.SELECT_FROM_hello"]


def test_nothing_is_made_of_an_unused_connection(engine: sa.Engine, captured: Captured) -> None:
    with engine.connect():
        pass
    with Session(engine) as session:
        session.commit()
    assert names(captured) == []


def test_autocommit_sends_no_commit(engine: sa.Engine, captured: Captured) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("SELECT 1"))
        connection.commit()
    assert names(captured) == ["SELECT"]


def test_parent_and_current_span(engine: sa.Engine, captured: Captured) -> None:
    seen = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def before(*_: object) -> None:
        seen.append(trace.get_current_span())

    with trace.get_tracer("test").start_as_current_span("outer"):
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
        assert trace.get_current_span().name == "outer"  # type: ignore[attr-defined]  # an SDK span
    assert captured.tree() == [("outer", [("SELECT", []), ("ROLLBACK", [])])]
    assert [span.name for span in seen] == ["SELECT"]
    sa.event.remove(engine, "before_cursor_execute", before)


def test_every_way_to_an_engine(captured: Captured) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.engine import create_engine as create_engine_2

    for make in (
        lambda: create_engine("sqlite://"),
        lambda: create_engine_2("sqlite://"),
        lambda: sa.engine_from_config({"sqlalchemy.url": "sqlite://"}),
        lambda: sa.create_engine("sqlite://").execution_options(isolation_level="SERIALIZABLE"),
    ):
        engine = make()
        with engine.connect() as connection:
            captured.clear()
            connection.execute(sa.text("SELECT 1"))
        assert names(captured) == ["SELECT", "ROLLBACK"]
        engine.dispose()


def test_executemany_is_one_batch(engine: sa.Engine, captured: Captured) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO hello (value) VALUES (:value)"), [{"value": str(n)} for n in range(3)])
    span = captured.span("BATCH INSERT hello")
    assert (span.attributes or {})["db.operation.batch.size"] == 3
    assert (span.attributes or {})["db.operation.name"] == "BATCH INSERT"
    assert captured.statsd_names() == ["sql.INSERT_INTO_hello", "sql.commit"]


def test_executemany_with_one_row_is_no_batch(engine: sa.Engine, captured: Captured) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO hello (value) VALUES (:value)"), [{"value": "a"}])
    assert "db.operation.batch.size" not in (captured.span("INSERT hello").attributes or {})


def test_insertmanyvalues_is_one_statement(engine: sa.Engine, captured: Captured) -> None:
    with Session(engine) as session:
        session.add_all([Hello(value=str(n)) for n in range(2500)])  # several round trips
        session.commit()
    assert names(captured) == ["BATCH INSERT hello", "COMMIT"]
    span = captured.spans[0]
    assert (span.attributes or {})["db.operation.batch.size"] == 2500
    assert str((span.attributes or {})["db.query.text"]).count("(?)") <= 1


def test_error_is_the_drivers_and_measured(engine: sa.Engine, captured: Captured) -> None:
    for _ in range(2):
        with pytest.raises(sa.exc.IntegrityError) if _ else _nothing(), engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO hello (value) VALUES (:v)"), {"v": "hidden"})
    failed = captured.spans[2]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description == "UNIQUE constraint failed: hello.value"
    assert (failed.attributes or {})["error.type"] == "IntegrityError"
    assert (failed.attributes or {})["db.response.status_code"] == "SQLITE_CONSTRAINT_UNIQUE"
    (event,) = failed.events
    assert event.name == "exception"
    assert (event.attributes or {})["exception.type"] == "sqlite3.IntegrityError"
    assert "hidden" not in str(event.attributes)
    assert names(captured)[3:] == ["ROLLBACK"]
    assert captured.statsd_names().count("sql.INSERT_INTO_hello") == 2
    assert captured.value("db_client_operation_duration_seconds_count", error_type="IntegrityError") == 1


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def test_suppressed(engine: sa.Engine, captured: Captured) -> None:
    with suppress_instrumentation(), engine.begin() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert captured.spans == []
    assert captured.statsd == []


def test_a_failure_of_ours_does_not_break_the_statement(
    engine: sa.Engine, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise LookupError

    monkeypatch.setattr(ours, "target_of", broken)
    guard.strict(False)
    try:
        with engine.begin() as connection:
            assert connection.scalar(sa.text("SELECT 7")) == 7
    finally:
        guard.strict(None)
        guard.reset()


def test_tracer_provider(engine: sa.Engine, c2c_telemetry: Captured) -> None:
    """And another one the second time: what is remembered of a statement, with its engine, does not keep the first."""
    for _ in range(2):
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        SQLAlchemyInstrumentor().instrument(tracer_provider=provider)
        try:
            with engine.begin() as connection:
                connection.execute(sa.text("SELECT 1"))
        finally:
            SQLAlchemyInstrumentor().uninstrument()
        assert [span.name for span in exporter.get_finished_spans()] == ["SELECT", "COMMIT"]
    assert c2c_telemetry.spans == []
    assert "sql.commit" in c2c_telemetry.statsd_names()


def test_commenter(engine: sa.Engine, c2c_telemetry: Captured) -> None:
    sent = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def before(_c: object, _k: object, statement: str, *_: object) -> None:
        sent.append(statement)

    SQLAlchemyInstrumentor().instrument(enable_commenter=True, commenter_options={"db_framework": False})
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    finally:
        SQLAlchemyInstrumentor().uninstrument()
        sa.event.remove(engine, "before_cursor_execute", before)
    span = c2c_telemetry.span("SELECT")
    assert span.context
    assert f"{span.context.trace_id:032x}-{span.context.span_id:016x}" in sent[0]
    assert "db_framework" not in sent[0]
    assert (span.attributes or {})["db.query.text"] == "SELECT ?"


def test_uninstrument_puts_everything_back(c2c_telemetry: Captured) -> None:
    before = dict(Connection.__dict__)
    for _ in range(2):
        SQLAlchemyInstrumentor().instrument()
        assert Connection.__dict__["_exec_single_context"] is not before["_exec_single_context"]
        SQLAlchemyInstrumentor().uninstrument()
    assert dict(Connection.__dict__) == before


def test_the_contrib_instrumentor_is_another_object() -> None:
    assert type(Contrib()) is Contrib
    assert type(SQLAlchemyInstrumentor()) is SQLAlchemyInstrumentor


def test_instrument_twice_makes_no_second_span(engine: sa.Engine, captured: Captured) -> None:
    SQLAlchemyInstrumentor().instrument()
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert names(captured) == ["SELECT", "COMMIT"]


def test_a_sqlalchemy_with_other_internals_loses_no_span(
    engine: sa.Engine, c2c_telemetry: Captured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ours, "_STATEMENTS", ("_renamed_by_sqlalchemy_3",))
    guard.reset()
    with caplog.at_level(logging.WARNING, "c2c_otel"):
        SQLAlchemyInstrumentor().instrument()
    try:
        with engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO hello (value) VALUES ('1')"))
        with pytest.raises(sa.exc.OperationalError), engine.connect() as connection:
            connection.execute(sa.text("SELECT 1 FROM nothing"))
    finally:
        SQLAlchemyInstrumentor().uninstrument()
        guard.reset()
    assert "other internals" in caplog.text
    assert names(c2c_telemetry) == ["INSERT hello", "COMMIT", "SELECT nothing", "ROLLBACK"]
    assert c2c_telemetry.spans[2].status.status_code is StatusCode.ERROR
    assert c2c_telemetry.statsd_names() == ["sql.INSERT_INTO_hello", "sql.commit", "sql.SELECT_FROM_nothing"]
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert len(c2c_telemetry.spans) == 4, "still listening"


def test_nothing_keeps_an_engine_alive(captured: Captured) -> None:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    gone = weakref.ref(engine)
    engine.dispose()
    del engine, connection
    gc.collect()
    assert gone() is None


def test_threads(pg_tables: Postgres, captured: Captured) -> None:
    engine = sa.create_engine(pg_tables.dsn(driver="psycopg"), pool_size=8, max_overflow=0)
    with engine.connect():
        pass
    captured.clear()
    wrong = []

    def work() -> None:
        tracer = trace.get_tracer("test")
        for _ in range(5):
            with tracer.start_as_current_span("outer") as outer, engine.begin() as connection:
                connection.execute(sa.text("SELECT 1"))
                if trace.get_current_span() is not outer:
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert not wrong
    outers = [tree for tree in captured.tree() if tree[0] == "outer"]
    assert len(outers) == 160
    assert [[name for name, _ in children] for _, children in outers] == [["SELECT", "COMMIT"]] * 160


def test_postgresql(pg_engine: sa.Engine, pg_tables: Postgres, captured: Captured) -> None:
    with pg_engine.begin() as connection:
        connection.execute(sa.select(Hello).where(Hello.id.in_([1, 2])))
    attributes = dict(captured.span("SELECT hello").attributes or {})
    assert attributes.pop("db.query.text")
    assert attributes == {
        "db.system.name": "postgresql",
        "db.namespace": "postgres",
        "server.address": "127.0.0.1",
        "server.port": pg_tables.ports["primary"],
        "db.query.summary": "SELECT hello",
        "db.operation.name": "SELECT",
    }
    assert (
        captured.value(
            "db_client_operation_duration_seconds_count", db_operation_name="COMMIT", db_namespace="postgres"
        )
        == 1
    )


def test_postgresql_error(pg_engine: sa.Engine, captured: Captured) -> None:
    with pytest.raises(sa.exc.DBAPIError), pg_engine.connect() as connection:
        connection.execute(sa.text("SELECT 1 / 0"))
    attributes = captured.spans[0].attributes or {}
    assert attributes["error.type"] == "DivisionByZero"
    assert attributes["db.response.status_code"] == "22012"


def test_an_engine_without_host_asks_the_driver(pg_tables: Postgres, captured: Captured) -> None:
    import psycopg

    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(pg_tables.dsn()))
    with engine.connect() as connection:
        captured.clear()
        connection.execute(sa.text("SELECT 1"))
    engine.dispose()
    attributes = captured.spans[0].attributes or {}
    assert attributes["server.address"] == "127.0.0.1"
    assert attributes["server.port"] == pg_tables.ports["primary"]
    assert attributes["db.namespace"] == "postgres"


def test_savepoints(pg_engine: sa.Engine, captured: Captured) -> None:
    with pg_engine.begin() as connection, connection.begin_nested():
        connection.execute(sa.text("SELECT 1"))
    spans = names(captured)
    assert (spans[-1], len(spans)) == ("COMMIT", 4)
    assert captured.statsd_names().count("sql.commit") == 1


def test_server_side_cursor(pg_engine: sa.Engine, captured: Captured) -> None:
    with pg_engine.connect().execution_options(stream_results=True, yield_per=10) as connection:
        rows = connection.execute(sa.text("SELECT * FROM generate_series(1, 100)"))
        assert len(captured.spans) == 1, "the span ends with the execution"
        assert len(rows.all()) == 100


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_two_phase_commit(captured: Captured, driver: str) -> None:
    with Postgres(conf={"max_prepared_transactions": "5"}) as postgres:
        engine = sa.create_engine(postgres.dsn(driver=driver))
        with engine.connect() as connection:
            captured.clear()
            transaction = connection.begin_twophase()
            connection.execute(sa.text("SELECT 1"))
            transaction.prepare()
            transaction.commit()
            assert names(captured) == ["SELECT", "PREPARE TRANSACTION", "COMMIT"]
            transaction = connection.begin_twophase()
            connection.execute(sa.text("SELECT 1"))
            transaction.rollback()
            assert names(captured)[3:] == ["SELECT", "ROLLBACK"]
        engine.dispose()
    assert captured.statsd_names() == ["sql.SELECT__", "sql.commit", "sql.SELECT__"]


def test_asyncio(pg_tables: Postgres, captured: Captured) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    async def query(engine: object, name: str) -> None:
        with trace.get_tracer("test").start_as_current_span(name):
            async with engine.begin() as connection:  # type: ignore[attr-defined]  # an AsyncEngine
                await connection.execute(sa.text("SELECT pg_sleep(0.01)"))

    async def main() -> None:
        engine = create_async_engine(pg_tables.dsn(driver="psycopg"))
        async with engine.connect():
            pass
        captured.clear()
        await asyncio.gather(*(query(engine, f"task {n}") for n in range(3)))
        await engine.dispose()

    asyncio.run(main())
    trees = dict(captured.tree())
    assert {name: [child for child, _ in below if child in ("SELECT", "COMMIT")] for name, below in trees.items()} == {
        f"task {n}": ["SELECT", "COMMIT"] for n in range(3)
    }
