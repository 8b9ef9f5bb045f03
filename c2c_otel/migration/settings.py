"""Variables and ini keys that mean something else now, wherever they are set: ini, Dockerfile, Compose, .env."""

from __future__ import annotations

import re

from c2c_otel.migration.change import Note

__all__ = ["notes"]

_IS = r"""["']?\s*[:=]\s*["']?"""
_FALSE = r"""(?:0|false|f|no|n|off)["']?\s*\\?$"""

_FLAGS = "it was on with this value, as with any; now it is off"
_LOUD = "only 0 was off; now it is off with this value, too"
_GITHUB = "there is no login with GitHub: the secret, or a proxy that knows who is who"

_SET: tuple[tuple[str, str, str], ...] = (
    (rf"(?:STATS_VIEW|c2c\.stats_view|C2C_SQL_REQUEST_ID|c2c\.sql_request_id){_IS}{_FALSE}", _FLAGS, "Settings"),
    (
        rf"(?:DEVELOPMENT|C2C_ENABLE_EXCEPTION_HANDLING|c2c\.enable_exception_handling){_IS}(?!0){_FALSE}",
        _LOUD,
        "Settings",
    ),
    (r"(?:C2C_AUTH_GITHUB_\w+|c2c\.auth\.github\.[\w.]+)", _GITHUB, "Views"),
    (r"(?:C2C_USE_SESSION|c2c\.use_session)", _GITHUB, "Views"),
    (r"C2C_PROMETHEUS_(?:PORT|PREFIX|PACKAGES|APPLICATION_PACKAGE)", "/metrics needs none of it", "Providers"),
    (
        r"(?:C2C_JSON_\w+|c2c\.json\.\w+)",
        "the JSON renderers indent and sort, always: add a renderer of your own where that must not be",
        "The include",
    ),
    (rf"C2C_SECRET{_IS}c2crulez", "everybody knows this secret: take another one, and keep it out of files", "Views"),
    (
        r"postgresql\+psycopg2://",
        "needs psycopg2 beside the extra postgresql, which brings psycopg",
        "Database sessions",
    ),
    (r"(?:GUNICORN_WORKERS|GUNICORN_THREADS)", "c2c-otel-run reads GUNICORN_PARAMS alone", "Commands and jobs"),
    (r"C2C_REDIS_TIMEOUT", "C2C_REDIS_OPTIONS=socket_timeout=3", "Settings"),
    (r"ERROR_DETAILS_SECRET|c2c\.error_details_secret", "C2C_SECRET is the one secret", "Errors"),
)
_PATTERNS = [(re.compile(rf"(?<![\w.])({pattern})", re.IGNORECASE), text, where) for pattern, text, where in _SET]


def notes(text: str) -> list[Note]:
    """One for each line that sets one of them; comments are not looked at."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip()[:1] in ("#", ";"):
            continue
        for pattern, what, section in _PATTERNS:
            if match := pattern.search(line):
                found.append(Note(number, f"{match[1].strip(chr(92)).strip()}: {what}", section))
    return found
