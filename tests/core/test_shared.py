from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from c2c_otel import shared, shared_entries
from c2c_otel.settings import Settings
from c2c_otel.shared_files import FileBackend
from c2c_otel.shared_memory import MemoryBackend
from c2c_otel.testing import capture
from c2c_otel_exporters import guard
from tests import pyramid_kit
from tests.shared_kit import Clock, FakeBroadcast, clock, forget, network, process, settings, threaded

__all__ = ["clock", "network", "process", "settings", "threaded"]


class Applied(list[dict[str, Any]]):
    """What was applied, in order."""

    error: Exception | None = None

    def __call__(self, entries: Mapping[str, Any]) -> None:
        self.append(dict(entries))
        if self.error is not None:
            raise self.error


@pytest.fixture
def lenient() -> Any:
    guard.strict(False)
    yield
    guard.strict(None)


class Away:
    """A store that is away, until it has a backend."""

    backend: Any = None

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            if self.backend is None:
                raise shared.Unavailable("redis://cache is away")
            return getattr(self.backend, name)(*args)

        if name in {"read", "write", "count"}:
            return call
        raise AttributeError(name)


@pytest.fixture
def away(monkeypatch: Any) -> Away:
    away = Away()
    monkeypatch.setattr(shared, "_choose", lambda settings: away)
    return away


# -- changes ----------------------------------------------------------------------------------------------------------


def test_a_change_is_stored_applied_and_told(process: FakeBroadcast) -> None:
    applied = Applied()
    topic = shared.Topic("levels", applied)
    assert applied == []
    change = topic.set("a", {"level": 10})
    assert (change.before, change.after, change.missing, change.failed, change.doubts) == (
        None,
        {"level": 10},
        (),
        {},
        {},
    )
    assert topic.set("b", 1).before is None
    assert topic.set("a", None).before == {"level": 10}
    assert topic.entries() == {"a": None, "b": 1}
    assert topic.delete("a").before is None
    gone = topic.delete("b")
    assert (gone.before, gone.after) == (1, None)
    assert applied == [{"a": {"level": 10}}, {"a": {"level": 10}, "b": 1}, {"a": None, "b": 1}, {"b": 1}, {}]
    assert process.sent == [("c2c_shared_levels", {})] * 5


def test_it_is_stored_before_it_is_told(process: FakeBroadcast) -> None:
    topic = shared.Topic("levels", lambda entries: None)
    seen = []
    process.callbacks["c2c_shared_levels"] = lambda: {"status": 200, "seen": seen.append(topic.entries())}
    topic.set("a", 1)
    assert seen == [{"a": 1}]


def test_whoever_did_not_answer_or_could_not_apply_it_is_named(process: FakeBroadcast, lenient: None) -> None:
    applied = Applied()
    applied.error = RuntimeError("no")
    topic = shared.Topic("levels", applied)
    process.missing = ("b/2", "a/3")
    change = topic.set("a", 1)
    assert change.doubts == {"missing": ["a/3", "b/2"], "failed": {"here/1": "RuntimeError: no"}}
    assert topic.entries() == {"a": 1}
    assert guard.tally["failed.shared.levels"] == 1
    applied.error = None


def test_an_own_store_that_cannot_be_read_is_named(process: FakeBroadcast, away: Away, monkeypatch: Any) -> None:
    away.backend = MemoryBackend()
    topic = shared.Topic("levels", lambda entries: None)
    monkeypatch.setattr(topic, "_look", lambda: (_ for _ in ()).throw(shared.Unavailable("gone")))
    assert topic.set("a", 1).failed == {"here/1": "gone"}


