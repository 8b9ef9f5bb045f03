"""{base}/logging/level: what it answers, to whom, and what it leaves alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from c2c_otel import log_levels, shared
from c2c_otel.shared_files import FileBackend
from tests import pyramid_kit as kit
from tests import view_kit
from tests.pyramid_kit import Answer
from tests.shared_kit import Clock, FakeBroadcast, clock, forget, network, process, settings
from tests.view_kit import SECRET, body, message

__all__ = ["clock", "network", "process", "settings"]

PATH = "/c2c/logging/level"
NAME = "shop.of.the.view"


@pytest.fixture
def app(process: FakeBroadcast, tmp_path: Path) -> Iterator[Any]:
    yield make(tmp_path)
    forget()
    for name in list(logging.Logger.manager.loggerDict):
        if name.startswith("shop"):
            logging.getLogger(name).setLevel(logging.NOTSET)
    kit.assert_left_nothing()


@pytest.fixture
def login(app: Any) -> tuple[str, str]:
    return view_kit.login(app)


def make(tmp_path: Path, enabled: Any = 1, secret: str | None = SECRET, **more: str) -> Any:
    return view_kit.make("log_view_enabled", tmp_path, enabled, secret, **more)


def call(
    app: Any, method: str = "GET", key: str | None = SECRET, form: Any = None, cookie: str = "", **parameters: Any
) -> Answer:
    query = urlencode(parameters)
    return view_kit.call(app, f"{PATH}?{query}" if query else PATH, method, key, form, HTTP_COOKIE=cookie)


def shown(level: str, effective: str | None = None, name: str = NAME) -> dict[str, Any]:
    return {"status": 200, "name": name, "level": level, "effective_level": effective or level}


def test_what_the_contract_says(app: Any) -> None:
    logging.getLogger("shop").setLevel("ERROR")
    assert body(call(app)) == {"status": 200, "overrides": {}}
    assert body(call(app, name=NAME)) == shown("NOTSET", "ERROR")
    assert body(call(app, name=NAME, level="DEBUG")) == shown("DEBUG")
    assert body(call(app, name=NAME)) == shown("DEBUG")
    assert body(call(app)) == {"status": 200, "overrides": {NAME: "DEBUG"}}
    assert logging.getLogger(NAME).level == logging.DEBUG


def test_with_the_secret_as_a_parameter(app: Any) -> None:
    assert body(call(app, key=None, secret=SECRET, name=NAME, level="info")) == shown("INFO")


def test_by_post(app: Any) -> None:
    assert body(call(app, "POST", form={"name": NAME, "level": "DEBUG"})) == shown("DEBUG")
    assert body(call(app, "POST", form={"name": NAME, "reset": "1"})) == shown("NOTSET", log_levels.get("").level)


@pytest.mark.parametrize(
    ("method", "parameters"), [("GET", {"reset": 1}), ("GET", {"level": ""}), ("DELETE", {}), ("POST", {"reset": "on"})]
)
def test_reset(app: Any, method: str, parameters: Any) -> None:
    logging.getLogger(NAME).setLevel("ERROR")
    call(app, name=NAME, level="DEBUG")
    assert body(call(app, method, name=NAME, **parameters)) == shown("ERROR")
    assert body(call(app)) == {"status": 200, "overrides": {}}
    assert body(call(app, method, name=NAME, **parameters)) == shown("ERROR")


@pytest.mark.parametrize("name", ["root", ""])
def test_the_root_logger(app: Any, name: str) -> None:
    before = logging.getLogger().level
    assert body(call(app, name=name, level="CRITICAL")) == shown("CRITICAL", name="root")
    assert body(call(app, name=name)) == shown("CRITICAL", name="root")
    assert body(call(app)) == {"status": 200, "overrides": {"root": "CRITICAL"}}
    call(app, "DELETE", name=name)
    assert logging.getLogger().level == before


def test_for_a_while(app: Any, clock: Clock) -> None:
    assert body(call(app, name=NAME, level="DEBUG", duration=60)) == shown("DEBUG")
    clock.now += 18.5
    assert body(call(app)) == {"status": 200, "overrides": {NAME: "DEBUG"}, "seconds_left": {NAME: 41.5}}
    clock.now += 41.5
    log_levels.init().tick()
    assert body(call(app)) == {"status": 200, "overrides": {}}
    assert body(call(app, name=NAME))["level"] == "NOTSET"


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"name": NAME, "level": "BOGUS"}, "level is 'BOGUS'; expected DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ({"name": NAME, "level": "101"}, "level is '101'; expected"),
        ({"name": NAME, "level": "x" * 10_000}, "level is 'xxx"),
        ({"level": "DEBUG"}, "name is missing; expected a logger's name"),
        ({"reset": "1"}, "name is missing"),
        ({"name": "a\nb"}, "name is 'a\\nb'; expected a logger's name"),
        ({"name": "x" * 256, "level": "DEBUG"}, "expected a logger's name of up to 255 printable characters"),
        ({"name": NAME, "level": "DEBUG", "duration": "soon"}, "duration is 'soon'; expected a number of seconds"),
        ({"name": NAME, "level": "DEBUG", "duration": "0"}, "duration is '0'; expected a number of seconds from 1 to"),
        ({"name": NAME, "level": "DEBUG", "duration": "nan"}, "duration is 'nan'"),
        ({"name": NAME, "duration": "5"}, "duration is 5.0; expected a level with it"),
        ({"name": NAME, "reset": "1", "duration": "5"}, "duration is 5.0; expected a level with it"),
        ({"name": NAME, "reset": "maybe"}, "reset is 'maybe'; expected one of 1, true"),
        ({"name": NAME, "reset": "1", "level": "DEBUG"}, "level is 'DEBUG'; expected none where it is reset"),
    ],
)
def test_what_cannot_be_is_a_400_and_nothing_is_stored(
    app: Any, process: FakeBroadcast, parameters: Any, says: str
) -> None:
    said = message(call(app, **parameters), 400)
    assert says in said and len(said) < 400
    assert body(call(app)) == {"status": 200, "overrides": {}}
    assert process.sent == []


def test_twice_is_a_400(app: Any) -> None:
    answer = kit.get(app, f"{PATH}?name=a&name=b", HTTP_X_API_KEY=SECRET, REMOTE_ADDR="198.19.2.1")
    assert "name is given 2 times" in message(answer, 400)


@pytest.mark.parametrize("key", [None, "wrong", SECRET[:-1]])
@pytest.mark.parametrize("parameters", [{}, {"name": NAME}, {"name": NAME, "level": "DEBUG"}, {"name": "\n"}])
def test_nothing_without_the_secret(app: Any, process: FakeBroadcast, key: Any, parameters: Any) -> None:
    for method in ("GET", "POST", "DELETE", "HEAD"):
        assert call(app, method, key, **parameters).status == 403
    assert process.sent == []
    assert log_levels.get(NAME).level == "NOTSET"


def test_the_cookie_alone_looks_but_changes_nothing(app: Any, process: FakeBroadcast, login: tuple[str, str]) -> None:
    cookie, token = login
    assert body(call(app, key=None, cookie=cookie, name=NAME))["level"] == "NOTSET"
    for parameters in ({"level": "DEBUG"}, {"level": "DEBUG", "csrf_token": token}, {"reset": 1}, {"level": ""}):
        message(call(app, key=None, cookie=cookie, name=NAME, **parameters), 403)
    message(call(app, "DELETE", key=None, cookie=cookie, name=NAME, csrf_token=token), 403)
    message(call(app, "POST", key=None, cookie=cookie, form={"name": NAME, "level": "DEBUG"}), 403)
    assert (process.sent, log_levels.get(NAME).level) == ([], "NOTSET")
    form = {"name": NAME, "level": "DEBUG", "csrf_token": token}
    assert body(call(app, "POST", key=None, cookie=cookie, form=form)) == shown("DEBUG")


@pytest.mark.parametrize(("enabled", "secret"), [(0, SECRET), (1, None), (1, "")])
def test_only_where_it_is_on_and_there_is_a_secret(
    process: FakeBroadcast, tmp_path: Path, enabled: int, secret: str | None
) -> None:
    answer = call(make(tmp_path, enabled, secret), name=NAME, level="DEBUG")
    assert answer.status == 404
    assert shared.find("log_levels") is None
    assert log_levels.get(NAME).level == "NOTSET"


def test_other_methods(app: Any) -> None:
    answer = call(app, "PUT", name=NAME, level="DEBUG")
    assert (answer.status, answer.header("Allow")) == (405, "DELETE, GET, HEAD, POST")
    assert log_levels.get(NAME).level == "NOTSET"


def test_a_change_is_logged_with_who_did_what(app: Any, caplog: Any) -> None:
    kit.get(app, f"{PATH}?name={NAME}&level=DEBUG", HTTP_X_API_KEY=SECRET, REMOTE_ADDR="198.19.2.2")
    said = f"Level of the logger {NAME}: NOTSET -> DEBUG, by 198.19.2.2 (X-API-Key)"
    assert said in caplog.messages
    assert SECRET not in caplog.text
    caplog.clear()
    call(app, name=NAME)
    call(app)
    assert caplog.messages == []


def test_who_did_not_answer_is_named(app: Any, process: FakeBroadcast) -> None:
    process.missing = ("here/7",)
    assert body(call(app, name=NAME, level="DEBUG")) == {**shown("DEBUG"), "missing": ["here/7"]}


def test_a_store_that_is_away(app: Any, process: FakeBroadcast, monkeypatch: Any) -> None:
    def away(*args: Any) -> Any:
        raise shared.Unavailable("The store is away.")

    monkeypatch.setattr(FileBackend, "write", away)
    assert message(call(app, name=NAME, level="DEBUG"), 503) == "The store is away."
    assert message(call(app, "DELETE", name=NAME), 503) == "The store is away."
    assert process.sent == []
    assert body(call(app, name=NAME))["level"] == "NOTSET"
    monkeypatch.setattr(FileBackend, "read", away)
    assert message(call(app), 503) == "The store is away."


def test_too_many(app: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(shared, "MAX_ENTRIES", 1)
    call(app, name="shop.first", level="DEBUG")
    assert "'shop.second' is one too many" in message(call(app, name="shop.second", level="DEBUG"), 400)
    assert log_levels.get("shop.second").level == "NOTSET"
