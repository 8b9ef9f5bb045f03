"""The same text as the standard library's, the same errors, whatever the value."""

from __future__ import annotations

import enum
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel import pretty_json

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.text(st.characters(categories=["Cs", "Cc"]))
)
KEYS = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats())
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.text(), inner), st.dictionaries(KEYS, inner)
    ),
)


class Number(int, enum.Enum):
    ONE = 1


class Text(str):
    __slots__ = ()


def plain(value: Any, default: Any = None) -> str:
    return json.dumps(value, default=default, indent=2, sort_keys=True)


def outcome(function: Any, value: Any, default: Any = None) -> object:
    try:
        return function(value, default=default)
    except Exception as error:
        return type(error), str(error)


@given(VALUES)
def test_any_value(value: Any) -> None:
    assert outcome(pretty_json.dumps, value) == outcome(plain, value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"a": [], "b": {}, "c": [[1, 2.5, -0.0, 1e22, 2**70], ({"d": None},)]},
        {"é": "\u2028\ud800/\\", "z": True, "a": False},
        {Text("b"): Text("c"), "a": Number.ONE},
        {"a": float("nan"), "b": float("-inf")},
        {1: "a", "b": 2},
        {"a": {1, 2}},
        "text",
        None,
    ],
)
def test_a_value(value: Any) -> None:
    assert outcome(pretty_json.dumps, value) == outcome(plain, value)
    adapted = lambda found: sorted(found)  # noqa: E731 - an adapter, as Pyramid's renderer gives one
    assert outcome(pretty_json.dumps, value, adapted) == outcome(plain, value, adapted)


def test_what_goes_in_circles_and_what_is_deep() -> None:
    circle: list[Any] = []
    circle.append({"again": circle})
    with pytest.raises(ValueError, match="Circular"):
        pretty_json.dumps(circle)
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert pretty_json.dumps(deep) == plain(deep)
