"""{base} and {base}/: a page with links and forms for all of our views that there are, and the login."""

from __future__ import annotations

import os
from typing import Any

from pyramid.response import Response

from c2c_otel import admin, auth, telemetry
from c2c_otel import index as hooks
from c2c_otel.index import Html, button, escape, form, input_, section
from c2c_otel_exporters import guard, hostname
from c2c_otel_views import answers, pages, sections

__all__ = ["includeme", "index"]


_USER = Html('<input hidden autocomplete="username" value="c2c-otel">')
"""For password managers, which keep no password without a user; it is not sent."""


def index(request: Any) -> Response:
    return _page(request, auth.is_auth(request))


def _page(request: Any, known: bool, said: str = "", status: int = 200) -> Response:
    """``known``: for who has the secret. ``said``: what is wrong with the login that was tried."""
    closed = not (known or request.registry.c2c_settings.open_views)
    parts = [] if closed else _parts(request, known)
    if not known and auth.get_expected_secret(request):
        parts.append(_login(request, said))
    title = "c2c-otel" if closed else telemetry.get().settings.service_name or "c2c-otel"
    return pages.page(title, _session(request) if known else Html(""), parts, status)


def _parts(request: Any, known: bool) -> list[Html]:
    shown = sections.Shown(request)
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
    answers.add_view(config, "c2c_index", base, index, methods)
    answers.add_view(config, "c2c_index_slash", f"{base}/", index, methods)
