"""Everything that applications import, by the name that docs/migrating.md promises, called once. The tests of each
module look closer; here it is that the name is there, takes the documented arguments and does something."""

from __future__ import annotations

import importlib.metadata
import pkgutil
import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from c2c_otel import cli

Run = Callable[..., subprocess.CompletedProcess[str]]

# What runs in one process: the names that it calls -> its code. `path` is a directory of its own.
SCRIPTS: dict[tuple[str, ...], str] = {
    (
        "c2c_otel.includeme",
        "c2c_otel.pyramid.includeme",
        "c2c_otel.services.create",
        "c2c_otel.health_check.HealthCheck",
        "c2c_otel.health_check.EngineType",
        "c2c_otel.health_check.JsonCheckException",
        "c2c_otel.auth.is_auth",
        "c2c_otel.auth.auth_view",
        "c2c_otel.auth.is_enabled",
        "c2c_otel.auth.get_expected_secret",
        "c2c_otel.index.additional_title",
        "c2c_otel.index.additional_auth",
        "c2c_otel.index.additional_noauth",
        "c2c_otel.index.section",
        "c2c_otel.index.paragraph",
        "c2c_otel.index.link",
        "c2c_otel.index.form",
        "c2c_otel.index.input_",
        "c2c_otel.index.button",
        "c2c_otel.errors.includeme",
        "c2c_otel.client_info.Filter",
    ): """
        from c2c_otel import auth, client_info, errors, health_check, includeme, index, services
        from c2c_otel import pyramid as alias
        assert alias.includeme is includeme
        service = services.create("hello", "/hello", cors_credentials=True)

        @service.get()
        def hello(request):
            if "secret" in request.params:
                auth.auth_view(request)
            assert auth.get_expected_secret(request) == "s3same"
            return {"auth": auth.is_auth(request), "addr": request.client_addr, "id": request.c2c_request_id}

        config = Configurator(settings={"c2c.secret": "s3same", "c2c.enable_exception_handling": "1"})
        config.include("c2c_otel.pyramid")
        config.include("c2c_otel.errors")
        assert errors.includeme and auth.is_enabled(config, "C2C_PUBLIC_API_TEST", "c2c.public_api_test") is False
        config.add_cornice_service(service)
        health = health_check.HealthCheck(config)

        def broken(request):
            raise health_check.JsonCheckException("broken", {"why": "test"})
        health.add_custom_check("good", lambda request: {"a": 1}, 1)
        health.add_custom_check("bad", broken, 2)
        assert [kind.value for kind in health_check.EngineType] == [1, 2, 3]

        index.additional_title = "A <title>"
        form = index.form("/x", index.input_("name", value="v"), index.button("Send"))
        index.additional_noauth.append(index.section("Mine", index.paragraph("text", title="t"), index.link("/y", "Y")))
        index.additional_auth.append(lambda request: form)
        app = client_info.Filter(config.make_wsgi_app())

        answer = get(app, "/hello", HTTP_ORIGIN="http://o", HTTP_X_REQUEST_ID="my-id",
                     HTTP_X_FORWARDED_FOR="198.51.100.7", REMOTE_ADDR="127.0.0.1")
        assert answer.json == {"auth": False, "addr": "198.51.100.7", "id": "my-id"}, answer.json
        assert answer.headers["Access-Control-Allow-Origin"] == "http://o"
        assert get(app, "/hello", HTTP_X_API_KEY="s3same").json["auth"] is True
        refused = get(app, "/hello?secret=wrong")
        assert (refused.status_int, refused.json["status"]) == (403, 403)
        page = get(app, "/c2c", HTTP_X_API_KEY="s3same").text
        for text in ("A &lt;title&gt;", "Mine", 'href="/y"', '<button', 'name="name"'):
            assert text in page, (text, page)
        assert 'name="name"' not in get(app, "/c2c").text
        checked = get(app, "/c2c/health_check?max_level=2")
        assert checked.json["successes"]["good"]["result"] == {"a": 1}, checked.json
        assert checked.json["failures"]["bad"]["result"] == {"why": "test"}, checked.json
    """,
    ("c2c_otel.db.setup_session", "c2c_otel.db.create_session"): """
        from c2c_otel import db
        config = Configurator(settings={"a.url": "sqlite://", "b.url": "sqlite:///" + path + "/b"})
        config.include("c2c_otel")
        session, primary, replica = db.setup_session(config, "a", "b", force_master=["GET /x"], force_slave=["POST /y"])
        assert (primary.c2c_name, replica.c2c_name) == ("a", "b")
        other = db.create_session(config, "one", "sqlite://")
        for one in (session, other):
            assert one.execute(sqlalchemy.text("SELECT 1")).scalar() == 1
            assert one.c2c_rw_bind is not None and one.c2c_ro_bind is not None
            one.remove()
        primary.dispose(), replica.dispose(), other.c2c_rw_bind.dispose()
    """,
    (
        "c2c_otel.broadcast.init",
        "c2c_otel.broadcast.subscribe",
        "c2c_otel.broadcast.unsubscribe",
        "c2c_otel.broadcast.broadcast",
        "c2c_otel.broadcast.decorator",
    ): """
        from c2c_otel import broadcast
        broadcast.init()
        broadcast.subscribe("mine", lambda **params: {"got": params})
        answers = broadcast.broadcast("mine", params={"a": 1}, expect_answers=True, timeout=10)
        assert [answer["got"] for answer in answers] == [{"a": 1}], answers
        assert answers[0]["pid"] == os.getpid() and answers[0]["hostname"]
        broadcast.unsubscribe("mine")
        assert list(broadcast.broadcast("mine", {}, True, 0.2) or []) in ([], [None])

        @broadcast.decorator(expect_answers=True, timeout=10)
        def double(value):
            return {"double": 2 * value}
        assert [answer["double"] for answer in double(value=2)] == [4]
    """,
    (
        "c2c_otel.stats.timer",
        "c2c_otel.stats.timer_context",
        "c2c_otel.stats.outcome_timer_context",
        "c2c_otel.stats.set_gauge",
        "c2c_otel.stats.increment_counter",
        "c2c_otel.metrics.Provider",
        "c2c_otel.metrics.add_provider",
        "c2c_otel.metrics.MemoryMapProvider",
        "c2c_otel.prometheus.PushgatewayGroupPublisher",
    ): """
        from c2c_otel import metrics, prometheus, stats
        from c2c_otel.testing import capture
        class Mine(metrics.Provider):
            def __init__(self):
                super().__init__("my_metric", "Help.", "gauge", extend=False)
            def get_data(self):
                return [({"a": "b"}, 3)]
        with capture() as captured:
            stats.timer(["a"], {"t": 1}).stop()
            timer = stats.timer()
            assert timer.stop(["b"], {"t": 2}) > 0
            with stats.timer_context(["c"], {"t": 3}), stats.outcome_timer_context(["d"]):
                stats.set_gauge(["e"], 5, {"t": 4})
                stats.increment_counter(["f"], 2)
            metrics.add_provider(Mine())
            metrics.add_provider(metrics.MemoryMapProvider("rss", pids=[os.getpid()]))
            text = captured.metrics_text()
            names = [line.partition(":")[0] for line in captured.statsd]
        assert names == ["a", "b", "e", "f", "d.success", "c"], names
        assert 'my_metric{a="b"} 3' in text and "pod_process_smap_rss_kb{" in text
        publisher = prometheus.PushgatewayGroupPublisher("http://127.0.0.1:1/", "job", instance="i", labels={"x": "y"})
        publisher.add("name", 1, type="counter", labels={"l": "m"})
        assert str(publisher) == '# TYPE name counter\\nname{l="m", x="y"} 1\\n'
        try:
            publisher.commit()
        except OSError:
            pass
        else:
            raise AssertionError("nobody listens there")
    """,
    (
        "c2c_otel.sentry.init",
        "c2c_otel.sentry.capture_exceptions",
        "c2c_otel.sentry.filter_wsgi_app",
        "c2c_otel.setup_process.init",
        "c2c_otel.version.get_version",
        "c2c_otel.debug.get_size",
        "c2c_otel.debug.dump_memory_maps",
        "c2c_otel.debug.init",
        "c2c_otel.debug.init_daemon",
        "c2c_otel.sql_profiler.init",
    ): """
        from c2c_otel import debug, sentry, setup_process, sql_profiler, version
        setup_process.init()
        sentry.init()
        try:
            with sentry.capture_exceptions():
                raise KeyError("mine")
        except KeyError:
            pass
        else:
            raise AssertionError("it goes on")
        app = sentry.filter_wsgi_app(lambda environ, start_response: [b"body"])
        assert b"".join(app({}, None)) == b"body"
        assert version.get_version() is None
        assert debug.get_size([1, 2, 3]) > sys.getsizeof([])
        assert debug.dump_memory_maps(os.getpid())[0]["pss_kb"] > 0
        debug.init()
        debug.init_daemon()
        sql_profiler.init()
    """,
    ("c2c_otel.wsgi.create_application", "c2c_otel.wsgi_app.application"): """
        with open(path + "/served.py", "w") as file:
            file.write("from pyramid.config import Configurator\\n"
                       "def main(global_config, **settings):\\n"
                       "    config = Configurator(settings=settings)\\n"
                       "    config.include('c2c_otel')\\n"
                       "    return config.make_wsgi_app()\\n")
        with open(path + "/production.ini", "w") as file:
            file.write("[app:main]\\nuse = call:served:main\\nc2c.base_path = /mine\\n")
        sys.path.insert(0, path)
        os.environ["C2CWSGIUTILS_CONFIG"] = path + "/production.ini"
        from c2c_otel import wsgi
        for app in (wsgi.create_application(), wsgi.create_application(path + "/production.ini")):
            assert get(app, "/mine").status_int == 200
        from c2c_otel.wsgi_app import application
        assert get(application, "/mine").status_int == 200
    """,
    (
        "c2c_otel.models_graph.generate_model_graph",
        "c2c_otel.sqlalchemylogger.SQLAlchemyHandler",
        "c2c_otel.pyramid_logging.JsonLogHandler",
        "c2c_otel.pyramid_logging.PyramidCeeSysLogHandler",
    ): """
        import contextlib, io, json, socket, types
        from c2c_otel import models_graph, pyramid_logging, sqlalchemylogger
        class Base(sqlalchemy.orm.DeclarativeBase):
            pass
        class Mine(Base):
            __tablename__ = "mine"
            id = sqlalchemy.orm.mapped_column(sqlalchemy.Integer, primary_key=True)
        sys.argv = ["graph"]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            models_graph.generate_model_graph(types.SimpleNamespace(__name__="m", Base=Base))
        assert out.getvalue().startswith("digraph {") and '"Mine"' in out.getvalue()

        url = "sqlite:///" + path + "/logs"
        table = sqlalchemylogger.SQLAlchemyHandler({"url": url, "tablename": "mine"}, "secret", "a")
        stream = io.StringIO()
        lines = pyramid_logging.JsonLogHandler(stream)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.settimeout(10)
            receiver.bind(("127.0.0.1", 0))
            cee = pyramid_logging.PyramidCeeSysLogHandler(receiver.getsockname())
            logger = logging.getLogger("mine")
            logger.propagate = False
            for handler in (table, lines, cee):
                logger.addHandler(handler)
            logger.warning("a %s", "line", extra={"more": 1})
            assert receiver.recv(10000).startswith(b"<12>")
        assert json.loads(stream.getvalue())["msg"] == "a line"
        for handler in (table, lines, cee):
            handler.close()
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT msg, level FROM mine")).all() == [("a line", "WARNING")]
        engine.dispose()
    """,
    (
        "c2c_otel.acceptance.retry",
        "c2c_otel.acceptance.utils.wait_url",
        "c2c_otel.acceptance.utils.retry_timeout",
        "c2c_otel.acceptance.utils.approx",
        "c2c_otel.acceptance.utils.skipIfCI",
        "c2c_otel.acceptance.utils.in_docker",
        "c2c_otel.acceptance.utils.DOCKER_GATEWAY",
        "c2c_otel.acceptance.connection.Connection",
        "c2c_otel.acceptance.connection.CacheExpected",
        "c2c_otel.acceptance.print.PrintConnection",
        "c2c_otel.acceptance.composition.Composition",
    ): """
        from wsgiref.simple_server import WSGIRequestHandler, make_server
        from c2c_otel.acceptance import retry, utils
        from c2c_otel.acceptance.composition import Composition
        from c2c_otel.acceptance.connection import CacheExpected, Connection
        from c2c_otel.acceptance.print import PrintConnection
        tries = []
        @retry(KeyError, tries=3, delay=0, backoff=1)
        def flaky():
            tries.append(1)
            if len(tries) < 3:
                raise KeyError
            return "done"
        assert flaky() == "done" and len(tries) == 3
        assert utils.retry_timeout(lambda: "yes", timeout=5, interval=0.01) == "yes"
        assert {"a": [0.1 + 0.2]} == utils.approx({"a": [0.3]})
        assert callable(utils.skipIfCI) and isinstance(utils.in_docker(), bool) and utils.DOCKER_GATEWAY

        def app(environ, start_response):
            cache = "max-age=9" if environ["PATH_INFO"] == "/apps.json" else "no-cache"
            start_response("200 OK", [("Content-Type", "application/json"), ("Cache-Control", cache),
                                      ("Access-Control-Allow-Origin", "*")])
            return [b'["default"]']
        class Quiet(WSGIRequestHandler):
            def log_message(self, *args):
                pass
        server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = "http://127.0.0.1:%s/" % server.server_port
        try:
            utils.wait_url(url, timeout=10)
            connection = Connection(base_url=url, origin="http://o")
            assert connection.get_json("x", cache_expected=CacheExpected.NO) == ["default"]
            assert connection.post_json("x", json={}, expected_status=(200, 201)) == ["default"]
            assert PrintConnection(url, "http://o").get_apps() == ["default"]
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

        with open(path + "/docker", "w") as file:
            file.write('#!/bin/sh\\necho "$@" >> "$0.calls"\\necho "$@"\\n')
        os.chmod(path + "/docker", 0o755)
        os.environ["PATH"] = path + ":" + os.environ["PATH"]
        open(path + "/compose.yaml", "w").close()
        class Request:
            def addfinalizer(self, finalizer):
                self.finalizer = finalizer
        request = Request()
        composition = Composition(request, "shop", path + "/compose.yaml", coverage_paths=["app:/c"], reports=path)
        assert composition.dc(["ps"]).endswith("ps\\n")
        composition.dc_try(["pull"], times=1)
        composition.stop("one")
        composition.restart("two")
        assert "run --rm -T app ls -l" in composition.run("app", "ls", "-l")
        assert "exec -T app id" in composition.exec("app", "id")
        composition.stop_all()
        request.finalizer()
        calls = [line.partition("--project-name=shop ")[2] for line in open(path + "/docker.calls")]
        for call in ("build", "up --detach", "ps", "pull", "stop one", "restart two", "stop", f"cp app:/c {path}"):
            assert call + "\\n" in calls, (call, calls)
    """,
    (
        "c2c_otel.acceptance.connection.Connection.get",
        "c2c_otel.acceptance.connection.Connection.get_raw",
        "c2c_otel.acceptance.connection.Connection.get_json",
        "c2c_otel.acceptance.connection.Connection.get_xml",
        "c2c_otel.acceptance.connection.Connection.head",
        "c2c_otel.acceptance.connection.Connection.options",
        "c2c_otel.acceptance.connection.Connection.post",
        "c2c_otel.acceptance.connection.Connection.post_json",
        "c2c_otel.acceptance.connection.Connection.post_files",
        "c2c_otel.acceptance.connection.Connection.put",
        "c2c_otel.acceptance.connection.Connection.put_json",
        "c2c_otel.acceptance.connection.Connection.patch",
        "c2c_otel.acceptance.connection.Connection.patch_json",
        "c2c_otel.acceptance.connection.Connection.delete",
        "c2c_otel.acceptance.connection.check_response",
        "c2c_otel.acceptance.print.PrintConnection.wait_ready",
        "c2c_otel.acceptance.print.PrintConnection.get_capabilities",
        "c2c_otel.acceptance.print.PrintConnection.get_example_requests",
        "c2c_otel.acceptance.print.PrintConnection.get_pdf",
        "c2c_otel.acceptance.print.PrintConnection.get_apps",
    ): """
        import json, re
        from wsgiref.simple_server import WSGIRequestHandler, make_server
        from c2c_otel.acceptance.connection import CacheExpected, Connection, check_response
        from c2c_otel.acceptance.print import PrintConnection
        def app(environ, start_response):
            place, status, kind = environ["PATH_INFO"].strip("/"), "200 OK", "application/json"
            body = json.dumps([environ["REQUEST_METHOD"], environ.get("HTTP_ORIGIN")])
            if place == "xml":
                kind, body = "application/xml", "<a/>"
            elif place == "print/a/report.pdf":
                body = json.dumps({"ref": "1"})
            elif place.startswith("print/"):
                kind, body = "application/json", json.dumps({"done": True, "status": "finished"})
                if "report/" in place:
                    kind, body = "application/pdf", "%PDF-1.4"
                elif "exampleRequest" in place:
                    body = json.dumps({"A4": '{"layout": "A4"}'})
                elif "apps" in place:
                    body = json.dumps(["a"])
            elif environ["REQUEST_METHOD"] == "DELETE":
                status, body = "204 No Content", ""
            caching = "max-age=9" if re.search("apps|capabilities|exampleRequest", place) else "no-cache"
            start_response(status, [("Content-Type", kind), ("Access-Control-Allow-Origin", "*"),
                                    ("Cache-Control", caching)])
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body.encode()]
        class Quiet(WSGIRequestHandler):
            def log_message(self, *args):
                pass
        server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = "http://127.0.0.1:%s/" % server.server_port
        try:
            with Connection(url, "http://o") as connection:
                for text, method in ((connection.get, "GET"), (connection.post, "POST"), (connection.put, "PUT"),
                                     (connection.patch, "PATCH")):
                    assert json.loads(text("x")) == [method, "http://o"], method
                assert connection.get_json("x", cors=False) == ["GET", None]
                for answer, method in ((connection.post_json, "POST"), (connection.put_json, "PUT"),
                                       (connection.patch_json, "PATCH")):
                    assert answer("x", json={"a": 1}) == [method, "http://o"]
                assert connection.post_files("x", files={"a": ("a.txt", b"1")}) == ["POST", "http://o"]
                assert connection.get_xml("xml").getroot().tag == "a"
                assert connection.head("x").headers["Cache-Control"] == "no-cache"
                assert connection.options("x", cors=False).status_code == 200
                assert connection.delete("x").content == b""
                check_response(connection.get_raw("x"), 200, cache_expected=CacheExpected.NO)
            with PrintConnection(url + "print/", "http://o") as printer:
                printer.wait_ready(timeout=10, app="a")
                assert printer.get_apps() == ["a"] and printer.get_capabilities("a")["done"]
                (example,) = printer.get_example_requests("a").values()
                assert example == {"layout": "A4"}
                assert printer.get_pdf("a", example, timeout=10).content.startswith(b"%PDF-")
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
    """,
    (
        "c2c_otel.acceptance.images.check_image",
        "c2c_otel.acceptance.images.check_image_file",
        "c2c_otel.acceptance.images.check_screenshot",
        "c2c_otel.admin.base_path",
        "c2c_otel.loader.Loader",
        "c2c_otel.profiler.enable",
        "c2c_otel.profiler.mode",
        "c2c_otel.profiler.disable",
        "c2c_otel.renderers.includeme",
        "c2c_otel.sentry.includeme",
        "c2c_otel.stats.Timer",
    ): """
        import inspect, plaster
        from PIL import Image
        from c2c_otel import admin, loader, profiler, renderers, sentry
        from c2c_otel.acceptance import images
        Image.new("RGB", (9, 9), "red").save(path + "/red.png")
        images.check_image_file(path, path + "/red.png", path + "/red.png")
        images.check_image(path, Image.new("RGB", (9, 9), "red"), path + "/red.png")
        try:
            images.check_image(path, Image.new("RGB", (9, 9), "blue"), path + "/red.png")
        except AssertionError:
            pass
        else:
            raise AssertionError("they differ")
        # it needs Chromium, with which test_acceptance_images.py calls it
        inspect.signature(images.check_screenshot).bind("http://h/", path, path + "/red.png", width=9, height=9)

        config = Configurator(settings={"c2c.base_path": "/mine"})
        for part in (renderers, sentry):
            config.include(part.includeme)
        config.add_route("fast", "/fast")
        config.add_view(lambda request: {"a": 1}, route_name="fast", renderer="fast_json")
        assert admin.base_path(config) == "/mine"
        config.include("c2c_otel")
        assert admin.base_path(config) == "/mine"
        assert get(config.make_wsgi_app(), "/fast").json == {"a": 1}

        with open(path + "/x.ini", "w") as file:
            file.write("[app:main]\\na = %(FROM_OUTSIDE)s\\n")
        os.environ["FROM_OUTSIDE"] = "b"
        assert loader.Loader(plaster.PlasterURL("c2c", path + "/x.ini")).get_settings("app:main")["a"] == "b"

        assert isinstance(stats.timer(["a"]), stats.Timer)
        profiler.init()
        assert profiler.mode() is None
        profiler.enable(seconds=60)
        assert profiler.mode().seconds_left() > 0
        profiler.disable()
        assert profiler.mode() is None
    """,
}

