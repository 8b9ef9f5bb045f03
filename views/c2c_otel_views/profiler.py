"""The profiler's page, and what is below it: where requests of all workers spend their time.

``C2C_PROFILER_PATH`` leads to it. The login's cookie is sent to paths below ``{base}`` alone: where the path is not one
of them, the page is ``{base}/profiler``, and the path sends there.
"""

from __future__ import annotations

from typing import Any

import orjson
from pyramid.httpexceptions import HTTPNotFound, HTTPServiceUnavailable
from pyramid.response import Response

from c2c_otel import admin, auth, profiler, shared
from c2c_otel.profiler import everybody, export
from c2c_otel.profiler.everybody import Profile
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel_views import answers, pages, parameters, profiler_page

MAX_SECONDS = 86_400
MAX_MIN_SECONDS = 3_600
MAX_LISTED = 5_000


def includeme(config: Any) -> None:
    settings = admin.settings_of(config)
    if not auth.is_enabled(settings, bool(settings.profiler_path)):
        return
    profiler.init()
    home = _home(settings)
    answers.add_view(config, "c2c_profiler", home, _overview, ("GET", "POST"), protected=True)
    for name, view in (
        ("sessions.json", _sessions),
        ("session", _session),
        ("speedscope", _speedscope),
        ("text", _text),
    ):
        route = f"c2c_profiler_{name.partition('.')[0]}"
        answers.add_view(config, route, f"{home}/{name}", view, protected=True)
    if home != settings.profiler_path:
        answers.add_view(config, "c2c_profiler_path", settings.profiler_path, _lead, login=True)


def _home(settings: Settings) -> str:
    """Where the page is, and the login's cookie is sent."""
    path, base = settings.profiler_path, settings.base_path
    if path in (base, "/metrics"):
        raise ConfigurationError("C2C_PROFILER_PATH", path, "a path that no other view of ours has")
    return path if path.startswith(f"{base}/") else f"{base}/profiler"


def _lead(request: Any) -> Response:
    return pages.SeeOther(request.route_path("c2c_profiler"))


# -- the page and the switch ------------------------------------------------------------------------------------------


def _overview(request: Any) -> Response:
    """The page; with ``enable`` or ``delete``, after that was done, the way to it."""
    options = {
        "seconds": parameters.number(request, "duration", 1, MAX_SECONDS, None, "seconds"),
        "interval": parameters.number(request, "interval_ms", 0.1, 1000, None, "milliseconds"),
        "min_seconds": parameters.number(request, "min_seconds", 0, MAX_MIN_SECONDS, None, "seconds"),
        "path": _path(request),
    }
    sort = parameters.only(request, "sort", profiler_page.SORTS, "seconds")
    limit = parameters.integer(request, "limit", 1, MAX_LISTED, 200)
    enable = None
    if parameters.text(request, "enable", None) is not None:  # an empty one is a mistake
        enable = parameters.flag(request, "enable")
    delete = parameters.text(request, "delete", None, "the id of a session, or all")
    if enable is None and delete is None:
        return profiler_page.overview(request, everybody.listing(), sort, limit)
    auth.require_change(request)
    if delete is not None:
        _delete(delete)
    if enable is not None:
        _switch(request, enable, options)
    return pages.SeeOther(request.route_path("c2c_profiler"))


def _path(request: Any) -> str | None:
    found: str | None = parameters.text(request, "path", None, "a path that begins with /")
    if found and not found.startswith("/"):
        raise parameters.refuse("path", found, "a path that begins with /")
    return found or None


def _delete(what: str) -> None:
    if not what:
        raise parameters.refuse("delete", what, "the id of a session, or all")
    found, missing = everybody.delete(None if what == "all" else what)
    if what != "all" and not found and not missing:
        raise _gone(what)


def _switch(request: Any, enable: bool, options: dict[str, Any]) -> None:
    given = {name: value for name, value in options.items() if value is not None}
    if "interval" in given:
        given["interval"] /= 1000
    who = auth.who(request)
    settings = request.registry.c2c_settings
    try:
        if enable:
            given.setdefault("seconds", settings.profiler_seconds)
            given.setdefault("interval", settings.profiler_interval_seconds)
            profiler.enable(**given, who=who)
        else:
            profiler.disable(who=who)
    except (shared.Unavailable, ImportError) as error:
        raise HTTPServiceUnavailable(str(error)) from error
    except shared.Refused as error:
        raise parameters.refuse("path", options["path"], str(error)) from error


# -- what was seen ----------------------------------------------------------------------------------------------------


def _sessions(_request: Any) -> Response:
    """The list and the state, for scripts."""
    found = everybody.listing()
    mode = profiler.mode()
    return answers.json_response(
        {
            "status": 200,
            "enabled": mode is not None,
            **({} if mode is None else {**mode._asdict(), "seconds_left": mode.seconds_left()}),
            "workers": found.workers,
            "missing": list(found.missing),
            "sessions": sorted(found.sessions, key=profiler_page.SORTS["seconds"]),
        }
    )


def _session(request: Any) -> Response:
    found, route = _asked(request)
    return profiler_page.profile(request, found, route)


def _speedscope(request: Any) -> Response:
    found, route = _asked(request)
    body = orjson.dumps(export.speedscope(found.tree, _name(found, route)))
    response = Response(body, content_type="application/json", charset="utf-8")
    identity = found.head["id"] if found.head is not None else "all"
    response.headers["Content-Disposition"] = f'attachment; filename="profile-{identity}.speedscope.json"'
    return response


def _text(request: Any) -> Response:
    found, route = _asked(request)
    head = found.head or {}
    try:
        text = export.text(
            found.tree,
            _name(found, route),
            started=head.get("started", 0.0),
            seconds=found.seconds,
            interval=head.get("interval", 0.001),
        )
    except ImportError:
        raise HTTPServiceUnavailable(profiler.missing()) from None
    return Response(text, content_type="text/plain", charset="utf-8")


def _asked(request: Any) -> tuple[Profile, str | None]:
    """One session (``id``), those of a ``route``, or all together."""
    identity = parameters.text(request, "id", None, "the id of a session")
    route = parameters.text(request, "route", None, "the name of a route")
    if identity is None:
        return everybody.merged(route), route
    found = everybody.find(identity)
    if found is None:
        raise _gone(identity)
    return found, None


def _gone(identity: str) -> HTTPNotFound:
    return HTTPNotFound(
        f"There is no session {identity[:40]!r}: it was deleted, has made room for newer ones, or its worker has ended."
    )


def _name(found: Profile, route: str | None) -> str:
    if found.head is not None:
        return f"{found.head['method']} {found.head['path']}"
    return f"{found.requests} requests" if route is None else f"{found.requests} requests of {route or 'no route'}"
