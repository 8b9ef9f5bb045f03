"""Logins: a signed cookie that stands in for the secret until it expires, is logged out, or the secret changes.

The cookie's value is the URL-safe base64 of an HMAC-SHA256 and the JSON ``[expires, id]`` (epoch seconds; 32 hex
digits). Its key is derived from the secret by scrypt, so that whoever finds a cookie pays for each guess at the secret;
the secret itself, or its hash, is not in it. All workers and machines with the same secret accept each other's.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from webob.cookies import SignedSerializer

from c2c_otel import shared
from c2c_otel_exporters import guard

__all__ = ["LONGEST_SECONDS", "Session", "csrf_token", "init", "issue", "read", "revoke"]

_logger = logging.getLogger("c2c_otel.auth")

LONGEST_SECONDS = 400 * 86_400
"""Browsers keep no cookie for longer."""

_LONGEST = 512
"""Characters of a cookie's value that are looked at; ours have about 120."""

_revoked_everywhere: frozenset[str] = frozenset()
_revoked_here: dict[str, float] = {}
"""Session id -> when it expires, of logouts that could not be stored."""


class Session(NamedTuple):
    """One login. ``expires``: epoch seconds."""

    expires: int
    id: str


class _Keys(NamedTuple):
    cookie: Any  # WebOb has no types
    csrf: bytes


@lru_cache(maxsize=8)
def _keys(secret: str) -> _Keys:
    """Derived once a process: it takes some 40 ms and 16 MiB."""
    salt = b"c2c-otel login"  # the same in all workers and machines, which share nothing else that could be one
    text = secret.encode("utf-8", "surrogateescape")
    try:
        made = hashlib.scrypt(text, salt=salt, n=2**14, r=8, p=1, dklen=64)
    except (AttributeError, ValueError):  # an OpenSSL in FIPS mode has none
        made = hashlib.pbkdf2_hmac("sha256", text, salt, 600_000, 64)
    return _Keys(SignedSerializer(made[:32], salt=b"session", hashalg="sha256"), made[32:])


def issue(secret: str, seconds: float) -> tuple[Session, str]:
    """A new login, and its cookie's value. It ends after at most `LONGEST_SECONDS`."""
    session = Session(int(time.time() + min(seconds, LONGEST_SECONDS)), secrets.token_hex(16))
    return session, _keys(secret).cookie.dumps(session).decode("ascii")


def read(secret: str, value: str) -> Session | None:
    """The login of a cookie's value, if it is ours, has not expired and was not logged out. Any text may come."""
    if not 0 < len(value) <= _LONGEST or not value.isascii():
        return None
    serializer = _keys(secret).cookie
    try:
        loaded = serializer.loads(value.encode("ascii"))
    except ValueError:
        return None
    if serializer.dumps(loaded) != value.encode("ascii"):  # base64 can spell the same bytes in several ways
        return None
    session = Session(*loaded)
    if session.expires <= time.time() or session.id in _revoked_everywhere or session.id in _revoked_here:
        return None
    return session


def csrf_token(secret: str, session: Session) -> str:
    """64 hex digits, which only who has the secret or has read a page of this login knows."""
    return hmac.new(_keys(secret).csrf, session.id.encode("ascii"), hashlib.sha256).hexdigest()


def revoke(session: Session) -> None:
    """Log out, in all workers; where that cannot be stored, in this one, and the log says so."""
    now = time.time()
    try:
        init().set(session.id, session.expires, max(session.expires - now, 1.0))
    except (shared.Unavailable, shared.Refused) as problem:  # away, or full
        for expired in [name for name, expires in _revoked_here.items() if expires <= now]:
            _revoked_here.pop(expired, None)
        _revoked_here[session.id] = session.expires
        _logger.warning("A logout is known to this worker alone: %s", problem)
    except Exception:
        guard.failed("auth.revoke")


def _apply(entries: Mapping[str, Any]) -> None:
    global _revoked_everywhere
    _revoked_everywhere = frozenset(entries)


def init() -> shared.Topic:
    """Learn of logouts in other workers. Idempotent."""
    return shared.find("auth_revoked") or shared.Topic("auth_revoked", _apply)
