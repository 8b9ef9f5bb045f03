"""{base}/sql_profiler: what it answers, to whom, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from c2c_otel import shared, sql_profiler
from c2c_otel.shared_files import FileBackend
from tests import pyramid_kit as kit
from tests import view_kit
from tests.pyramid_kit import Answer
from tests.shared_kit import Clock, FakeBroadcast, clock, forget, network, process, settings
from tests.view_kit import SECRET, body, message

__all__ = ["clock", "network", "process", "settings"]

PATH = "/c2c/sql_profiler"
OFF = {"status": 200, "enabled": False}


@pytest.fixture
def app(process: FakeBroadcast, tmp_path: Path) -> Iterator[Any]:
    yield make(tmp_path)
    forget()
    assert sql_profiler.active is None
    kit.assert_left_nothing()


def make(tmp_path: Path, enabled: Any = 1, secret: str | None = SECRET, **more: str) -> Any:
    return view_kit.make("sql_profiler_enabled", tmp_path, enabled, secret, **more)


def call(app: Any, method: str = "GET", key: str | None = SECRET, form: Any = None, **parameters: Any) -> Answer:
    query = urlencode(parameters)
    return view_kit.call(app, f"{PATH}?{query}" if query else PATH, method, key, form)


def state(answer: Answer) -> Any:
    """Without what passes."""
    found = body(answer)
    found.pop("seconds_left", None)
    return found


def on(analyze: bool = False, min_seconds: float = 0) -> dict[str, Any]:
    return {"status": 200, "enabled": True, "analyze": analyze, "min_seconds": min_seconds}


def test_what_the_contract_says(app: Any) -> None:
    assert body(call(app)) == OFF
    assert state(call(app, enable=1)) == on()
    assert state(call(app)) == on()
    assert sql_profiler.active is not None
    assert body(call(app, enable=0)) == OFF
    assert body(call(app)) == OFF
    assert sql_profiler.active is None


def test_with_the_secret_as_a_parameter(app: Any) -> None:
    assert state(call(app, key=None, secret=SECRET, enable=1)) == on()


def test_all_that_can_be_said(app: Any) -> None:
    answer = body(call(app, enable=1, analyze=1, min_seconds=0.5, duration=90))
    assert 80 < answer.pop("seconds_left") <= 90
    assert answer == on(True, 0.5)
    assert state(call(app, "POST", form={"enable": "1", "analyze": "on", "min_seconds": "2"})) == on(True, 2)
    assert state(call(app, "POST", form={"enable": "1", "min_seconds": ""})) == on()
    assert body(call(app, "POST", form={"enable": "0"})) == OFF


def test_defaults_are_settings(process: FakeBroadcast, tmp_path: Path) -> None:
    app = make(tmp_path, **{"c2c.sql_profiler_min_seconds": "0.25", "c2c.sql_profiler_seconds": "30"})
    answer = body(call(app, enable=1))
    assert answer["min_seconds"] == 0.25
    assert 20 < answer["seconds_left"] <= 30
    assert state(call(app, enable=1, min_seconds=0)) == on()
    forget()


def test_it_switches_itself_off(app: Any, clock: Clock, monkeypatch: Any) -> None:
    monkeypatch.setattr(sql_profiler, "time", clock)
    assert body(call(app, enable=1, duration=60))["seconds_left"] == 60
    clock.now += 59
    sql_profiler.init().tick()
    assert body(call(app))["seconds_left"] == 1
    clock.now += 1
    assert body(call(app)) == OFF  # whoever tells the topic
    sql_profiler.init().tick()
    assert sql_profiler.active is None


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"enable": "maybe"}, "enable is 'maybe'; expected one of 1, true"),
        ({"enable": ""}, "enable is ''; expected one of 1, true"),
        ({"enable": "1", "analyze": "2"}, "analyze is '2'; expected one of 1, true"),
        ({"enable": "1", "min_seconds": "-1"}, "min_seconds is '-1'; expected a number of seconds from 0 to 3600"),
        ({"enable": "1", "min_seconds": "fast"}, "min_seconds is 'fast'; expected a number of seconds"),
        ({"enable": "1", "duration": "0"}, "duration is '0'; expected a number of seconds from 1 to 86400"),
        ({"enable": "1", "duration": "1e9"}, "duration is '1e9'; expected"),
        ({"analyze": "1"}, "analyze is '1'; expected enable=1 with it"),
        ({"enable": "0", "min_seconds": "1"}, "min_seconds is '1'; expected enable=1 with it"),
        ({"duration": "5"}, "duration is '5'; expected enable=1 with it"),
    ],
)
def test_what_cannot_be_is_a_400_and_nothing_is_stored(
    app: Any, process: FakeBroadcast, parameters: Any, says: str
) -> None:
    assert says in message(call(app, **parameters), 400)
    assert body(call(app)) == OFF
    assert process.sent == []


@pytest.mark.parametrize("key", [None, "wrong", SECRET[:-1]])
@pytest.mark.parametrize("parameters", [{}, {"enable": "1"}, {"enable": "x"}])
def test_nothing_without_the_secret(app: Any, process: FakeBroadcast, key: Any, parameters: Any) -> None:
    for method in ("GET", "POST", "HEAD"):
        assert call(app, method, key, **parameters).status == 403
    assert process.sent == []
    assert sql_profiler.active is None


@pytest.mark.parametrize(("enabled", "secret"), [(0, SECRET), (1, None), (1, "")])
def test_only_where_it_is_on_and_there_is_a_secret(
    process: FakeBroadcast, tmp_path: Path, enabled: int, secret: str | None
) -> None:
    assert call(make(tmp_path, enabled, secret), enable=1).status == 404
    assert shared.find("sql_profiler") is None


def test_other_methods(app: Any) -> None:
    answer = call(app, "DELETE", enable=1)
    assert (answer.status, answer.header("Allow")) == (405, "GET, HEAD, POST")
    assert sql_profiler.active is None


def test_a_change_is_logged_with_who_did_what(app: Any, caplog: Any) -> None:
    kit.get(app, f"{PATH}?enable=1&duration=60", HTTP_X_API_KEY=SECRET, REMOTE_ADDR="198.19.4.2")
    assert caplog.messages == [
        "SQL profiler: off -> on (EXPLAIN of SELECTs that take 0 s or more, for 60 s), by 198.19.4.2 (X-API-Key)"
    ]
    assert SECRET not in caplog.text
    caplog.clear()
    call(app)
    assert caplog.messages == []


def test_who_did_not_answer_is_named(app: Any, process: FakeBroadcast) -> None:
    process.missing = ("here/7",)
    assert state(call(app, enable=1)) == {**on(), "missing": ["here/7"]}
    assert body(call(app, enable=0)) == {**OFF, "missing": ["here/7"]}


def test_a_store_that_is_away(app: Any, process: FakeBroadcast, monkeypatch: Any) -> None:
    def away(*args: Any) -> Any:
        raise shared.Unavailable("The store is away.")

    monkeypatch.setattr(FileBackend, "write", away)
    assert message(call(app, enable=1), 503) == "The store is away."
    assert message(call(app, enable=0), 503) == "The store is away."
    assert process.sent == []
    assert body(call(app)) == OFF
