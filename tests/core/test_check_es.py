"""c2c-otel-check-es: what it asks, what it measures, how it fails; as a process, with a line that really travels."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from c2c_otel.commands import check_es
from c2c_otel.elasticsearch import Indexes
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel.testing import Captured, capture
from tests.servers import FakeElasticsearch, OtlpReceiver, UdpSink


@pytest.fixture
def es() -> Iterator[FakeElasticsearch]:
    with FakeElasticsearch() as server:
        yield server


@pytest.fixture
def captured() -> Iterator[Captured]:
    with capture() as captured:
        yield captured


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it has waited, without waiting: time only goes on so."""
    waited: list[float] = []
    clock = SimpleNamespace(sleep=waited.append, monotonic=lambda: 100.0 + sum(waited), time=time.time)
    monkeypatch.setattr(check_es, "time", clock)
    return waited


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def check(es: FakeElasticsearch, **settings: Any) -> bool:
    chosen = Settings(es_url=es.url, es_indexes="logs-*", **settings)
    return check_es.check(chosen, check_es._indexes(chosen))


def gauges(captured: Captured) -> dict[str, float]:
    lines = [re.fullmatch(r"([a-z_]+):([0-9.]+)\|g", line) for line in captured.statsd]
    return {match[1]: float(match[2]) for match in lines if match}


def timers(captured: Captured) -> list[str]:
    return [line.split(":")[0] for line in captured.statsd if line.endswith("|ms")]


# -- the age ----------------------------------------------------------------------------------------------------------


def test_age_of_the_newest(es: FakeElasticsearch, captured: Captured) -> None:
    for index, age in (("logs-1", 3000), ("logs-2", 1000), ("others", 10)):
        es.add(index, {"@timestamp": ago(age)})
    assert check(es)
    assert 1000 <= gauges(captured)["max_age"] < 1100
    assert timers(captured) == ["get_max_timestamp"]
    assert es.requests == [("logs-*", {})]  # all of it was understood
    assert "roundtrip" not in gauges(captured)


def test_filters(es: FakeElasticsearch, captured: Captured) -> None:
    es.add("logs-1", {"@timestamp": ago(10), "kubernetes.namespace": "other", "level": "a b"})
    es.add("logs-1", {"@timestamp": ago(1000), "kubernetes.namespace": "shop", "level": "a b"})
    es.add("logs-1", {"@timestamp": ago(10), "kubernetes.namespace": "shop"})
    filters = Settings.load({"ES_FILTERS": "kubernetes.namespace=shop, level = a b"}).es_filters
    assert filters == (("kubernetes.namespace", "shop"), ("level", "a b"))
    assert check(es, es_filters=filters)
    assert 1000 <= gauges(captured)["max_age"] < 1100


@pytest.mark.parametrize("text", ["a", "=b", "a=b,c", " =b"])
def test_filters_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ES_FILTERS is .*expected name=value,name=value"):
        Settings.load({"ES_FILTERS": text})


def test_no_entry(es: FakeElasticsearch, captured: Captured, caplog: pytest.LogCaptureFixture) -> None:
    es.add("others", {"@timestamp": ago(10)})
    assert not check(es)
    assert gauges(captured) == {}
    assert "There is no entry in logs-*" in caplog.messages


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, b'{"error": "no shard"}', '503 Service Unavailable: {"error": "no shard"}'),
        (200, b"<html>", "the answer is not JSON: b'<html>'"),
        (200, b"[]", "the answer has no aggregations.newest.value"),
        (200, b'{"aggregations": {"newest": {"value": "today"}}}', "the answer has 'today' for a number"),
        (200, b'{"aggregations": {"newest": {"value": true}}}', "the answer has True for a number"),
        (302, b"", "302 Found"),
    ],
)
def test_not_an_answer(
    es: FakeElasticsearch, captured: Captured, caplog: pytest.LogCaptureFixture, status: int, body: bytes, said: str
) -> None:
    es.fail_next(status, body)
    assert not check(es)
    assert captured.statsd == []
    assert "The newest entry cannot be asked for: " in caplog.text and said in caplog.text


