"""The call tree of samples: bounded, mergeable, and the same after a journey."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel.profiler import tree as trees
from c2c_otel.profiler.modules import OTHER, STANDARD_LIBRARY, module_of, packages, shares
from c2c_otel.profiler.tree import MAX_DEPTH, ROOT, Frame, Tree

Stacks = list[tuple[list[str], float]]


def frame(name: str, file: str = "/app/pa/one.py", line: int = 1, more: str = "\x01l7") -> str:
    """As pyinstrument writes it."""
    return f"{name}\x00{file}\x00{line}{more}"


def made(stacks: Stacks, max_nodes: int = trees.MAX_NODES) -> Tree:
    tree = Tree(max_nodes)
    for stack, seconds in stacks:
        tree.add(stack, seconds)
    tree.name_frames(lambda file: file.removeprefix("/app/").removesuffix(".py").replace("/", "."))
    return tree


def told(tree: Tree) -> dict[tuple[str, ...], float]:
    """Each stack of names with its own time."""
    return {
        tuple(tree.frame(above).name for above in tree.stack(node)): round(seconds, 6)
        for node, seconds in enumerate(tree.seconds)
    }


STACKS: Stacks = [
    ([frame("a"), frame("b", more="\x01cShop\x01l3")], 1.0),
    ([frame("a"), frame("b", more="\x01cShop\x01l4")], 2.0),
    ([frame("a"), frame("sum", "<built-in>", 0, "")], 0.5),
    ([frame("a")], 0.25),
    ([frame("a"), frame("b", more="\x01cShop\x01l3")], 4.0),
]


def test_samples_become_a_tree() -> None:
    """Another line of the same function is no other node."""
    tree = made(STACKS)
    assert told(tree) == {("a",): 0.25, ("a", "Shop.b"): 7.0, ("a", "sum"): 0.5}
    assert tree.totals() == [7.75, 7.0, 0.5]
    assert (tree.samples, tree.total(), tree.cut, len(tree)) == (5, 7.75, 0.0, 3)
    assert tree.children(tree.totals()) == {ROOT: [0], 0: [1, 2]}
    assert tree.frame(1) == Frame("Shop.b", "/app/pa/one.py", 1, "pa.one")
    assert tree.frame(2) == Frame("sum", "", 0, "")


def test_the_order_is_known() -> None:
    assert list(made(STACKS).timeline()) == [(1, 3.0), (2, 0.5), (0, 0.25), (1, 4.0)]


def test_what_comes_too_late_for_the_order_is_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MAX_ORDER", 2)
    assert list(made(STACKS).timeline()) == [(1, 3.0), (2, 0.5), (0, 0.25), (1, 4.0)]


def test_a_tree_does_not_grow_for_ever() -> None:
    """What has no room counts for its caller."""
    tree = made([([frame("a"), frame(f"f{number}")], 1.0) for number in range(100)], max_nodes=10)
    assert len(tree) == 10 and len(tree.frames) == 10
    assert (tree.total(), tree.samples, tree.cut) == (100.0, 100, 91.0)
    assert tree.seconds[0] == 91.0


def test_a_recursion_is_cut_at_its_depth() -> None:
    tree = made([([frame("r")] * (MAX_DEPTH + 700), 1.0)])
    assert (len(tree), tree.total(), tree.cut) == (MAX_DEPTH, 1.0, 1.0)
    exact = made([([frame("r")] * MAX_DEPTH, 1.0)])
    assert (len(exact), exact.cut) == (MAX_DEPTH, 0.0)


def test_trees_are_added_up() -> None:
    both = Tree()
    other = made([([frame("c"), frame("a")], 1.0), ([frame("a"), frame("sum", "<built-in>", 0, "")], 2.0)])
    both.merge(made(STACKS))
    both.merge(Tree.load(json.loads(json.dumps(other.dump()))))
    assert told(both) == {
        ("a",): 0.25,
        ("a", "Shop.b"): 7.0,
        ("a", "sum"): 2.5,
        ("c",): 0.0,
        ("c", "a"): 1.0,
    }
    assert both.samples == 7
    again = Tree.load(both.dump())
    again.merge(other)
    assert told(again)["c", "a"] == 2.0 and len(again) == len(both)


def test_many_together_are_bounded_too() -> None:
    both = Tree(5)
    for number in range(10):
        both.merge(made([([frame("a"), frame(f"f{number}"), frame("x")], 1.0)]))
    assert len(both) == 5
    assert both.total() == 10.0


def test_what_is_called_first_has_room() -> None:
    tree = made([([frame(f"f{number}")], 1.0) for number in range(10)], max_nodes=3)
    assert told(tree) == {("f0",): 1.0, ("f1",): 1.0, ("f2",): 1.0, ("(no room)",): 7.0}
    assert (tree.samples, tree.cut) == (10, 7.0)


names = st.sampled_from(["a", "b", "c", "<lambda>"])
stacks = st.lists(st.tuples(st.lists(names.map(frame), min_size=1, max_size=6), st.floats(0, 10)), max_size=30)


@given(stacks, st.integers(1, 12))
def test_no_time_is_lost(found: Stacks, max_nodes: int) -> None:
    tree = made(found, max_nodes)
    total = sum(seconds for _, seconds in found)
    assert tree.total() == pytest.approx(total)
    assert sum(seconds for _, seconds in tree.timeline()) == pytest.approx(total, abs=1e-6)
    assert sum(tree.totals()[node] for node in tree.children(tree.totals()).get(ROOT, [])) == pytest.approx(total)
    merged = Tree(max_nodes)
    merged.merge(tree)
    assert merged.total() == pytest.approx(total)
    assert sum(share.own for share in shares(tree)) == pytest.approx(total)


@given(stacks)
def test_what_travels_is_what_arrives(found: Stacks) -> None:
    dumped = json.loads(json.dumps(made(found).dump()))
    assert Tree.load(dumped).dump() == dumped


@pytest.mark.parametrize(
    "wrong",
    [
        {"parents": [0]},
        {"parents": [5]},
        {"parents": [-2]},
        {"of": [1]},
        {"of": []},
        {"micros": []},
        {"frames": [["only a name"]]},
    ],
)
def test_what_is_no_tree_is_refused(wrong: dict[str, object]) -> None:
    right = made([([frame("a")], 1.0)]).dump()
    Tree.load(right)
    with pytest.raises((ValueError, KeyError, TypeError, IndexError)):
        Tree.load({**right, **wrong})


def test_any_text_can_be_shown() -> None:
    tree = made([([frame("f\udcff\n\x1b[31m", "/app/\udcfe.py"), frame("x" * 5000)], 1.0)])
    text = json.dumps(tree.dump())
    assert "\\u001b" not in text and "\\n" not in text
    assert not any("\ud800" <= char <= "\udfff" for char in json.loads(text)["frames"][0][3] + tree.frame(0).name)
    assert len(tree.frame(1).name) == 300


# -- whose code it is -------------------------------------------------------------------------------------------------


def test_the_module_of_a_file() -> None:
    assert module_of(trees.__file__) == "c2c_otel.profiler.tree"
    assert module_of(json.__file__) == "json"
    assert module_of("<frozen importlib._bootstrap>") == "importlib._bootstrap"
    assert module_of("<string>") == ""
    assert module_of(str(trees.__file__).replace("tree.py", "never_imported.py")) == "c2c_otel.profiler.never_imported"
    assert module_of("/nowhere/of/ours.py") == "ours"


TIMES: Stacks = [
    ([frame("main", "/app/pa/web.py"), frame("hot", "/app/pa/deep/hot.py")], 6.0),
    ([frame("main", "/app/pa/web.py"), frame("warm", "/app/pb/warm.py")], 2.0),
    ([frame("main", "/app/pa/web.py"), frame("warm", "/app/pb/warm.py"), frame("sum", "<built-in>", 0, "")], 1.0),
    ([frame("main", "/app/pa/web.py"), frame("warm", "/app/pb/warm.py"), frame("loads", "/app/json/__init__.py")], 0.5),
    ([frame("main", "/app/pa/web.py")], 0.5),
]


def of(named: tuple[str, ...] = ()) -> dict[str, tuple[float, float]]:
    return {share.package: (share.own, share.within) for share in shares(made(TIMES), named)}


def test_shares_of_packages() -> None:
    """C functions count for their caller; the standard library is one."""
    assert of() == {"pa": (6.5, 10.0), "pb": (3.0, 3.5), STANDARD_LIBRARY: (0.5, 0.5)}
    assert [share.package for share in shares(made(TIMES))] == ["pa", "pb", STANDARD_LIBRARY]


def test_named_packages_have_a_share_of_their_own() -> None:
    """The longest name wins; the name of another package's beginning is no match."""
    found = of(("pa", "pa.deep", "json", "p"))
    assert found == {"pa": (0.5, 10.0), "pa.deep": (6.0, 6.0), "pb": (3.0, 3.5), "json": (0.5, 0.5)}


def test_code_of_nobody() -> None:
    tree = made([([frame("sum", "<built-in>", 0, "")], 1.0)])
    assert packages(tree) == [OTHER]
