from __future__ import annotations

import logging
import logging.config
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel import log_levels, shared
from c2c_otel.log_levels import Level
from c2c_otel.settings import Settings
from c2c_otel.shared_files import FileBackend
from c2c_otel_exporters import guard
from tests.shared_kit import Clock, FakeBroadcast, clock, forget, network, process, settings

__all__ = ["clock", "network", "process", "settings"]


@pytest.fixture(autouse=True)
def loggers(process: FakeBroadcast) -> Iterator[None]:
    """The loggers that these tests change, as they were before, also where a test fails."""
    root = logging.getLogger()
    before = root.level
    yield
    forget()
    assert log_levels._held == {}
    assert root.level == before
    for name in list(logging.Logger.manager.loggerDict):
        if name.startswith("shop"):
            logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_level_is_set_and_given_back() -> None:
    logger = logging.getLogger("shop.orders")
    logger.setLevel("ERROR")
    change = log_levels.set("shop.orders", "debug")
    assert (change.before, change.after) == (None, "DEBUG")
    assert logger.isEnabledFor(logging.DEBUG)
    assert log_levels.get("shop.orders") == Level("DEBUG", "DEBUG")
    assert log_levels.overrides() == {"shop.orders": "DEBUG"}
    change = log_levels.set("shop.orders", "INFO")
    assert (change.before, change.after) == ("DEBUG", "INFO")
    change = log_levels.reset("shop.orders")
    assert (change.before, change.after) == ("INFO", None)
    assert (logger.level, log_levels.overrides()) == (logging.ERROR, {})
    assert log_levels.reset("shop.orders").before is None
    assert logger.level == logging.ERROR


def test_a_logger_that_is_made_later_has_its_level() -> None:
    log_levels.set("shop.later.on", "DEBUG")
    assert logging.getLogger("shop.later.on").level == logging.DEBUG
    assert logging.getLogger("shop.later.on.below").isEnabledFor(logging.DEBUG)


def test_to_look_makes_no_logger() -> None:
    logging.getLogger("shop.known").setLevel("ERROR")
    logging.getLogger("shop.hole.deep")  # makes a placeholder
    before = set(logging.Logger.manager.loggerDict)
    root = logging.getLevelName(logging.getLogger().level)
    assert log_levels.get("shop.known.child.grandchild") == Level("NOTSET", "ERROR")
    assert log_levels.get("shop.known") == Level("ERROR", "ERROR")
    assert log_levels.get("shop.hole") == Level("NOTSET", root)
    assert log_levels.get("nothing.of.this.kind") == Level("NOTSET", root)
    assert log_levels.get("a..b") == Level("NOTSET", root)
    assert set(logging.Logger.manager.loggerDict) == before


@pytest.mark.parametrize("name", ["root", "", " "])
def test_the_root_logger(name: str) -> None:
    root = logging.getLogger()
    before = root.level
    log_levels.set(name, "CRITICAL")
    assert root.level == logging.CRITICAL
    assert log_levels.get(name) == Level("CRITICAL", "CRITICAL")
    assert log_levels.get("nothing.of.this.kind").effective_level == "CRITICAL"
    assert log_levels.overrides() == {"root": "CRITICAL"}
    log_levels.reset("root" if name == "" else "")
    assert (root.level, log_levels.overrides()) == (before, {})


@pytest.mark.parametrize(
    ("given", "number", "shown"),
    [
        ("debug", 10, "DEBUG"),
        (" Warn ", 30, "WARNING"),
        ("FATAL", 50, "CRITICAL"),
        ("notset", 0, "NOTSET"),
        ("20", 20, "INFO"),
        ("15", 15, "15"),
        (15, 15, "15"),
        (logging.ERROR, 40, "ERROR"),
        ("100", 100, "100"),
    ],
)
def test_levels_as_logging_knows_them_or_numbers(given: Any, number: int, shown: str) -> None:
    log_levels.set("shop", given)
    assert logging.getLogger("shop").level == number
    assert log_levels.get("shop").level == shown
    assert log_levels.overrides() == {"shop": shown}
    assert log_levels.set("shop", shown).before == shown


