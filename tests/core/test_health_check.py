"""HealthCheck as an application meets it: names, levels, answers, who sees what, and what is measured."""

from __future__ import annotations

import gc
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
import transaction
import zope.sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound
from pyramid.request import Request
from pyramid.threadlocal import get_current_request
from sqlalchemy import orm

from c2c_otel import auth, broadcast, current_request, db, stats, version
from c2c_otel.health_check import EngineType, HealthCheck, JsonCheckException, checks, wording
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel.testing import Captured, capture
from tests.apps.db import Base, Hello, sqlite_servers

SECRET = "open sesame, please"
KEY = {"X-API-Key": SECRET}


class Application:
    """``app.health`` is to be filled before the first `get`. The cache is off where nothing else is said."""

    def __init__(self, _health: dict[str, Any] | None = None, *, include: bool = True, **settings: str) -> None:
        given = {f"c2c.{name}": value for name, value in settings.items() if "." not in name}
        defaults = {"c2c.health_check_cache_seconds": "0", "c2c.secret": SECRET}
        self.config = Configurator(settings={**defaults, **given})
        if include:
            self.config.include("c2c_otel")
        self.health = HealthCheck(self.config, **(_health or {}))
        self._wsgi: Any = None

    def call(self, path: str = "", headers: dict[str, str] | None = None, method: str = "GET", **environ: Any) -> Any:
        if self._wsgi is None:
            self._wsgi = self.config.make_wsgi_app()
        url = path if path.startswith("/c2c") else f"/c2c/health_check{path}"
        request = Request.blank(url, method=method, headers=headers or {}, environ=environ or None)
        return request.get_response(self._wsgi)

    def get(self, path: str = "", headers: dict[str, str] | None = None) -> Any:
        """The body, whose ``status`` must be the answer's."""
        answer = self.call(path, headers)
        assert answer.json["status"] == answer.status_int
        return answer.json


@pytest.fixture
def captured() -> Iterator[Captured]:
    with capture(Settings(stats_view=True)) as captured:
        yield captured


def fails(message: str) -> Any:
    def check(request: Any) -> None:
        raise RuntimeError(message)

    return check


# -- the documented body --------------------------------------------------------------------------------------------


def test_the_documented_body() -> None:
    app = Application()
    app.health.add_custom_check("fine", lambda request: "happy")
    app.health.add_custom_check("silent", lambda request: None)
    answer = app.call()
    assert answer.status_int == 200
    assert answer.content_type == "application/json"
    assert set(answer.json) == {"status", "successes", "failures"}
    fine, silent = answer.json["successes"]["fine"], answer.json["successes"]["silent"]
    assert fine.pop("timing") >= 0 and silent.pop("timing") >= 0
    assert (fine, silent) == ({"level": 1, "result": "happy"}, {"level": 1})
    assert (answer.json["status"], answer.json["failures"]) == (200, {})
    for directive in ("no-store", "no-cache", "max-age=0", "must-revalidate"):
        assert directive in answer.headers["Cache-Control"]


def test_a_failure_is_a_500() -> None:
    app = Application()
    app.health.add_custom_check("fine", lambda request: None)
    app.health.add_custom_check("unhappy", fails("I'm not happy"))
    body = app.get()
    assert body["status"] == 500
    assert list(body["successes"]) == ["fine"]
    failure = body["failures"]["unhappy"]
    assert failure.pop("timing") >= 0
    assert failure == {"level": 1, "message": "I'm not happy"}


def test_probes_fail_with_503() -> None:
    app = Application()
    app.health.add_custom_check("unhappy", fails("no"))
    app.health.add_custom_check("deep", fails("no"), 2)
    assert app.get()["status"] == 500
    for probe in ("/ready", "/startup"):
        body = app.get(probe)
        assert (body["status"], list(body["failures"])) == (503, ["unhappy"])
    assert app.get("/live") == {"status": 200, "successes": {}, "failures": {}}
    assert app.get("/ready?max_level=0")["status"] == 200
    assert set(app.get("/ready?max_level=2")["failures"]) == {"unhappy", "deep"}


