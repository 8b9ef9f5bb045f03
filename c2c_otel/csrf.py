"""Whether a POST comes from one of our pages: what the browser says of it, and the token that only our pages have."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["has_token", "is_cross_site", "is_from_our_page"]


def is_cross_site(environ: Mapping[str, Any]) -> bool:
    """Whether the browser says that the page of another site has sent this request."""
    return environ.get("HTTP_SEC_FETCH_SITE", "") in ("cross-site", "same-site")


def is_from_our_page(environ: Mapping[str, Any]) -> bool:
    """As far as the browser says. Where it does not say Sec-Fetch-Site (by http), Origin has to be our host; it is
    "null" for a page whose referrer policy is no-referrer, as that of ours is, and then says nothing. The host that
    any proxy names will do: the page of another site cannot add headers."""
    if site := environ.get("HTTP_SEC_FETCH_SITE"):
        return site in ("same-origin", "none")
    origin = environ.get("HTTP_ORIGIN") or "null"
    if origin == "null":
        return True
    try:
        host = _host(urlsplit(origin).netloc)
    except ValueError:
        return False
    forwarded = environ.get("HTTP_X_FORWARDED_HOST") or environ.get("HTTP_ORIGINAL_X_FORWARDED_HOST") or ""
    return bool(host) and host in map(_host, (environ.get("HTTP_HOST") or "", *forwarded.split(",")))


def _host(text: str) -> str:
    return re.sub(r":(?:80|443)\Z", "", text.strip().lower())


def has_token(request: Any, expected: str) -> bool:
    """Whether the form, or the header X-CSRF-Token, has this token; an empty one nobody has."""
    try:
        given = [request.headers.get("X-CSRF-Token") or "", *request.POST.getall("csrf_token")]
    except Exception:  # a form that cannot be read
        return False
    wanted = expected.encode("ascii")
    found = [isinstance(one, str) and hmac.compare_digest(one.encode("utf-8", "replace"), wanted) for one in given]
    return bool(expected) and any(found)
