"""Graphs of references: what leads where, in bounds, and such that Graphviz draws it."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel.debug import refs
from c2c_otel.debug.budget import Budget
from c2c_otel.debug.refs import graph


class Node:
    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)


def edges(made: refs.Graph) -> set[tuple[int, int]]:
    return set(made.edges)


def test_what_an_object_refers_to() -> None:
    leaf = Node()
    middle = {"key": leaf, "n": 1}
    root = [middle, leaf]
    made = graph([root], Budget(60), extra_info=False)
    assert made.roots == {id(root)}
    assert {(id(root), id(middle)), (id(root), id(leaf)), (id(middle), id(leaf))} <= edges(made)
    assert made.edges[id(middle), id(leaf)] == "'key'"
    assert made.edges[id(root), id(leaf)] == "[1]"
    assert made.nodes[id(leaf)].startswith(f"{__name__}.Node\n<{__name__}.Node object at")
    assert not made.incomplete and not made.more


def test_what_refers_to_an_object() -> None:
    leaf = Node()
    holder = Node(leaf=leaf, others=[leaf])
    owner = {"holder": holder}
    made = graph([leaf], Budget(60), max_depth=1, extra_info=False, backrefs=True)
    found = {source for source, target in edges(made) if target == id(leaf)}
    assert id(holder.others) in found  # type: ignore[attr-defined] # made in __init__
    assert id(holder) in found or id(vars(holder)) in found
    assert id(owner) not in made.nodes
    assert "list" not in {label.partition("\n")[0] for key, label in made.nodes.items() if key not in found}
    made = graph([leaf], Budget(60), max_depth=3, extra_info=False, backrefs=True)
    assert id(owner) in made.nodes


def test_a_leak_is_traced_to_who_has_it() -> None:
    global LEAK
    LEAK = {"users": [Node(name="one")]}
    try:
        made = graph([LEAK["users"][0]], Budget(60), max_depth=3, backrefs=True)
    finally:
        del LEAK
    assert "'LEAK'" in made.edges.values()
    assert "[0]" in made.edges.values()
    assert "'users'" in made.edges.values()


def test_depth_and_number_are_bounded() -> None:
    chain: list[Any] = []
    for _ in range(10):
        chain = [chain]
    assert [len(graph([chain], Budget(60), max_depth=depth).nodes) for depth in range(4)] == [1, 2, 3, 4]
    wide = [Node() for _ in range(30)]
    made = graph([wide], Budget(60), too_many=4)
    assert len([edge for edge in made.edges if edge[0] == id(wide)]) == 4
    assert made.more == {id(wide): "26 more"}
    bush = [[[Node() for _ in range(30)] for _ in range(30)] for _ in range(30)]
    made = graph([bush], Budget(60), too_many=30, max_depth=3)
    assert len(made.nodes) == refs.MOST_NODES
    assert made.incomplete == "Only 500 objects are shown."
    many = [Node() for _ in range(2000)]
    made = graph(many, Budget(60), extra_info=False)
    assert len(made.nodes) == refs.MOST_NODES
    assert made.incomplete.startswith("500 of 2000 objects are shown.")


def test_a_container_of_millions() -> None:
    huge = {number: str(number) for number in range(1_000_000)}
    made = graph([huge], Budget(60), too_many=3)
    assert len(made.nodes) == 4
    assert made.more == {id(huge): "999997 more"}
    assert "at least " in made.nodes[id(huge)]


def test_the_time_ends() -> None:
    now = iter(range(10**9))
    slow = Budget(40, lambda: float(next(now)), lambda seconds: None)
    made = graph([[[Node() for _ in range(100)] for _ in range(100)]], slow, too_many=100)
    assert made.incomplete == "The time was over."
    assert 0 < len(made.nodes) < 100
    now = iter(range(10**9))
    made = graph([Node()], Budget(40, lambda: float(next(now)), lambda seconds: None), backrefs=True, extra_info=False)
    assert made.incomplete == "The time was over."


def test_small_objects_are_left_out() -> None:
    small, big = Node(), ["x" * 100_000]
    made = graph([[small, big]], Budget(60), min_size=50_000)
    assert id(big) in made.nodes and id(small) not in made.nodes


def test_classes_and_modules_are_shown_and_not_followed() -> None:
    made = graph([[Node(), gc]], Budget(60), max_depth=5)
    assert id(Node) in made.nodes and id(gc) in made.nodes
    assert not [edge for edge in made.edges if edge[0] in (id(Node), id(gc))]


def test_an_object_by_its_id() -> None:
    one = Node()
    assert refs.by_id(id(one)) == [one]
    assert refs.by_id(8) == []  # an address in which there is nothing is not looked into
    assert one in refs.roots_by_type(f"{__name__}.Node", Budget(60))


NASTY = ['"', "\\", "\\n", "a\nb", "\0", "é", "<b>", "}", "];", "\u2028", "\ud800"]


@pytest.mark.parametrize("backrefs", [False, True])
def test_graphviz_draws_it(dot: Callable[[str], str], backrefs: bool) -> None:
    nodes = [Node(**{"x" + str(n): [text]}) for n, text in enumerate(NASTY)]
    root = {"nodes": nodes, **dict.fromkeys(NASTY, nodes[0]), 1: {2: (3, nodes)}}
    made = graph([root] if not backrefs else nodes, Budget(60), too_many=12, max_depth=4, backrefs=backrefs)
    picture = dot(made.dot())
    assert len(re.findall(r'class="node"', picture)) == len(made.nodes) + len(made.more)
    assert len(re.findall(r'class="edge"', picture)) == len(made.edges) + len(made.more)


@given(st.text())
def test_any_text_is_one_quoted_string(text: str) -> None:
    quoted = refs._quoted(text)
    assert re.fullmatch(r'"(?:[^"\\\n]|\\.)*"', quoted)
    assert quoted.isprintable()


def test_an_empty_graph(dot: Callable[[str], str]) -> None:
    assert 'class="node"' not in dot(graph([], Budget(60)).dot())