def test_startup_asks_until_it_has_succeeded_once() -> None:
    app = Application()
    happy = [False]
    seen: list[bool] = []

    def check(request: Any) -> None:
        seen.append(happy[0])
        assert happy[0], "warming up"

    app.health.add_custom_check("warm", check)
    assert app.get("/startup")["status"] == 503
    happy[0] = True
    assert app.get("/startup")["status"] == 200
    happy[0] = False
    assert app.get("/startup")["status"] == 200
    assert seen == [False, True]
    assert app.get("/ready")["status"] == 503
    assert app.get("/startup")["status"] == 200


def test_a_result_is_whatever_it_is() -> None:
    app = Application()
    app.health.add_custom_check("odd", lambda request: {"set": {1}, "object": Path("/x"), 7: float("inf")})
    app.health.add_custom_check("zero", lambda request: 0)

    class Hostile:
        def __str__(self) -> str:
            raise ValueError

        __repr__ = __str__

    app.health.add_custom_check("hostile", lambda request: Hostile())
    successes = app.get()["successes"]
    assert successes["odd"]["result"] == {"set": [1], "object": "/x", "7": None}
    assert successes["zero"]["result"] == 0
    assert "cannot be shown" in successes["hostile"]["result"]


def test_json_of_a_failure() -> None:
    app = Application()

    def check(request: Any) -> None:
        raise JsonCheckException("half of it", {"left": 5})

    app.health.add_custom_check("half", check)
    failure = app.get()["failures"]["half"]
    assert (failure["message"], failure["result"]) == ("half of it", {"left": 5})


@pytest.mark.parametrize("error", [SystemExit("bye"), KeyboardInterrupt(), HTTPNotFound("gone"), ValueError()])
def test_whatever_a_check_raises_is_its_failure(error: BaseException) -> None:
    app = Application()

    def check(request: Any) -> None:
        raise error

    app.health.add_custom_check("raises", check)
    assert app.get()["failures"]["raises"]["message"] in ("bye", "KeyboardInterrupt", "gone", "ValueError")


# -- which checks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def levels() -> Application:
    app = Application()
    for level in (1, 2, 3):
        app.health.add_custom_check(f"at{level}", lambda request: None, level)
    app.health.add_custom_check("a,b", lambda request: None, 5)
    return app


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["at1"]),
        ("?max_level=", ["at1"]),
        ("?max_level=0", []),
        ("?max_level=1&checks=", ["at1"]),
        ("?checks=,%20,", ["at1"]),
        ("?max_level=2", ["at1", "at2"]),
        ("?max_level=100", ["at1", "at2", "at3", "a,b"]),
        ("?checks=at3", ["at3"]),  # who names one means it
        ("?checks=at3,%20at1,at1,", ["at3", "at1"]),
        ("?checks=at3,at1&max_level=2", ["at1"]),
        ("?checks=a,b", ["a,b"]),
        ("?checks=at1,a,b,at2", ["at1", "a,b", "at2"]),
    ],
)
def test_which_checks_are_run(levels: Application, query: str, names: list[str]) -> None:
    assert sorted(levels.get(query)["successes"]) == sorted(names)


def test_names_that_there_are_not(levels: Application) -> None:
    answer = levels.call("?checks=at1,no%3Cp%3E,nor,a")
    assert answer.status_int == 404
    assert answer.json["message"] == "There is no check no<p>, nor, a; there are at1, at2, at3, a,b."
    assert Application().get("?checks=x")["message"] == "There is no check x; there are none."


@pytest.mark.parametrize("probe", ["", "/ready", "/startup"])
@pytest.mark.parametrize(
    "query", ["max_level=a", "max_level=-1", "max_level=1.5", "max_level=1&max_level=2", "checks=a&checks=b", "%ff=1"]
)
def test_bad_parameters(levels: Application, probe: str, query: str) -> None:
    answer = levels.call(f"{probe}?{query}")
    assert (answer.status_int, answer.json["status"]) == (400, 400)
    assert query.partition("=")[0].partition("%")[0] in answer.json["message"]


