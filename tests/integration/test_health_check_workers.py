"""Health checks on real servers: PostgreSQL with a replica that stops, Redis that stops, gunicorn of three workers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pyramid.config import Configurator
from pyramid.request import Request

from c2c_otel import db
from c2c_otel.health_check import EngineType, HealthCheck
from tests.apps.db import Base, Hello
from tests.integration.worker_kit import GTHREAD, Callee, series, value
from tests.servers import Gunicorn, Postgres, Redis, Sentinel, wait_until
from tests.servers.fixtures import running

SECRET = "a secret of these tests"
KEY = {"X-API-Key": SECRET}
APP = "tests.apps.health:main()"


class Service:
    """An application in this process; ``health`` is filled before the first `get`."""

    def __init__(self, **settings: str) -> None:
        defaults = {"c2c.secret": SECRET, "c2c.health_check_cache_seconds": "0"}
        self.config = Configurator(settings={**defaults, **settings})
        self.config.include("c2c_otel")
        self.health = HealthCheck(self.config)
        self._wsgi: Any = None

    def get(self, query: str = "", headers: dict[str, str] | None = None) -> Any:
        if self._wsgi is None:
            self._wsgi = self.config.make_wsgi_app()
        return Request.blank(f"/c2c/health_check{query}", headers=headers or {}).get_response(self._wsgi).json


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


class OnPostgres(Service):
    def __init__(self, postgres: Postgres, driver: str = "psycopg") -> None:
        super().__init__(
            **{
                "sqlalchemy.url": postgres.dsn(driver=driver),
                "sqlalchemy_slave.url": postgres.dsn("replica", driver=driver),
                "sqlalchemy.pool_size": "3",
            }
        )
        self.session, self.rw, self.ro = db.setup_session(self.config, "sqlalchemy", "sqlalchemy_slave")


@pytest.fixture(params=["psycopg", "psycopg2"])
def shared(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[OnPostgres]:
    service = OnPostgres(postgres, request.param)
    yield service
    service.session.dispose()


def test_a_replica_that_stops_and_comes_back() -> None:
    with running(Postgres(replica=True)) as server:
        service = OnPostgres(server)
        service.health.add_db_session_check(service.session)
        service.health.add_db_session_check(service.session, engine_type=EngineType.WRITE_ONLY, level=2)
        assert service.get()["status"] == 200
        server.stop_replica()
        for _ in range(2):
            body = service.get("?max_level=2")
            assert body["status"] == 500
            assert body["failures"].keys() == {"db_engine_sqlalchemy_slave"}
            assert body["failures"]["db_engine_sqlalchemy_slave"]["message"] == "OperationalError"
            assert body["successes"].keys() == {"db_engine_sqlalchemy", "db_engine_sqlalchemy_2"}
        assert "port" in service.get("", KEY)["failures"]["db_engine_sqlalchemy_slave"]["message"]
        server.start_replica()
        assert wait_until("the replica", lambda: service.get()["status"] == 200)
        service.session.dispose()


def test_a_poisoned_session_is_nobody_elses(shared: OnPostgres) -> None:
    """PostgreSQL refuses all further statements of a transaction in which one has failed."""

    def poison(session: Any) -> None:
        for _ in range(2):
            try:
                session.execute(sa.text("SELECT 'hidden' FROM nowhere"))
            except sa.exc.DBAPIError as error:
                last = error
        raise last

    def of_the_application(request: Any) -> None:
        poison(shared.session)

    for _ in range(2):
        shared.health.add_db_session_check(shared.session, poison)
        shared.health.add_custom_check("theirs", of_the_application)
        shared.health.add_db_session_check(shared.session, lambda session: session.scalar(sa.text("SELECT 1")))
        shared.health.add_custom_check("reads", lambda request: shared.session.scalar(sa.text("SELECT 42")))
    for _ in range(3):
        body = shared.get()
        names = {"db_engine_sqlalchemy", "db_engine_sqlalchemy_slave", "theirs", "theirs_2"}
        assert body["failures"].keys() == names | {"db_engine_sqlalchemy_3", "db_engine_sqlalchemy_slave_3"}
        assert {failure["message"] for failure in body["failures"].values()} == {"InternalError"}
        assert "hidden" not in json.dumps(body)
        assert body["successes"]["reads"]["result"] == body["successes"]["reads_2"]["result"] == 42
        assert len(body["successes"]) == 6
    assert shared.rw.pool.checkedout() == shared.ro.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert "hidden" in json.dumps(shared.get("", KEY))


def test_a_statement_that_nobody_waits_for_is_ended(shared: OnPostgres) -> None:
    shared.health.add_db_session_check(
        shared.session,
        lambda session: session.execute(sa.text("SELECT pg_sleep(100)")),
        engine_type=EngineType.WRITE_ONLY,
        deadline_seconds=0.2,
    )
    shared.health.add_custom_check("fine", lambda request: None)
    body = shared.get()
    assert body["failures"].keys() == {"db_engine_sqlalchemy"}
    assert body["successes"].keys() == {"fine"}
    assert body["failures"]["db_engine_sqlalchemy"]["message"] in ("no answer within 0.2 s", "OperationalError")
    wait_until("its connection", lambda: shared.rw.pool.checkedout() == 0)  # type: ignore[attr-defined]


def test_what_is_read_and_written(shared: OnPostgres, postgres: Postgres) -> None:
    engine = shared.rw
    Base.metadata.drop_all(engine)
    shared.health.add_db_session_check(shared.session, at_least_one_model=Hello, engine_type=EngineType.WRITE_ONLY)
    assert shared.get()["failures"]["db_engine_sqlalchemy"]["message"] == "ProgrammingError"
    Base.metadata.create_all(engine)
    assert shared.get()["failures"]["db_engine_sqlalchemy"]["message"] == "Hello record not found"
    with engine.begin() as connection:
        connection.execute(sa.insert(Hello).values(value="you"))
    assert shared.get()["status"] == 200
    assert "SET LOCAL statement_timeout = 5000" in postgres.log()
    Base.metadata.drop_all(engine)


def test_the_version_of_a_database(shared: OnPostgres, postgres: Postgres, tmp_path: Path) -> None:
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    for revision in ("aaa", "bbb"):
        script = f"revision = {revision!r}\ndown_revision = None\n"
        (tmp_path / "migrations" / "versions" / f"{revision}.py").write_text(script)
    ini = tmp_path / "alembic.ini"
    ini.write_text("[alembic]\nscript_location = migrations\n")
    shared.health.add_alembic_check(shared.session, str(ini), 1)
    shared.health.add_alembic_check(shared.session, str(ini), 1, version_schema="hidden place", version_table="mine")
    first, second = (check.name for check in shared.health.checks)
    postgres.execute("DROP TABLE IF EXISTS alembic_version")
    postgres.execute('DROP SCHEMA IF EXISTS "hidden place" CASCADE')
    postgres.wait_for_replica()
    body = shared.get()
    assert body["failures"][first]["message"] == "sqlalchemy has no table public.alembic_version"
    assert body["failures"][second]["message"] == "sqlalchemy has no table hidden place.mine"
    postgres.execute('CREATE SCHEMA "hidden place"')
    for table in ("public.alembic_version", '"hidden place".mine'):
        postgres.execute(f"CREATE TABLE {table} (version_num VARCHAR(32) PRIMARY KEY)")
    postgres.execute("INSERT INTO alembic_version VALUES ('bbb')")
    postgres.execute("INSERT INTO \"hidden place\".mine VALUES ('bbb'), ('aaa')")
    postgres.wait_for_replica()
    body = shared.get()
    assert body["failures"][first]["message"] == (
        "sqlalchemy is at bbb, sqlalchemy_slave is at bbb; the code is for aaa and bbb"
    )
    assert body["successes"][second]["result"] == ["aaa", "bbb"]
    postgres.execute("DROP TABLE alembic_version")
    postgres.execute('DROP SCHEMA "hidden place" CASCADE')


# -- Redis ------------------------------------------------------------------------------------------------------------


def test_redis_that_stops() -> None:
    with running(Redis()) as server:
        service = Service(**{"c2c.redis_url": f"redis://:hidden@127.0.0.1:{server.port}/5"})
        name = f"redis://127.0.0.1:{server.port}/5"
        failure = service.get("?max_level=2")["failures"][name]  # it wants no password
        assert "hidden" not in json.dumps(failure)
    with running(Redis()) as server:
        service = Service(**{"c2c.redis_url": f"127.0.0.1:{server.port}"})
        name = f"redis://127.0.0.1:{server.port}/0"
        assert service.get()["successes"] == {}
        success = service.get("?max_level=2")["successes"][name]
        assert success.keys() == {"timing", "level"}
        assert success["level"] == 2
        result = service.get("?max_level=2", KEY)["successes"][name]["result"]
        assert result["info"]["redis_version"] and result["dbsize"] == 0
        server.stop()
        body = service.get("?max_level=2")
        assert body["status"] == 500
        assert body["failures"].keys() == {name}


def test_redis_behind_sentinels(sentinel: Sentinel) -> None:
    service = Service(**{"c2c.redis_sentinels": f"127.0.0.1:{sentinel.port}", "c2c.redis_servicename": "mymaster"})
    (check,) = service.health.checks
    assert check.name == f"sentinel://127.0.0.1:{sentinel.port}/mymaster/0"
    body = service.get(f"?checks={check.name}", KEY)
    result = body["successes"][check.name]["result"]
    assert result["info"]["role"] == "master"
    assert result["replica_info"]["role"] in ("slave", "master")
    assert result["sentinel_master"]["name"] == "mymaster"


# -- gunicorn ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[(), ("--preload",)], ids=["plain", "preload"])
def gunicorn(
    request: pytest.FixtureRequest, postgres: Postgres, redis_server: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gunicorn]:
    directory = tmp_path_factory.mktemp("health")
    (directory / "versions.json").write_text(json.dumps({"main": {"git_hash": "abc123"}}))
    callee = Callee()
    with callee.running() as url:
        env = {
            "C2C_SECRET": SECRET,
            "C2C_REDIS_URL": f"redis://127.0.0.1:{redis_server.port}",
            "C2C_BROADCAST_PREFIX": f"health{len(request.param)}_",
            "C2C_VERSIONS_FILE": str(directory / "versions.json"),
            "C2C_HEALTH_CHECK_CACHE_SECONDS": "0.001",
            "C2C_HEALTH_CHECK_TIMEOUT_SECONDS": "2",
            "APP_SQL": postgres.dsn(driver="psycopg"),
            "APP_SQL_SLAVE": postgres.dsn("replica", driver="psycopg"),
            "APP_TROUBLE": str(directory / "trouble"),
            "APP_CALL": f"{url}/called",
        }
        with Gunicorn(APP, "-w", "3", *GTHREAD, *request.param, env=env) as server:
            server.callee, server.trouble = callee, directory / "trouble"  # type: ignore[attr-defined] # for these tests
            server.wait_for_workers(3)
            yield server


def get(gunicorn: Gunicorn, path: str = "", headers: dict[str, str] | None = None) -> Any:
    answer = gunicorn.get(f"/c2c/health_check{path}", headers)
    body = json.loads(answer.body)
    assert body["status"] == answer.status
    return body


def everywhere(gunicorn: Gunicorn, query: str) -> dict[int, Any]:
    """Ask until each worker has answered: pid -> body."""
    found: dict[int, Any] = {}

    def ask() -> bool:
        with ThreadPoolExecutor(6) as pool:
            for body in pool.map(lambda _: get(gunicorn, query), range(6)):
                found[body["successes"]["who"]["result"]["pid"]] = body
        return set(gunicorn.worker_pids()) <= found.keys()

    wait_until("all workers", ask)
    return found


def test_all_workers_have_one_version(gunicorn: Gunicorn) -> None:
    def all_three() -> Any:
        result = get(gunicorn, "?checks=version")["successes"]["version"]["result"]
        return result if result["count"] == 3 else None

    assert wait_until("three answers", all_three) == {"version": "abc123", "count": 3}
    assert wait_until("starts", lambda: value(gunicorn, "c2c_otel_version_starts_total", version="abc123") == 3)


def test_each_worker_runs_them(gunicorn: Gunicorn) -> None:
    found = everywhere(gunicorn, "?max_level=3")
    for body in found.values():
        names = {"db_engine_sqlalchemy", "db_engine_sqlalchemy_slave", "trouble", "who", "version"}
        assert names < body["successes"].keys()
        assert body["failures"] == {}
        (redis,) = body["successes"].keys() - names
        assert redis.startswith("redis://127.0.0.1:")
    for probe in ("/live", "/ready", "/startup"):
        assert get(gunicorn, probe)["status"] == 200


def test_metrics_are_of_all_workers(gunicorn: Gunicorn) -> None:
    everywhere(gunicorn, "?max_level=3")
    runs = value(gunicorn, "c2c_otel_health_check_runs_total", check="trouble", outcome="failure")
    gunicorn.trouble.write_text("fail")  # type: ignore[attr-defined] # see the fixture
    try:
        assert get(gunicorn, "?checks=trouble")["failures"]["trouble"]["message"] == "asked for"
        assert get(gunicorn, "/ready")["status"] == 503
    finally:
        gunicorn.trouble.write_text("")  # type: ignore[attr-defined] # as above
    assert value(gunicorn, "c2c_otel_health_check_runs_total", check="trouble", outcome="failure") == runs + 2
    states = {
        dict(labels)["check"]: state for labels, state in series(gunicorn, "c2c_otel_health_check_success").items()
    }
    assert states["trouble"] == 0 and states["db_engine_sqlalchemy"] == 1  # one series a check, whoever ran it last
    ages = {dict(labels)["check"]: age for labels, age in series(gunicorn, "c2c_otel_health_check_age_seconds").items()}
    assert ages.keys() == states.keys()
    assert all(0 <= age < 100 for age in ages.values())
    get(gunicorn)
    assert value(gunicorn, "c2c_otel_health_check_success", check="trouble") == 1


def test_one_that_hangs_holds_up_nothing_else(gunicorn: Gunicorn) -> None:
    gunicorn.trouble.write_text("hang")  # type: ignore[attr-defined] # as above
    try:
        bodies = [get(gunicorn, "?max_level=3") for _ in range(4)]
    finally:
        gunicorn.trouble.write_text("")  # type: ignore[attr-defined] # as above
    for body in bodies:
        assert body["failures"].keys() == {"trouble"}
        assert re.match("no answer within 2 s|still running since", body["failures"]["trouble"]["message"])
        assert "db_engine_sqlalchemy" in body["successes"]
    wait_until("the end", lambda: all(body["failures"] == {} for body in everywhere(gunicorn, "?max_level=3").values()))


def test_the_request_id_and_the_trace_go_with_a_call(gunicorn: Gunicorn) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"X-Request-ID": "health-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    assert get(gunicorn, "?checks=called", headers)["successes"]["called"]["result"] == "ok"
    (call,) = [call for call in gunicorn.callee.calls["/called"] if call["x-request-id"] == "health-1"]  # type: ignore[attr-defined] # as above
    assert call["traceparent"].split("-")[1] == trace


def test_many_requests_cannot_overload_a_database(postgres: Postgres) -> None:
    env = {"APP_SQL": postgres.dsn(driver="psycopg"), "C2C_HEALTH_CHECK_CACHE_SECONDS": "600"}
    with Gunicorn(APP, "-w", "3", *GTHREAD, env=env) as server, ThreadPoolExecutor(16) as pool:
        assert all(body["status"] == 200 for body in pool.map(lambda _: get(server), range(200)))
        assert 1 <= value(server, "c2c_otel_health_check_runs_total", check="db_engine_sqlalchemy") <= 3
