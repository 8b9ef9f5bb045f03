"""Where the tests run, and under which addresses hosts and containers see each other."""

from __future__ import annotations

import ipaddress
import socket
import struct
from pathlib import Path
from urllib.parse import urlsplit

from c2c_otel import settings

__all__ = ["default_gateway", "docker_host", "in_docker", "interface_address", "is_loopback", "own_address"]

_ROUTES = Path("/proc/net/route")
_GATEWAY = 0x2  # RTF_GATEWAY of the kernel's route flags
_SIOCGIFADDR = 0x8915  # Linux: an interface's IPv4 address
_LOOPBACK = "127.0.0.1"


def in_docker() -> bool:
    """Whether the tests themselves run in a container: the environment says ``DOCKER_RUN=1``."""
    return settings.flag("DOCKER_RUN", None, {})


def default_gateway(routes: Path = _ROUTES) -> str:
    """The IPv4 address of the default route, which is the Docker host's for a container; 127.0.0.1 where there is none.

    ``routes`` has the format of Linux' /proc/net/route: addresses are 32 bits in hexadecimal, in the host's byte order.
    """
    try:
        lines = routes.read_text().splitlines()[1:]
    except OSError:
        return _LOOPBACK
    for line in lines:
        _, destination, gateway, flags, *_ = line.split()
        if int(destination, 16) == 0 and int(flags, 16) & _GATEWAY:
            return socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))
    return _LOOPBACK


def interface_address(name: str) -> str | None:
    """The IPv4 address of a network interface; None where there is none, or where this is not Linux."""
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            request = struct.pack("256s", name.encode()[:15])
            return socket.inet_ntoa(fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, request)[20:24])
    except (ImportError, OSError):
        return None


def own_address() -> str:
    """The IPv4 address under which others reach this host; 127.0.0.1 where it has no network. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            any_socket.connect(("192.0.2.1", 9))  # reserved for documentation: only the route to it is looked up
            return str(any_socket.getsockname()[0])
        except OSError:
            return _LOOPBACK


def docker_host() -> str:
    """The Docker host's IPv4 address as containers see it."""
    if in_docker():
        return default_gateway()
    return interface_address("docker0") or own_address()  # Docker Desktop has no docker0


def is_loopback(url: str) -> str | None:
    """The URL's host, if it is this machine itself; None else. Such URLs are never asked through a proxy."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return host
    try:
        return host if ipaddress.ip_address(host).is_loopback else None
    except ValueError:
        return None
