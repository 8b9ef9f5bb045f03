"""A profile as other tools read it."""

from __future__ import annotations

import json

import pytest

from c2c_otel.profiler import export
from c2c_otel.profiler.tree import Tree

SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def tree() -> Tree:
    found = Tree()
    main = "main\x00/app/pa/web.py\x0010\x01l12"
    hot = "hot\x00/app/pa/hot.py\x0020\x01cTile\x01l22"
    found.add([main, hot], 0.5)
    found.add([main, "sum\x00<built-in>\x000"], 0.25)
    found.add([main], 0.125)
    found.add([main, hot], 0.5)
    found.name_frames(lambda file: "pa")
    return found


def check_speedscope(file: dict[str, object]) -> None:
    """What https://www.speedscope.app/file-format-schema.json asks for, and what the reader needs beyond it."""
    assert file.keys() == {"$schema", "name", "exporter", "activeProfileIndex", "shared", "profiles"}
    assert file["$schema"] == SCHEMA
    assert isinstance(file["name"], str) and isinstance(file["exporter"], str) and file["activeProfileIndex"] == 0
    shared, profiles = file["shared"], file["profiles"]
    assert isinstance(shared, dict) and isinstance(profiles, list)
    for frame in shared["frames"]:
        assert frame.keys() <= {"name", "file", "line", "col"} and isinstance(frame["name"], str)
        assert isinstance(frame.get("file", ""), str) and type(frame.get("line", 1)) is int
    (profile,) = profiles
    assert profile.keys() == {"type", "name", "unit", "startValue", "endValue", "samples", "weights"}
    assert (profile["type"], profile["unit"], profile["startValue"]) == ("sampled", "seconds", 0)
    assert len(profile["samples"]) == len(profile["weights"])
    assert all(type(index) is int for sample in profile["samples"] for index in sample)
    assert all(0 <= index < len(shared["frames"]) for sample in profile["samples"] for index in sample)
    assert all(weight >= 0 for weight in profile["weights"])
    assert profile["endValue"] == pytest.approx(sum(profile["weights"]))


def test_speedscope() -> None:
    file = json.loads(json.dumps(export.speedscope(tree(), "GET /tiles")))
    check_speedscope(file)
    assert file["shared"]["frames"] == [
        {"name": "main", "file": "/app/pa/web.py", "line": 10},
        {"name": "Tile.hot", "file": "/app/pa/hot.py", "line": 20},
        {"name": "sum"},
    ]
    (profile,) = file["profiles"]
    assert profile["name"] == "GET /tiles"
    assert profile["samples"] == [[0, 1], [0, 2], [0], [0, 1]]
    assert profile["weights"] == [0.5, 0.25, 0.125, 0.5]


def test_speedscope_of_nothing() -> None:
    check_speedscope(export.speedscope(Tree(), "GET /quick"))


def test_text() -> None:
    lines = export.text(tree(), "GET /tiles", started=1e9, seconds=1.5).splitlines()
    assert any("Duration: 1.5" in line for line in lines) and any("Samples:  4" in line for line in lines)
    assert "GET /tiles" in lines
    assert any(line.startswith("1.375 main") for line in lines)
    assert any("1.000 Tile.hot" in line for line in lines)
    assert any("0.250 sum  <built-in>" in line for line in lines)


def test_text_of_nothing() -> None:
    assert "GET /quick" in export.text(Tree(), "GET /quick")