@given(st.text(alphabet="ab, "), st.lists(st.text(alphabet="ab,", min_size=1).map(lambda s: s.strip(",") or "a")))
def test_lists_of_names(text: str, known: list[str]) -> None:
    names, unknown = checks._named(text, set(known))
    assert set(names) <= set(known)
    assert not set(unknown) & set(known)
    asked = {part.strip() for part in text.split(",")} - {""}
    told = {part.strip() for name in (*names, *unknown) for part in name.split(",")} - {""}
    assert told == asked


def test_a_long_list_of_names_is_read_at_once() -> None:
    names, unknown = checks._named("," * 200_000 + "a,b", {"a,b"})
    assert (names, unknown) == (["a,b"], [])


def test_a_name_that_is_taken_gets_a_number() -> None:
    app = Application()
    for result in ("one", "two", "three"):
        app.health.add_custom_check("same", lambda request, result=result: result)
    found = app.get()["successes"]
    assert {name: value["result"] for name, value in found.items()} == {
        "same": "one",
        "same_2": "two",
        "same_3": "three",
    }


# -- where it is ------------------------------------------------------------------------------------------------------


def test_only_get_and_head() -> None:
    app = Application()
    answer = app.call(method="POST")
    assert (answer.status_int, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert answer.json == {"message": "POST is not allowed for /c2c/health_check.", "status": 405}
    head = app.call("/ready", method="HEAD")
    assert (head.status_int, head.body) == (200, b"")
    assert app.call("/nothing").status_int == 404


def test_with_base_path_and_route_prefix() -> None:
    config = Configurator(settings={"c2c.base_path": "/admin"}, route_prefix="shop")
    config.include("c2c_otel")
    assert HealthCheck(config).path == "/shop/admin/health_check"
    wsgi = config.make_wsgi_app()
    for path in ("", "/live", "/ready", "/startup"):
        assert Request.blank(f"/shop/admin/health_check{path}").get_response(wsgi).status_int == 200
    assert 'action="/shop/admin/health_check"' in Request.blank("/shop/admin").get_response(wsgi).text


def test_without_the_include() -> None:
    app = Application(include=False)
    app.health.add_custom_check("fine", lambda request: request.path)
    assert app.get()["successes"]["fine"]["result"] == "/c2c/health_check"


def test_one_for_each_application() -> None:
    app = Application()
    with pytest.raises(ConfigurationError, match="one for each application"):
        HealthCheck(app.config)


def test_the_index_has_it() -> None:
    assert 'action="/c2c/health_check"' in Application().call("/c2c").text
    config = Configurator()
    config.include("c2c_otel")
    assert "health_check" not in Request.blank("/c2c").get_response(config.make_wsgi_app()).text


def test_an_application_that_permits_nothing_and_whose_root_fails() -> None:
    app = Application()

    def root(request: Any) -> None:
        raise ZeroDivisionError

    app.config.set_root_factory(root)
    app.config.set_default_permission("never")
    app.config.set_default_csrf_options(require_csrf=True)
    app.config.set_security_policy(
        SimpleNamespace(permits=lambda *args: False, identity=lambda request: None, authenticated_userid=lambda r: None)
    )
    app.config.add_view(lambda request: request.response, context=Exception)
    app.health.add_custom_check("fine", lambda request: None)
    assert app.get("/ready")["status"] == 200
    assert app.call(method="POST").status_int == 405
    assert app.call("?max_level=x").status_int == 400  # not the application's exception view


def test_closed_views() -> None:
    app = Application(open_views="0")
    for path in ("", "/live", "/ready", "/startup"):
        assert app.call(path).status_int == 403
        assert app.call(path, KEY).status_int == 200
        assert app.call(path, {"Authorization": f"Bearer {SECRET}"}).status_int == 200
    assert app.call("", {"Authorization": "Bearer wrong"}).status_int == 403
    assert app.call("?secret=wrong").json["status"] == 403
    without = Application(open_views="0", secret="")
    assert without.call().status_int == without.call("/live").status_int == 404


# -- who sees what ----------------------------------------------------------------------------------------------------


def test_stack_traces_are_for_the_secret_and_for_development() -> None:
    for app, headers, shown in (
        (Application(), {}, False),
        (Application(), {"X-API-Key": "wrong"}, False),
        (Application(), KEY, True),
        (Application(development="1"), {}, True),
    ):
        app.health.add_custom_check("unhappy", fails("no"))
        failure = app.get("", headers)["failures"]["unhappy"]
        assert ("stacktrace" in failure) is shown
        if shown:
            assert failure["stacktrace"].endswith("RuntimeError: no\n")


def test_sql_is_for_the_secret() -> None:
    app = Application()
    engine = sa.create_engine("sqlite://")
    app.health.add_db_session_check(engine, lambda session: session.execute(sa.text("SELECT 'hidden' FROM nowhere")))
    assert app.get()["failures"]["db_engine_sqlite"]["message"] == "OperationalError"
    assert "'hidden'" in app.get("", KEY)["failures"]["db_engine_sqlite"]["message"]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("cannot reach postgresql://user:pa%40ss@host/db now", "cannot reach postgresql://***@host/db now"),
        ("redis://:x@h:1 and https://a:b@c/", "redis://***@h:1 and https://***@c/"),
        ('connection "host=x password=top user=y"', 'connection "host=x password=*** user=y"'),
        ("{'password': 'top', 'x': 1}", "{'password': ***, 'x': 1}"),
        ("--passwd: top", "--passwd: ***"),
        ("exceeded with url: /p?a=1&token=top (Caused by", "exceeded with url: /p?a=1&token=REDACTED (Caused by"),
        ("Is it there? (a=1&token=2)", "Is it there? (a=1&token=2)"),
        ("mail to a@b.c, see http://host/a@b", "mail to a@b.c, see http://host/a@b"),
        ("\udcff", "\\udcff"),
    ],
)
def test_credentials_are_for_nobody(text: str, cleaned: str) -> None:
    assert wording.clean(text) == cleaned
    said = wording.of(RuntimeError(text))
    assert said.message == said.detailed == cleaned
    assert cleaned in said.stacktrace


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="/?#@ \"'<>", exclude_categories=("Z", "C", "M"))))
def test_no_password_of_a_url_is_ever_said(text: str, password: str) -> None:
    assert f"u:{password}@" not in wording.clean(f"{text} postgresql://u:{password}@host/x")