_BEGIN = """
import sqlalchemy, sqlalchemy.orm
from pyramid.config import Configurator
from webob import Request
def get(app, url, **environ):
    return Request.blank(url, environ=environ).get_response(app)
path = sys.argv[1]
"""


@pytest.mark.parametrize("names", SCRIPTS, ids=lambda names: names[0])
def test_called(names: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    code = textwrap.dedent(SCRIPTS[names])
    for name in names:
        last = name.rpartition(".")[2]
        assert re.search(rf"\b{last}\b", code), f"{name} is not called"
    done = run(f"sys.argv.append({str(tmp_path)!r})\n{_BEGIN}\n{code}\nprint('through')", C2CWSGIUTILS_CONFIG="/none")
    assert done.stdout.endswith("through\n")


def test_each_can_be_imported_by_its_name() -> None:
    for name in (name for names in SCRIPTS for name in names):
        module, _, attribute = name.rpartition(".")
        if name != "c2c_otel.wsgi_app.application":  # looking it up makes the application
            assert hasattr(pkgutil.resolve_name(module), attribute), name


def test_each_that_is_promised_is_called() -> None:
    page = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text()
    table = page.partition("<!-- names -->")[2].partition("<!-- commands -->")[0]
    promised = set()
    for row in table.splitlines():
        cells = [re.findall(r"`([\w.]+)`", cell) for cell in row.split("|")[1:4]]
        if len(cells) == 3 and cells[1]:
            promised |= {f"{cells[1][0]}.{name}" for name in cells[2]} or {cells[1][0]}
    called = {name for names in SCRIPTS for name in names}
    assert len(promised) > 60
    left = promised - called
    assert [name for name in left if not isinstance(pkgutil.resolve_name(name), ModuleType)] == []


COMMANDS = ("run", "genversion", "stats-db", "models-graph", "check-es", "coverage-report", "test-print")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_script_and_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert cli.main([command, "--help"]) == 0
    except SystemExit as end:
        assert end.code == 0
    said = capsys.readouterr().out
    assert f"c2c-otel-{command}" in said and "example" in said and "exit codes: " in said
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=f"c2c-otel-{command}")
    assert callable(script.load())
