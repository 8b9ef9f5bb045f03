"""A profile for other tools: speedscope's JSON, and the text that pyinstrument writes."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

from c2c_otel.profiler.tree import Tree

__all__ = ["speedscope", "text"]

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def speedscope(tree: Tree, name: str) -> dict[str, Any]:
    """A file with one "sampled" profile, in seconds: each sample a stack of frames, the outermost first."""
    frames = [
        {"name": frame.name, **({"file": frame.file, "line": frame.line} if frame.file else {})}
        for frame in tree.frames
    ]
    timeline = list(tree.timeline())
    weights = [round(seconds, 6) for _, seconds in timeline]
    profile = {
        "type": "sampled",
        "name": name,
        "unit": "seconds",
        "startValue": 0,
        "endValue": round(sum(weights), 6),
        "samples": [[tree.of[above] for above in tree.stack(node)] for node, _ in timeline],
        "weights": weights,
    }
    return {
        "$schema": _SCHEMA,
        "name": name,
        "exporter": f"c2c-otel {version('c2c-otel')}",
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": [profile],
    }


def text(tree: Tree, name: str, *, started: float = 0.0, seconds: float = 0.0, interval: float = 0.001) -> str:
    """As pyinstrument shows a session in a terminal, without colours. Raises ImportError where it is missing."""
    from pyinstrument.renderers import ConsoleRenderer
    from pyinstrument.session import Session

    infos = [f"{frame.name}\x00{frame.file or '<built-in>'}\x00{frame.line}" for frame in tree.frames]
    session = Session.from_json(
        {
            "frame_records": [
                ([infos[tree.of[above]] for above in tree.stack(node)], own)
                for node, own in enumerate(tree.seconds)
                if own > 0
            ],
            "start_time": started,
            "duration": seconds,
            "min_interval": interval,
            "max_interval": interval,
            "sample_count": tree.samples,
            "start_call_stack": [""],
            "target_description": name,
            "cpu_time": 0,
            "sys_path": sys.path,
        }
    )
    return ConsoleRenderer(unicode=True, color=False).render(session)
