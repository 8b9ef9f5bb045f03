"""Sessions on a real PostgreSQL primary with its streaming replica, by both drivers: routing, read-only, a replica that
stops, lags, freezes or is promoted; and that no thread ever reaches the wrong server."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from pyramid.request import Request
from pyramid.response import Response

from c2c_otel import db, db_maintenance
from c2c_otel.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from c2c_otel.settings import Settings
from c2c_otel.testing import Captured, capture
from tests.apps.db import Application, Base, Hello
from tests.servers import Postgres
from tests.servers.fixtures import running

DRIVERS = ["psycopg", "psycopg2"]

Make = Callable[..., Application]


def create_tables(postgres: Postgres) -> None:
    engine = sa.create_engine(postgres.dsn(driver="psycopg"))
    Base.metadata.create_all(engine)
    engine.dispose()
    postgres.wait_for_replica()


def settings_for(postgres: Postgres, driver: str, **more: str) -> dict[str, str]:
    return {
        "sqlalchemy.url": postgres.dsn(driver=driver),
        "sqlalchemy_slave.url": postgres.dsn("replica", driver=driver),
        "c2c.db_replica_interval_seconds": "0.1",
        **more,
    }


@pytest.fixture(scope="module")
def shared(postgres: Postgres) -> Postgres:
    create_tables(postgres)
    return postgres


@pytest.fixture
def own() -> Iterator[Postgres]:
    """One that may be broken."""
    with running(Postgres(replica=True)) as server:
        create_tables(server)
        yield server


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make() -> Iterator[Callable[..., Application]]:
    made: list[Application] = []

    def make(settings: dict[str, str], **arguments: Any) -> Application:
        made.append(Application(settings, **arguments))
        return made[-1]

    yield make
    for app in made:
        app.session.dispose()


@pytest.fixture
def readonly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db_maintenance, "is_readonly", lambda: True)


def wait_until(what: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "database replica" in record.getMessage()]


# -- routing and read-only --------------------------------------------------------------------------------------------


def test_reads_and_writes(make: Make, shared: Postgres, driver: str) -> None:
    app = make(settings_for(shared, driver))
    before = app.count()
    assert app.get("/where").text == "replica"
    assert app.post("/where").text == "primary"
    assert app.post("/write").text == "primary"
    assert app.post("/late").text == "answered"
    assert app.count() == before + 2


def test_a_write_on_the_replica_says_what_to_do(make: Make, shared: Postgres, driver: str) -> None:
    app = make(settings_for(shared, driver))
    with pytest.raises(sa.exc.DBAPIError) as failure:
        app.get("/execute")
    assert "force_master" in failure.value.__notes__[0]
    assert app.get("/where").text == "replica"


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("replica", [True, False])
@pytest.mark.parametrize("path", ["/write", "/execute", "/late"])
def test_read_only(
    make: Make, shared: Postgres, driver: str, readonly: None, path: str, replica: bool, autocommit: bool
) -> None:
    more = {"sqlalchemy.isolation_level": "AUTOCOMMIT", "sqlalchemy_slave.isolation_level": "AUTOCOMMIT"}
    settings = settings_for(shared, driver, **(more if autocommit else {}))
    app = make(settings, slave_prefix="sqlalchemy_slave" if replica else None)
    before = app.count()
    response = app.post(path)
    assert response.status_int == 503
    assert int(response.headers["Retry-After"]) > 0
    assert "read-only" in response.text
    assert app.call("PUT", "/where").text == ("replica" if replica else "primary")
    assert app.count() == before


def test_writable_again_on_the_same_connection(
    make: Make, shared: Postgres, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = {"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0"}
    app = make(settings_for(shared, driver, **pool), slave_prefix=None)
    for isolation_level in ("READ COMMITTED", "AUTOCOMMIT"):
        app = make(settings_for(shared, driver, **pool, **{"sqlalchemy.isolation_level": isolation_level}))
        before = app.count()
        monkeypatch.setattr(db_maintenance, "is_readonly", lambda: True)
        with db.primary():
            assert app.post("/execute").status_int == 503
        monkeypatch.setattr(db_maintenance, "is_readonly", lambda: False)
        assert app.post("/execute").status_int == 200
        assert app.count() == before + 1


@pytest.mark.parametrize("autocommit", [False, True])
def test_the_replica_is_read_again_on_the_same_connection(
    make: Make, shared: Postgres, driver: str, monkeypatch: pytest.MonkeyPatch, autocommit: bool
) -> None:
    more = {"sqlalchemy_slave.isolation_level": "AUTOCOMMIT"} if autocommit else {}
    app = make(settings_for(shared, driver, **more))

    def pooled() -> Any:
        with app.ro.connect() as connection:
            return connection.connection.dbapi_connection

    before = pooled()
    for readonly in (True, False, True, False):
        monkeypatch.setattr(db_maintenance, "is_readonly", lambda on=readonly: on)
        assert [app.get("/where").text for _ in range(2)] == ["replica"] * 2
    assert pooled() is before


def test_savepoints_in_read_only_transactions(make: Make, shared: Postgres, driver: str, readonly: None) -> None:
    app = make(settings_for(shared, driver))
    with app.session.begin_nested():
        assert app.where() == "replica"
    with pytest.raises(db.ReadOnlyError), app.session.begin_nested():
        app.session.execute(sa.insert(Hello).values(value="no"))
    assert app.where() == "replica"
    app.session.rollback()


# -- telemetry --------------------------------------------------------------------------------------------------------


@pytest.fixture
def captured() -> Iterator[Captured]:
    with capture(Settings(sql_request_id=True)) as captured:
        SQLAlchemyInstrumentor().instrument()
        yield captured
        SQLAlchemyInstrumentor().uninstrument()


def test_request_id_and_commit(captured: Captured, make: Make, shared: Postgres, driver: str) -> None:
    """In the documented order, the include first; in the predecessor neither reached these sessions."""
    app = make(settings_for(shared, driver, **{"c2c.sql_request_id": "true"}))
    captured.clear()

    def view(request: Any) -> Any:
        query = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        app.session.add(Hello(value="x"))
        return Response(f"{app.session.scalar(sa.text(query))} {request.c2c_request_id}")

    app.config.add_route("name", "/name")
    app.config.add_view(view, route_name="name")
    app.config.commit()
    name, expected = app.post("/name").text.split()
    assert name == expected
    assert sum(name.startswith("sql.") and name.endswith(".commit") for name in captured.statsd_names()) == 1
    commit = next(span for span in captured.spans if span.name == "COMMIT")
    assert commit.attributes and commit.attributes["c2c.db.role"] == "primary"


def test_threads_that_wait_are_shown(captured: Captured, make: Make, shared: Postgres) -> None:
    settings = {"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0", "sqlalchemy.pool_timeout": "30"}
    app = make(settings_for(shared, "psycopg", **settings), slave_prefix=None)

    def connect() -> None:
        app.rw.connect().close()

    def pending() -> bool:
        line = 'db_client_connection_pending_requests{db_client_connection_pool_name="sqlalchemy"} 2.0'
        return line in captured.metrics_text()

    threads = [threading.Thread(target=connect) for _ in range(2)]
    with app.rw.connect():
        for thread in threads:
            thread.start()
        wait_until(pending)
    for thread in threads:
        thread.join()
    assert not pending()


# -- a replica with troubles ------------------------------------------------------------------------------------------


def test_a_replica_that_is_stopped(
    captured: Captured, make: Make, own: Postgres, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The very request that finds out is answered by the primary, on a connection from the pool as well."""
    caplog.set_level(logging.INFO, "c2c_otel")
    app = make(settings_for(own, driver, **{"c2c.db_replica_interval_seconds": "60"}))
    assert app.get("/where").text == "replica"
    own.stop_replica()
    assert [app.get("/where").text for _ in range(5)] == ["primary"] * 5
    reasons = {
        span.attributes.get("c2c.db.reason") for span in captured.spans if span.attributes and span.name == "SELECT"
    }
    assert reasons - {None} == {"method", "replica_down"}
    assert len(warnings(caplog)) == 1
    assert warnings(caplog)[0].startswith("The database replica sqlalchemy_slave does not answer (")
    assert app.call("PUT", "/write").text == "primary"
    own.start_replica()
    app.session._routing.replica._interval = 0.1
    app.session._routing.replica._wake.set()
    wait_until(lambda: app.get("/where").text == "replica")
    assert warnings(caplog)[1:] == ["The database replica sqlalchemy_slave is used again."]


