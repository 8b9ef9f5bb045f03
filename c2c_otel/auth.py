"""Who may use the protected views: one way in for all of them, for the application's own views too.

The secret (``C2C_SECRET``) comes as the ``secret`` parameter (query or form), else as the ``X-API-Key`` header; else
the cookie of a login (`c2c_otel.sessions`) stands in for it. Our own views take ``Authorization: Bearer SECRET`` as
well where they refuse without. What comes first in this order decides: a wrong secret refuses, whatever the cookie.
An empty parameter logs out. Without a secret in the settings nobody is authenticated.

    def view(request):
        auth.auth_view(request)           # raises 403, or 429 after too many wrong secrets
        auth.require_change(request)      # before something is changed
"""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import Any, overload
from urllib.parse import quote

from pyramid.httpexceptions import HTTPForbidden, HTTPTooManyRequests

from c2c_otel import application, credentials, csrf, server_logs, sessions, settings, telemetry, throttle
from c2c_otel.instrumentation import wsgi_attributes
from c2c_otel.settings import Settings
from c2c_otel_exporters import masking

__all__ = [
    "auth_view",
    "csrf_token",
    "get_expected_secret",
    "init",
    "is_auth",
    "is_enabled",
    "login",
    "logout",
    "require_change",
    "seconds_refused",
    "who",
]

_logger = logging.getLogger("c2c_otel.auth")

_KEY = "_c2c_otel_auth"
_PREDECESSORS = re.compile(r"[0-9a-f]{64}\Z")
"""The cookie of c2cwsgiutils was the SHA-256 of the secret, for the whole host."""


@dataclasses.dataclass(slots=True)
class _Decision:
    """``way``: how the request is authenticated, "" where it is not. ``tried``: it had a secret, right or wrong.
    ``refused``: seconds for which no secret is taken. ``session``: of the cookie, or the one that the answer gives."""

    way: str = ""
    tried: bool = False
    refused: int = 0
    session: sessions.Session | None = None
    value: str = ""


# -- what applications and views ask --------------------------------------------------------------------------------


def get_expected_secret(request: Any) -> str | None:
    """``C2C_SECRET``, or None."""
    return _settings(request).secret or None


def is_auth(request: Any) -> bool:
    """Whether the request has the secret, or the cookie of a login. A wrong secret refuses, whatever the cookie."""
    return bool(_decision(request).way)


def auth_view(request: Any, *, bearer: bool = False) -> None:
    """Raises `HTTPForbidden` where `is_auth` says no, `HTTPTooManyRequests` where it was tried too often.

    ``bearer``: of a view in the application's registry that takes ``Authorization: Bearer SECRET`` as our own do."""
    decision = _decision(request)
    bearer = bearer or _is_ours(request)
    if bearer and not decision.way and not decision.tried and (token := credentials.bearer(request)):
        _try(decision, request, "Bearer", [token])
    if decision.refused:
        raise HTTPTooManyRequests(
            f"Too many wrong secrets; try again in {decision.refused} seconds.",
            headers=[("Retry-After", str(decision.refused))],
        )
    if not decision.way:
        raise HTTPForbidden("Missing or invalid secret (parameter, X-API-Key header or cookie)")


def require_change(request: Any) -> None:
    """For a view that is about to change something: raises as `auth_view`, and `HTTPForbidden` where the request is
    authenticated by the cookie alone and is no POST with this login's ``csrf_token`` parameter (or X-CSRF-Token)."""
    auth_view(request)
    decision = _decision(request)
    if decision.way != "cookie":
        return
    if request.method != "POST":
        raise HTTPForbidden(
            "The cookie alone changes nothing by GET: send a POST with csrf_token, "
            "or the secret as parameter or X-API-Key header."
        )
    if not csrf.is_from_our_page(request.environ):
        raise HTTPForbidden("This POST comes from a page of another site.")
    if not csrf.has_token(request, csrf_token(request)):
        raise HTTPForbidden("csrf_token is missing or not that of this login; load the page again.")


def csrf_token(request: Any) -> str:
    """The token that forms of this login send as ``csrf_token``; "" for who is not logged in by cookie."""
    session = _decision(request).session
    secret = get_expected_secret(request)
    return sessions.csrf_token(secret, session) if session and secret else ""


def who(request: Any) -> str:
    """How to name whoever sent this request in a log line: ``{client address} (cookie|X-API-Key|secret|Bearer)``."""
    return f"{throttle.client(request.environ).address} ({_decision(request).way or 'nobody'})"


def seconds_refused(request: Any) -> int:
    """For how long this client's secrets are not taken, after too many wrong ones; 0 where they are."""
    return throttle.seconds_left(throttle.client(request.environ))


def login(request: Any, response: Any) -> bool:
    """Set the cookie where the request has the right ``secret`` parameter; whether it is authenticated. Our own views
    need not call it: their answers get the cookie. Raises `HTTPTooManyRequests` as `auth_view`."""
    decision = _decision(request)
    if decision.refused:
        auth_view(request)
    if decision.way == "secret":
        _give(request, response)
    return bool(decision.way)


def logout(request: Any, response: Any) -> None:
    """End the login of the request's cookie, in all workers, and have the cookie deleted. Our own views need not call
    it: an empty ``secret`` parameter does the same."""
    secret = get_expected_secret(request)
    if csrf.is_cross_site(request.environ):
        return
    for session in _sessions(request, secret) if secret else []:
        sessions.revoke(session)
    decision = _decision(request)
    decision.session, decision.way = None, ""
    _take(request, response)