def test_results_and_names_have_no_password_of_a_url() -> None:
    def fails(request: Any) -> None:
        raise JsonCheckException("no", {"at": ["redis://:top@host/0"], "amqp://u:top@host": None})

    app = Application()
    app.health.add_custom_check("https://u:top@host/", lambda request: {"from": "https://u:top@host/a?b=c@d", "n": 1})
    app.health.add_custom_check("fails", fails)
    for headers in ({}, KEY):
        body = app.get("", headers)
        assert body["successes"]["https://***@host/"]["result"] == {"from": "https://***@host/a?b=c@d", "n": 1}
        assert body["failures"]["fails"]["result"] == {"at": ["redis://***@host/0"], "amqp://***@host": None}
        assert "top" not in str(body)


def test_raw_drivers_errors_quote_statements() -> None:
    import psycopg

    error = psycopg.errors.SyntaxError("syntax error\nLINE 1: SELECT 'hidden'")
    assert wording.of(error).message == "SyntaxError"
    assert "hidden" in wording.of(error).detailed


def test_an_error_that_cannot_be_shown() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError

    said = wording.of(Odd())
    assert said.message == said.detailed == "Odd"


# -- isolation --------------------------------------------------------------------------------------------------------


def test_a_check_has_a_request_and_a_context_of_its_own() -> None:
    app = Application()
    made: list[Any] = []
    closed: list[Any] = []

    def resource(request: Any) -> object:
        made.append(request)
        request.add_finished_callback(closed.append)
        return object()

    app.config.add_request_method(resource, reify=True)
    app.config.add_request_method(lambda request: "method", "greet")
    seen: dict[str, Any] = {}

    def look(name: str) -> Any:
        def check(request: Any) -> None:
            assert request.resource is request.resource
            assert get_current_request() is request
            current = current_request.get()
            seen[name] = {
                "request": request,
                "id": None if current is None else current.request_id,
                "own": request.c2c_request_id,
                "route": request.matched_route.name,
                "method": request.method,
                "greet": request.greet(),
                "registry": request.registry is app.config.registry,
                "thread": threading.current_thread(),
            }

        return check

    app.health.add_custom_check("one", look("one"))
    app.health.add_custom_check("two", look("two"))
    assert app.call(headers={"X-Request-ID": "mine"}).status_int == 200
    one, two = seen["one"], seen["two"]
    assert one["request"] is not two["request"]
    assert one["thread"] is not two["thread"]
    assert sorted(map(id, made)) == sorted(map(id, closed)) == sorted(map(id, (one["request"], two["request"])))
    for found in (one, two):
        assert (found["id"], found["own"], found["greet"], found["registry"]) == ("mine", "mine", "method", True)
        assert (found["route"], found["method"]) == ("c2c_health_check", "GET")


