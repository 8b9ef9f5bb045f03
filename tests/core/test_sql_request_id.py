"""What PostgreSQL itself says of the request id: pg_stat_activity, and its log with ``log_line_prefix = '%a '``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from opentelemetry import trace
from sqlalchemy.orm import Session, sessionmaker

from c2c_otel import current_request, sql_request_id
from c2c_otel.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from c2c_otel.settings import Settings
from c2c_otel.testing import Captured, capture
from tests.servers import Postgres

SHOW = sa.text("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[sa.Engine]:
    """One connection, so that each test is about a pooled one; made before anything is instrumented."""
    url = postgres.dsn(driver=request.param) + "?application_name=service"
    engine = sa.create_engine(url, pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def captured() -> Iterator[Captured]:
    with capture(Settings(sql_request_id=True)) as captured:
        SQLAlchemyInstrumentor().instrument()
        yield captured
        SQLAlchemyInstrumentor().uninstrument()


@contextmanager
def serving(request_id: str) -> Iterator[None]:
    request = current_request.CurrentRequest({}, request_id, trace.INVALID_SPAN, 0)
    token = otel_context.attach(otel_context.set_value(current_request.KEY, request))
    try:
        yield
    finally:
        otel_context.detach(token)


def shown(engine: sa.Engine) -> str | None:
    with Session(engine) as session:
        return session.scalar(SHOW)


def test_during_a_request_and_only_then(engine: sa.Engine) -> None:
    assert shown(engine) == "service"
    with serving("one"):
        assert shown(engine) == "one"
    assert shown(engine) == "service"
    with serving("two"):
        assert shown(engine) == "two"
        assert shown(engine) == "two"
    assert shown(engine) == "service"


def test_what_others_see(engine: sa.Engine, postgres: Postgres) -> None:
    def seen(name: str) -> int:
        query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'"
        return int(postgres.execute(query)[0][0])

    with serving("watched"), Session(engine) as session:
        session.execute(sa.text("SELECT 1"))
        assert seen("watched") == 1
        session.commit()
        assert seen("watched") == 0, "an idle connection belongs to no request"


def test_sessions_made_before_and_after(engine: sa.Engine) -> None:
    before = Session(engine)
    maker = sessionmaker(engine)
    SQLAlchemyInstrumentor().uninstrument()
    SQLAlchemyInstrumentor().instrument()
    with serving("r1"):
        assert before.scalar(SHOW) == "r1"
        before.close()
        with maker() as after:
            assert after.scalar(SHOW) == "r1"


def test_survives_rollback_savepoint_and_error(engine: sa.Engine) -> None:
    with serving("r1"), Session(engine) as session:
        assert session.scalar(SHOW) == "r1"
        session.rollback()
        assert session.scalar(SHOW) == "r1"
        with pytest.raises(sa.exc.DBAPIError), session.begin_nested():
            session.execute(sa.text("SELECT 1 / 0"))
        assert session.scalar(SHOW) == "r1"
        with pytest.raises(sa.exc.DBAPIError):
            session.execute(sa.text("SELECT 1 / 0"))
        session.rollback()
        assert session.scalar(SHOW) == "r1"
        session.commit()
        assert session.scalar(SHOW) == "r1"


def test_autocommit(engine: sa.Engine) -> None:
    automatic = engine.execution_options(isolation_level="AUTOCOMMIT")
    with serving("r1"), automatic.connect() as connection:
        assert connection.scalar(SHOW) == "r1"
        assert connection.scalar(SHOW) == "r1"
    assert shown(engine) == "service"
    with automatic.connect() as connection:
        assert connection.scalar(SHOW) == "service"


def test_the_transaction_may_still_be_set_up(engine: sa.Engine) -> None:
    """SET TRANSACTION must come before any query: what we send must be none."""
    with serving("r1"), Session(engine) as session:
        session.execute(sa.text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        assert session.scalar(sa.text("SHOW transaction_isolation")) == "serializable"
        assert session.scalar(SHOW) == "r1"


def test_two_phase(engine: sa.Engine) -> None:
    with serving("r1"), engine.connect() as connection:
        transaction = connection.begin_twophase()
        assert connection.scalar(SHOW) == "r1"
        transaction.rollback()


def test_a_setting_that_is_off(engine: sa.Engine, captured: Captured) -> None:
    from c2c_otel import telemetry

    owner = telemetry.get()
    settings, owner._settings = owner.settings, Settings()
    try:
        with serving("r1"):
            assert shown(engine) == "service"
    finally:
        owner._settings = settings


def test_our_statement_is_not_seen(engine: sa.Engine, captured: Captured) -> None:
    shown(engine)
    captured.clear()
    with serving("r1"):
        shown(engine)
    assert [span.name for span in captured.spans] == ["SELECT pg_stat_activity", "ROLLBACK"]
    assert len(captured.statsd) == 1


@pytest.mark.parametrize(
    ("request_id", "expected"),
    [
        ("a" * 128, "a" * 63),
        ("it's; DROP TABLE x --", "it's; DROP TABLE x --"),
        ("100% %s %(x)s :y $1 ?", "100% %s %(x)s :y $1 ?"),
        ('back\\slash " quote', 'back\\slash " quote'),
        ("Root=1-67891233-abcdef;Parent=53995c3f", "Root=1-67891233-abcdef;Parent=53995c3f"),
        ("é\n\0x", "???x"),
    ],
)
def test_any_id_arrives(engine: sa.Engine, request_id: str, expected: str) -> None:
    with serving(request_id):
        assert shown(engine) == expected


@given(st.text(max_size=200))
def test_a_literal_cannot_end_early(request_id: str) -> None:
    literal = sql_request_id.literal(request_id)
    assert literal.startswith("E'") and literal.endswith("'")
    inside = literal[2:-1]
    assert inside.isascii()
    assert not set(inside) & set("'\"%:$\n\0")
    assert len(inside.encode().decode("unicode_escape")) <= 63


def test_a_connection_that_died_is_the_applications_affair(engine: sa.Engine, postgres: Postgres) -> None:
    with Session(engine) as session:
        pid = session.scalar(sa.text("SELECT pg_backend_pid()"))
    postgres.execute(f"SELECT pg_terminate_backend({pid})")
    with serving("r1"):
        with pytest.raises(sa.exc.DBAPIError) as failed:
            shown(engine)
        assert failed.value.connection_invalidated
        assert shown(engine) == "r1"


def test_the_servers_log(engine: sa.Engine, postgres: Postgres) -> None:
    with serving("logged-id"), Session(engine) as session:
        session.execute(sa.text("SELECT 'marker-of-this-test'"))
        session.commit()
    with Session(engine) as session:
        session.execute(sa.text("SELECT 'marker-of-another'"))
    lines = postgres.log().splitlines()
    assert [line.split()[0] for line in lines if "marker-of-this-test" in line][-1] == "logged-id"
    assert [line.split()[0] for line in lines if "marker-of-another" in line][-1] == "service"
    assert any(line.startswith("logged-id ") and line.endswith("COMMIT") for line in lines)


def test_threads_and_pooled_connections(postgres: Postgres) -> None:
    engine = sa.create_engine(postgres.dsn(driver="psycopg"), pool_size=4, max_overflow=0)
    wrong = []

    def work(thread: int) -> None:
        for n in range(10):
            with serving(f"request-{thread}-{n}"):
                if shown(engine) != f"request-{thread}-{n}":
                    wrong.append((thread, n))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert wrong == []


def test_asyncio(postgres: Postgres) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    async def main() -> str | None:
        engine = create_async_engine(postgres.dsn(driver="psycopg"))
        try:
            with serving("async-id"):
                async with engine.connect() as connection:
                    return str(await connection.scalar(SHOW))
        finally:
            await engine.dispose()

    assert asyncio.run(main()) == "async-id"


def test_other_databases_are_left_alone() -> None:
    with serving("r1"), sa.create_engine("sqlite://").begin() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1
