"""{base}/debug/memory, memory_diff and memory_maps: what the processes keep, and what a request leaves behind."""

from __future__ import annotations

import re
from typing import Any

from pyramid.httpexceptions import HTTPBadRequest
from pyramid.response import Response

from c2c_otel import admin, auth, debug
from c2c_otel.debug import memory_diff, subrequest
from c2c_otel_views import answers, everybody, parameters

__all__ = ["STATUS", "debug_memory", "debug_memory_diff", "debug_memory_maps", "includeme"]

STATUS = "X-C2C-Subrequest-Status"
"""The response header with what the measured request was answered with; ``exception`` where it raised."""

_SECONDS = 15.0
"""A process has ten, and collects its garbage before."""

_PATH = re.compile(r"/(?!/)[^\x00-\x20#\\\x7f]*")
_TYPE = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_EXPECTED_PATH = "a path of this application that begins with one /, and may have a query"
_OURS = frozenset({"secret", "limit", "no_warmup", "path"})


def _limit(request: Any) -> int:
    limit: int = parameters.integer(request, "limit", 1, 1000, 30)
    return limit


def analyze_type(request: Any) -> str | None:
    """A class' name, with its module or without. A process that has none such has no objects of it."""
    found: str | None = parameters.text(request, "analyze_type", None) or None
    if found is not None and not _TYPE.fullmatch(found):
        raise parameters.refuse("analyze_type", found, "the name of a class, such as builtins.dict")
    return found


def switch(request: Any, name: str) -> bool:
    """On also where it stands alone: ``&name``, ``&name=``."""
    if parameters.text(request, name, None) == "":
        return True
    on: bool = parameters.flag(request, name, False)
    return on


def debug_memory(request: Any) -> Response:
    """One object for each process; null for one that did not answer."""
    asked = {
        "limit": _limit(request),
        "analyze_type": analyze_type(request),
        "python_internals_map": switch(request, "python_internals_map"),
    }
    found = everybody.ask(debug.MEMORY, asked, _SECONDS)
    return everybody.answer(found, list(found))


def debug_memory_maps(request: Any) -> Response:
    """Of the answering process."""
    return answers.json_response(debug.dump_memory_maps())


def debug_memory_diff(request: Any) -> Response:
    """``[[type, total, increase]]`` after a request for ``path``, in the answering process."""
    if subrequest.MARKER in request.environ:
        raise HTTPBadRequest("A measurement cannot be measured.")
    limit = _limit(request)
    warmup = not switch(request, "no_warmup")
    path, query = _path(request)
    environ = subrequest.environ_for(request.environ, path, query, auth.get_expected_secret(request))
    statuses = ["exception"]

    def act() -> None:
        statuses[0] = "exception"
        try:
            statuses[0] = str(subrequest.send(request.registry.c2c_service, dict(environ)))
        except Exception:
            pass

    try:
        growth = memory_diff.growth(act, limit, warmup)
    except memory_diff.Busy:
        return answers.error(409, "This process is measuring the growth of another request; try again.")
    response = answers.json_response(growth)
    response.headers[STATUS] = statuses[0]
    return response


def _path(request: Any) -> tuple[str, str]:
    """Path and query of the request to send; the deprecated address has both for its own."""
    below = request.matchdict.get("path")
    if below is not None:
        found = "/" + "/".join(below)
        query = subrequest.query_without(request.query_string, _OURS)
    else:
        found, _, query = parameters.text(request, "path", expected=_EXPECTED_PATH).partition("?")
    if not _PATH.fullmatch(found) or any(ord(c) < 32 for c in query) or "#" in query:
        raise parameters.refuse("path", found, _EXPECTED_PATH)
    own = request.path_info.partition("/debug/memory_diff")[0] + "/debug/memory_diff"
    if f"{found}/".startswith(f"{own}/"):
        raise parameters.refuse("path", found, "another path than that of the measurement")
    return found, query


def includeme(config: Any) -> None:
    settings = admin.settings_of(config)
    if not auth.is_enabled(settings, settings.debug_view_enabled):
        return
    debug.listen()
    base = f"{admin.base_path(config)}/debug"
    for name, path, view in (
        ("c2c_debug_memory", "memory", debug_memory),
        ("c2c_debug_memory_diff", "memory_diff", debug_memory_diff),
        ("c2c_debug_memory_diff_deprecated", "memory_diff/*path", debug_memory_diff),
        ("c2c_debug_memory_maps", "memory_maps", debug_memory_maps),
    ):
        answers.add_view(config, name, f"{base}/{path}", view, protected=True)
