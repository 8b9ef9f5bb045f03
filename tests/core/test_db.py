"""Which server a statement reaches, on two SQLite files; sessions, scopes and settings. No server is needed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import transaction
from pyramid.config import Configurator
from sqlalchemy import orm

from c2c_otel import db, db_maintenance
from c2c_otel.db import scope
from c2c_otel.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from c2c_otel.settings import ConfigurationError
from c2c_otel.testing import Captured
from tests.apps.db import Application, Hello, sqlite_servers


@pytest.fixture
def servers(tmp_path: Path) -> dict[str, str]:
    return sqlite_servers(tmp_path)


@pytest.fixture
def app(servers: dict[str, str]) -> Iterator[Application]:
    with Application(servers) as app:
        yield app


@pytest.fixture
def readonly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db_maintenance, "is_readonly", lambda: True)


# -- routing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "server"),
    [
        ("GET", "replica"),
        ("OPTIONS", "replica"),
        ("POST", "primary"),
        ("PUT", "primary"),
        ("PATCH", "primary"),
        ("DELETE", "primary"),
        ("PURGE", "primary"),
    ],
)
def test_the_method_decides(app: Application, method: str, server: str) -> None:
    assert app.call(method, "/where").text == server


def test_head_reads_from_the_replica(app: Application) -> None:
    app.call("HEAD", "/where")
    assert app.seen == ["replica"]


def test_forced_by_regular_expressions(servers: dict[str, str]) -> None:
    with Application(servers, force_master=["GET /wh", "(POST|PUT) /.*e$"], force_slave=["POST /where"]) as app:
        assert app.get("/where").text == "primary"  # matched from the start, not to the end
        assert app.post("/where").text == "primary"  # force_master is asked first
    with Application(servers, force_slave=["POST /where"]) as app:
        assert app.post("/where").text == "replica"
        assert app.post("/where?and=more").text == "replica"
        assert app.call("PUT", "/where").text == "primary"


def test_the_path_is_as_the_client_sees_it(servers: dict[str, str]) -> None:
    with Application(servers, force_slave="POST /mounted/where", options={"route_prefix": "mounted"}) as app:
        assert app.post("/mounted/where").text == "replica"
        assert app.call("POST", "/mounted/where", SCRIPT_NAME="/app").text == "primary"


def test_the_switch_is_above_all(servers: dict[str, str], readonly: None) -> None:
    with Application(servers, force_master=[".*"]) as app:
        assert app.get("/where").text == app.call("PUT", "/where").text == "replica"
        assert app.post("/primary").text == "replica replica"
        assert app.session.scalar(app.query) == "replica"  # outside of requests, too


def test_names(app: Application) -> None:
    assert (app.rw.c2c_name, app.ro.c2c_name) == ("sqlalchemy", "sqlalchemy_slave")  # type: ignore[attr-defined]
    assert (app.session.c2c_rw_bind, app.session.c2c_ro_bind) == (app.rw, app.ro)
    assert app.session.bind is app.session.get_bind() is app.rw


def test_the_decision_is_made_once(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    def view(request: Any) -> Any:
        before = app.where()
        monkeypatch.setattr(db_maintenance, "is_readonly", lambda: True)
        request.method = "GET"
        transaction.commit()
        request.response.text = f"{before} {app.where()}"
        return request.response

    app.config.add_route("twice", "/twice")
    app.config.add_view(view, route_name="twice")
    app.config.commit()
    assert app.post("/twice").text == "primary primary"
    assert app.post("/where").text == "replica"


def test_the_code_may_choose(app: Application) -> None:
    assert app.get("/primary").text == "replica primary"
    assert app.post("/replica").text == "primary replica"
    assert app.post("/block").text == "primary replica primary"
    assert app.get("/block").text == "primary replica replica"
    assert app.get("/where").text == "replica"
    with db.replica():
        assert app.where() == "replica"
    app.session.rollback()
    assert app.where() == "primary"
    db.use_primary(object())  # something that is no request of ours


def test_a_path_that_is_not_utf8(servers: dict[str, str]) -> None:
    with Application(servers, force_master=["GET /.?/where"]) as app:
        assert app.call("GET", "/where", SCRIPT_NAME="/\xff").text == "primary"


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_a_request_has_a_session_of_its_own(app: Application) -> None:
    kept: list[Any] = []

    def view(request: Any) -> Any:
        kept.append(app.session())
        assert app.session() is kept[-1]
        app.where()
        return request.response

    app.config.add_route("keep", "/keep")
    app.config.add_view(view, route_name="keep")
    app.config.commit()
    outside = app.session()
    app.get("/keep")
    app.get("/keep")
    assert kept[0] is not kept[1]
    assert app.session() is outside
    assert not kept[0].in_transaction()
    assert app.rw.pool.checkedout() == app.ro.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_thread_has_a_session_of_its_own(app: Application) -> None:
    sessions: list[Any] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: sessions.append(app.session()))
        thread.start()
        thread.join()
    assert len({*map(id, sessions), id(app.session())}) == 3


def test_everything_is_as_before_after_an_error(app: Application) -> None:
    with pytest.raises(ZeroDivisionError):
        app.get("/error")
    assert app.seen == ["replica"]
    assert scope.current.get() is None
    assert app.ro.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert app.post("/where").text == "primary"


def test_subrequests(app: Application) -> None:
    assert app.get("/nested").text == "replica primary replica"
    assert app.get("/inner").text == "replica replica replica"


def test_a_copied_subrequest_joins_the_transaction(app: Application) -> None:
    """pyramid_tm leaves the transaction to the outer request; so does the session."""

    def view(request: Any) -> Any:
        inner = request.copy()
        inner.path_info, inner.method = "/write", "POST"
        text = request.invoke_subrequest(inner, use_tweens=True).text
        request.response.text = f"{text} {app.where()} {len(transaction.get()._resources)}"
        db.use_primary(request)
        request.response.text += f" {app.where()}"
        return request.response

    app.config.add_route("copied", "/copied")
    app.config.add_view(view, route_name="copied")
    app.config.commit()
    assert app.get("/copied").text == "primary replica 2 primary"
    assert app.count() == 1


def test_a_body_that_is_made_later(app: Application) -> None:
    assert app.get("/stream").text == "primaryprimary"
    app.session.remove()


def test_plain_sessions(app: Application) -> None:
    factory: Any = app.session.session_factory

    def view(request: Any) -> Any:
        with factory() as session, factory() as other:
            request.response.text = f"{session.scalar(app.query)} {other.scalar(app.query)}"
        return request.response

    app.config.add_route("plain", "/plain")
    app.config.add_view(view, route_name="plain")
    app.config.commit()
    assert app.get("/plain").text == "replica replica"
    assert app.post("/plain").text == "primary primary"


def test_a_session_with_a_bind_of_its_own(app: Application) -> None:
    factory: Any = app.session.session_factory
    with app.ro.connect() as connection, factory(bind=connection) as session:
        assert session.scalar(app.query) == "replica"
        assert session.connection() is connection
    with factory(binds={Hello: app.ro}) as session:
        assert session.get_bind(orm.class_mapper(Hello)) is app.ro
    with factory() as session:
        session.bind = app.ro  # as health checks do
        assert session.scalar(app.query) == "replica"
        assert session.connection(bind_arguments={"bind": app.rw}).engine is app.rw


def test_asking_for_the_engine_begins_nothing(app: Application) -> None:
    assert app.session.get_bind() is app.rw
    assert not app.session().in_transaction()


def test_savepoints_and_options(app: Application) -> None:
    with app.session.begin_nested():
        assert app.where() == "primary"
    connection = app.session.connection(execution_options={"mine": 1})
    assert app.session.connection() is connection
    app.session.rollback()
    assert app.session.connection(execution_options={"mine": 2}).get_execution_options()["mine"] == 2
    app.session.rollback()


def test_writes_are_committed_with_the_transaction(app: Application) -> None:
    for path in ("/write", "/execute", "/late"):
        app.post(path)
    assert app.count() == 3
    with pytest.raises(ZeroDivisionError):
        app.post("/error")


def test_an_explicit_transaction_manager(servers: dict[str, str]) -> None:
    with Application({**servers, "tm.manager_hook": "pyramid_tm.explicit_manager"}) as app:
        app.post("/late")
        assert app.count() == 1


def test_a_transaction_of_somebody_else(app: Application) -> None:
    """A test, or a WSGI middleware, manages it; it outlives the request."""
    manager = transaction.TransactionManager()
    manager.begin()
    app.call("POST", "/late", **{"tm.active": True, "tm.manager": manager})
    assert app.count() == 0
    manager.commit()
    assert app.count() == 1


def test_without_any_transaction_nothing_is_left(servers: dict[str, str]) -> None:
    with Application({**servers, "tm.activate_hook": "tests.core.test_db.never"}) as app:
        assert app.post("/write").text == "primary"
        assert app.rw.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert not transaction.get()._resources
        assert app.count() == 0


def never(request: Any) -> bool:
    return False


def test_several_sessions(servers: dict[str, str], tmp_path: Path) -> None:
    config = Configurator(settings=servers)
    first, _, _ = db.setup_session(config, "sqlalchemy", "sqlalchemy_slave")
    second = db.create_session(
        config, "other", servers["sqlalchemy.url"], servers["sqlalchemy_slave.url"], force_master=["GET /"]
    )
    query = sa.text("SELECT name FROM server")

    def view(request: Any) -> Any:
        request.response.text = f"{first.scalar(query)} {second.scalar(query)}"
        return request.response

    config.add_route("both", "/both")
    config.add_view(view, route_name="both")
    app = config.make_wsgi_app()
    from pyramid.request import Request

    assert Request.blank("/both").get_response(app).text == "replica primary"
    assert [second.c2c_rw_bind.c2c_name, second.c2c_ro_bind.c2c_name] == ["other_master", "other_slave"]  # type: ignore[attr-defined]
    first.dispose()
    second.dispose()


# -- read-only --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/write", "/execute", "/late"])
@pytest.mark.parametrize("replica", [True, False])
@pytest.mark.parametrize("options", [{}, {"exceptionresponse_view": None}])
def test_a_write_is_answered_with_503(
    servers: dict[str, str], readonly: None, path: str, replica: bool, options: dict[str, Any]
) -> None:
    with Application(servers, options=options, slave_prefix="sqlalchemy_slave" if replica else None) as app:
        response = app.post(path)
        assert response.status_int == 503
        assert int(response.headers["Retry-After"]) > 0
        assert "read-only" in response.text
        assert "INSERT" not in response.text
        assert app.call("POST", path, HTTP_ACCEPT="application/json").json["code"].startswith("503")
        assert app.get("/where").text == ("replica" if replica else "primary")
        assert app.count() == 0


def test_connections_are_writable_afterwards(servers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with Application(
        {**servers, "sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0"}, slave_prefix=None
    ) as app:
        monkeypatch.setattr(db_maintenance, "is_readonly", lambda: True)
        assert app.post("/write").status_int == 503
        monkeypatch.setattr(db_maintenance, "is_readonly", lambda: False)
        assert app.post("/write").text == "primary"
        assert app.count() == 1


def test_scripts_cannot_write_either(app: Application, readonly: None) -> None:
    app.session.add(Hello(value="no"))
    with pytest.raises(db.ReadOnlyError, match="read-only"):
        app.session.flush()
    transaction.abort()


# -- settings ---------------------------------------------------------------------------------------------------------


def setup(settings: dict[str, Any], **arguments: Any) -> Any:
    return db.setup_session(Configurator(settings=settings), "sqlalchemy", **arguments)


def test_one_engine_where_there_is_one_server(servers: dict[str, str]) -> None:
    one = {"sqlalchemy.url": servers["sqlalchemy.url"]}
    same = {**one, "sqlalchemy_slave.url": one["sqlalchemy.url"]}
    empty = {**one, "sqlalchemy_slave.url": "", "sqlalchemy_slave.pool_size": "3"}
    for settings in (one, same, empty):
        session, rw, ro = setup(settings, slave_prefix="sqlalchemy_slave")
        assert rw is ro is session.c2c_ro_bind
        assert session.scalar(sa.text("SELECT name FROM server")) == "primary"
        session.dispose()


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({"sqlalchemy_slave.pool_size": "3"}, {}, "sqlalchemy_slave.url is None; expected a database URL"),
        ({"sqlalchemy_slave.url": "postgresql://me:hunter2@host:port/x"}, {}, r"sqlalchemy_slave.url is '\*\*\*'"),
        ({"sqlalchemy.url": ""}, {}, "sqlalchemy.url is ''; expected a database URL"),
        ({}, {"force_master": ["GET ("]}, r"force_master is 'GET \('; expected regular expressions"),
        ({}, {"force_slave": [3]}, "force_slave is 3; expected regular expressions"),
    ],
)
def test_what_cannot_be_used_is_named(
    servers: dict[str, str], settings: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        setup({"sqlalchemy.url": servers["sqlalchemy.url"], **settings}, slave_prefix="sqlalchemy_slave", **arguments)


def test_engine_options_are_those_of_the_prefix(servers: dict[str, str]) -> None:
    options = {"sqlalchemy.pool_size": "3", "sqlalchemy_slave.pool_size": "4", "sqlalchemy_slave.max_overflow": "1"}
    session, rw, ro = setup({**servers, **options}, slave_prefix="sqlalchemy_slave")
    assert (rw.pool.size(), ro.pool.size(), ro.pool._max_overflow) == (3, 4, 1)
    session.dispose()


def test_a_network_that_does_not_answer_is_not_waited_for() -> None:
    seen: list[dict[str, Any]] = []

    def connect(dialect: Any, record: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(dict(kwargs))
        raise ZeroDivisionError

    for url in ("postgresql+psycopg://h/d", "postgresql+psycopg2://h/d?connect_timeout=9"):
        settings = {"sqlalchemy.url": "postgresql+psycopg://p/d", "sqlalchemy_slave.url": url}
        session, rw, ro = setup(settings, slave_prefix="sqlalchemy_slave")
        for engine in (rw, ro):
            sa.event.listen(engine, "do_connect", connect)
            with pytest.raises(ZeroDivisionError):
                engine.connect()
        session.dispose()
    assert [kwargs.get("connect_timeout") for kwargs in seen] == [None, 3, None, "9"]
    assert [kwargs.get("tcp_user_timeout") for kwargs in seen] == [None, 3000, None, 3000]


def test_create_session_alone(servers: dict[str, str]) -> None:
    session = db.create_session(None, "batch", servers["sqlalchemy.url"], servers["sqlalchemy_slave.url"], pool_size=2)
    assert session.c2c_rw_bind is session.c2c_ro_bind
    assert session.c2c_rw_bind.c2c_name == "batch"  # type: ignore[attr-defined]
    assert session.scalar(sa.text("SELECT name FROM server")) == "primary"
    session.dispose()


def test_explicit_tweens_must_have_ours(servers: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"c2c_otel\.db\.tween\.factory among them"):
        Application({**servers, "pyramid.tweens": "pyramid_tm.tm_tween_factory pyramid.tweens.excview_tween_factory"})
    listed = "c2c_otel.db.tween.factory pyramid_tm.tm_tween_factory pyramid.tweens.excview_tween_factory"
    with Application({**servers, "pyramid.tweens": listed}) as app:
        assert app.get("/where").text == "replica"


def test_without_the_include(servers: dict[str, str]) -> None:
    with Application(servers, include=False) as app:
        assert app.get("/where").text == "replica"
        assert app.post("/write").text == "primary"
        assert app.count() == 1


@pytest.mark.parametrize("missing", ["sqlalchemy", "zope.sqlalchemy"])
def test_what_is_missing_is_named(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import c2c_otel.db"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: c2c_otel.db needs {missing}. Run: pip install 'c2c-otel[postgresql]'"
    )


# -- telemetry --------------------------------------------------------------------------------------------------------


@pytest.fixture
def captured(c2c_telemetry: Captured) -> Iterator[Captured]:
    SQLAlchemyInstrumentor().instrument()
    yield c2c_telemetry
    SQLAlchemyInstrumentor().uninstrument()


def routes(captured: Captured) -> dict[str, tuple[Any, Any]]:
    return {
        span.name: (span.attributes["c2c.db.role"], span.attributes["c2c.db.reason"])
        for span in captured.spans
        if span.attributes and "c2c.db.role" in span.attributes and span.name != "ROLLBACK"
    }


def test_spans_say_where_and_why(captured: Captured, servers: dict[str, str]) -> None:
    with Application(servers, force_slave=["POST /where"]) as app:
        app.get("/where")
        assert routes(captured) == {"SELECT server": ("replica", "method")}
        captured.clear()
        app.post("/late")
        assert routes(captured) == {
            "INSERT db_hello": ("primary", "method"),
            "COMMIT": ("primary", "method"),
        }
        captured.clear()
        app.post("/where")
        assert routes(captured)["SELECT server"] == ("replica", "force_slave")
        captured.clear()
        app.where()
        app.session.rollback()
        assert routes(captured)["SELECT server"] == ("primary", "no_request")
        captured.clear()
        with app.rw.connect() as connection:
            connection.execute(app.query)
        assert routes(captured) == {}


def test_commits_are_timed(captured: Captured, app: Application) -> None:
    captured.clear()
    app.post("/late")
    mine = [name for name in captured.statsd_names() if name.startswith("sql.")]
    assert len(mine) == 2
    assert mine[0].startswith("sql.INSERT_INTO_db_hello")
    assert mine[1].endswith(".commit")


def test_pools_are_shown(captured: Captured, servers: dict[str, str]) -> None:
    with Application({**servers, "sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "2"}) as app:
        with app.rw.connect(), app.rw.connect():
            text = captured.metrics_text()
        name = 'db_client_connection_pool_name="sqlalchemy"'
        assert f'db_client_connection_count{{{name},db_client_connection_state="used"}} 2.0' in text
        assert f'db_client_connection_count{{{name},db_client_connection_state="idle"}} 0.0' in text
        assert f"db_client_connection_max{{{name}}} 3.0" in text
        assert f"db_client_connection_overflow{{{name}}} 1.0" in text
        assert f"db_client_connection_pending_requests{{{name}}} 0.0" in text
