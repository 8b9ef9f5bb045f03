"""{base} and {base}/: a page with links and forms for all of our views that there are, and the login."""

from __future__ import annotations

import os
from typing import Any

from pyramid.httpexceptions import HTTPException, HTTPForbidden
from pyramid.response import Response

from c2c_otel import admin, auth, telemetry
from c2c_otel import index as hooks
from c2c_otel.index import Html, button, escape, form, input_, section
from c2c_otel_exporters import guard, hostname
from c2c_otel_views import answers, pages, parameters, sections

__all__ = ["includeme", "index"]


_USER = Html('<input hidden autocomplete="username" value="c2c-otel">')
"""For password managers, which keep no password without a user; it is not sent."""


def index(request: Any) -> Response:
    """GET shows the page. POST with the ``secret`` logs in, with an empty one logs out; then the browser asks for the
    page, so that it can be loaded again. A wrong secret is a 403 or 429, with the form."""
    known = auth.is_auth(request)
    given = parameters.text(request, "secret", None, "the secret")
    if given and not known:
        return _refused(request)
    if request.method == "POST" and given is not None:
        return pages.SeeOther(request.route_path("c2c_index"))
    return _page(request, known)


def _refused(request: Any) -> Response:
    try:
        auth.auth_view(request)
    except HTTPException as problem:
        said = "That is not the secret." if problem.status_int == HTTPForbidden.code else str(problem.detail)
        response = _page(request, False, said, problem.status_int)
        if "Retry-After" in problem.headers:
            response.headers["Retry-After"] = problem.headers["Retry-After"]
        return response
    return _page(request, False)  # there is no secret to have


def _page(request: Any, known: bool, said: str = "", status: int = 200) -> Response:
    """``known``: for who has the secret. ``said``: what is wrong with the login that was tried."""
    closed = not (known or request.registry.c2c_settings.open_views)
    parts = [] if closed else _parts(request, known)
    if not known and auth.get_expected_secret(request):
        parts.append(_login(request, said))
    title = "c2c-otel" if closed else telemetry.get().settings.service_name or "c2c-otel"
    return pages.page(title, _session(request) if known else Html(""), parts, status)


def _parts(request: Any, known: bool) -> list[Html]:
    shown = sections.Shown(request, known)
    made = [part(shown) for part in (*sections.OPEN, *(sections.PROTECTED if known else ()))]
    return [*made, _of_the_application(request, known)]


def _of_the_application(request: Any, known: bool) -> Html:
    """What `c2c_otel.index` was given, in a section of its own."""
    parts = _hook(hooks.additional_noauth, request)
    if known:
        parts += _hook(hooks.additional_auth, request)
    if not parts:
        return Html("")
    title = "".join(_hook(hooks.additional_title, request)) or "Application"
    return section(Html(title), *parts)


def _hook(hook: hooks.Hook, request: Any) -> list[Html]:
    """One that raises is left out, and said in the log."""
    made = []
    for part in hook if isinstance(hook, (list, tuple)) else [hook]:
        try:
            made.append(hooks.rendered(part, request))
        except Exception:
            guard.failed("index.hook")
    return [part for part in made if part]


def _login(request: Any, said: str) -> Html:
    return section(
        "Log in",
        Html(f'<p class="bad" role="alert">{escape(said)}</p>' if said else ""),
        form(
            request.route_path("c2c_index"),
            _USER,
            input_("secret", type_="password", required=True, autocomplete="current-password"),
            button("Log in"),
            method="post",
        ),
    )


def _session(request: Any) -> Html:
    """Where one is, and the way out."""
    leave = form(request.route_path("c2c_index"), input_("secret", type_="hidden"), button("Log out"), method="post")
    return Html(f'<p class="soft">Host {escape(hostname.host_name())}, process {os.getpid()}</p>\n{leave}')


def includeme(config: Any) -> None:
    """With an empty base path there is no index: the root is the application's. Without a secret there is no login."""
    base = admin.base_path(config)
    if not base:
        return
    methods = ("GET", "POST") if admin.settings_of(config).secret else ("GET",)
    answers.add_view(config, "c2c_index", base, index, methods, login=True)
    answers.add_view(config, "c2c_index_slash", f"{base}/", index, methods, login=True)
