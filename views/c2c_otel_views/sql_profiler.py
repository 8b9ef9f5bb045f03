"""``{base}/sql_profiler``: the switch of the SQL profiler, for all workers."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.response import Response

from c2c_otel import admin, auth, shared, sql_profiler
from c2c_otel_views import answers, parameters

MAX_SECONDS = 86_400
MAX_MIN_SECONDS = 3_600


def includeme(config: Any) -> None:
    settings = admin.settings_of(config)
    if not auth.is_enabled(settings, settings.sql_profiler_enabled):
        return
    sql_profiler.init()
    path = f"{admin.base_path(config)}/sql_profiler"
    answers.add_view(config, "c2c_sql_profiler", path, _profiler, ("GET", "POST"), protected=True)


def _profiler(request: Any) -> Response:
    """Whether it is on in this worker; with ``enable``, after it has been switched in all of them. An empty ``enable``
    is a mistake: nobody may believe to have switched it."""
    enable = None
    if parameters.text(request, "enable", None) is not None:
        enable = parameters.flag(request, "enable")
    options = {
        "analyze": parameters.flag(request, "analyze", None),
        "min_seconds": parameters.number(request, "min_seconds", 0, MAX_MIN_SECONDS, None, "seconds"),
        "duration": parameters.number(request, "duration", 1, MAX_SECONDS, None, "seconds"),
    }
    for name, value in options.items():
        if value is not None and not enable:
            raise parameters.refuse(name, request.params[name], "enable=1 with it")
    if enable is None:
        return _answer(sql_profiler.mode())
    auth.require_change(request)
    try:
        change = _switched(enable, options, auth.who(request), request.registry.c2c_settings)
    except shared.Unavailable as error:
        raise HTTPServiceUnavailable(str(error)) from error
    return _answer(change.after, change.doubts)


def _switched(enable: bool, options: dict[str, Any], who: str, settings: Any) -> shared.Change:
    if not enable:
        return sql_profiler.disable(who=who)
    seconds, least = options["duration"], options["min_seconds"]
    return sql_profiler.enable(
        analyze=bool(options["analyze"]),
        min_seconds=settings.sql_profiler_min_seconds if least is None else least,
        seconds=settings.sql_profiler_seconds if seconds is None else seconds,
        who=who,
    )


def _answer(mode: sql_profiler.Mode | None, doubts: dict[str, Any] | None = None) -> Response:
    body: dict[str, Any] = {"status": 200, "enabled": mode is not None}
    if mode is not None:
        body |= {"analyze": mode.analyze, "min_seconds": mode.min_seconds, "seconds_left": mode.seconds_left()}
    return answers.json_response(body | (doubts or {}))
