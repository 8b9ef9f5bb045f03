"""The runner of all tests: no file is forgotten, and none runs twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.provision import suite


def test_each_file_is_in_one_chunk(tmp_path: Path) -> None:
    for number in range(40):
        path = tmp_path / "tests" / ("core" if number % 2 else "integration") / f"test_{number:02}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "acceptance_tests").mkdir()
    (tmp_path / "acceptance_tests" / "test_demo.py").touch()
    (tmp_path / "tests" / "kit.py").touch()
    found = suite.chunks(tmp_path)
    assert [len(chunk) for chunk in found] == [10, 10, 1, 10, 10]
    assert {Path(name).parts[1] for chunk in found[:2] for name in chunk} == {"integration"}
    everything = [name for chunk in found for name in chunk]
    assert len(everything) == len(set(everything)) == 41


def test_a_failure_is_told_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERAGE_FILE", str(tmp_path / "coverage"))
    good, bad = tmp_path / "test_good.py", tmp_path / "test_bad.py"
    good.write_text("def test(): pass\n")
    bad.write_text("def test(): assert 1 == 2\n")
    quick = ["--no-header"]
    passed, failed = suite.run([str(good)], quick), suite.run([str(good), str(bad)], quick)
    assert (passed.code, failed.code) == (0, 1)
    assert suite._result(passed).startswith("1 passed in ")
    assert suite._result(failed).startswith("1 failed, 1 passed in ") and suite._result(failed).endswith(", exit 1")
    assert "assert 1 == 2" in failed.output
