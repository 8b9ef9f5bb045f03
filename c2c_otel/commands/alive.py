"""``c2c-otel alive``: whether the service of this container answers. The image's HEALTHCHECK.

It is asked where ``GUNICORN_PARAMS`` let gunicorn listen. Any answer below 500 will do: a worker gave it, even where
the application has no such path, or the views are closed.

Exit codes: 0; 1 where there is no answer, or an error; 2 for a usage error or a setting that cannot be used.
"""

from __future__ import annotations

import http.client
import shlex
import socket
import ssl
import urllib.parse
from collections.abc import Sequence

from c2c_otel.commands import ini_file, shell
from c2c_otel.settings import ConfigurationError, Settings

__all__ = ["main", "url_of"]

_PROGRAM = "c2c-otel alive"
_EVERYBODY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]", "*": "127.0.0.1"}  # noqa: S104 - not bound here


@shell.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """Ask once."""
    parser = shell.parser(
        _PROGRAM,
        "Say whether the service of this container answers; the image's HEALTHCHECK. Any answer below 500 will do.",
        "c2c-otel alive\nc2c-otel alive --url http://127.0.0.1:8080/c2c/health_check?max_level=0",
        "0; 1: no answer, or an error; 2: usage, or a setting that cannot be used",
    )
    parser.add_argument("--url", help="what to ask instead of {base}/health_check/live where GUNICORN_PARAMS listen")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds for an answer (default: %(default)s)")
    options = parser.parse_args(arguments)
    url = options.url or url_of(_settings())
    try:
        status = _status(url, options.timeout)
    except (OSError, http.client.HTTPException, ValueError) as error:
        shell.complain(_PROGRAM, f"{url}: {type(error).__name__}: {error}")
        return 1
    if status >= 500:
        shell.complain(_PROGRAM, f"{url}: {status}")
        return 1
    return 0


def _settings() -> Settings:
    """Those of the service: `c2c.base_path` may be in its ini file. What is wrong in there the service itself says."""
    settings = Settings.load()
    if settings.config_file.is_file():
        try:
            return Settings.load(ini=ini_file.application_settings(settings.config_file, name="C2CWSGIUTILS_CONFIG"))
        except ConfigurationError:
            pass
    return settings


def url_of(settings: Settings) -> str:
    """Where the first ``--bind`` of the parameters listens; ``unix:/path`` for a Unix socket."""
    words = shlex.split(settings.gunicorn_params)
    bound = [*_values(words, "-b", "--bind"), "127.0.0.1:8000"][0]  # gunicorn's own default
    path = f"{settings.base_path}/health_check/live"
    if bound.startswith("unix:"):
        return f"unix:{bound.removeprefix('unix:')}?{path}"
    host, separator, port = bound.rpartition(":")
    if not separator or not port.isdigit():
        host, port = bound, "8000"
    scheme = "https" if _values(words, "--certfile", "--certfile") else "http"
    return f"{scheme}://{_EVERYBODY.get(host, host)}:{port}{path}"


def _values(words: Sequence[str], short: str, long: str) -> list[str]:
    found: list[str] = []
    for position, word in enumerate(words):
        if word in (short, long):
            found += words[position + 1 : position + 2]
        elif word.startswith(f"{long}="):
            found.append(word.partition("=")[2])
        elif word.startswith(short) and not word.startswith("--"):
            found.append(word[len(short) :])
    return found


class _Unix(http.client.HTTPConnection):
    """Over a Unix socket; ``host`` is its path."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def _status(url: str, seconds: float) -> int:
    connection: http.client.HTTPConnection
    if url.startswith("unix:"):
        place, _, path = url.removeprefix("unix:").partition("?")
        connection = _Unix("localhost", timeout=seconds)
        connection.host = place
    else:
        parts = urllib.parse.urlsplit(url)
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        if parts.scheme == "https":
            # the certificate is for the name by which others know the service, not for this address
            context = ssl._create_unverified_context()  # noqa: S323 - as said
            connection = http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=seconds, context=context)
        else:
            connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=seconds)
    try:
        connection.request("GET", path, headers={"Host": "localhost", "User-Agent": _PROGRAM.replace(" ", "-")})
        return connection.getresponse().status
    finally:
        connection.close()
