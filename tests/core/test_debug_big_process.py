"""A process of two million objects, with a mock in it, is asked for its dictionaries and does not grow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_PROGRAM = """
import gc, json, re
from pathlib import Path
from unittest.mock import MagicMock
from c2c_otel.debug import memory, memory_diff, refs
from c2c_otel.debug.budget import Budget

class Holder: pass

data = [{"a": [number]} for number in range(1_000_000)]
huge = {number: str(number) for number in range(500_000)}
mock = MagicMock()
mock.a.b.c(1)
holder = Holder()
holder.data, holder.mock = data, mock

def kib(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

turns = 0
def serve():
    global turns
    while True:
        time.sleep(0.001)
        turns += 1
threading.Thread(target=serve, daemon=True).start()

def ask(what):
    global turns
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before, turns = kib("VmRSS"), 0
    answer = what()
    gc.collect()
    return {"answer": answer, "grown": kib("VmRSS") - before, "peak": kib("VmHWM") - before, "turns": turns}

print(json.dumps({
    "dict": ask(lambda: memory.dump_memory(5, "builtins.dict")),
    "mock": ask(lambda: memory.dump_memory(5, "unittest.mock.MagicMock")),
    "refs": ask(lambda: refs.graph([holder], Budget(2), max_depth=6).dot()),
    "diff": ask(lambda: memory_diff.growth(lambda: None)),
    "calls": len(mock.mock_calls),
}))
"""

MIB = 1024  # in KiB


def test_a_big_process_answers_and_does_not_grow(run: Callable[..., Any]) -> None:
    found = json.loads(run(_PROGRAM).stdout)
    for name in ("dict", "mock", "refs", "diff"):
        assert found[name]["grown"] < 16 * MIB, name
        assert found[name]["peak"] < 128 * MIB, name  # the list of all objects has 16, marks of addresses 30
        assert found[name]["turns"] > 20, name  # the others went on
    answer = found["dict"]["answer"]
    counts = dict(answer["most_common_types"])
    assert counts["builtins.dict"] > 1_000_000 and counts["builtins.list"] > 1_000_000
    (huge,) = [one for one in answer["builtins.dict"]["biggest_objects"] if one["repr"].startswith("{0: '0', 1: '1',")]
    assert huge["repr"].endswith("499992 more}") and huge["size_kb"] > 20_000
    assert len(json.dumps(answer)) < 10_000
    mocks = found["mock"]["answer"]["unittest.mock.MagicMock"]["biggest_objects"]
    assert mocks and all(one["repr"].startswith("<unittest.mock.MagicMock object at") for one in mocks)
    assert found["calls"] == 1
    assert "999990 more" in found["refs"]["answer"]
    assert found["diff"]["answer"] == []
