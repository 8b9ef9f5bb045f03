"""``{base}/db/maintenance``: the read-only switch of the databases, for all workers."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.response import Response

from c2c_otel import admin, auth, db_maintenance, shared
from c2c_otel_views import answers, parameters


def includeme(config: Any) -> None:
    settings = admin.settings_of(config)
    if not auth.is_enabled(settings, settings.db_maintenance_view_enabled):
        return
    db_maintenance.init()
    path = f"{admin.base_path(config)}/db/maintenance"
    answers.add_view(config, "c2c_db_maintenance", path, _maintenance, ("GET", "POST"), protected=True)


def _maintenance(request: Any) -> Response:
    """What is stored; or, with ``readonly``, what it has been set to. An empty one is a mistake: nobody may believe to
    have switched it."""
    given = parameters.text(request, "readonly", None, "one of 1, true, yes, on, 0, false, no, off")
    try:
        if given is None:
            return answers.json_response({"status": 200, "current_readonly": db_maintenance.current()})
        readonly = parameters.flag(request, "readonly")
        auth.require_change(request)
        change = db_maintenance.set_readonly(readonly, who=auth.who(request))
    except shared.Unavailable as error:
        raise HTTPServiceUnavailable(str(error)) from error
    return answers.json_response({"status": 200, "readonly": readonly, **change.doubts})
