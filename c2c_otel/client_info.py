"""Who the client is, where proxies stand in between: read from their headers, but only from proxies that are trusted.

A request passes from the client through proxies to this server; each proxy adds whom it got the request from. The way
is walked back from the server: as long as the one who spoke is trusted (``C2C_TRUSTED_PROXIES``), what it says about
the one before is believed. What the client itself has written at the far end of a header is never reached.

``Forwarded`` (RFC 7239) is used where it is there, else ``X-Forwarded-For``, ``-Host``, ``-Server``, ``-Proto`` and
``-Scheme``. What is believed becomes REMOTE_ADDR, HTTP_HOST, SERVER_NAME and wsgi.url_scheme. The headers themselves,
and what was there before, are kept as ``HTTP_ORIGINAL_{NAME}``, so that nothing further in (WebOb's ``client_addr``)
believes them.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from c2c_otel import telemetry
from c2c_otel.settings import Network
from c2c_otel_exporters import guard

__all__ = ["Filter", "Resolver"]

_HEADERS = (
    "HTTP_FORWARDED",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_SERVER",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_SCHEME",
)
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_SCHEME = re.compile(r"https?", re.IGNORECASE)
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 7230's token, not a secret
_VALUE = rf'{_TOKEN}|"(?:[^"\\]|\\.)*"'
_PAIR = re.compile(rf"({_TOKEN})=({_VALUE})")
_ELEMENT = re.compile(rf"[ \t]*(?:(?:{_TOKEN})=(?:{_VALUE}))?(?:[ \t]*;[ \t]*(?:(?:{_TOKEN})=(?:{_VALUE}))?)*[ \t]*")
_ESCAPED = re.compile(r"\\(.)")
_MAX_HOPS = 50
_MAX_PORT = 65_535
_DONE = "c2c_otel.client_info"

Environ = dict[str, Any]


class _Hop(NamedTuple):
    """What one proxy says: whom it got the request from ("" where it does not say), for which host, and how."""

    client: str
    host: str
    scheme: str


class Resolver:
    """Puts what trusted proxies say into a WSGI environ. Threads may share one."""

    def __init__(self, trusted: Iterable[Network]) -> None:
        self._networks = tuple(trusted)
        self._is_trusted = functools.lru_cache(maxsize=1024)(self._find)

    def _find(self, address: str) -> bool:
        """Whether a proxy of this address is believed. A Unix socket has none: who reaches it is on this machine."""
        try:
            found = ipaddress.ip_address(address or "127.0.0.1")
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self._networks)

    def resolve(self, environ: Environ) -> None:
        """Change ``environ``. Malformed headers are as those of nobody: set aside. Raises nothing."""
        try:
            found = [name for name in _HEADERS if name in environ]
            if found and _DONE not in environ:
                self._resolve(environ, found)
        except Exception:
            guard.failed("client_info")

    def _resolve(self, environ: Environ, found: Iterable[str]) -> None:
        environ[_DONE] = True
        headers = {name: environ.pop(name) for name in found}
        for name, value in headers.items():
            environ[f"HTTP_ORIGINAL_{name.removeprefix('HTTP_')}"] = value
        peer = environ.get("REMOTE_ADDR") or ""
        if self._is_trusted(peer):
            hops = _forwarded(headers["HTTP_FORWARDED"]) if "HTTP_FORWARDED" in headers else _x_forwarded(headers)
            self._believe(environ, peer, hops)

    def _believe(self, environ: Environ, peer: str, hops: Sequence[_Hop]) -> None:
        """Walk back over what proxies say, the nearest one's word last in ``hops``."""
        client, said = peer, None
        for hop in reversed(hops[-_MAX_HOPS:]):
            said = hop
            if not hop.client:
                break
            client = hop.client
            if not self._is_trusted(client):
                break
        if said is None:
            return
        if client != peer:
            _put(environ, "REMOTE_ADDR", client)
            _put(environ, "REMOTE_HOST", client)
        if said.scheme:
            _put(environ, "wsgi.url_scheme", said.scheme)
        if said.host:
            name, port = _split(said.host)
            _put(environ, "HTTP_HOST", said.host)
            _put(environ, "SERVER_NAME", name)
            _put(environ, "SERVER_PORT", port or ("443" if environ["wsgi.url_scheme"] == "https" else "80"))


def _put(environ: Environ, name: str, value: str) -> None:
    if name in environ:
        environ.setdefault(f"HTTP_ORIGINAL_{name.removeprefix('HTTP_').upper().replace('.', '_')}", environ[name])
    environ[name] = value


def _split(host: str) -> tuple[str, str]:
    """Name and port ("" without one); the name of an IPv6 address has its brackets."""
    if host.endswith("]") or ":" not in host:
        return host, ""
    name, _, port = host.rpartition(":")
    return name, port


def _forwarded(text: str) -> list[_Hop]:
    """The elements of RFC 7239, the client's first; none where one is malformed."""
    hops = []
    position = 0
    while position < len(text):
        element = _ELEMENT.match(text, position)
        if element is None or not (element.end() == len(text) or text[element.end()] == ","):
            return []
        position = element.end() + 1
        pairs = [(name.lower(), _unquoted(value)) for name, value in _PAIR.findall(element[0])]
        said = dict(pairs)
        if len(said) < len(pairs):  # a name is given once
            return []
        if said:
            hops.append(
                _Hop(_address(said.get("for", "")), _host(said.get("host", "")), _scheme(said.get("proto", "")))
            )
    return hops


def _unquoted(value: str) -> str:
    return _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value


def _x_forwarded(headers: dict[str, str]) -> list[_Hop]:
    clients = _list(headers.get("HTTP_X_FORWARDED_FOR", ""))
    hosts = _list(headers.get("HTTP_X_FORWARDED_HOST") or headers.get("HTTP_X_FORWARDED_SERVER", ""))
    schemes = _list(headers.get("HTTP_X_FORWARDED_PROTO") or headers.get("HTTP_X_FORWARDED_SCHEME", ""))
    count = max(len(clients), 1)
    return [
        _Hop(
            _address(clients[index]) if clients else "",
            _host(_of(hosts, index, count)),
            _scheme(_of(schemes, index, count)),
        )
        for index in range(count)
    ]


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _of(values: list[str], index: int, count: int) -> str:
    """The value that goes with a hop. A header with fewer or more values than there are hops was not written by each of
    the proxies: then the nearest one's counts."""
    if not values:
        return ""
    return values[index] if len(values) == count else values[-1]


def _address(text: str) -> str:
    """An IP address out of ``for=`` or X-Forwarded-For, without port and without zone (which may be any text, and
    means nothing here); "" for names, ``unknown`` and ``_hidden``."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return ""


def _host(text: str) -> str:
    return text if _HOST.fullmatch(text) and int(_split(text)[1] or 0) <= _MAX_PORT else ""


def _scheme(text: str) -> str:
    return text.lower() if _SCHEME.fullmatch(text) else ""


class Filter:
    """A WSGI application around another one, as ``client_info.Filter(app)``; ``trusted`` is by default
    ``C2C_TRUSTED_PROXIES``. An application that includes c2c_otel has it already."""

    def __init__(self, application: Callable[..., Any], trusted: Iterable[Network] | None = None) -> None:
        self._application = application
        self._resolver = Resolver(telemetry.get().settings.trusted_proxies if trusted is None else trusted)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Any:
        self._resolver.resolve(environ)
        return self._application(environ, start_response)