def test_a_replica_that_is_not_there_at_the_start(make: Make, shared: Postgres, driver: str) -> None:
    settings = settings_for(shared, driver)
    settings["sqlalchemy_slave.url"] = settings["sqlalchemy_slave.url"].replace(str(shared.ports["replica"]), "1")
    app = make(settings)
    assert app.get("/where").text == "primary"
    assert app.get("/where").text == "primary"
    with pytest.raises(sa.exc.OperationalError):
        app.ro.connect()


def test_read_only_without_the_replica(make: Make, own: Postgres, driver: str, readonly: None) -> None:
    app = make(settings_for(own, driver))
    assert app.get("/where").text == "replica"
    own.stop_replica()
    assert app.get("/where").text == "primary"
    assert app.post("/write").status_int == 503
    assert app.post("/execute").status_int == 503
    assert app.count() == 0


def test_a_replica_that_is_cut_off_while_it_is_read(make: Make, own: Postgres, driver: str) -> None:
    """What has been executed is not repeated: that request fails, the next one does not."""
    app = make(settings_for(own, driver, **{"c2c.db_replica_interval_seconds": "60"}))

    def view(request: Any) -> Any:
        app.where()
        own.stop_replica()
        return Response(app.where())

    app.config.add_route("cut", "/cut")
    app.config.add_view(view, route_name="cut")
    app.config.commit()
    with pytest.raises(sa.exc.OperationalError):
        app.get("/cut")
    assert app.session._routing.replica.trouble() == "down"
    assert app.get("/where").text == "primary"