@overload
def is_enabled(config: Settings, env: bool) -> bool: ...
@overload
def is_enabled(config: Any, env: str | None = None, key: str | None = None) -> bool: ...
def is_enabled(config: Any, env: bool | str | None = None, key: str | None = None) -> bool:
    """Whether a protected view exists: its flag is on and there is a secret.

    For ours: the settings and the flag. For an application's: its Configurator, the name of an environment variable
    and of an ini key, decoded as all our flags are. Raises `ConfigurationError` for a value that is none."""
    if isinstance(config, Settings):
        return bool(env and config.secret)
    ini = config.registry.settings
    decided = application.of(config.registry).settings or Settings.load(ini=ini)
    return bool(decided.secret) and settings.flag(str(env or ""), key, ini)


def init(decided: Settings) -> None:
    """When an application is made: learn what other workers refuse, and keep the secret out of what is written."""
    server_logs.install()
    if decided.secret:
        masking.protect([decided.secret])
        sessions.init()
        throttle.init()


# -- the decision ---------------------------------------------------------------------------------------------------


def _settings(request: Any) -> Settings:
    """Those of the application that is asked, whether one of our views or one of its own is served."""
    registry = request.registry
    found = getattr(registry, "c2c_settings", None) or application.of(registry).settings or telemetry.get().settings
    assert isinstance(found, Settings)
    return found


def _is_ours(request: Any) -> bool:
    return hasattr(request.registry, "c2c_settings")


def _decision(request: Any) -> _Decision:
    """Made once for each request object: a try is counted once."""
    kept = vars(request)
    decision = kept.get(_KEY)
    if decision is None:
        decision = kept[_KEY] = _Decision()
        if secret := get_expected_secret(request):
            _decide(decision, request, secret)
    assert isinstance(decision, _Decision)
    return decision


def _decide(decision: _Decision, request: Any, secret: str) -> None:
    given = credentials.secret_parameters(request)
    if not all(given):  # an empty one
        decision.tried = True
        if _is_ours(request):
            request.add_response_callback(logout)
        return
    key = credentials.api_key(request)
    if given:
        _try(decision, request, "secret", given)
        if decision.way:
            decision.session = next(iter(_sessions(request, secret)), None)
            if decision.session is None:
                decision.session, decision.value = sessions.issue(secret, _settings(request).session_seconds)
                if _is_ours(request):  # an application's answer may be one that it gives to everybody
                    request.add_response_callback(_give)
    elif key:
        _try(decision, request, "X-API-Key", [key])
    else:
        decision.session = next(iter(_sessions(request, secret)), None)
        decision.way = "cookie" if decision.session else ""


def _try(decision: _Decision, request: Any, way: str, given: list[bytes]) -> None:
    """Take a secret, or count and log that it is wrong; neither where there were too many wrong ones."""
    secret = get_expected_secret(request)
    assert secret
    client = throttle.client(request.environ)
    decision.tried = True
    decision.refused = throttle.seconds_left(client)
    if decision.refused:
        return
    if all(credentials.is_right(secret, one) for one in given):
        decision.way = way
        return
    method = wsgi_attributes.known_method(request.method)
    path = wsgi_attributes.url_path(request.environ)
    shown = "parameter" if way == "secret" else way
    _logger.warning("A wrong secret (%s) from %s: %s %s", shown, client.address, method, path)
    throttle.failed(client)


def _sessions(request: Any, secret: str) -> list[sessions.Session]:
    found = [sessions.read(secret, value) for value in credentials.cookies(request)]
    return [session for session in found if session]


# -- the cookie -----------------------------------------------------------------------------------------------------


def _give(request: Any, response: Any) -> None:
    """Set the cookie of the login that the request's secret has begun, once."""
    decision = _decision(request)
    if not decision.value or _is_set(response):
        return
    path = _cookie_path(request)
    response.set_cookie(
        credentials.COOKIE,
        decision.value,
        max_age=int(min(_settings(request).session_seconds, sessions.LONGEST_SECONDS)),
        path=path,
        secure=_is_https(request),
        httponly=True,
        samesite="Lax",
    )
    if path != "/" and any(_PREDECESSORS.match(value) for value in credentials.cookies(request)):
        response.delete_cookie(credentials.COOKIE, path="/")


def _take(request: Any, response: Any) -> None:
    if not _is_set(response):
        response.delete_cookie(credentials.COOKIE, path=_cookie_path(request))


def _is_set(response: Any) -> bool:
    return any(value.startswith(f"{credentials.COOKIE}=") for value in response.headers.getall("Set-Cookie"))


def _cookie_path(request: Any) -> str:
    """Where our views are, as the browser sees it; /metrics is not among them."""
    prefix = (application.of(request.registry).route_prefix or "").strip("/")
    script = (request.environ.get("SCRIPT_NAME") or "").encode("latin-1", "replace").decode("utf-8", "replace")
    path = f"{script.rstrip('/')}{'/' if prefix else ''}{prefix}{_settings(request).base_path}"
    return quote(path, safe="/:@!$&'()*+=~-._") or "/"


def _is_https(request: Any) -> bool:
    """Or so says any proxy; who says so without being one gets a cookie that it has to use by https."""
    environ = request.environ
    forwarded = environ.get("HTTP_X_FORWARDED_PROTO") or environ.get("HTTP_ORIGINAL_X_FORWARDED_PROTO") or ""
    return bool(request.scheme == "https" or forwarded.partition(",")[0].strip().lower() == "https")
