"""``{base}/logging/level``: the levels of loggers, in all workers."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPBadRequest, HTTPServiceUnavailable
from pyramid.response import Response

from c2c_otel import admin, auth, log_levels, shared
from c2c_otel_views import answers, parameters

MAX_SECONDS = 365 * 86_400


def includeme(config: Any) -> None:
    settings = admin.settings_of(config)
    if not auth.is_enabled(settings, settings.log_view_enabled):
        return
    log_levels.init()
    path = f"{admin.base_path(config)}/logging/level"
    answers.add_view(config, "c2c_logging_level", path, _levels, ("GET", "POST", "DELETE"), protected=True)


def _levels(request: Any) -> Response:
    """All overrides; one logger's level; or that after a change, which ``level``, ``reset`` or DELETE ask for."""
    try:
        return _answer(request)
    except shared.Unavailable as error:
        raise HTTPServiceUnavailable(str(error)) from error


def _answer(request: Any) -> Response:
    level = parameters.text(request, "level", None, log_levels.EXPECTED)
    seconds = parameters.number(request, "duration", 1, MAX_SECONDS, None, "seconds")
    reset = parameters.flag(request, "reset", False) or request.method == "DELETE"
    changes = reset or level is not None
    if level and reset:
        raise parameters.refuse("level", level, "none where it is reset")
    if seconds is not None and not level:
        raise parameters.refuse("duration", seconds, "a level with it")
    if not changes and parameters.text(request, "name", None) is None:
        return answers.json_response(_overview())
    name = _name(request)
    if not changes:
        return answers.json_response(_shown(name))
    if not reset and level.strip():
        _check_level(level)
    auth.require_change(request)
    return _change(name, level, seconds, auth.who(request))


def _change(name: str, level: str | None, seconds: float | None, who: str) -> Response:
    """An empty level is a reset, too."""
    try:
        if level and level.strip():
            change = log_levels.set(name, level, seconds, who=who)
        else:
            change = log_levels.reset(name, who=who)
    except shared.Refused as error:
        raise HTTPBadRequest(str(error)) from error
    return answers.json_response({**_shown(name), **change.doubts})


def _overview() -> dict[str, Any]:
    body: dict[str, Any] = {"status": 200, "overrides": log_levels.overrides()}
    left = log_levels.seconds_left()
    if left:
        body["seconds_left"] = {name: round(seconds, 1) for name, seconds in left.items()}
    return body


def _shown(name: str) -> dict[str, Any]:
    return {"status": 200, "name": name, **log_levels.get(name)._asdict()}


def _name(request: Any) -> str:
    expected = f"a logger's name of up to {shared.MAX_NAME} printable characters, or root"
    name: str = parameters.text(request, "name", expected=expected)
    try:
        return log_levels.canonical(name)
    except ValueError:
        raise parameters.refuse("name", name, expected) from None


def _check_level(level: str) -> None:
    try:
        log_levels.decode(level)
    except ValueError:
        raise parameters.refuse("level", level, log_levels.EXPECTED) from None