def test_a_replica_that_lags(make: Make, own: Postgres, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    app = make(settings_for(own, driver, **{"c2c.db_max_lag_seconds": "0.5"}))
    caplog.set_level(logging.INFO, "c2c_otel")
    watched = app.session._routing.replica
    time.sleep(1)  # the primary writes nothing meanwhile, which is no lag
    assert app.get("/where").text == "replica"
    time.sleep(0.3)
    assert watched.trouble() is None
    own.execute("SELECT pg_wal_replay_pause()", "replica")
    assert app.post("/write").text == "primary"
    wait_until(lambda: app.get("/where").text == "primary")
    assert len(warnings(caplog)) == 1
    assert "is behind (" in warnings(caplog)[0]
    own.execute("SELECT pg_wal_replay_resume()", "replica")
    wait_until(lambda: app.get("/where").text == "replica")
    assert len(warnings(caplog)) == 2


def test_lag_does_not_matter_unless_it_is_bounded(make: Make, own: Postgres) -> None:
    app = make(settings_for(own, "psycopg"))
    own.execute("SELECT pg_wal_replay_pause()", "replica")
    app.post("/write")
    app.get("/where")
    time.sleep(0.5)
    assert app.get("/where").text == "replica"


def test_lag_is_seen_by_an_ordinary_user(make: Make, own: Postgres) -> None:
    own.execute("CREATE ROLE reader LOGIN")
    own.wait_for_replica()
    settings = settings_for(own, "psycopg", **{"c2c.db_max_lag_seconds": "0.2"})
    settings["sqlalchemy_slave.url"] = settings["sqlalchemy_slave.url"].replace("postgres@", "reader@")
    app = make(settings)
    time.sleep(0.5)
    assert app.get("/where").text == "replica"
    time.sleep(0.5)
    assert app.get("/where").text == "replica"
    own.execute("SELECT pg_wal_replay_pause()", "replica")
    app.post("/write")
    wait_until(lambda: app.get("/where").text == "primary")


def test_a_replica_that_is_promoted(
    make: Make, own: Postgres, driver: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on answering, with data of its own."""
    app = make(settings_for(own, driver))
    identity = sa.text("SELECT inet_server_port()")
    app.query = identity
    primary, replica = str(own.ports["primary"]), str(own.ports["replica"])
    assert app.get("/where").text == replica
    own.promote()
    wait_until(lambda: app.get("/where").text == primary)
    assert warnings(caplog) == [
        "The database replica sqlalchemy_slave is a primary of its own now; "
        "sqlalchemy is read from until it can be used."
    ]
    monkeypatch.setattr(db_maintenance, "is_readonly", lambda: True)
    assert app.get("/where").text == replica
    assert app.post("/execute").status_int == 503  # although it could


def test_a_replica_that_takes_over(make: Make, own: Postgres, driver: str) -> None:
    """The primary is gone: what was its replica is the only one that can be read from."""
    app = make(settings_for(own, driver))
    assert app.get("/where").text == "replica"
    own._processes["primary"].stop(signal.SIGINT)
    own.promote()
    time.sleep(0.5)
    assert app.session._routing.replica.trouble() is None
    assert app.get("/where").text == "primary"  # so it says of itself
    with pytest.raises(sa.exc.OperationalError):
        app.post("/write")


def test_one_server_under_two_names(make: Make, shared: Postgres) -> None:
    settings = settings_for(shared, "psycopg")
    settings["sqlalchemy_slave.url"] = settings["sqlalchemy.url"].replace("127.0.0.1", "localhost")
    app = make(settings)
    app.get("/where")
    time.sleep(0.5)
    assert app.session._routing.replica.trouble() is None
    assert app.ro.pool.checkedin() == 1  # type: ignore[attr-defined]


def test_a_replica_that_freezes(make: Make, own: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    """It accepts connections, as the kernel does that for it, and says nothing: no request finds out."""
    app = make(settings_for(own, "psycopg", **{"c2c.db_connect_timeout_seconds": "0.5"}))
    assert app.get("/where").text == "replica"
    watched = app.session._routing.replica
    pids = [row[0] for row in own.execute("SELECT pid FROM pg_stat_activity WHERE usename = 'postgres'", "replica")]
    stopped = []
    try:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
            except ProcessLookupError:  # the one that told us
                continue
        wait_until(lambda: watched.trouble() == "down")
        assert app.get("/where").text == "primary"
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):  # it was about to end when it was stopped
                os.kill(pid, signal.SIGCONT)
    wait_until(lambda: app.get("/where").text == "replica")


def test_a_forked_child_begins_afresh(make: Make, shared: Postgres, driver: str) -> None:
    app = make(settings_for(shared, driver))
    assert app.get("/where").text == "replica"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            fresh = app.session._routing.replica._thread is None
            code = 0 if fresh and app.get("/where").text == "replica" and app.post("/where").text == "primary" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert app.get("/where").text == "replica"
    assert app.post("/where").text == "primary"


# -- threads ----------------------------------------------------------------------------------------------------------

THREADS = 32
REQUESTS = 20_000


@pytest.mark.timeout(600)  # half a minute on a machine that has nothing else to do
def test_no_statement_reaches_the_wrong_server(make: Make, shared: Postgres) -> None:
    """32 threads, 20,000 requests, mixed; each statement is answered by the server of its request."""
    pool = {"pool_size": str(THREADS), "max_overflow": "0"}
    both = {f"{prefix}.{key}": value for prefix in ("sqlalchemy", "sqlalchemy_slave") for key, value in pool.items()}
    both["sqlalchemy_slave.url"] = shared.dsn("replica", driver="psycopg")
    app = make(settings_for(shared, "psycopg2", **both), force_master=["GET /block"], force_slave=["PUT /inner"])
    seen: Counter[tuple[str, str]] = Counter()
    wrong: list[tuple[str, str, str]] = []
    kinds = [
        ("GET", "/where", "replica"),
        ("OPTIONS", "/where", "replica"),
        ("GET", "/block", "primary replica primary"),
        ("PUT", "/inner", "replica replica replica"),
        ("POST", "/where", "primary"),
        ("PUT", "/where", "primary"),
        ("DELETE", "/where", "primary"),
        ("GET", "/primary", "replica primary"),
        ("POST", "/replica", "primary replica"),
        ("GET", "/nested", "replica primary replica"),
        ("POST", "/inner", "primary primary primary"),
        ("GET", "/error", ""),
        ("POST", "/error", ""),
    ]
    numbers = itertools.count()

    def work(seed: int) -> None:
        pick = random.Random(seed)
        while next(numbers) < REQUESTS:
            method, path, expected = pick.choice(kinds)
            try:
                text = Request.blank(path, method=method).get_response(app.wsgi).text
            except ZeroDivisionError:
                text = ""
            seen[method, path] += 1
            if text != expected:
                wrong.append((method, path, text))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(seen.values()) == REQUESTS
    assert len(seen) == len(kinds)
    assert app.rw.pool.checkedout() == app.ro.pool.checkedout() == 0  # type: ignore[attr-defined]
