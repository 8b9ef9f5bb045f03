"""LOG_TYPE and LOG_LEVEL without an ini, fileConfig with the environment, gunicorn's loggers, the SDK's pipeline."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from c2c_otel import logging_setup
from c2c_otel.otel_logging import OtelLogHandler
from c2c_otel.pyramid_logging import JsonLogHandler, PyramidCeeSysLogHandler
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel_exporters import logs

NAMES = ("sqlalchemy.engine", "gunicorn.error", "gunicorn.access", "c2c_test.quiet", "c2c_test.own")


@pytest.fixture(autouse=True)
def root(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    """The root logger without handlers, everything as before afterwards."""
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in NAMES)]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate, logger.disabled) for logger in loggers]
    test = request.node.obj

    def without_handlers(**arguments: Any) -> None:
        root.handlers[:] = []  # here, because pytest adds its own between fixtures and test
        test(**arguments)

    request.node.obj = without_handlers
    yield root
    logging_setup.attach_otel(None)
    logging.captureWarnings(False)
    for logger, handlers, level, propagate, disabled in before:
        logger.handlers[:], logger.propagate, logger.disabled = handlers, propagate, disabled
        logger.setLevel(level)


def load(**environ: str) -> Settings:
    return Settings.load(environ)


def kinds(logger: logging.Logger) -> list[str]:
    return [type(handler).__name__ for handler in logger.handlers]


# -- set-up -----------------------------------------------------------------------------------------------------------


def test_nothing_is_touched_unless_asked(root: logging.Logger) -> None:
    level = root.level
    assert logging_setup.setup(load(LOG_HOST="x", SQL_LOG_LEVEL="DEBUG", GUNICORN_LOG_LEVEL="DEBUG")) is False
    assert root.handlers == [] and root.level == level
    assert logging.getLogger("sqlalchemy.engine").level == logging.NOTSET


def test_json_goes_to_stdout(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load(LOG_TYPE="json", LOG_LEVEL="debug", SQL_LOG_LEVEL="INFO", GUNICORN_LOG_LEVEL="WARNING")
    assert logging_setup.setup(settings) is True
    logging.getLogger("a").debug("hello")
    out, err = capsys.readouterr()
    assert json.loads(out)["msg"] == "hello" and err == ""
    assert logging.getLogger("sqlalchemy.engine").level == logging.INFO
    assert logging.getLogger("gunicorn.error").level == logging.WARNING
    assert logging_setup.setup(settings) is False
    assert kinds(root) == ["JsonLogHandler"]


def test_the_level_is_info_unless_said(root: logging.Logger) -> None:
    logging_setup.setup(load(LOG_TYPE="json"))
    assert root.level == logging.INFO
    root.handlers[:] = []
    logging_setup.setup(load(LOG_TYPE="json", OTHER_LOG_LEVEL="ERROR"))
    assert root.level == logging.ERROR


def test_a_level_alone_gives_text_on_stderr(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    assert logging_setup.setup(load(LOG_LEVEL="WARNING")) is True
    logging.getLogger("a").info("not this")
    logging.getLogger("a").warning("GET /c2c?secret=hunter2")
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"[-0-9:, ]+ WARNING a GET /c2c\?secret=\*\*\*\n", err)


def test_several_kinds_at_once(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(10)
        port = str(sink.getsockname()[1])
        logging_setup.setup(load(LOG_TYPE="json, LOGSTASH,console", LOG_HOST="127.0.0.1", LOG_PORT=port))
        logging.getLogger("a").warning("three")
        datagram = sink.recv(70_000)
    out, err = capsys.readouterr()
    assert json.loads(out)["msg"] == "three" and err.endswith("a three\n")
    assert datagram.startswith(b"<12>: @cee: {") and datagram.endswith(b"}\0")
    for handler in root.handlers:
        handler.close()


def test_an_unknown_kind_is_a_configuration_error(root: logging.Logger) -> None:
    with pytest.raises(ConfigurationError, match="LOG_TYPE is 'json,xml'; expected one or more of json, console"):
        logging_setup.setup(load(LOG_TYPE="json,xml"))
    assert root.handlers == []


def test_what_an_ini_has_set_up_stays(root: logging.Logger) -> None:
    root.setLevel("ERROR")
    root.addHandler(JsonLogHandler("stdout"))
    assert logging_setup.setup(load(LOG_TYPE="json", LOG_LEVEL="DEBUG")) is False
    assert logging_setup.setup(load(LOG_LEVEL="DEBUG")) is False
    assert kinds(root) == ["JsonLogHandler"] and root.level == logging.ERROR


def test_basic_text_gives_way_and_other_handlers_stay(root: logging.Logger, tmp_path: Path) -> None:
    logging.basicConfig(level="ERROR")
    file = logging.FileHandler(tmp_path / "log")
    root.addHandler(file)
    assert logging_setup.setup(load(LOG_TYPE="json")) is True
    assert kinds(root) == ["FileHandler", "JsonLogHandler"]
    file.close()


# -- ini --------------------------------------------------------------------------------------------------------------

INI = """
[loggers]
keys = root, own
[handlers]
keys = console, json, logstash
[formatters]
keys = generic
[logger_root]
level = %(OTHER_LOG_LEVEL)s
handlers = %(LOG_TYPE)s
[logger_own]
level = %(LOG_LEVEL)s
handlers =
qualname = c2c_test.own
[handler_console]
class = logging.StreamHandler
args = (sys.stdout,)
level = NOTSET
formatter = generic
[handler_json]
class = c2c_otel.pyramid_logging.JsonLogHandler
args = (sys.stdout,)
level = NOTSET
formatter = generic
[handler_logstash]
class = c2c_otel.pyramid_logging.PyramidCeeSysLogHandler
args = (("%(LOG_HOST)s", %(LOG_PORT)s),)
kwargs = {"application": "%(APPLICATION)s", "where": "%(here)s"}
[formatter_generic]
format = %(levelname)-5.5s %(name)s %(message)s
"""


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    path = tmp_path / "production.ini"
    path.write_text(INI)
    return path


def test_an_ini_may_use_every_variable(
    ini: Path, root: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(10)
        for name, value in {
            "LOG_TYPE": "json, logstash",
            "LOG_PORT": str(sink.getsockname()[1]),
            "LOG_HOST": "127.0.0.1",
            "LOG_LEVEL": "DEBUG",
            "OTHER_LOG_LEVEL": "ERROR",
            "APPLICATION": "100%% sure, 40%(x)s %40",
            # options of fileConfig, which a variable must not become
            "LEVEL": "17 potatoes",
            "ARGS": "--verbose",
            "FORMATTER": "none",
            "http_proxy": "lower",
            "HTTP_PROXY": "upper",
        }.items():
            monkeypatch.setenv(name, value)
        logging_setup.setup_from_ini(ini, Settings.load())
        logging.getLogger("c2c_test.own").debug("hello")
        logging.getLogger("c2c_test.quiet").warning("not this")
        datagram = sink.recv(70_000)
    fields = json.loads(capsys.readouterr().out)
    assert fields["msg"] == "hello"
    sent = json.loads(datagram[datagram.index(b"{") : -1])
    assert sent["application"] == "100%% sure, 40%(x)s %40"
    assert sent["where"] == str(ini.parent)
    assert kinds(root) == ["JsonLogHandler", "PyramidCeeSysLogHandler"]
    for handler in root.handlers:
        handler.close()


def test_an_ini_needs_none_of_the_log_variables(
    ini: Path, root: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("LOG_TYPE", "LOG_HOST", "LOG_PORT", "LOG_LEVEL", "OTHER_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("APPLICATION", "shop")
    existing = logging.getLogger("c2c_test.quiet")
    logging_setup.setup_from_ini(ini, Settings.load())
    existing.info("still enabled")
    assert capsys.readouterr().out == "INFO  c2c_test.quiet still enabled\n"
    assert kinds(root) == ["StreamHandler"]


def test_an_ini_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        logging_setup.setup_from_ini(tmp_path / "none.ini", load())


# -- gunicorn ---------------------------------------------------------------------------------------------------------


def gunicorn_logger(**options: Any) -> Any:
    from gunicorn.config import Config
    from gunicorn.glogging import Logger

    config = Config()
    for name, value in {"accesslog": "-", **options}.items():
        config.set(name, value)
    return Logger(config)


def test_gunicorns_loggers_write_json(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load(LOG_TYPE="json", GUNICORN_LOG_LEVEL="WARNING")
    logging_setup.setup(settings)
    log = gunicorn_logger()
    assert logging_setup.adopt_gunicorn(settings) is True
    assert logging_setup.adopt_gunicorn(settings) is False
    log.info("hidden by its level")
    log.error("Worker %s died", 7)
    log.access_log.info("%(h)s %(r)s", {"h": "1.2.3.4", "r": "GET /c2c?secret=hunter2 HTTP/1.1"})
    out, err = capsys.readouterr()
    first, second = map(json.loads, out.splitlines())
    assert (first["logger_name"], first["msg"]) == ("gunicorn.error", "Worker 7 died")
    assert (second["logger_name"], second["msg"]) == ("gunicorn.access", "1.2.3.4 GET /c2c?secret=*** HTTP/1.1")
    assert err == ""


def test_without_handlers_of_ours_gunicorn_keeps_its_own(root: logging.Logger) -> None:
    gunicorn_logger()
    assert logging_setup.adopt_gunicorn(load()) is False
    logging_setup.setup(load(LOG_TYPE="console"))
    assert logging_setup.adopt_gunicorn(load(LOG_TYPE="console")) is False
    assert kinds(logging.getLogger("gunicorn.error")) == ["StreamHandler"]


def test_a_log_file_of_gunicorn_stays(root: logging.Logger, tmp_path: Path) -> None:
    settings = load(LOG_TYPE="json")
    logging_setup.setup(settings)
    gunicorn_logger(errorlog=str(tmp_path / "errors"))
    assert logging_setup.adopt_gunicorn(settings) is True
    error = logging.getLogger("gunicorn.error")
    assert kinds(error) == ["FileHandler"]
    assert kinds(logging.getLogger("gunicorn.access")) == ["JsonLogHandler"]
    error.handlers[0].close()


def test_every_line_of_a_real_gunicorn_is_json(tmp_path: Path) -> None:
    """From the first of its arbiter, over a reload, to the last."""
    (tmp_path / "served.py").write_text(
        "import logging\n"
        "def app(environ, start_response):\n"
        "    logging.getLogger('served').info('serving')\n"
        "    start_response('200 OK', [])\n"
        "    return [b'ok']\n"
    )
    (tmp_path / "run.py").write_text(
        "import sys\n"
        "from c2c_otel.logging_setup import follow_gunicorn, setup\n"
        "from c2c_otel.settings import Settings\n"
        "settings = Settings.load()\n"
        "setup(settings); follow_gunicorn(settings); follow_gunicorn(settings)\n"
        "from gunicorn.app.wsgiapp import run\n"
        "sys.argv = ['gunicorn', '-b', '127.0.0.1:0', '--access-logfile', '-', 'served:app']\n"
        "run()\n"
    )
    environ = {"LOG_TYPE": "json", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "run.py"], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []

    def until(pattern: str) -> re.Match[str]:
        assert process.stdout is not None
        for raw in process.stdout:
            lines.append(json.loads(raw))
            if match := re.search(pattern, lines[-1]["msg"]):
                return match
        raise AssertionError(f"no {pattern!r} in {lines}")

    try:
        port = int(until(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        until("Booting worker")
        process.send_signal(signal.SIGHUP)
        until("Handling signal: hup")
        until("Booting worker")
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"GET /c2c?secret=hunter2 HTTP/1.0\r\n\r\n")
            while client.recv(4096):
                pass
        until("GET /c2c")
        process.send_signal(signal.SIGTERM)
        lines.extend(map(json.loads, process.stdout))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    served = [line for line in lines if line["logger_name"] == "served"]
    access = [line for line in lines if line["logger_name"] == "gunicorn.access"]
    assert [line["msg"] for line in served] == ["serving"]
    assert len(access) == 1 and '"GET /c2c?secret=*** HTTP/1.0" 200' in access[0]["msg"]
    assert "Shutting down: Master" in {line["msg"] for line in lines}


# -- OpenTelemetry ----------------------------------------------------------------------------------------------------


@pytest.fixture
def exported() -> Iterator[tuple[LoggerProvider, InMemoryLogRecordExporter]]:
    provider, exporter = LoggerProvider(shutdown_on_exit=False), InMemoryLogRecordExporter()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


def bodies(exporter: InMemoryLogRecordExporter) -> list[object]:
    return [record.log_record.body for record in exporter.get_finished_logs()]


def test_every_record_reaches_the_provider_once(root: logging.Logger, exported: Any) -> None:
    provider, exporter = exported
    own = logging.getLogger("c2c_test.own")
    own.propagate = False
    own.addHandler(logging.StreamHandler(io.StringIO()))
    quiet = logging.getLogger("c2c_test.quiet")
    quiet.propagate = False
    quiet.addHandler(logging.NullHandler())
    logging_setup.attach_otel(provider)
    logging_setup.attach_otel(provider)
    logging.getLogger("a").warning("root")
    own.warning("does not propagate")
    quiet.warning("silenced")
    assert bodies(exporter) == ["root", "does not propagate"]
    logging_setup.attach_otel(None)
    logging.getLogger("a").warning("after")
    assert len(exporter.get_finished_logs()) == 2


def test_attributes_make_the_same_line_as_a_handler(root: logging.Logger, exported: Any) -> None:
    provider, exporter = exported
    stream = io.StringIO()
    root.addHandler(JsonLogHandler(stream))
    logging_setup.attach_otel(provider)
    try:
        raise ValueError("see /c2c?secret=hunter2")
    except ValueError:
        logging.getLogger("a").exception("failed: /c2c?secret=hunter2", extra={"_n": {"deep": {1}}, "host": "x"})
    (record,) = exporter.get_finished_logs()
    assert "hunter2" not in record.to_json()
    assert record.log_record.attributes["exception.type"] == "ValueError"
    ours, theirs = json.loads(stream.getvalue()), logs.encode_otel(record)
    assert theirs.pop("timestamp") == pytest.approx(ours.pop("timestamp"), abs=1e-6)
    assert json.loads(json.dumps(theirs, default=list)) == ours


def test_another_provider_replaces_the_first(root: logging.Logger, exported: Any) -> None:
    provider, exporter = exported
    logging_setup.attach_otel(LoggerProvider(shutdown_on_exit=False))
    logging_setup.attach_otel(provider)
    assert kinds(root) == ["OtelLogHandler"]
    logging.getLogger("a").warning("x")
    assert bodies(exporter) == ["x"]


def test_an_ini_read_later_does_not_take_it_off(
    ini: Path, root: logging.Logger, exported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, _ = exported
    monkeypatch.setenv("APPLICATION", "shop")
    logging_setup.attach_otel(provider)
    logging_setup.setup_from_ini(ini, load())
    assert kinds(root) == ["StreamHandler", "OtelLogHandler"]


def test_lines_about_exporting_are_not_exported(root: logging.Logger, exported: Any) -> None:
    provider, exporter = exported
    logging_setup.attach_otel(provider)
    logging.getLogger("opentelemetry.sdk._logs").error("cannot export")
    with suppress_instrumentation():
        logging.getLogger("urllib3.connectionpool").error("POST /v1/logs")
        logging.getLogger("a").error("the application's")
    logging.getLogger("urllib3.connectionpool").error("POST /theirs")
    assert bodies(exporter) == ["the application's", "POST /theirs"]


def test_a_provider_that_fails_is_not_the_applications_problem(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def get_logger(self, name: str) -> Any:
            raise RuntimeError("no")

    root.addHandler(OtelLogHandler(Broken()))  # type: ignore[arg-type]
    logging.getLogger("a").warning("x")
    assert "RuntimeError: no" in capsys.readouterr().err


def test_gunicorns_own_lines_reach_the_provider(root: logging.Logger, exported: Any) -> None:
    provider, exporter = exported
    log = gunicorn_logger()
    logging_setup.attach_otel(provider)
    log.error("Worker died")
    assert bodies(exporter) == ["Worker died"]
    assert exporter.get_finished_logs()[0].instrumentation_scope.name == "gunicorn.error"


assert PyramidCeeSysLogHandler  # named by the ini above