@pytest.mark.parametrize("manager", ["", "pyramid_tm.explicit_manager"])
def test_each_check_has_sessions_of_its_own(tmp_path: Path, manager: str) -> None:
    """That of `c2c_otel.db`, a scoped one that joins the thread's transaction, and one that joins the request's."""
    settings = sqlite_servers(tmp_path)
    app = Application()
    app.config.add_settings({**settings, **({"tm.manager_hook": manager} if manager else {})})
    routed, engine, _ = db.setup_session(app.config, "sqlalchemy", "sqlalchemy_slave")
    scoped = orm.scoped_session(orm.sessionmaker(bind=engine))
    if not manager:
        zope.sqlalchemy.register(scoped)

    def of_request(request: Any) -> Any:
        session = orm.Session(bind=engine)
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    app.config.add_request_method(of_request, "dbsession", reify=True)
    together = threading.Barrier(2, timeout=10)
    seen: list[set[int]] = []

    def check(request: Any) -> None:
        sessions = [request.dbsession, routed(), scoped()]
        for session in sessions:
            session.scalar(sa.text("SELECT name FROM server"))
        together.wait()
        sessions[0].add(Hello(value="never to be seen"))
        sessions[0].flush()
        seen.append({id(session) for session in sessions})
        kept.extend(sessions)

    kept: list[Any] = []
    app.health.add_custom_check("one", check)
    app.health.add_custom_check("two", lambda request: (routed().scalar(sa.text("SELECT 1")), together.wait()))
    body = app.get()
    assert body["status"] == 200, body
    assert len(seen) == 1 and len(seen[0]) == 3
    for session in kept[:2]:
        assert not session.in_transaction()
    kept.clear()
    gc.collect()  # the one that nobody closes goes with its thread
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(Hello)) == 0
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert transaction.manager.get().isDoomed() is False
    routed.dispose()


def test_one_that_fails_poisons_no_other(tmp_path: Path) -> None:
    app = Application()
    app.config.add_settings(sqlite_servers(tmp_path))
    session, _, _ = db.setup_session(app.config, "sqlalchemy", "sqlalchemy_slave")
    for _ in range(2):
        app.health.add_db_session_check(session, lambda one: one.execute(sa.text("SELECT broken")))
        app.health.add_db_session_check(session, at_least_one_model=Hello)
        app.health.add_db_session_check(session)
    body = app.get()
    names = [f"db_engine_sqlalchemy{slave}" for slave in ("", "_slave")]
    everything = {f"{name}{number}" for name in names for number in ("", *(f"_{n}" for n in range(2, 7)))}
    assert {*body["failures"], *body["successes"]} == everything
    assert {name for name in body["failures"] if name.endswith(("sqlalchemy", "slave"))} == set(names)
    messages = {failure["message"] for failure in body["failures"].values()}
    assert messages == {"OperationalError", "Hello record not found"}
    assert len(body["successes"]) == 4
    session.dispose()


# -- databases --------------------------------------------------------------------------------------------------------


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Application, Any]]:
    app = Application()
    app.config.add_settings(sqlite_servers(tmp_path))
    session, _, _ = db.setup_session(app.config, "sqlalchemy", "sqlalchemy_slave")
    yield app, session
    session.dispose()


