"""{base}/debug/stacks: where each thread of each process is."""

from __future__ import annotations

from typing import Any

from pyramid.response import Response

from c2c_otel import admin, auth, debug
from c2c_otel.debug import stacks
from c2c_otel_views import answers, everybody

__all__ = ["debug_stacks", "includeme"]

_SECONDS = 5.0


def debug_stacks(request: Any) -> Response:
    """``[{"frames": [...], "threads": ["host/pid/name(id)"]}]``, identical stacks of all processes together."""
    found = everybody.ask(debug.STACKS, {}, _SECONDS)
    return everybody.answer(found, stacks.merged(one for one in found if isinstance(one, dict)))


def includeme(config: Any) -> None:
    settings = admin.settings_of(config)
    if auth.is_enabled(settings, settings.debug_view_enabled):
        debug.listen()
        answers.add_view(
            config, "c2c_debug_stacks", f"{admin.base_path(config)}/debug/stacks", debug_stacks, protected=True
        )
