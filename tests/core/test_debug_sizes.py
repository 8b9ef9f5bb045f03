"""Sizes, descriptions and the census: right where it can be checked, bounded everywhere, and nothing foreign runs."""

from __future__ import annotations

import collections
import ctypes
import enum
import gc
import sys
import threading
import types
from itertools import count
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2c_otel import debug
from c2c_otel.debug import census, memory, objects, refs, sizes
from c2c_otel.debug.budget import Budget
from c2c_otel.debug.describe import describe
from c2c_otel.debug.objects import Kinds


class Ticks:
    """A clock that goes on by a step each time it is read, and remembers who slept."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step, self.slept = 0.0, step, 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds


def budget(seconds: float = 60.0, step: float = 0.0) -> Budget:
    clock = Ticks(step)
    return Budget(seconds, clock, clock.sleep)


def naive(root: Any) -> int:
    """The sum by the book, for graphs of builtin objects."""
    seen, todo, size = set(), [root], 0
    while todo:
        obj = todo.pop()
        if id(obj) in seen or (obj is not root and isinstance(obj, type | types.ModuleType | types.FunctionType)):
            continue
        seen.add(id(obj))
        size += sys.getsizeof(obj)
        todo += gc.get_referents(obj)
        todo += obj if isinstance(obj, dict) else ()
    return size


class Plain:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a, self.b = [1, 2], "text"


class Mine(dict[Any, Any]):
    pass


class Named(list[Any]):
    pass


class Color(enum.IntEnum):
    RED = 3


BIG = 12_345

GRAPHS: dict[str, Any] = {
    "number": 12345678901234567890,
    "text": "é" * 100,
    "nothing": None,
    "nested": {"a": [1, 2, {"b": (3, 4)}], "c": {5, 6}, "d": frozenset({7})},
    "instance": Plain(x=[1, 2, 3], y="text"),
    "slots": Slotted(),
    "subclass": Mine({"a": [Named([1])]}),
    "list": [[number] for number in range(BIG)],
    "tuple": tuple(str(number) for number in range(BIG)),
    "dict": {f"key {number}": float(number) for number in range(BIG)},
    "set": {f"member {number}" for number in range(BIG)},
    "frozenset": frozenset(range(1000, 1000 + BIG)),
    "deque": collections.deque([number] for number in range(BIG)),
    "ordered": collections.OrderedDict((number, [number]) for number in range(BIG)),
    "big subclass": Mine((str(number), [number]) for number in range(BIG)),
}


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_sizes_are_those_of_the_book(name: str) -> None:
    graph = GRAPHS[name]
    expected = naive(graph)
    if name == "big subclass":  # its class is no part of it, and neither are attributes it does not have
        expected = naive(dict(graph)) - sys.getsizeof(dict(graph)) + sys.getsizeof(graph)
    assert debug.get_size(graph) == expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.builds(Mine),
)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_any_builtin_graph(graph: Any) -> None:
    assert debug.get_size(graph) == naive(graph)
    assert 0 < len(describe(graph)) <= 300


def test_what_is_shared_counts_once_and_cycles_end() -> None:
    part = ["x" * 1000]
    both = [part, part]
    both.append(both)  # type: ignore[arg-type] # the cycle
    assert debug.get_size(both) == sys.getsizeof(both) + sys.getsizeof(part) + sys.getsizeof(part[0])


def test_a_chain_of_any_length() -> None:
    chain: list[Any] = []
    for _ in range(100_000):
        chain = [chain]
    assert debug.get_size(chain) > 100_000 * sys.getsizeof([])
    while chain:  # by hand: to free it at once would recurse
        chain = chain[0]


def test_everybody_s_objects_are_nobody_s() -> None:
    alone = Plain(name="x")
    owner = Plain(name="x", a=sys, b=Plain, c=describe, d=len, e=sys._getframe())
    assert debug.get_size(owner) - debug.get_size(alone) < 2000
    assert debug.get_size(sys) > 1000  # but asked for, a module is what it holds


@pytest.mark.parametrize("graph", [[[]] * 3 + [[n] for n in range(5000)], {n: [n] for n in range(5000)}])
def test_objects_are_counted_to_the_limit(graph: Any) -> None:
    most = 100
    found = sizes.measure(graph, Kinds(), budget(), most)
    assert not found.complete
    assert sys.getsizeof(graph) < found.size < sys.getsizeof(graph) + most * 100


@pytest.mark.parametrize("make", [lambda: [[n] for n in range(50_000)], lambda: {n: [n] for n in range(50_000)}])
def test_the_time_is_looked_at_within_one_object(make: Any) -> None:
    graph = make()
    found = sizes.measure(graph, Kinds(), budget(seconds=5, step=1.0))
    assert not found.complete
    assert found.size < sys.getsizeof(graph) + 10_000 * 150  # a few pieces of 50


def test_a_graph_that_grows_while_one_looks() -> None:
    """A thread adds to it for as long as it is measured."""
    graph: dict[int, Any] = {n: [n] for n in range(2000)}
    ends = threading.Event()
    numbers = count(2000)

    def grow() -> None:
        while not ends.is_set():
            number = next(numbers)
            graph[number] = [number]
            if number % 50 == 0:
                ends.wait(0.0005)

    grower = threading.Thread(target=grow)
    grower.start()
    try:
        for _ in range(20):
            found = sizes.measure(graph, Kinds(), Budget(10), 1_000)
            assert not found.complete
        answer = memory.dump_memory(5, "builtins.dict", seconds=0.5)
    finally:
        ends.set()
        grower.join(10)
    assert answer["builtins.dict"]["biggest_objects"]


def test_the_others_get_their_turn() -> None:
    clock = Ticks(0.0005)
    spent = Budget(1000, clock, clock.sleep)
    for _ in range(1000):
        assert not spent.spent()
    assert 0.05 < clock.slept < clock.now / 2


def test_a_share_of_the_time() -> None:
    clock = Ticks()
    whole = Budget(10, clock, clock.sleep)
    half = whole.part(0.5)
    clock.now = 5.5
    assert half.spent() and not whole.spent()
    clock.now = 11
    assert whole.spent() and whole.part(0.5).spent()


# -- what is foreign does not run -------------------------------------------------------------------------------------


class Touched(BaseException):
    """Somebody asked an object what it is."""


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise Touched(args)


class Meta(type):
    on = False

    def __getattribute__(cls, name: str) -> Any:
        return refuse() if Meta.on else super().__getattribute__(name)

    def __eq__(cls, other: object) -> bool:
        return refuse() if Meta.on else cls is other

    def __hash__(cls) -> int:
        return refuse() if Meta.on else id(cls)

    def __repr__(cls) -> str:
        return refuse()

    __instancecheck__ = __subclasscheck__ = refuse


HOOKS = ("__getattribute__", "__sizeof__", "__repr__", "__str__", "__eq__", "__hash__", "__len__", "__iter__")


@pytest.fixture
def touchy() -> Any:
    """Objects of classes none of whose code may run."""
    hooks = dict.fromkeys((*HOOKS, "__bool__", "__getitem__", "__contains__", "keys", "items"), refuse)
    made = {
        base: Meta(f"Touchy{base.__name__}", (base,), {**hooks, "__class__": property(refuse)})
        for base in (object, dict, list, tuple, set, str, int, types.ModuleType)
    }
    found = {
        base: base.__new__(cls, "name") if base is types.ModuleType else base.__new__(cls) for base, cls in made.items()
    }
    list.extend(found[list], [found[object]] * 3000)
    dict.update(found[dict], dict.fromkeys(range(3000), found[object]))
    Meta.on = True
    yield found
    Meta.on = False


@pytest.mark.parametrize("base", [object, dict, list, tuple, set, str, int, types.ModuleType])
def test_no_code_of_an_object_s_class_runs(touchy: dict[type, Any], base: type, monkeypatch: Any) -> None:
    one = touchy[base]
    around = [[one], touchy, vars()]
    monkeypatch.setattr(gc, "get_objects", lambda: [*touchy.values(), *around])
    assert debug.get_size(one) > 0
    assert f"Touchy{base.__name__}" in describe(one) or base is types.ModuleType
    assert f"Touchy{base.__name__}" in describe(type(one))
    assert refs.graph([[one]], budget()).nodes
    assert refs.graph([one], budget(), backrefs=True).nodes
    name = f"Touchy{base.__name__}"
    assert len(memory.dump_memory(5, name)[name]["biggest_objects"]) == 1
    assert memory.dump_memory(5, "builtins.dict")["builtins.dict"]["biggest_objects"]


def test_a_mock_is_not_asked() -> None:
    mock = MagicMock()
    mock.a.b.c(1)
    calls = len(mock.mock_calls)
    known = sum(type(obj).__name__ == "MagicMock" for obj in gc.get_objects())
    size = debug.get_size(mock)
    answer = memory.dump_memory(5, "unittest.mock.MagicMock")
    graph = refs.graph([mock], budget(), max_depth=5)
    assert 1000 < size == debug.get_size(mock)
    assert answer["unittest.mock.MagicMock"]["biggest_objects"][0]["repr"].startswith("<unittest.mock.MagicMock object")
    assert len(graph.nodes) > 3
    assert len(mock.mock_calls) == calls
    assert sum(type(obj).__name__ == "MagicMock" for obj in gc.get_objects()) == known


def test_a_size_of_one_s_own_is_what_c_says() -> None:
    class Liar(list[int]):
        def __sizeof__(self) -> int:
            return 1 << 40

    class Honest(list[int]):
        pass

    assert Kinds().of(Liar()).size(Liar()) == sys.getsizeof(Honest())
    assert debug.get_size(Liar(range(10))) == debug.get_size(Honest(range(10)))


def test_classes_are_not_kept() -> None:
    """Each mock has a class of its own, of which thousands may come."""
    kinds = Kinds()
    for n in range(12_000):
        kinds.of(type(f"Class{n}", (), {})())
    assert len(kinds._known) <= objects._KINDS


# -- descriptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (12, "12"),
        (1 << 100_000, "<int of 100001 bits>"),
        (1.5, "1.5"),
        ("it's", '"it\'s"'),
        ("x" * 100, f"'{'x' * 60}'... 40 more"),
        (b"x\xff", "b'x\\xff'"),
        ("\ud800", "'\\ud800'"),
        ([], "[]"),
        ((1,), "(1,)"),
        ({}, "{}"),
        (set(), "set()"),
        (frozenset({1}), "frozenset({1})"),
        (collections.deque([1]), "deque([1])"),
        ({"a": [1, {"b": {"c": 1}}]}, "{'a': [1, {'b': {... 1}}]}"),
        (list(range(20)), "[0, 1, 2, 3, 4, 5, 6, 7, ... 12 more]"),
        (collections.OrderedDict(a=1), "collections.OrderedDict({'a': 1})"),
        (Color.RED, f"{__name__}.Color(3)"),
        (dict, "<class 'builtins.dict'>"),
        (sys, "<module 'sys'>"),
        (describe, "<function c2c_otel.debug.describe.describe>"),
    ],
    ids=[str(number) for number in range(22)],
)
def test_descriptions(value: Any, text: str) -> None:
    assert describe(value) == text


def test_a_description_is_short() -> None:
    million = {str(n): {"n": [str(n)] * 100} for n in range(1000)}
    for value in (million, [million] * 10, "x" * 10_000_000, Plain(a=million)):
        assert len(describe(value)) <= 300
    plain = Plain()
    assert describe(plain) == f"<{__name__}.Plain object at {id(plain):#x}>"


# -- the census -------------------------------------------------------------------------------------------------------


class Leaked:
    def __init__(self) -> None:
        self.me = [self]


class Kept:
    pass


def test_what_nothing_refers_to_is_found() -> None:
    """As C code leaks it: a reference too many, and nobody who has it."""
    kept = [Kept() for _ in range(5)]
    for _ in range(3):
        lost = Kept.__new__(Kept)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(lost))
    del lost
    try:
        known = gc.get_objects()
        counts, complete = census.leaking(known, budget())
        assert complete
        assert counts[f"{__name__}.Kept"] == 3
        assert f"{__name__}.Leaked" not in counts
        assert counts["builtins.list"] < 1000
    finally:
        del known
        for one in [obj for obj in gc.get_objects() if type(obj) is Kept and not any(obj is other for other in kept)]:
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(one))


def test_a_big_container_refers_to_its_members() -> None:
    crowd = [Kept() for _ in range(census._CROWD + 1)]
    counts, _ = census.leaking([crowd, *crowd], budget())
    assert counts[f"{__name__}.Kept"] == 0
    assert counts["builtins.list"] == 1


def test_the_census_ends_with_its_time() -> None:
    known = [[n] for n in range(50_000)]
    assert census.leaking(known, budget(5, step=1.0)) == (collections.Counter(), False)
    counts = census.count_types(known, budget(5, step=1.0))
    assert 0 < counts["builtins.list"] < 50_000
    assert 0 < len(census.by_type(known, "builtins.list", budget(5, step=1.0))) < 50_000


@pytest.mark.parametrize("name", ["builtins.list", "builtins.function", "linecache"])
def test_an_answer_whose_time_was_over_says_so(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(gc, "get_objects", lambda: [[n] for n in range(50_000)])
    answer = memory.dump_memory(5, name, seconds=1e-9)
    assert answer["timeout"] is True
    assert len(answer["nb_collected"]) == 3
    assert answer["leaking_objects"] == []
    if name != "linecache":  # of which there may be nothing
        assert answer[name]["timeout"] is True


@pytest.mark.parametrize(("internals", "expected"), [(False, {"{'a': [1]}", "{}"}), (True, {"module", "scope"})])
def test_dictionaries_of_the_interpreter_or_all_others(internals: bool, expected: set[str], monkeypatch: Any) -> None:
    scope = {"scope": "module", "module": sys, "locals": {}, "globals": vars(collections)}
    known = [vars(collections), vars(sys), scope, {"a": [1]}, {}]
    monkeypatch.setattr(gc, "get_objects", lambda: known)
    answer = memory.dump_memory(9, "builtins.dict" if not internals else None, python_internals_map=internals)
    found = {one["repr"] for one in answer["builtins.dict"]["biggest_objects"]}
    if internals:
        found = {"scope" if text.startswith("{'scope': ") else "module" for text in found}
    assert found == expected


@pytest.mark.parametrize("name", ["list", "builtins.list"])
def test_objects_by_the_name_of_their_class(name: str) -> None:
    known: list[Any] = [[1], Named([2]), {"a": 1}, (3,), [4]]
    assert census.by_type(known, name, budget()) == [[1], [4]]
    assert census.by_type(known, "nothing.like_it", budget()) == []


def test_big_objects_that_the_collector_does_not_know() -> None:
    texts = ["x" * length for length in range(1000)]
    untracked = {str(n): n for n in range(1000)}
    assert not gc.is_tracked(untracked)
    assert census.untracked([texts, [untracked]], "builtins.str", 3, budget()) == texts[:-4:-1]
    assert census.untracked([texts, [untracked]], "dict", 3, budget()) == [untracked]


# -- the biggest ------------------------------------------------------------------------------------------------------


def test_the_biggest_come_first() -> None:
    candidates = [["x" * length] for length in range(0, 3000, 10)]
    found = sizes.biggest(candidates, 3, Kinds(), budget())
    assert found.complete
    assert [obj for obj, _ in found.found] == candidates[:-4:-1]
    assert [measured.size for _, measured in found.found] == [debug.get_size(one) for one in candidates[:-4:-1]]


def test_what_has_much_below_it_is_measured_to_its_end() -> None:
    deep = [[[n] for n in range(5000)]]
    candidates = [["x" * 20_000] for _ in range(200)] + [deep]
    found = sizes.biggest(candidates, 2, Kinds(), budget())
    assert found.found[0][0] is deep
    assert found.found[0][1] == sizes.Measured(debug.get_size(deep), True)


def test_one_that_is_big_itself_is_found_before_the_time_is_over() -> None:
    candidates = [[n] for n in range(6_000)] + [[0] * 100_000]
    found = sizes.biggest(candidates, 1, Kinds(), budget(200, step=1.0))
    assert not found.complete
    assert found.found[0][0] is candidates[-1]
