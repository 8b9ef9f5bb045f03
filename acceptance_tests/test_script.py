"""The demo's script as cron runs it: what arrives at statsd and Sentry, what it logs, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy

from acceptance_tests.app import models
from tests.servers import Sentry, UdpSink

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("arguments", [[], ["--fail"]])
def test_the_script(tmp_path: Path, arguments: list[str]) -> None:
    database = f"sqlite:///{tmp_path}/demo.sqlite"
    models.create(sqlalchemy.create_engine(database))
    with UdpSink() as sink, Sentry() as sentry:
        environ = {
            "SQLALCHEMY_URL": database,
            "STATSD_ADDRESS": sink.address,
            "SENTRY_URL": sentry.dsn,
            "GIT_HASH": "abc",
            "LOG_TYPE": "json",
            "C2C_RUNTIME_DIR": str(tmp_path / "runtime"),
            "C2CWSGIUTILS_CONFIG": str(tmp_path / "none.ini"),
        }
        done = subprocess.run(
            [sys.executable, "-m", "acceptance_tests.app.script", *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )
        lines = sink.wait_for(3)
        events = sentry.events
    assert done.returncode == len(arguments), done.stderr
    assert [json.loads(line)["msg"] for line in done.stdout.splitlines()] == ["1 greetings"]
    names = {line.partition(":")[0] for line in lines}
    assert {"script.hello", "script.count"} <= names
    assert any(name.startswith("sql.SELECT") for name in names)
    assert [event["exception"]["values"][0]["value"] for event in events] == ["asked for"] * len(arguments)
    assert all(event["release"] == "abc" for event in events)