@pytest.mark.parametrize(
    ("engine_type", "names"),
    [
        (EngineType.READ_ONLY, {"sqlalchemy_slave": "replica"}),
        (EngineType.WRITE_ONLY, {"sqlalchemy": "primary"}),
        (EngineType.READ_AND_WRITE, {"sqlalchemy": "primary", "sqlalchemy_slave": "replica"}),
    ],
)
def test_each_engine_is_checked(
    servers: tuple[Application, Any], engine_type: EngineType, names: dict[str, str]
) -> None:
    app, session = servers
    found: list[str] = []
    query = sa.text("SELECT name FROM server")
    app.health.add_db_session_check(session, lambda one: found.append(one.scalar(query)), engine_type=engine_type)
    assert set(app.get()["successes"]) == {f"db_engine_{name}" for name in names}
    assert sorted(found) == sorted(names.values())
    assert [kind.value for kind in EngineType] == [1, 2, 3]


def test_one_engine_is_checked_once(tmp_path: Path) -> None:
    app = Application()
    session = db.create_session(app.config, "alone", f"sqlite:///{tmp_path}/x")
    app.health.add_db_session_check(session, level=2)
    assert app.get("?max_level=2")["successes"]["db_engine_alone"]["level"] == 2
    session.dispose()


def test_what_may_be_checked(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/x")
    factory = orm.sessionmaker(bind=engine)
    scoped = orm.scoped_session(factory)
    app = Application()
    with orm.Session(bind=engine) as plain:
        for session in (engine, factory, scoped, plain):
            app.health.add_db_session_check(session)
    assert not scoped.registry.has()
    assert set(app.get()["successes"]) == {"db_engine_sqlite", *(f"db_engine_sqlite_{n}" for n in (2, 3, 4))}
    for nothing in (None, orm.sessionmaker(), orm.scoped_session(orm.sessionmaker()), object()):
        with pytest.raises(ConfigurationError, match=r"session is '.*'; expected an engine, or a session"):
            app.health.add_db_session_check(nothing)


def test_at_least_one_record(servers: tuple[Application, Any]) -> None:
    app, session = servers
    app.health.add_db_session_check(session, at_least_one_model=Hello, engine_type=EngineType.WRITE_ONLY)
    assert app.get()["failures"]["db_engine_sqlalchemy"]["message"] == "Hello record not found"
    with session.c2c_rw_bind.begin() as connection:
        connection.execute(sa.insert(Hello).values(value="you"))
    assert app.get()["status"] == 200
    with session.c2c_rw_bind.begin() as connection:
        Base.metadata.drop_all(connection)
    assert app.get()["failures"]["db_engine_sqlalchemy"]["message"] == "OperationalError"


def test_what_a_query_has_written_is_taken_back(servers: tuple[Application, Any]) -> None:
    app, session = servers

    def query(one: Any) -> None:
        one.add(Hello(value="gone"))
        one.flush()

    app.health.add_db_session_check(session, query, engine_type=EngineType.WRITE_ONLY)
    assert app.get()["status"] == 200
    with session.c2c_rw_bind.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(Hello)) == 0
    assert session.c2c_rw_bind.pool.checkedout() == 0


# -- other services ---------------------------------------------------------------------------------------------------


def test_names_of_url_checks() -> None:
    app = Application()
    app.health.add_url_check("http://user:hidden@localhost/api?token=hidden&x=1")
    app.health.add_url_check(lambda request: "http://localhost")
    app.health.add_url_check("http://localhost", name="mine")
    names = [check.name for check in app.health.checks]
    assert names[0].startswith("http://localhost/api?") and "x=1" in names[0] and "hidden" not in names[0]
    assert names[1:] == ["<lambda>", "mine"]


def test_a_service_that_is_not_there() -> None:
    app = Application()
    app.health.add_url_check("http://user:hidden@127.0.0.1:1/a?token=hidden", name="away")
    for headers in ({}, KEY):
        failure = app.get("", headers)["failures"]["away"]
        assert "hidden@" not in json.dumps(failure)
    assert app.get()["failures"]["away"]["message"] == "ConnectionError"
    assert "/a" in app.get("", KEY)["failures"]["away"]["message"]