@pytest.mark.parametrize(
    ("name", "value", "seconds", "says"),
    [
        ("", 1, None, "has 0 characters"),
        ("x" * 256, 1, None, "has 256 characters"),
        ("\udc80", 1, None, "cannot be stored"),
        ("a", {1, 2}, None, "cannot be stored"),
        ("a", float("nan"), None, "cannot be stored"),
        ("a", "x" * 100_000, None, "100,002 bytes"),
        ("a", 1, 0, "more than 0"),
        ("a", 1, -1, "more than 0"),
        ("a", 1, float("inf"), "ten years"),
        ("a", 1, float("nan"), "ten years"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    process: FakeBroadcast, name: str, value: Any, seconds: float | None, says: str
) -> None:
    applied = Applied()
    topic = shared.Topic("levels", applied)
    with pytest.raises(shared.Refused, match=says):
        topic.set(name, value, seconds)
    assert (topic.entries(), applied, process.sent) == ({}, [], [])


def test_a_value_nested_too_deeply_is_refused(process: FakeBroadcast) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(shared.Refused):
        shared.Topic("levels", lambda entries: None).set("a", deep)


def test_too_many_are_refused_unless_others_have_expired(
    process: FakeBroadcast, clock: Clock, monkeypatch: Any
) -> None:
    monkeypatch.setattr(shared, "MAX_ENTRIES", 3)
    topic = shared.Topic("levels", lambda entries: None)
    for name in "abc":
        topic.set(name, 1, seconds=10 if name == "a" else None)
    with pytest.raises(shared.Refused, match="'d' is one too many: 3 are set"):
        topic.set("d", 1)
    assert topic.set("c", 2).before == 1
    clock.now += 10
    topic.set("d", 1)
    assert topic.entries() == {"b": 1, "c": 2, "d": 1}


def test_too_much_together_is_refused(process: FakeBroadcast) -> None:
    topic = shared.Topic("levels", lambda entries: None)
    for name in "abcdefghij":
        topic.set(name, "x" * 99_900)
    with pytest.raises(shared.Refused, match="1,000,000 bytes"):
        topic.set("k", "x" * 99_900)
    assert len(topic.entries()) == 10


def test_values_come_back_as_json(process: FakeBroadcast) -> None:
    value = {"a": (1, 2), 3: None}
    topic = shared.Topic("levels", lambda entries: None)
    assert topic.set("a", value).after == topic.entries()["a"] == {"a": [1, 2], "3": None}


# -- time -------------------------------------------------------------------------------------------------------------


def test_what_expires_is_undone_by_a_tick(process: FakeBroadcast, clock: Clock) -> None:
    applied = Applied()
    topic = shared.Topic("levels", applied)
    topic.set("a", 1, seconds=3)
    topic.set("b", 2)
    assert topic.seconds_left() == {"a": 3.0}
    assert topic.tick() == 3.0
    clock.now += 2
    assert topic.tick() == 1.0
    assert len(applied) == 2
    clock.now += 1
    assert topic.tick() == 5.0
    assert applied[2:] == [{"b": 2}]
    assert topic.entries() == {"b": 2}
    assert topic.seconds_left() == {}
    assert topic.delete("a").before is None
    assert topic.set("b", 3, seconds=100).before == 2
    assert topic.tick() == 5.0


def test_what_has_expired_is_not_what_was_before(process: FakeBroadcast, away: Away, clock: Clock) -> None:
    """A store may keep it for longer."""
    away.backend = store = MemoryBackend()
    topic = shared.Topic("levels", lambda entries: None)
    topic.set("a", 1, seconds=3)
    away.write = lambda *args: {"value": 1, "expires": clock.now}  # type: ignore[attr-defined] # as Redis may answer
    clock.now += 3
    assert topic.set("a", 2).before is None
    assert store.read("levels")["a"]["value"] == 1


def test_who_joins_late_starts_with_the_time_that_remains(process: FakeBroadcast, clock: Clock) -> None:
    shared.Topic("levels", lambda entries: None).set("a", 1, seconds=10)
    clock.now += 6
    applied = Applied()
    topic = shared.Topic("levels", applied)
    process.join()
    assert applied == [{"a": 1}]
    assert topic.tick() == 4.0
    clock.now += 4
    topic.tick()
    assert applied == [{"a": 1}, {}]


def test_the_thread_undoes_what_expires(threaded: FakeBroadcast) -> None:
    shared._watch.seconds = 600.0  # so that nothing but the expiry ends its waiting
    done = threading.Event()
    topic = shared.Topic("levels", lambda entries: None if "a" in entries else done.set())
    threaded.join()
    done.clear()
    topic.set("a", 1, seconds=0.05)
    assert not done.is_set()
    assert done.wait(20)


def test_the_thread_ends_when_the_process_no_longer_listens(threaded: FakeBroadcast) -> None:
    topic = shared.Topic("levels", lambda entries: None)
    threaded.join()
    thread = shared._watch._thread
    assert thread is not None
    topic.refresh()
    threaded.joined = False
    while thread.is_alive():  # it may not have looked yet
        topic.refresh()
        threaded.joined = not threaded.joined
        thread.join(0.01)
    threaded.join()
    assert threads() == ["c2c_otel_shared"]


# -- joining ----------------------------------------------------------------------------------------------------------


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "c2c_otel_shared"]


def test_nothing_is_read_and_no_thread_runs_before_a_process_listens(
    threaded: FakeBroadcast, settings: Settings
) -> None:
    applied = Applied()
    shared.Topic("levels", applied)
    shared.Topic("switch", applied)
    assert (applied, threads()) == ([], [])
    assert settings.runtime_dir and not settings.runtime_dir.exists()
    threaded.join()
    threaded.join()
    assert applied[:4] == [{}] * 4
    assert threads() == ["c2c_otel_shared"]


def test_a_topic_that_is_made_later_is_applied_at_once(threaded: FakeBroadcast) -> None:
    threaded.join()
    applied = Applied()
    shared.Topic("levels", applied)
    assert (applied, threads()) == ([{}], ["c2c_otel_shared"])


def test_the_last_topic_of_a_name_counts(process: FakeBroadcast) -> None:
    first, second = Applied(), Applied()
    shared.Topic("levels", first)
    topic = shared.Topic("levels", second)
    assert shared.find("levels") is topic
    process.join()
    topic.set("a", 1)
    assert (first, second) == ([], [{}, {"a": 1}])


def test_a_store_that_is_away_at_the_start_is_read_later(
    process: FakeBroadcast, away: Away, clock: Clock, caplog: Any
) -> None:
    applied = Applied()
    topic = shared.Topic("levels", applied)
    process.join()
    assert applied == []
    assert caplog.messages == ["What levels says is not known yet: redis://cache is away"]
    assert topic.tick() == 5.0
    assert applied == []
    with pytest.raises(shared.Unavailable):
        topic.set("a", 1)
    with pytest.raises(shared.Unavailable):
        topic.delete("a")
    with pytest.raises(shared.Unavailable):
        topic.entries()
    assert process.sent == []
    away.backend = MemoryBackend()
    away.backend.write("levels", "a", {"value": 1, "expires": None})
    topic.tick()
    assert applied == []  # not before it is time to look again
    clock.now += 5
    topic.tick()
    assert applied == [{"a": 1}]


def test_what_is_known_holds_and_expires_while_the_store_is_away(
    process: FakeBroadcast, away: Away, clock: Clock
) -> None:
    away.backend = MemoryBackend()
    applied = Applied()
    topic = shared.Topic("levels", applied)
    topic.set("a", 1, seconds=60)
    topic.set("b", 1)
    away.backend = None
    for _ in range(3):
        clock.now += 19
        topic.tick()
    assert len(applied) == 2
    clock.now += 3
    topic.tick()
    assert applied[2:] == [{"b": 1}]


def test_a_message_that_was_lost_is_made_up_for(process: FakeBroadcast, settings: Settings, clock: Clock) -> None:
    applied = Applied()
    topic = shared.Topic("levels", applied)
    process.join()
    FileBackend(settings).write("levels", "a", {"value": 1, "expires": None})
    topic.tick()
    assert applied == [{}]
    clock.now += 5
    topic.tick()
    assert applied == [{}, {"a": 1}]
    clock.now += 5
    topic.tick()
    assert applied == [{}, {"a": 1}]


def test_redis_is_looked_at_less_often(process: FakeBroadcast, away: Away, clock: Clock) -> None:
    away.backend = MemoryBackend()  # behind a backend that names no interval
    applied = Applied()
    topic = shared.Topic("levels", applied)
    process.join()
    away.backend.write("levels", "a", {"value": 1, "expires": None})
    clock.now += 29
    assert topic.tick() == 5.0
    assert applied == [{}]
    clock.now += 1
    topic.tick()
    assert applied == [{}, {"a": 1}]


def test_a_topic_that_insists_is_applied_by_each_tick(process: FakeBroadcast) -> None:
    applied = Applied()
    topic = shared.Topic("levels", applied, insist=True)
    topic.tick()
    topic.tick()
    assert applied == [{}, {}]


def test_an_apply_that_raised_is_tried_again(process: FakeBroadcast, lenient: None) -> None:
    applied = Applied()
    topic = shared.Topic("levels", applied)
    applied.error = RuntimeError("no")
    process.join()
    topic.tick()
    applied.error = None
    topic.tick()
    topic.tick()
    assert len(applied) == 3
    assert guard.tally["failed.shared.levels"] == 2


def test_an_apply_that_raised_is_tried_again_with_what_was_before(process: FakeBroadcast, lenient: None) -> None:
    """It may have done half of it."""
    applied = Applied()
    topic = shared.Topic("levels", applied)
    topic.set("a", 1)
    applied.error = RuntimeError("no")
    topic.set("a", 2)
    shared.backend().write("levels", "a", {"value": 1, "expires": None})
    applied.error = None
    topic._next_look = 0
    topic.tick()
    assert applied == [{"a": 1}, {"a": 2}, {"a": 1}]


# -- order ------------------------------------------------------------------------------------------------------------


def test_a_slow_apply_is_followed_by_what_is_newer(process: FakeBroadcast) -> None:
    """Two are told at the same time: whatever the order of their threads, the last one applies the newest."""
    begun, go_on = threading.Event(), threading.Event()
    state: list[Any] = []

    def apply(entries: Mapping[str, Any]) -> None:
        if entries == {"a": 1}:
            begun.set()
            assert go_on.wait(10)
        state.append(entries)

    topic = shared.Topic("levels", apply)
    slow = threading.Thread(target=topic.set, args=("a", 1))
    slow.start()
    assert begun.wait(10)
    others = [threading.Thread(target=topic.set, args=("a", value)) for value in (2, 3)]
    for thread in others:
        thread.start()
    while topic.entries() not in ({"a": 2}, {"a": 3}):
        time.sleep(0.001)
    assert topic.tick() == 1.0  # it does not wait
    assert state == []
    go_on.set()
    for thread in (slow, *others):
        thread.join(10)
    assert state[0] == {"a": 1}
    assert state[-1] == topic.entries()


def test_what_is_applied_is_nobody_elses(process: FakeBroadcast) -> None:
    topic = shared.Topic("levels", lambda entries: entries.clear())  # type: ignore[attr-defined] # a rude one
    topic.set("a", 1)
    assert topic.entries() == {"a": 1}
    assert topic._applied == {"a": 1}


# -- backends ---------------------------------------------------------------------------------------------------------


def test_the_settings_decide_where_it_is_stored(settings: Settings, monkeypatch: Any) -> None:
    first = shared.backend()
    assert isinstance(first, FileBackend)
    assert shared.backend() is first
    pyramid_kit.install(monkeypatch, Settings(runtime_dir=settings.runtime_dir, service_name="other"))
    second = shared.backend()
    assert second is not first
    second.write("levels", "a", {"value": 1, "expires": None})
    assert first.read("levels") == {}


def test_a_capture_keeps_what_is_shared_to_itself(settings: Settings, monkeypatch: Any) -> None:
    monkeypatch.undo()  # the real telemetry
    for _ in range(2):
        with capture(settings):
            assert isinstance(shared.backend(), MemoryBackend)
            assert shared.backend() is shared.backend()
            assert shared.backend().write("levels", "a", {"value": 1, "expires": None}) is None
    assert settings.runtime_dir and not (settings.runtime_dir / "state").exists()


def test_without_a_directory_it_is_kept_in_memory_and_travels_with_the_message(
    settings: Settings, process: FakeBroadcast, monkeypatch: Any, caplog: Any, tmp_path: Any
) -> None:
    (tmp_path / "file").write_text("")
    pyramid_kit.install(monkeypatch, Settings(runtime_dir=tmp_path / "file"))
    applied = Applied()
    topic = shared.Topic("levels", applied)
    topic.set("a", 1)
    topic.set("b", 2, seconds=60)
    assert isinstance(shared.backend(), MemoryBackend)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(tmp_path / "file") in caplog.messages[0]
    messages = [params for _, params in process.sent]
    assert messages[0] == {"name": "a", "entry": {"value": 1, "expires": None}}
    forget()  # another process, with a memory of its own
    other = Applied()
    shared.Topic("levels", other)
    for params in [*messages, {"name": "a", "entry": None}]:
        assert process.callbacks["c2c_shared_levels"](**params) == {"status": 200}
    assert other == [{"a": 1}, {"a": 1, "b": 2}, {"b": 2}]


def test_what_travels_does_not_count_where_there_is_a_store(process: FakeBroadcast) -> None:
    topic = shared.Topic("levels", lambda entries: None)
    process.callbacks["c2c_shared_levels"](name="a", entry={"value": 1, "expires": None})
    assert topic.entries() == {}


# -- entries ----------------------------------------------------------------------------------------------------------

_json = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5)
_entries = st.dictionaries(
    st.text(max_size=3),
    _json | st.fixed_dictionaries({"value": _json}, optional={"expires": st.none() | _json}),
    max_size=5,
)


