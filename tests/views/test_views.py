from __future__ import annotations

import datetime
import gzip
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator

from c2c_otel.settings import Settings
from c2c_otel_exporters import guard
from tests.pyramid_kit import Answer, FakeTelemetry, assert_left_nothing, get


class Telemetry(FakeTelemetry):
    text = b"up 1\n"
    accepts: list[str]

    def render(self, accept: str) -> tuple[str, bytes]:
        self.accepts.append(accept)
        return "text/plain; version=0.0.4; charset=utf-8", self.text


@pytest.fixture
def fake(monkeypatch: Any) -> Any:
    fake = Telemetry()
    fake.accepts = []
    fake.put_in_place(monkeypatch)
    yield fake
    assert_left_nothing()


def make(**settings: Any) -> Any:
    config = Configurator(settings={f"c2c.{name}": str(value) for name, value in settings.items()})
    config.include("c2c_otel")
    return config.make_wsgi_app()


def assert_not_kept(answer: Answer) -> None:
    assert "no-store" in (answer.header("Cache-Control") or "")
    assert {word.strip() for word in (answer.header("Cache-Control") or "").split(",")} == {
        "max-age=0",
        "must-revalidate",
        "no-cache",
        "no-store",
    }
    assert answer.header("Pragma") == "no-cache"
    assert answer.header("Expires") and answer.header("Last-Modified")


def test_metrics(fake: Telemetry) -> None:
    answer = get(make(), "/metrics", HTTP_ACCEPT="application/openmetrics-text")
    assert (answer.status, answer.body) == (200, fake.text)
    assert answer.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.header("Content-Length") == "5"
    assert answer.header("Vary") == "Accept, Accept-Encoding"
    assert fake.accepts == ["application/openmetrics-text"]
    assert_not_kept(answer)


def test_metrics_head(fake: Telemetry) -> None:
    answer = get(make(), "/metrics", "HEAD")
    assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", "5")


@pytest.mark.parametrize(
    ("accepted", "length", "packed"),
    [("gzip", 2000, True), ("gzip;q=0", 2000, False), ("br", 2000, False), ("gzip", 10, False), (None, 2000, False)],
)
def test_metrics_packed(fake: Telemetry, accepted: Any, length: int, packed: bool) -> None:
    fake.text = b"x" * length
    answer = get(make(), "/metrics", **({"HTTP_ACCEPT_ENCODING": accepted} if accepted else {}))
    assert (answer.header("Content-Encoding") == "gzip") is packed
    assert (gzip.decompress(answer.body) if packed else answer.body) == fake.text
    assert answer.header("Content-Length") == str(len(answer.body))


def test_a_failing_view_is_a_json_500_and_is_counted(fake: Telemetry, monkeypatch: Any) -> None:
    monkeypatch.setattr(fake, "render", lambda accept: 1 / 0)
    guard.strict(False)
    try:
        answer = get(make(), "/metrics")
        assert guard.tally["failed.view /metrics"] == 1
    finally:
        guard.strict(None)
        guard.reset()
    assert answer.status == 500
    assert json.loads(answer.body) == {"message": "Internal error; see the service's log.", "status": 500}
    assert_not_kept(answer)


@pytest.mark.parametrize("path", ["/metrics", "/c2c/debug/time"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods(fake: Telemetry, path: str, method: str) -> None:
    answer = get(make(stats_view=1), path, method)
    assert (answer.status, answer.header("Allow")) == (405, "GET, HEAD")
    assert json.loads(answer.body) == {"message": f"{method} is not allowed for {path}.", "status": 405}
    assert_not_kept(answer)


def test_stats_only_where_they_are_on(fake: Telemetry) -> None:
    assert get(make(), "/c2c/stats.json").status == 404
    assert get(make(stats_view=0), "/c2c/stats.json").status == 404


def test_stats_cannot_be_reset_by_anybody(fake: Telemetry) -> None:
    app = make(stats_view=1)
    answer = get(app, "/c2c/stats.json?reset=1")
    assert answer.status == 403
    body = json.loads(answer.body)
    assert body["status"] == 403 and "secret" in body["message"]
    assert_not_kept(answer)


def test_versions(fake: Telemetry, tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "versions.json"
    assert get(make(versions_file=path), "/c2c/versions.json").status == 404
    assert caplog.messages == []
    path.write_text('{"packages": {"b": "1", "a": "é"}, "main": {"git_hash": "abc"}}')
    answer = get(make(versions_file=path), "/c2c/versions.json")
    assert json.loads(answer.body) == {"main": {"git_hash": "abc"}, "packages": {"a": "é", "b": "1"}}
    assert (answer.header("Content-Type") or "").startswith("application/json")
    assert_not_kept(answer)
    path.write_text("{")
    assert get(make(versions_file=path), "/c2c/versions.json").status == 404
    assert str(path) in caplog.messages[0]


def test_debug_time(fake: Telemetry) -> None:
    answer = get(make(), "/c2c/debug/time")
    body = json.loads(answer.body)
    assert body.keys() == {"local_time", "gmt_time", "epoch", "timezone"}
    assert abs(body["epoch"] - time.time()) < 60
    gmt = datetime.datetime.fromisoformat(body["gmt_time"]).replace(tzinfo=datetime.UTC)
    assert gmt.timestamp() == pytest.approx(body["epoch"], abs=1e-5)
    assert datetime.datetime.fromisoformat(body["local_time"]).timestamp() == pytest.approx(body["epoch"], abs=1e-5)
    assert_not_kept(answer)


@pytest.mark.parametrize("settings", [{}, {"stats_view": 1}, {"base_path": "/admin"}])
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("script", ["", "/mounted"])
def test_every_link_of_the_index_works(fake: Telemetry, settings: Any, slash: str, script: str) -> None:
    app = make(**settings)
    answer = get(app, settings.get("base_path", "/c2c") + slash, SCRIPT_NAME=script)
    assert (answer.status, answer.header("Content-Type")) == (200, "text/html; charset=UTF-8")
    assert_not_kept(answer)
    links = re.findall(r'<a href="([^"]*)"', answer.body.decode())
    assert len(links) == (3 if "stats_view" in settings else 2)
    assert all(link.startswith(script) for link in links)
    fake.families = lambda: ([], [])  # type: ignore[attr-defined]
    for link in links:
        if not link.endswith("stats.json"):
            assert get(app, link.removeprefix(script), SCRIPT_NAME=script).status == 200


def test_the_index_escapes_what_it_shows(fake: Telemetry) -> None:
    fake.settings = Settings(service_name="<script>")
    config = Configurator()
    config.include("c2c_otel")
    fake.settings = Settings(service_name="<script>")
    page = get(config.make_wsgi_app(), "/c2c", HTTP_HOST='"><script>').body.decode()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert (get(config.make_wsgi_app(), "/c2c").header("Content-Security-Policy") or "").startswith(
        "default-src 'none'"
    )


def test_no_index_on_the_root(fake: Telemetry) -> None:
    app = make(base_path="")
    assert get(app, "/").status == get(app, "").status == 404
    assert get(app, "/debug/time").status == 200