@pytest.mark.parametrize("level", ["BOGUS", "", "-1", "101", "1e1", "Level 15", "٣", "0x1", 101, -1, "1" * 5000])
def test_a_level_that_is_none_is_not_stored(level: Any, process: FakeBroadcast) -> None:
    with pytest.raises(ValueError, match="is no level; expected DEBUG, INFO"):
        log_levels.set("shop", level)
    assert (log_levels.overrides(), process.sent) == ({}, [])


@pytest.mark.parametrize("name", ["a\nb", "a\0", "x" * 256, "\udc80", "a\u202eb"])
def test_a_name_that_is_none_is_not_stored(name: str, process: FakeBroadcast) -> None:
    for call in (lambda: log_levels.set(name, "DEBUG"), lambda: log_levels.reset(name), lambda: log_levels.get(name)):
        with pytest.raises(ValueError, match="is no logger's name"):
            call()
    assert (log_levels.overrides(), process.sent) == ({}, [])


@given(st.text() | st.integers())
def test_whatever_is_given_as_level_is_a_level_or_refused(given_level: Any) -> None:
    try:
        number = log_levels.decode(given_level)
    except ValueError as error:
        assert len(str(error)) < 400
    else:
        assert log_levels.decode(log_levels._name(number)) == number


def test_a_level_of_the_applications_own_is_known_where_its_name_is_not(settings: Settings, monkeypatch: Any) -> None:
    """By number: the application may not have told logging its name when a new worker takes the override."""
    monkeypatch.setattr(logging, "_levelToName", {**logging._levelToName, 5: "TRACE"})
    monkeypatch.setattr(logging, "_nameToLevel", {**logging._nameToLevel, "TRACE": 5})
    log_levels.set("shop", "trace")
    monkeypatch.setattr(logging, "_levelToName", {k: v for k, v in logging._levelToName.items() if k != 5})
    monkeypatch.setattr(logging, "_nameToLevel", {k: v for k, v in logging._nameToLevel.items() if v != 5})
    logging.getLogger("shop").setLevel(logging.NOTSET)
    log_levels.init().refresh()
    assert logging.getLogger("shop").level == 5
    assert log_levels.overrides() == {"shop": "TRACE"}


# -- for a while ------------------------------------------------------------------------------------------------------


def test_for_a_while(clock: Clock) -> None:
    logger = logging.getLogger("shop")
    logger.setLevel("ERROR")
    topic = log_levels.init()
    log_levels.set("shop", "DEBUG", seconds=60)
    assert log_levels.seconds_left() == {"shop": 60.0}
    clock.now += 59
    topic.tick()
    assert logger.level == logging.DEBUG
    clock.now += 1
    topic.tick()
    assert logger.level == logging.ERROR
    assert (log_levels.overrides(), log_levels.seconds_left()) == ({}, {})


def test_for_a_while_then_for_good(clock: Clock) -> None:
    log_levels.set("shop", "DEBUG", seconds=60)
    log_levels.set("shop", "DEBUG")
    clock.now += 100
    log_levels.init().tick()
    assert logging.getLogger("shop").level == logging.DEBUG
    log_levels.reset("shop")
    assert logging.getLogger("shop").level == logging.NOTSET


def test_a_time_that_is_none(process: FakeBroadcast) -> None:
    with pytest.raises(shared.Refused):
        log_levels.set("shop", "DEBUG", seconds=0)
    assert process.sent == []


# -- what the application does meanwhile ------------------------------------------------------------------------------


@pytest.mark.parametrize("configured", ["ERROR", "DEBUG"])
def test_what_the_application_configures_meanwhile_comes_back(configured: str) -> None:
    """Also where it is the very level that was set here."""
    logger = logging.getLogger("shop")
    logger.setLevel("WARNING")
    topic = log_levels.init()
    log_levels.set("shop", "DEBUG")
    levels = {"version": 1, "disable_existing_loggers": False, "loggers": {"shop": {"level": configured}}}
    logging.config.dictConfig(levels)
    topic.tick()
    assert logger.level == logging.DEBUG
    log_levels.reset("shop")
    assert logger.level == logging.getLevelName(configured)


@pytest.mark.parametrize("configured", ["ERROR", "DEBUG"])
def test_what_the_application_has_configured_last_is_not_undone(configured: str) -> None:
    logger = logging.getLogger("shop")
    log_levels.set("shop", "DEBUG")
    logger.setLevel(configured)
    log_levels.reset("shop")
    assert logger.level == logging.getLevelName(configured)


