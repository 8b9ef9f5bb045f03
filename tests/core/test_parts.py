"""What is made at the start: that one part which fails costs itself alone, at the start, in a fork and at the end."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from c2c_otel import parts
from c2c_otel.settings import Settings
from c2c_otel_exporters import guard, names
from c2c_otel_exporters.store import Store


@pytest.fixture(autouse=True)
def clean_guard() -> Iterator[None]:
    guard.reset()
    yield
    guard.strict(None)
    guard.reset()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(runtime_dir=tmp_path / "run")


def text(made: parts.Parts) -> str:
    return made.render("text/plain")[1].decode()


def test_two_processes_of_a_run_speak_for_each_other(settings: Settings) -> None:
    first, second = parts.make(settings, "one"), parts.make(settings, "one")
    other = parts.make(settings, "two")
    try:
        for made in (first, second, other):
            made.sink.counter(names.counter, ("n",), ()).add(2)
        assert 'c2c_otel_events_total{key="n"} 4' in text(first)
        assert text(first).count("c2c_otel_events_total{") == 1
        assert 'c2c_otel_events_total{key="n"} 2' in text(other)
        second.end()
        assert 'c2c_otel_events_total{key="n"} 4' in text(first), "the dead are counted"
    finally:
        for made in (first, second, other):
            made.end()


def test_where_no_directory_can_be_had_each_process_speaks_for_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    made = parts.make(Settings(runtime_dir=tmp_path / "file"), "one")
    try:
        made.sink.counter(names.counter, ("n",), ()).add(2)
        page = text(made)
        assert 'c2c_otel_events_total{key="n"} 2' in page
        assert page.startswith(f"# These metrics are of process {os.getpid()} alone"), page[:200]
        assert [
            record.message for record in caplog.records if "Metrics are those of each process alone" in record.message
        ]
    finally:
        made.end()


def test_each_step_of_the_end_is_taken_whatever_happens_to_the_others(settings: Settings) -> None:
    guard.strict(False)
    made = parts.make(settings, "one")
    made.sink.counter(names.counter, ("n",), ()).add()
    ended = []

    class Bad:
        def __init__(self, name: str) -> None:
            self.name = name

        def _fail(self, *_: Any) -> None:
            ended.append(self.name)
            raise OSError(self.name)

        close = stop = shutdown = _fail

    publisher = made.publisher
    for name in ("publisher", "port", "sender"):
        setattr(made, name, Bad(name))
    made.end()
    publisher.stop()
    assert ended == ["publisher", "port", "sender"]
    assert {place for place in guard.tally if "shutdown" in place} == {
        "failed.shutdown.publisher",
        "failed.shutdown.port",
        "failed.shutdown.statsd",
    }
    assert made.run is not None
    assert made.run._lock == -1
    assert made.store._closed


def test_no_thread_and_no_descriptor_is_left(settings: Settings) -> None:
    def descriptors() -> list[str]:
        folder = Path("/proc/self/fd")
        return sorted(str(path.readlink()) for path in folder.iterdir() if path.exists())

    before, threads = descriptors(), set(threading.enumerate())
    made = parts.make(Settings(runtime_dir=settings.runtime_dir, prometheus_port=0), "one")
    made.sink.counter(names.counter, ("n",), ()).add()
    made.publisher.start()
    text(made)
    made.end()
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    assert set(threading.enumerate()) <= threads
    del made  # a scraper keeps what it reads mapped
    gc.collect()
    assert descriptors() == before


def test_ending_twice_is_ending_once(settings: Settings) -> None:
    made = parts.make(settings, "one")
    made.end()
    made.end()
    assert [place for place in guard.tally if "shutdown" in place] == []


def test_what_is_built_for_a_test_makes_nothing(settings: Settings) -> None:
    made = parts.build(settings, Store(None), None)
    made.sink.counter(names.counter, ("n",), ()).add()
    assert 'c2c_otel_events_total{key="n"} 1' in text(made)
    made.end()
    assert settings.runtime_dir is not None
    assert not settings.runtime_dir.exists()
