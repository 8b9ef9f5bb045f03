"""A script in one call: what it logs, measures, reports and answers, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from c2c_otel import setup_process
from c2c_otel.settings import ConfigurationError
from tests.servers import UdpSink

INI = """
[app:main]
use = egg:myapp
c2c.statsd_address = {address}
c2c.statsd_prefix = ini
my.value = %(MY_VALUE)s

[app:other]
c2c.statsd_prefix = other

{logging}
"""
LOGGING = """
[loggers]
keys = root
[handlers]
keys = json
[formatters]
keys =
[logger_root]
level = WARNING
handlers = json
[handler_json]
class = c2c_otel.pyramid_logging.JsonLogHandler
args = ('stdout',)
"""
WORK = """
from c2c_otel import setup_process
settings = setup_process.init({arguments})
assert setup_process.init() is settings
import sqlalchemy
with sqlalchemy.create_engine("sqlite://").connect() as connection:
    connection.execute(sqlalchemy.text("SELECT 1"))
stats.increment_counter(["done"])
logging.getLogger("my").info("informed")
logging.getLogger("my").warning("warned in %s", trace.get_current_span().get_span_context().is_valid)
"""


def ini(tmp_path: Path, sink: UdpSink, logging: str = "") -> Path:
    path = tmp_path / "my.ini"
    path.write_text(INI.format(address=sink.address, logging=logging))
    return path


def names(sink: UdpSink, count: int) -> list[str]:
    return sorted(line.partition(":")[0] for line in sink.wait_for(count))


def test_without_an_ini_file(run: Any, udp_sink: UdpSink) -> None:
    done = run(WORK.format(arguments=""), STATSD_ADDRESS=udp_sink.address, C2CWSGIUTILS_CONFIG="/no/such.ini")
    assert "INFO my informed" in done.stderr
    assert "WARNING my warned" in done.stderr
    assert done.stderr.count("informed") == 1
    assert names(udp_sink, 2) == ["done", "sql.SELECT__"]


def test_json_lines(run: Any) -> None:
    done = run(WORK.format(arguments=""), LOG_TYPE="json", LOG_LEVEL="WARNING")
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["msg"].startswith("warned")


@pytest.mark.parametrize("way", ["path", "uri", "variable"])
def test_an_ini_file(run: Any, udp_sink: UdpSink, tmp_path: Path, way: str) -> None:
    path = ini(tmp_path, udp_sink, LOGGING)
    arguments = {"path": repr(str(path)), "uri": repr(f"c2c://{path}"), "variable": ""}[way]
    more = {"C2CWSGIUTILS_CONFIG": str(path)} if way == "variable" else {}
    done = run(WORK.format(arguments=arguments), MY_VALUE="a%b", STATSD_PREFIX="", **more)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["msg"].startswith("warned")
    assert names(udp_sink, 2) == ["ini.done", "ini.sql.SELECT__"]


def test_another_section_and_the_environment_before_it(run: Any, udp_sink: UdpSink, tmp_path: Path) -> None:
    path = ini(tmp_path, udp_sink)
    for arguments in (f"{str(path)!r}, 'other'", repr(f"c2c://{path}#other")):
        run(WORK.format(arguments=arguments), MY_VALUE="x", STATSD_ADDRESS=udp_sink.address)
    assert names(udp_sink, 4) == ["other.done"] * 2 + ["other.sql.SELECT__"] * 2


def test_under_the_launcher_nothing_is_measured_or_logged_twice(tmp_path: Path, udp_sink: UdpSink, run: Any) -> None:
    program = tmp_path / "script.py"
    head = "import logging\nfrom c2c_otel import stats\nfrom opentelemetry import trace\n"
    program.write_text(head + WORK.format(arguments=""))
    launcher = Path(sys.executable).with_name("c2c-otel-instrument")
    environ = {"LOG_TYPE": "console", "C2C_RUNTIME_DIR": str(tmp_path / "run"), "STATSD_ADDRESS": udp_sink.address}
    done = subprocess.run(
        [launcher, sys.executable, program],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": str(launcher.parent), **environ},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("informed") == 1
    assert names(udp_sink, 2) == ["done", "sql.SELECT__"]


def test_what_operators_do_reaches_it(run: Any) -> None:
    run(
        "from c2c_otel import broadcast, log_levels, db_maintenance, setup_process\n"
        "setup_process.init()\n"
        "assert broadcast.get().joined\n"
        "log_levels.set('my', 'DEBUG')\n"
        "assert logging.getLogger('my').level == logging.DEBUG\n"
        "db_maintenance.set_readonly(True)\n"
        "assert db_maintenance.is_readonly()\n"
        "answers = broadcast.broadcast('c2c_dump_stacks', expect_answers=True, timeout=5)\n"
        "assert len(answers) == 1 and answers[0], answers\n",
        C2C_DEBUG_VIEW_ENABLED="1",
    )


def test_telemetry_can_be_off(run: Any) -> None:
    done = run(WORK.format(arguments="") + "assert not process.started\n", OTEL_SDK_DISABLED="true")
    assert "informed" in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config_file is '.*'; expected an ini file that can be read"),
        ("[app:none]\na = b\n", r"config_file is '.*'; expected an ini file with a section \[app:main\]"),
        ("nonsense", "config_file is '.*'; expected an ini file"),
        ("[app:main]\nc2c.statsd_address = x\n", "c2c.statsd_address is 'x'; expected host:port"),
        ("[app:main]\na = b\n[loggers]\nkeys = none\n", "config_file is '.*'; expected logging that can be set up"),
        ("[app:main]\nc2c.sentry_url = x\n", r"SENTRY_URL is '\*\*\*'; expected a DSN"),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, content: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_process, "_take_part", lambda settings: None)
    path = tmp_path / "my.ini"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        setup_process.init(path)
    assert setup_process._done is None
