"""{base}/debug/show_refs.dot: who refers to whom in the answering process, for Graphviz."""

from __future__ import annotations

import gc
import os
from typing import Any

from pyramid.httpexceptions import HTTPBadRequest
from pyramid.response import Response

from c2c_otel import admin, auth
from c2c_otel.debug import refs
from c2c_otel.debug.budget import Budget
from c2c_otel_views import answers, debug_memory, parameters

__all__ = ["debug_show_refs", "includeme"]


def debug_show_refs(request: Any) -> Response:
    """The objects of ``analyze_type``, or the one of ``analyze_id``, with what they refer to."""
    name = debug_memory.analyze_type(request)
    identity = parameters.integer(request, "analyze_id", 1, 2**64, None)
    if (name is None) == (identity is None):
        raise HTTPBadRequest("Expected one of analyze_type (the name of a class) and analyze_id (an object's id).")
    options = {
        "max_depth": parameters.integer(request, "max_depth", 0, 20, 3),
        "too_many": parameters.integer(request, "too_many", 1, 1000, 10),
        "min_size": _min_size(request),
        "extra_info": not debug_memory.switch(request, "no_extra_info"),
        "backrefs": debug_memory.switch(request, "backrefs"),
    }
    gc.collect()
    budget = Budget(refs.SECONDS)
    search = budget.part(0.5)
    if identity is None:
        roots = refs.roots_by_type(name or "", search)
    elif not (roots := refs.by_id(identity)):
        raise parameters.refuse("analyze_id", identity, f"the id of a container or instance in process {os.getpid()}")
    graph = refs.graph(roots, budget, **options)
    if identity is None and search.spent():
        graph.incomplete = graph.incomplete or "The time was over."
    return Response(graph.dot(), content_type="text/vnd.graphviz", charset="utf-8")


def _min_size(request: Any) -> int:
    """In bytes: ``min_size_kb``, or ``filter``, which the predecessor's documentation said."""
    sizes = [parameters.number(request, one, 0, 1e9, None, unit="KiB") for one in ("min_size_kb", "filter")]
    given = [size for size in sizes if size is not None]
    if len(given) > 1:
        raise HTTPBadRequest("min_size_kb and filter are two names for one thing; expected one of them.")
    return int(given[0] * 1024) if given else 0


def includeme(config: Any) -> None:
    settings = admin.settings_of(config)
    if auth.is_enabled(settings, settings.debug_view_enabled):
        path = f"{admin.base_path(config)}/debug/show_refs.dot"
        answers.add_view(config, "c2c_debug_show_refs", path, debug_show_refs, protected=True)
