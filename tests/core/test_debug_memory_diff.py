"""Growth: what an action leaves behind, and nothing of the measurement's own. And the maps of memory."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from c2c_otel import debug
from c2c_otel.debug import memory_diff


class Thing:
    pass


def test_a_leak_is_found() -> None:
    leak: list[Any] = []
    calls: list[int] = []

    def act() -> None:
        calls.append(1)
        leak.extend([Thing() for _ in range(7)])
        leak.append([{"a": Thing()}])

    grown = memory_diff.growth(act)
    assert len(calls) == 2
    assert grown[0] == [f"{__name__}.Thing", 16, 8]
    assert ["builtins.list", 1] in [[name, more] for name, _, more in grown]


def test_what_is_let_go_is_no_growth() -> None:
    def act() -> None:
        cycle: list[Any] = [Thing() for _ in range(100)]
        cycle.append(cycle)

    assert memory_diff.growth(act) == []


def test_without_warming_up_a_cache_counts() -> None:
    cache: dict[str, Thing] = {}

    def act() -> None:
        cache.setdefault("x", Thing())

    grown = memory_diff.growth(act, warmup=False)
    assert [f"{__name__}.Thing", 1, 1] in grown
    assert memory_diff.growth(act) == []


def test_the_biggest_growth_first_and_not_more_than_asked_for() -> None:
    leak: list[Any] = []
    made = [type(f"Leak{n}", (), {}) for n in range(5)]

    def act() -> None:
        for n, cls in enumerate(made):
            leak.extend([cls() for _ in range(n + 2)])

    assert [(name.rpartition(".")[2], more) for name, _, more in memory_diff.growth(act, limit=3)] == [
        ("Leak4", 6),
        ("Leak3", 5),
        ("Leak2", 4),
    ]


def test_one_at_a_time_and_an_error_ends_it() -> None:
    inside: list[Any] = []

    def act() -> None:
        with pytest.raises(memory_diff.Busy):
            memory_diff.growth(lambda: None)
        thread = threading.Thread(target=lambda: inside.append(busy()))
        thread.start()
        thread.join(20)
        raise ZeroDivisionError

    def busy() -> bool:
        try:
            memory_diff.growth(lambda: None)
        except memory_diff.Busy:
            return True
        return False

    with pytest.raises(ZeroDivisionError):
        memory_diff.growth(act)
    assert inside == [True]
    assert busy() is False


# -- the maps ---------------------------------------------------------------------------------------------------------


def test_maps_of_this_process() -> None:
    maps = debug.dump_memory_maps()
    assert all(one.keys() == {"name", "pss_kb", "rss_kb", "size_kb"} for one in maps)
    assert {"[heap]", "[stack]", "[anon]"} <= {one["name"] for one in maps}
    shares = [one["pss_kb"] for one in maps]
    assert shares == sorted(shares, reverse=True) and shares[-1] > 0
    assert all(0 < one["pss_kb"] <= one["rss_kb"] <= one["size_kb"] for one in maps)
    assert {one["name"] for one in debug.dump_memory_maps(os.getpid())} >= {"[heap]"}


def test_maps_of_nobody() -> None:
    assert debug.dump_memory_maps(2**22 + 1) == []
    assert debug.dump_memory_maps("nobody") == []
