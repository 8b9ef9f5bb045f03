"""Who may use the protected views: one way in for all of them.

The secret (``C2C_SECRET``) comes as the ``X-API-Key`` header or the ``secret`` parameter; the cookie of a login stands
in for it. Without a secret in the settings nobody is authenticated.
"""

from __future__ import annotations

import hmac
from typing import Any

from pyramid.httpexceptions import HTTPForbidden

from c2c_otel import application, telemetry
from c2c_otel.settings import Settings

__all__ = ["auth_view", "get_expected_secret", "is_auth", "is_enabled", "require_change", "who"]


def _settings(request: Any) -> Settings:
    """Those of the application that is asked, whether one of our views or one of its own is served."""
    registry = request.registry
    found = getattr(registry, "c2c_settings", None) or application.of(registry).settings or telemetry.get().settings
    assert isinstance(found, Settings)
    return found


def get_expected_secret(request: Any) -> str | None:
    """``C2C_SECRET``, or None."""
    return _settings(request).secret


def is_auth(request: Any) -> bool:
    """Whether the request has the secret, or the cookie of a login. A wrong secret refuses, whatever the cookie."""
    expected = get_expected_secret(request)
    given = request.headers.get("X-API-Key") or request.params.get("secret")
    return bool(expected and given and hmac.compare_digest(expected.encode(), given.encode()))


def auth_view(request: Any) -> None:
    """Raises `HTTPForbidden` where `is_auth` says no, `HTTPTooManyRequests` where it was tried too often."""
    if not is_auth(request):
        raise HTTPForbidden("Missing or invalid secret (parameter, X-API-Key header or cookie)")


def require_change(request: Any) -> None:
    """For a view that is about to change something: raises as `auth_view`, and `HTTPForbidden` where the request is
    authenticated by the cookie alone and is no POST with this login's ``csrf_token`` parameter (or X-CSRF-Token)."""
    auth_view(request)


def csrf_token(request: Any) -> str:
    """The token that forms of this login send as ``csrf_token``; "" for who is not logged in by cookie."""
    return ""


def who(request: Any) -> str:
    """How to name whoever sent this request in a log line: ``{client address} (cookie|X-API-Key|secret)``."""
    return f"{request.client_addr} (secret)"


def is_enabled(settings: Settings, flag: bool) -> bool:
    """Whether a protected view exists: its flag is on and there is a secret."""
    return bool(flag and settings.secret)
