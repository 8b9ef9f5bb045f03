"""Contrib's own tests (they are in its sdists) pass on our instrumentors and on lean spans, but for a committed list.

deviations.toml says for each test that does not, which sentence of issue 1 asks otherwise. A test that is not in the
list and fails is an error, and so is one that is in the list and passes.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.contrib import runs
from tests.servers.account import on_ci
from tests.servers.process import Unavailable

TESTS = {"pyramid": 32, "redis": 68, "requests": 80, "sqlalchemy": 60}
"""How many run in each suite: fewer would be a suite that was not found."""

GROUPS: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("deviations.toml").read_text())["group"]


def outcomes(instrumentors: Literal["contrib", "ours"], spans: Literal["sdk", "lean"]) -> dict[str, str]:
    """Of all four suites."""
    try:
        found = runs.run(instrumentors, spans)
    except Unavailable as why:
        if on_ci():
            raise
        pytest.skip(str(why))
    assert Counter(name.partition("/")[0] for name in found) == TESTS
    return found


def failures(found: dict[str, str]) -> dict[str, str]:
    return {name: outcome for name, outcome in found.items() if outcome != runs.PASSED}


def test_contribs_instrumentors_do_on_lean_spans_what_they_do_on_the_sdks() -> None:
    on_sdk, on_lean = outcomes("contrib", "sdk"), outcomes("contrib", "lean")
    assert failures(on_sdk) == {}
    assert failures(on_lean) == {}
    assert on_lean.keys() == on_sdk.keys()


def test_ours_pass_contribs_tests_but_for_those_that_issue_1_wants_otherwise() -> None:
    found = outcomes("ours", "lean")
    listed = {name for group in GROUPS for name in group["tests"]}
    failed = failures(found)
    assert {name: why for name, why in failed.items() if name not in listed} == {}, "fail and are not in the list"
    assert sorted(listed - failed.keys()) == [], "are in the list and pass, or are no tests"


def test_each_listed_test_stands_there_once_with_its_sentence() -> None:
    listed = [name for group in GROUPS for name in group["tests"]]
    assert [name for name, count in Counter(listed).items() if count > 1] == []
    for group in GROUPS:
        assert group.keys() == {"sentence", "why", "tests"}, group
        assert all(group.values()), group