def test_without_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'c2c-otel\[requests\]'"):
        Application().health.add_url_check("http://localhost")


def test_redis_is_checked_where_it_is_configured(tmp_path: Path) -> None:
    assert Application().health.checks == ()
    with pytest.raises(ConfigurationError, match="C2C_REDIS_URL"):
        Application().health.add_redis_check()
    app = Application(redis_url="redis://user:hidden@127.0.0.1:1/3")
    assert [(check.name, check.level) for check in app.health.checks] == [("redis://127.0.0.1:1/3", 2)]
    for headers in ({}, KEY):
        body = app.get("?max_level=2", headers)
        assert body["status"] == 500
        assert "hidden" not in json.dumps(body)
    app.health.add_redis_check(level=1)  # instead of the one that was there
    app.health.add_redis_check("again")
    assert [(check.name, check.level) for check in app.health.checks] == [("redis://127.0.0.1:1/3", 1), ("again", 1)]


def test_sentinels_have_commas_in_their_name() -> None:
    app = Application(redis_sentinels="127.0.0.1:1,127.0.0.1:2", redis_servicename="shop")
    name = "sentinel://127.0.0.1:1,127.0.0.1:2/shop/0"
    body = app.get(f"?checks={name}")
    assert list(body["failures"]) == [name]
    assert body["failures"][name]["message"] == "no sentinel that answers knows the master shop"


# -- versions ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    path = tmp_path / "versions.json"
    path.write_text(json.dumps({"main": {"git_hash": "abc123"}}))
    return path


def test_the_version(tmp_path: Path, versions: Path) -> None:
    assert version.get_version(versions) == "abc123"
    versions.write_text("{}")
    assert version.get_version(versions) == "abc123"  # what this process has been started with
    assert version.get_version(tmp_path / "none") is None
    assert version.get_version() is None
    for number, text in enumerate(("", "[]", '{"main": {}}', '{"main": null}', '{"main": {"git_hash": ""}}', "7")):
        path = tmp_path / f"{number}.json"
        path.write_text(text)
        assert version.get_version(path) is None


