"""For tests of shared state: a broadcast without transports, a clock that stands still, a store of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from c2c_otel import broadcast, shared, shared_files, shared_memory, shared_watch
from c2c_otel.settings import Settings
from c2c_otel.shared_watch import Watch
from tests import pyramid_kit


class FakeBroadcast:
    """Of one process. ``sent``: the parameters of each message. ``missing``: those who do not answer."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[..., Any]] = {}
        self.joiners: list[Callable[[], None]] = []
        self.joined = False
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.missing: tuple[str, ...] = ()

    def get(self) -> FakeBroadcast:
        return self

    def subscribe(self, channel: str, callback: Callable[..., Any]) -> None:
        self.callbacks[channel] = callback

    def on_join(self, callback: Callable[[], None]) -> None:
        self.joiners.append(callback)
        if self.joined:
            callback()

    def join(self) -> None:
        self.joined = True
        for callback in self.joiners:
            callback()

    def broadcast(self, channel: str, params: Any, expect_answers: bool, timeout: float) -> Any:
        params = json.loads(json.dumps(params))
        self.sent.append((channel, params))
        answers = broadcast.Answers([None for _ in self.missing])
        answers.missing = self.missing
        if channel in self.callbacks:
            answers.append({**self.callbacks[channel](**params), "hostname": "here", "pid": 1})
        assert expect_answers and timeout > 0
        return answers


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def network(monkeypatch: Any) -> FakeBroadcast:
    fake = FakeBroadcast()
    monkeypatch.setattr(shared, "broadcast", fake)
    monkeypatch.setattr(shared_watch, "broadcast", fake)
    return fake


@pytest.fixture
def clock(monkeypatch: Any) -> Clock:
    clock = Clock()
    for module in (shared, shared_files, shared_memory):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: Any) -> Iterator[Settings]:
    """Of the process, which has no topics yet; what is shared is stored below ``runtime_dir``."""
    made = Settings(runtime_dir=tmp_path / "c2c", service_name="shop")
    pyramid_kit.install(monkeypatch, made)
    with monkeypatch.context() as patch:
        patch.setattr(shared, "_topics", {})
        patch.setattr(shared, "_chosen", None)
        yield made
        forget()


def forget() -> None:
    """What the topics had applied here is undone, and they are gone, as after a restart. What is stored stays."""
    for topic in shared._topics.values():
        topic.undo()
    shared._topics.clear()
    shared._chosen = None


class StillWatch(Watch):
    """Has no thread: a test calls the topics' ``tick``."""

    def start(self) -> None: ...


def _process(watch: type[Watch], network: FakeBroadcast) -> Iterator[FakeBroadcast]:
    shared._watch.stop()  # an earlier test's thread would take the faked broadcast for its own, and go on
    shared._watch.renew()
    made = watch(lambda: list(shared._topics.values()))
    before, shared._watch = shared._watch, made
    yield network
    made.stop()
    shared._watch = before


@pytest.fixture
def process(settings: Settings, network: FakeBroadcast) -> Iterator[FakeBroadcast]:
    """A process that can be reached; time passes when the test says so."""
    yield from _process(StillWatch, network)


@pytest.fixture
def threaded(settings: Settings, network: FakeBroadcast) -> Iterator[FakeBroadcast]:
    """The same with its thread, which ends with the test."""
    yield from _process(Watch, network)


def state_file(settings: Settings, topic: str) -> Path:
    assert settings.runtime_dir
    return settings.runtime_dir / "state" / "shop" / f"{topic}.json"
