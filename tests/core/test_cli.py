"""``c2c-otel``, as an operator types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from c2c_otel import cli
from c2c_otel.settings import rows

PROGRAM = str(Path(sys.executable).with_name("c2c-otel"))


def shell(line: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("C2C_", "OTEL_", "STATSD_"))}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("c2c-otel", PROGRAM)],
        cwd=cwd,
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def table(text: str) -> dict[str, tuple[str, str]]:
    """The name of each setting, with its value and source."""
    found = {}
    for line in text.splitlines():
        name, rest = line.split(None, 1)
        value, source = rest.rsplit("  ", 1)
        found[name] = value.strip(), source.strip()
    return found


def test_every_setting_has_its_value_and_source(tmp_path: Path) -> None:
    (tmp_path / "base.ini").write_text(
        "[app:shop]\nuse = egg:nowhere\nc2c.base_path = /base\nc2c.statsd_prefix = base\n"
    )
    (tmp_path / "production.ini").write_text(
        "[app:main]\nuse = middle\nc2c.statsd_prefix = main\n"
        "[app:middle]\nuse = config:base.ini#shop\nc2c.stats_view = %(VIEW)s\n"
    )
    environ = {"VIEW": "yes", "STATSD_TAG_ENV": "prod", "STATSD_ADDRESS": "[::1]:8125", "LOG_TYPE": "json,logstash"}
    done = shell("c2c-otel config --ini production.ini", tmp_path, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    found = table(done.stdout)
    assert list(found) == [row.env for row in rows()]
    assert found["C2C_BASE_PATH"] == ("/base", "ini")
    assert found["STATSD_PREFIX"] == ("main", "ini")
    assert found["STATS_VIEW"] == ("on", "ini")
    assert found["STATSD_TAG_*"] == ("env=prod", "environment")
    assert found["STATSD_ADDRESS"] == ("[::1]:8125", "environment")
    assert found["LOG_TYPE"] == ("json,logstash", "environment")
    assert found["C2C_SQL_REQUEST_ID"] == ("off", "default")


def test_no_secret_is_shown(tmp_path: Path) -> None:
    environ = {row.env: "hush" for row in rows() if row.secret}
    environ["C2C_REDIS_URL"], environ["C2C_REDIS_OPTIONS"] = "redis://:hush@cache", "password=hush"
    environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "https://me:hush@collector:4318/x"
    environ["SENTRY_CLIENT_HTTP_PROXY"] = "http://me:hush@proxy"
    done = shell("c2c-otel config", tmp_path, **environ)
    assert "hush" not in done.stdout
    found = table(done.stdout)
    assert {found[name][0] for name in environ if name in found} == {"***", "https://***@collector:4318/x"}
    assert found["SENTRY_CLIENT_*"][0] == "http_proxy=http://***@proxy"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("c2c-otel config --ini none.ini", "--ini is 'none.ini'; expected an ini file that can be read."),
        ("c2c-otel config --ini .", "--ini is '.'; expected an ini file that can be read."),
        (
            "c2c-otel config --ini garbage.ini",
            "--ini is 'garbage.ini'; expected an ini file. MissingSectionHeaderError",
        ),
        ("c2c-otel config --ini binary.ini", "--ini is 'binary.ini'; expected an ini file. UnicodeDecodeError"),
        ("c2c-otel config --ini missing.ini", "is 'missing.ini'; expected an ini file. a in [app:main] refers to %("),
        ("c2c-otel config --ini percent.ini", "ratio in [app:main] has a % that begins no %(NAME)s. Write it as %%."),
        ("c2c-otel config --ini bad.ini", "c2c.stats_view is 'maybe'; expected one of 1, true, yes, on, 0"),
        ("c2c-otel config --ini bad.ini --section x", "--section is 'x'; expected an [app:...] in bad.ini."),
        ("STATSD_ADDRESS=x c2c-otel config", "STATSD_ADDRESS is 'x'; expected host:port"),
        ("C2C_REDIS_URL=x c2c-otel config --bogus", "error: unrecognized arguments: --bogus"),
        ("c2c-otel", "error: the following arguments are required: COMMAND"),
    ],
)
def test_what_cannot_be_used_is_2_without_traceback(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "garbage.ini").write_text("garbage\n")
    (tmp_path / "binary.ini").write_bytes(b"\x7fELF\xff\xfe\x00")
    (tmp_path / "missing.ini").write_text("[app:main]\na = %(NOBODY_SET_THIS)s\n")
    (tmp_path / "percent.ini").write_text("[app:main]\nratio = 100%\n")
    (tmp_path / "bad.ini").write_text("[app:main]\nc2c.stats_view = maybe\n")
    done = shell(line, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "line", ["c2c-otel config | true", "c2c-otel config --markdown | head -1", "c2c-otel config >&-"]
)
def test_nobody_has_to_read_it_all(tmp_path: Path, line: str) -> None:
    done = shell(line, tmp_path, PYTHONUNBUFFERED="1")
    assert (done.returncode, done.stderr) == (0, "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("c2c-otel 0.")