def test_all_processes_have_one_version(versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = Application(redis_url="redis://127.0.0.1:1", versions_file=str(versions))
    assert [(check.name, check.level) for check in app.health.checks][1:] == [("version", 2)]
    assert app.get("?checks=version")["successes"]["version"]["result"] == {"version": "abc123", "count": 1}
    others: list[Any] = ["abc123", None, "def456", {"status": 500, "message": "no"}]
    monkeypatch.setattr(broadcast, "broadcast", lambda *args, **kwargs: broadcast.Answers(others))
    failure = app.get("?checks=version")["failures"]["version"]
    assert failure["message"] == "different versions are running: abc123, def456"
    assert failure["result"] == {"abc123": 1, "def456": 1}
    others[2] = "abc123"
    assert app.get("?checks=version")["successes"]["version"]["result"] == {"version": "abc123", "count": 2}


def test_there_is_no_version_check_without_redis_unless_it_is_added(versions: Path) -> None:
    app = Application(versions_file=str(versions))
    assert app.health.checks == ()
    app.health.add_version_check()
    assert app.get("?max_level=2")["successes"]["version"]["result"] == {"version": "abc123", "count": 1}


def test_starts_are_counted_by_version(versions: Path, captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "_running", None)
    monkeypatch.setattr(version, "_counted_in", 0)
    joined: list[Any] = []
    monkeypatch.setattr(broadcast, "on_join", joined.append)
    app = Application(versions_file=str(versions))
    app.call("/live")
    assert not [line for line in captured.statsd if line.startswith("version")]  # not before the process serves
    (callback,) = joined
    callback()
    callback()  # joined again
    assert [line for line in captured.statsd if line.startswith("version")] == ["version.abc123:1|c"]
    assert captured.value("c2c_otel_version_starts_total", version="abc123") == 1


# -- what is measured -------------------------------------------------------------------------------------------------


def test_spans_and_counters(tmp_path: Path, captured: Captured) -> None:
    app = Application()
    session = db.create_session(app.config, "shop", f"sqlite:///{tmp_path}/x")
    app.health.add_db_session_check(session, lambda one: one.scalar(sa.text("SELECT 1")))
    app.health.add_custom_check("a/b c", lambda request: stats.increment_counter(["mine"]), 2)
    app.health.add_custom_check("bad", fails("no"), 3)
    app.get("?max_level=3")
    ((root, children),) = captured.tree()
    assert root == "GET /c2c/health_check"
    below = dict(children)
    assert set(below) == {"health_check db_engine_shop", "health_check a/b c", "health_check bad"}
    assert [name for name, _ in below["health_check db_engine_shop"]] == ["SELECT", "ROLLBACK"]
    bad = captured.span("health_check bad")
    assert {"c2c.health_check.name": "bad", "c2c.health_check.level": 3}.items() <= dict(bad.attributes or {}).items()
    assert (bad.status.is_ok, bad.status.description) == (False, "no")
    assert [event.name for event in bad.events] == ["exception"]
    names = captured.statsd_names()
    for name in (
        "health_check.db_engine_shop.success",
        "health_check.a_b_c.success",
        "health_check.bad.failure",
        "sql.manual.health_check.db.shop",
        "mine",
    ):
        assert names.count(name) == 1
    assert captured.value("c2c_otel_health_check_success", check="bad") == 0
    assert captured.value("c2c_otel_health_check_success", check="a/b c") == 1
    assert captured.value("c2c_otel_health_check_runs_total", check="bad", outcome="failure") == 1
    age = captured.value("c2c_otel_health_check_age_seconds", check="bad")
    assert age is not None and 0 <= age < 60
    assert captured.value("c2c_otel_timer_duration_seconds_count", key="sql/manual/health_check/db", con="shop") == 1
    session.dispose()


def test_names_with_tags(tmp_path: Path) -> None:
    with capture(Settings(statsd_use_tags=True, stats_view=True)) as captured:
        app = Application()
        session = db.create_session(app.config, "shop", f"sqlite:///{tmp_path}/x")
        app.health.add_db_session_check(session)
        app.get()
        lines = captured.statsd
        keys = captured.stats()["counters"]
    assert "health_check:1|c|#name:db_engine_shop,outcome:success" in lines
    assert [line.partition("|")[2] for line in lines if line.startswith("sql.manual")] == ["ms|#con:shop"]
    assert "health_check/name=db_engine_shop/outcome=success" in keys
    session.dispose()


def test_changes_are_logged_once(captured: Captured, caplog: pytest.LogCaptureFixture) -> None:
    app = Application()
    happy = [True]

    def check(request: Any) -> None:
        if not happy[0]:
            raise RuntimeError("cannot reach redis://:hidden@host")

    app.health.add_custom_check("mood", check)
    with caplog.at_level(logging.INFO, "c2c_otel.health_check"):
        for mood in (True, False, False, True, True):
            happy[0] = mood
            app.get()
    assert [record.getMessage() for record in caplog.records if record.name == "c2c_otel.health_check"] == [
        "Health check mood fails: cannot reach redis://***@host",
        "Health check mood succeeds again.",
    ]


def test_nothing_is_recorded_where_it_is_made(captured: Captured) -> None:
    app = Application()
    app.health.add_custom_check("fine", lambda request: None)
    app.config.make_wsgi_app()
    assert captured.statsd == [] and captured.spans == []
    assert captured.value("c2c_otel_health_check_age_seconds", check="fine") is None


def test_a_wrong_secret_is_tried_once(captured: Captured) -> None:
    app = Application()
    for name in ("one", "two"):
        app.health.add_custom_check(name, lambda request: auth.get_expected_secret(request) == SECRET)
    body = app.get("?secret=wrong")
    assert {one["result"] for one in body["successes"].values()} == {True}
    assert len([line for line in captured.logs if line["logger_name"] == "c2c_otel.auth"]) == 1