def test_nobody_answers(captured: Captured, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(es_url="http://me:secret@127.0.0.1:1", es_indexes="a")
    assert not check_es.check(settings, check_es._indexes(settings))
    assert "refused" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("user", "auth", "sent"),
    [
        ("", "me:pass:word", "Basic " + base64.b64encode(b"me:pass:word").decode()),
        ("", "ApiKey abc==", "ApiKey abc=="),
        ("you:p%40ss@", None, "Basic " + base64.b64encode(b"you:p@ss").decode()),
        ("you:other@", "Bearer x", "Bearer x"),
    ],
)
def test_credentials(es: FakeElasticsearch, user: str, auth: str | None, sent: str) -> None:
    es.authorization = sent
    indexes = Indexes(f"http://{user}{es.address}/", "logs-*", auth)
    assert indexes.newest() is None
    es.authorization = "other"
    with pytest.raises(OSError, match="401"):
        indexes.newest()


def test_names_of_indexes(es: FakeElasticsearch) -> None:
    es.add("b-1", {"@timestamp": "1970-01-01T00:00:05+00:00"})
    assert Indexes(es.url, "a,b-*").newest() == 5
    assert es.requests[0][0] == "a,b-*"
    Indexes(es.url, "a/../b?c").newest()
    assert es.requests[1][0] == "a%2F..%2Fb%3Fc"


# -- the round trip ---------------------------------------------------------------------------------------------------


class Shipped(FakeElasticsearch):
    """What our logger says is there, `late` searches afterwards."""

    def __init__(self, caplog: pytest.LogCaptureFixture, late: int = 0, version: int = 8) -> None:
        super().__init__(version)
        self._caplog, self._late = caplog, late

    def _search(self, names: str, query: dict[str, Any]) -> dict[str, Any]:
        marks = {getattr(record, check_es.FIELD, None) for record in self._caplog.records} - {None}
        if marks:
            self._late -= 1
        if marks and self._late < 0:
            self.add("logs-2", {"@timestamp": ago(0), check_es.FIELD: marks.pop()})
        return super()._search(names, query)


@pytest.mark.parametrize(("late", "waited"), [(0, []), (3, [1.0, 1.0, 1.0])])
@pytest.mark.parametrize("version", [6, 8])
def test_round_trip(
    caplog: pytest.LogCaptureFixture,
    captured: Captured,
    waits: list[float],
    late: int,
    waited: list[float],
    version: int,
) -> None:
    with Shipped(caplog, late, version) as es:
        es.add("logs-1", {"@timestamp": ago(1000)})
        assert check(es, log_timeout=60.0)
    assert waits == waited
    assert gauges(captured)["roundtrip"] == sum(waited)
    assert gauges(captured)["max_age"] >= 1000
    assert f"The line was found after {float(sum(waited))} s" in caplog.messages


def test_a_line_that_does_not_arrive(
    es: FakeElasticsearch, caplog: pytest.LogCaptureFixture, captured: Captured, waits: list[float]
) -> None:
    es.add("logs-1", {"@timestamp": ago(1000), check_es.FIELD: "another"})
    assert not check(es, log_timeout=2.5)
    assert waits == [1.0, 1.0, 0.5]
    assert gauges(captured)["roundtrip"] == 2.5
    assert caplog.messages[-1] == "The line was not found within 2.5 s"


def test_trouble_on_the_way_is_waited_for(
    caplog: pytest.LogCaptureFixture, captured: Captured, waits: list[float]
) -> None:
    with Shipped(caplog) as es:
        es.fail_next(503, times=3)  # the age is not known then, but the line arrives
        assert not check(es, log_timeout=60.0)
    assert waits == [1.0, 1.0]
    assert gauges(captured) == {"roundtrip": 2.0}


def test_trouble_to_the_end(
    es: FakeElasticsearch, caplog: pytest.LogCaptureFixture, captured: Captured, waits: list[float]
) -> None:
    es.fail_next(503, b"too busy", times=9)
    assert not check(es, log_timeout=1.0)
    assert caplog.messages[-1].startswith("The line was not found within 1.0 s (POST ")
    assert "too busy" in caplog.messages[-1]


