"""Our own failures: counted in any case, said once, raised where a test looks."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from c2c_otel_exporters import guard


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    guard.reset()
    yield
    guard.strict(None)
    guard.reset()


def fail(place: str) -> None:
    try:
        raise KeyError("x")
    except KeyError:
        guard.failed(place)


def test_under_pytest_a_failure_is_raised_and_counted() -> None:
    with pytest.raises(KeyError):
        fail("here")
    assert guard.tally == {"failed.here": 1}


def test_in_a_service_it_is_logged_once_for_each_place(caplog: pytest.LogCaptureFixture) -> None:
    guard.strict(False)
    for _ in range(3):
        fail("here")
    fail("there")
    assert guard.tally == {"failed.here": 3, "failed.there": 1}
    assert [record.args for record in caplog.records] == [("here",), ("there",)]
    assert all(record.exc_info and record.exc_info[0] is KeyError for record in caplog.records)
    guard.reset()
    fail("here")
    assert len(caplog.records) == 3


def test_what_is_dropped_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    guard.dropped("lines", 2)
    assert caplog.records == []
    guard.dropped("lines", 3, "too long")
    guard.dropped("lines", 1, "too long")
    assert guard.tally == {"dropped.lines": 6}
    assert [record.getMessage() for record in caplog.records] == ["c2c-otel dropped lines: too long"]


def test_threads_lose_no_count() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [guard.count("n") for _ in range(5_000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert guard.tally["n"] == 20_000


def test_any_number_of_places_and_warnings_takes_so_much_memory_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(2_000):
        guard.count(f"place {number}")
        guard.warn_once(f"key {number}", "warning %s", number)
    assert (len(guard.tally), guard.tally.total()) == (501, 2_000)
    assert guard.tally["other"] == 1_500
    assert len(caplog.records) == 500


def test_a_service_that_imports_pytest_is_still_a_service() -> None:
    code = """
import pytest
from c2c_otel_exporters import guard
for _ in range(2):
    try:
        raise KeyError("x")
    except KeyError:
        guard.failed("here")
print("served")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "served\n"
    assert done.stderr.count("c2c-otel failed at here") == 1


def test_the_tests_of_an_application_see_our_failures(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "from c2c_otel_exporters import guard\n"
        "def test_theirs():\n"
        "    try:\n        raise KeyError('our mistake')\n"
        "    except KeyError:\n        guard.failed('here')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "KeyError: 'our mistake'" in done.stdout


def test_a_handler_that_logs_again_does_not_wait_for_itself() -> None:
    class Again(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            guard.warn_once("again", "again")

    handler = Again()
    logging.getLogger("c2c_otel").addHandler(handler)
    try:
        guard.warn_once("first", "first")
    finally:
        logging.getLogger("c2c_otel").removeHandler(handler)
    assert not guard._first("again")