@given(_entries, st.floats(0, 1e10))
def test_whatever_is_stored_can_be_looked_at(stored: dict[str, Any], now: float) -> None:
    kept = shared_entries.living(stored, now)
    assert shared_entries.values(stored, now) == {name: entry["value"] for name, entry in kept.items()}
    for entry in kept.values():
        assert entry["expires"] is None or entry["expires"] > now


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5))))
def test_counters_are_forgotten_after_their_first_count(steps: list[tuple[str, float]]) -> None:
    """Against a list of the times at which each was counted since it began."""
    stored: dict[str, Any] = {}
    model: dict[str, tuple[float, int]] = {}
    now = 0.0
    for name, passed in steps:
        now += passed
        began, total = model.get(name, (now, 0))
        if began + 10 <= now:
            began, total = now, 0
        assert shared_entries.counted(stored, name, 10, 0, now)[1] == total
        model[name] = began, total + 1
        stored, counted = shared_entries.counted(stored, name, 10, 1, now)
        assert counted == total + 1


def test_counters_are_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(shared_entries, "MAX_COUNTERS", 3)
    stored: dict[str, Any] = {}
    for now, name in enumerate("abcd"):
        stored, _ = shared_entries.counted(stored, name, 100, 1, now)
    assert set(stored) == set("bcd")
    assert shared_entries.counted({"a": {"value": "x", "expires": None}}, "a", 10, 1, 0)[1] == 1


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers() | st.just(None), st.none() | st.floats(0.5, 9), st.floats(0, 4)
        ),
        max_size=8,
    )
)
def test_every_backend_says_the_same(settings: Settings, clock: Clock, steps: list[Any]) -> None:
    """Memory, files, and a dictionary."""
    files, memory = FileBackend(settings), MemoryBackend()
    for name in "abc":
        files.write("same", name, None)
    model: dict[str, tuple[Any, float]] = {}
    for name, value, seconds, passed in steps:
        clock.now += passed
        entry = None if value is None else {"value": value, "expires": seconds and clock.now + seconds}
        expected = model.pop(name, (None, 0.0))
        befores = [backend.write("same", name, entry) for backend in (files, memory)]
        assert befores[0] == befores[1]
        assert (befores[0]["value"] if befores[0] else None) == (expected[0] if expected[1] > clock.now else None)
        if entry is not None:
            model[name] = value, entry["expires"] or float("inf")
        living = {name: value for name, (value, end) in model.items() if end > clock.now}
        for backend in (files, memory):
            assert shared_entries.values(backend.read("same"), clock.now) == living
