"""Asking whether a collector is there. Each probe takes a few seconds at most, and says why not; empty where it is."""

from __future__ import annotations

import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from urllib.parse import urlsplit

from c2c_otel import bounded
from c2c_otel.settings import Address

__all__ = ["bindable", "otlp_http", "tcp", "udp"]

_RESOLVING = 3.0
_CONNECTING = 3.0
_REFUSAL = 0.1
"""Seconds within which a host of the same network says that nobody listens on a UDP port."""


def _resolved(host: str, port: int, kind: int) -> list[tuple[int, tuple[object, ...]]]:
    """Raises OSError."""
    found = bounded.call(lambda: socket.getaddrinfo(host, port, type=kind), _RESOLVING, "c2c_doctor_dns")
    return [(family, address) for family, _, _, _, address in found]


def udp(address: Address) -> str:
    """A server of datagrams. One without content is sent: statsd and syslog servers take no notice of it, and where
    nobody listens the host says so, if it is near. From further away silence may mean anything."""
    try:
        family, target = min(_resolved(*address, socket.SOCK_DGRAM), key=lambda found: found[0])
    except (OSError, UnicodeError) as error:
        return f"{address.host} is not resolved: {_why(error)}"
    with socket.socket(family, socket.SOCK_DGRAM) as connection:
        try:
            connection.connect(target)
            for _ in range(2):
                connection.send(b"")
                time.sleep(_REFUSAL)
            if code := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return f"nobody takes datagrams there: {os.strerror(code)}"
        except OSError as error:
            return f"nobody takes datagrams there: {_why(error)}"
    return ""


def tcp(address: Address) -> str:
    """A server of connections."""
    try:
        _resolved(*address, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return f"{address.host} is not resolved: {_why(error)}"
    try:
        socket.create_connection(address, timeout=_CONNECTING).close()
    except OSError as error:
        return _why(error)
    return ""


def otlp_http(url: str, headers: Mapping[str, str], certificate: str | None = None) -> str:
    """A collector that takes OTLP over HTTP: an export of nothing, which it answers with 200."""
    parts = urlsplit(url)
    try:
        address = Address(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    except ValueError as error:
        return str(error)
    if why := tcp(address):
        return why
    try:
        context = ssl.create_default_context(cafile=certificate) if parts.scheme == "https" else None
        known = {"Content-Type": "application/x-protobuf", **headers}
        request = urllib.request.Request(url, data=b"", headers=known)  # noqa: S310 - http(s): checked before
        with urllib.request.urlopen(request, timeout=_CONNECTING, context=context):  # noqa: S310 - likewise
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return _status(error.code)
    except (OSError, HTTPException, ValueError) as error:
        return _why(error)


def _status(code: int) -> str:
    """400 is what a collector says that wants more than nothing."""
    if code in (400, 429):
        return ""
    hints = {401: " (its credentials: OTEL_EXPORTER_OTLP_HEADERS)", 403: " (likewise)", 404: " (is the path right?)"}
    return f"it answers {code}{hints.get(code, '')}"


def bindable(address: Address) -> str:
    """A port that is to be served here: not taken by another process, and allowed."""
    try:
        found = _resolved(address.host or "0.0.0.0", address.port, socket.SOCK_STREAM)  # noqa: S104 - as gunicorn does
    except (OSError, UnicodeError) as error:
        return f"{address.host} is not resolved: {_why(error)}"
    family, target = found[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(target)
        except OSError as error:
            return _why(error)
    return ""


def _why(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