def test_the_line_leaves_whatever_the_level(
    caplog: pytest.LogCaptureFixture, captured: Captured, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_es._logger, "level", 40)
    check_es._logger.manager._clear_cache()  # type: ignore[attr-defined] # what setLevel does
    with Shipped(caplog) as es:
        assert not check(es, log_timeout=60.0)  # no entry at first
    assert gauges(captured) == {"roundtrip": 0.0}


# -- the command ------------------------------------------------------------------------------------------------------


class Shipper(FakeElasticsearch):
    """What a syslog server was sent as @cee is there."""

    def __init__(self, sink: UdpSink) -> None:
        super().__init__()
        self._sink = sink

    def _search(self, names: str, query: dict[str, Any]) -> dict[str, Any]:
        self.documents[:] = [
            ("logs-1", json.loads(line.rstrip("\0").partition("@cee: ")[2]) | {"@timestamp": ago(7)})
            for line in self._sink.lines()
        ]
        self.add("logs-1", {"@timestamp": ago(1000)})
        return super()._search(names, query)


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    ours = ("C2C_", "OTEL_", "STATSD_", "LOG_", "ES_", "OTHER_LOG", "GIT_", "SENTRY_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [sys.executable, "-m", "c2c_otel.commands.check_es", *arguments],
        env={**clean, "C2CWSGIUTILS_CONFIG": "/nowhere.ini", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_line_travels(udp_sink: UdpSink, otlp_receiver: OtlpReceiver) -> None:
    with Shipper(udp_sink) as es, UdpSink() as statsd:
        done = run(
            ES_URL=es.url,
            ES_INDEXES="logs-*",
            LOG_TYPE="logstash,console",
            LOG_HOST=udp_sink.host,
            LOG_PORT=str(udp_sink.port),
            LOG_TIMEOUT="20",
            STATSD_ADDRESS=statsd.address,
            STATSD_PREFIX="check",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{otlp_receiver.url}/v1/metrics",
        )
        assert done.returncode == 0, done.stderr
        lines = statsd.wait_for(lambda lines: any(line.startswith("check.roundtrip:") for line in lines))
    names = {line.split(":")[0] for line in lines}
    assert {"check.get_max_timestamp", "check.max_age", "check.roundtrip"} <= names
    assert any(re.fullmatch(r"check\.max_age:1\d\d\d\.?\d*\|g", line) for line in lines)
    told = {point["attributes"].get("key"): point.get("value") for point in otlp_receiver.metrics}
    assert told["max_age"] >= 1000 and told["roundtrip"] < 20
    assert "The line was found after" in done.stderr


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"ES_INDEXES": "a"}, "ES_URL is ''; expected a value such as https://elasticsearch:9200. Set it."),
        ({"ES_URL": "http://es"}, "ES_INDEXES is ''; expected a value such as logstash-*. Set it."),
        ({"ES_URL": "me:secret@es", "ES_INDEXES": "a"}, "ES_URL is '***'; expected a URL that starts with http"),
        ({"ES_URL": "http://es", "ES_INDEXES": "a", "LOG_TIMEOUT": "soon"}, "LOG_TIMEOUT is 'soon'"),
    ],
)
def test_settings_that_cannot_be_used(environ: dict[str, str], said: str) -> None:
    done = run(**environ)
    assert done.returncode == 2
    assert done.stderr.startswith(f"c2c-otel-check-es: {said}")
    assert "secret" not in done.stderr


def test_failure_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(ES_URL="http://127.0.0.1:1", ES_INDEXES="a")
    assert done.returncode == 1
    assert "refused" in done.stderr and "Traceback" not in done.stderr
    with pytest.raises(SystemExit) as caught:
        check_es.main(["--help"])
    assert caught.value.code == 0
    assert "exit codes: 0; 1: no answer" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        check_es.main(["now"])
    assert caught.value.code == 2