def test_looking_again_keeps_what_was_before() -> None:
    logger = logging.getLogger("shop")
    logger.setLevel("ERROR")
    topic = log_levels.init()
    log_levels.set("shop", "DEBUG")
    for _ in range(3):
        topic.tick()
        topic.refresh()
    log_levels.set("shop", "INFO")
    topic.tick()
    log_levels.reset("shop")
    assert logger.level == logging.ERROR


# -- other processes --------------------------------------------------------------------------------------------------


def test_a_process_that_begins_to_listen_takes_what_is_stored(settings: Settings, process: FakeBroadcast) -> None:
    FileBackend(settings).write("log_levels", "shop", {"value": {"level": 10, "name": "DEBUG"}, "expires": None})
    assert log_levels.init() is log_levels.init()
    assert logging.getLogger("shop").level == logging.NOTSET
    process.join()
    assert logging.getLogger("shop").level == logging.DEBUG


def test_a_forked_child_knows_what_was_before(process: FakeBroadcast) -> None:
    """The arbiter of --preload has made the topic; the worker takes and gives back."""
    logging.getLogger("shop").setLevel("ERROR")
    log_levels.init()
    log_levels.set("shop", "DEBUG")

    def child() -> None:
        process.join()
        assert logging.getLogger("shop").level == logging.DEBUG
        log_levels.reset("shop")
        assert logging.getLogger("shop").level == logging.ERROR

    one = multiprocessing.get_context("fork").Process(target=child)
    one.start()
    one.join(30)
    assert one.exitcode == 0
    assert log_levels.overrides() == {}
    log_levels.init().refresh()
    assert logging.getLogger("shop").level == logging.ERROR


@pytest.mark.parametrize("value", ["DEBUG", 10, None, {}, {"level": "DEBUG"}, {"level": True}, {"level": 1.5}])
def test_one_override_that_is_not_usable_does_not_stop_the_others(settings: Settings, value: Any, caplog: Any) -> None:
    backend = FileBackend(settings)
    for name in ("shop.a", "shop.z"):
        backend.write("log_levels", name, {"value": {"level": 10, "name": "DEBUG"}, "expires": None})
    backend.write("log_levels", "shop.m", {"value": value, "expires": None})
    log_levels.init().refresh()
    assert [log_levels.get(f"shop.{name}").level for name in "amz"] == ["DEBUG", "NOTSET", "DEBUG"]
    assert log_levels.overrides() == {"shop.a": "DEBUG", "shop.z": "DEBUG"}
    assert ["shop.m" in message for message in caplog.messages] == [True]
    assert log_levels.set("shop.m", "INFO").before is None
    assert log_levels.get("shop.m").level == "INFO"


# -- what is said -----------------------------------------------------------------------------------------------------


def test_each_change_is_logged(process: FakeBroadcast, caplog: Any) -> None:
    logging.getLogger("shop").setLevel("ERROR")
    log_levels.set("shop", "DEBUG", 90, who="192.0.2.1 (X-API-Key)")
    log_levels.set("shop", "INFO")
    process.missing = ("here/7",)
    log_levels.reset("shop", who="192.0.2.1 (cookie)")
    assert [(record.name, record.levelname) for record in caplog.records] == [("c2c_otel", "WARNING")] * 3
    assert caplog.messages == [
        "Level of the logger shop: ERROR -> DEBUG for 90 s, by 192.0.2.1 (X-API-Key)",
        "Level of the logger shop: DEBUG -> INFO, by the service",
        "Level of the logger shop: INFO -> ERROR, as configured, by 192.0.2.1 (cookie); missing: ['here/7']",
    ]


def test_a_store_that_is_away_changes_nothing(process: FakeBroadcast, monkeypatch: Any, caplog: Any) -> None:
    def away(*args: Any) -> Any:
        raise shared.Unavailable("away")

    monkeypatch.setattr(FileBackend, "write", away)
    with pytest.raises(shared.Unavailable):
        log_levels.set("shop", "DEBUG")
    assert log_levels.get("shop").level == "NOTSET"
    assert (process.sent, caplog.messages) == ([], [])
    assert guard.tally == {}
