from __future__ import annotations

import json
import multiprocessing
from typing import Any

import pytest

from c2c_otel import db_maintenance, shared
from c2c_otel.settings import Settings
from c2c_otel.shared_files import FileBackend
from c2c_otel_exporters import guard
from tests.shared_kit import FakeBroadcast, forget, network, process, settings, state_file

__all__ = ["network", "process", "settings"]

pytestmark = pytest.mark.usefixtures("process")


@pytest.fixture
def heard(monkeypatch: Any) -> list[bool]:
    """What the hook was called with."""
    monkeypatch.setattr(db_maintenance, "_callbacks", [])
    heard: list[bool] = []
    db_maintenance.on_change(heard.append)
    return heard


def test_the_switch(heard: list[bool]) -> None:
    assert (db_maintenance.is_readonly(), db_maintenance.current()) == (False, None)
    change = db_maintenance.set_readonly(True)
    assert (change.before, change.after) == (None, True)
    assert (db_maintenance.is_readonly(), db_maintenance.current()) == (True, True)
    assert db_maintenance.set_readonly(True).before is True
    change = db_maintenance.set_readonly(False)
    assert (change.before, change.after) == (True, False)
    assert (db_maintenance.is_readonly(), db_maintenance.current()) == (False, False)
    assert heard == [True, False]


def test_it_survives_a_restart(settings: Settings, process: FakeBroadcast, heard: list[bool]) -> None:
    db_maintenance.set_readonly(True)
    forget()
    assert not db_maintenance.is_readonly()
    db_maintenance.init()
    assert not db_maintenance.is_readonly()
    process.join()
    assert db_maintenance.is_readonly()
    assert heard == [True, False, True]
    assert json.loads(state_file(settings, "db_maintenance").read_text()) == {
        "readonly": {"value": True, "expires": None}
    }


def test_a_worker_forked_from_an_arbiter_that_preloads(settings: Settings, process: FakeBroadcast) -> None:
    db_maintenance.init()
    FileBackend(settings).write("db_maintenance", "readonly", {"value": True, "expires": None})

    def worker() -> None:
        assert not db_maintenance.is_readonly()
        process.join()
        assert db_maintenance.is_readonly()

    child = multiprocessing.get_context("fork").Process(target=worker)
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert not db_maintenance.is_readonly()


def test_changes_are_logged(process: FakeBroadcast, caplog: Any) -> None:
    process.missing = ("here/7",)
    db_maintenance.set_readonly(True, who="192.0.2.1 (X-API-Key)")
    process.missing = ()
    db_maintenance.set_readonly(True)
    db_maintenance.set_readonly(False)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "This process treats the databases as read-only."),
        ("CRITICAL", "Databases read-only: None -> True, by 192.0.2.1 (X-API-Key); missing: ['here/7']"),
        ("CRITICAL", "Databases read-only: True -> True, by the service"),
        ("WARNING", "This process treats the databases as writable."),
        ("CRITICAL", "Databases read-only: True -> False, by the service"),
    ]


def test_a_hook_that_fails_stops_nobody(heard: list[bool]) -> None:
    def fail(readonly: bool) -> None:
        raise RuntimeError("no")

    db_maintenance._callbacks.insert(0, fail)
    guard.strict(False)
    try:
        assert db_maintenance.set_readonly(True).failed == {}
    finally:
        guard.strict(None)
    assert (db_maintenance.is_readonly(), heard) == (True, [True])
    assert guard.tally["failed.db_maintenance.on_change"] == 1
    db_maintenance._callbacks.remove(fail)


@pytest.mark.parametrize("value", ["true", 1, None, {}])
def test_a_stored_state_that_is_none_counts_as_never_set(settings: Settings, value: Any, caplog: Any) -> None:
    FileBackend(settings).write("db_maintenance", "readonly", {"value": value, "expires": None})
    db_maintenance.init().refresh()
    assert (db_maintenance.is_readonly(), db_maintenance.current()) == (False, None)
    assert ["is not usable" in message for message in caplog.messages] == [True]


def test_a_store_that_is_away_changes_nothing(monkeypatch: Any, caplog: Any) -> None:
    def away(*args: Any) -> Any:
        raise shared.Unavailable("away")

    monkeypatch.setattr(FileBackend, "write", away)
    with pytest.raises(shared.Unavailable):
        db_maintenance.set_readonly(True)
    assert not db_maintenance.is_readonly()
    assert caplog.messages == []
