"""From the text of a setting to its value, one function for each kind; what each expects, in words.

A decoder takes the text and raises ValueError, or `PartError` where it can say which part of it is wrong.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["EXPECTED", "Address", "Network", "PartError"]


class PartError(ValueError):
    """What a decoder raises for one part of a text that has several; a value that may be a secret is ``***``."""

    def __init__(self, part: str, value: str, expected: str) -> None:
        self.part, self.value, self.expected = part, value, expected
        super().__init__(part)


class Address(NamedTuple):
    """Where a collector listens: a name or an IPv4 or IPv6 address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


_ON = frozenset({"1", "true", "t", "yes", "y", "on"})
_OFF = frozenset({"0", "false", "f", "no", "n", "off"})


def text(value: str) -> str:
    return value


def flag(value: str) -> bool:
    word = value.strip().lower()
    if word in _ON:
        return True
    if word in _OFF:
        return False
    raise ValueError(value)


def base_path(value: str) -> str:
    path = value.strip().rstrip("/")
    if (path and not path.startswith("/")) or path.startswith("//") or any(c in path for c in "{}*?# "):
        raise ValueError(value)
    return path


def page_path(value: str) -> str:
    """As `base_path`, with the slash that c2cwsgiutils did not ask for."""
    path = base_path(f"/{value.strip().removeprefix('/')}")
    if not path:
        raise ValueError(value)
    return path


def seconds(value: str) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError(value)
    return number


def interval(value: str) -> float:
    number = float(value)
    if not 0.0001 <= number <= 1:
        raise ValueError(value)
    return number


def duration(value: str) -> float:
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(value)
    return number


def port(value: str) -> int:
    number = int(value)
    if not 0 <= number <= 65535:
        raise ValueError(value)
    return number


def count(value: str) -> int:
    number = int(value)
    if number < 1:
        raise ValueError(value)
    return number


def natural(value: str) -> int:
    number = int(value)
    if number < 0:
        raise ValueError(value)
    return number


def address(value: str) -> Address:
    host, separator, number = value.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not separator or not host or set(host) & set(" /[]@"):
        raise ValueError(value)
    return Address(host, port(number))


def addresses(value: str) -> tuple[Address, ...]:
    return tuple(address(part) for part in names(value))


def redis_url(value: str) -> str:
    from c2c_otel import redis_options

    return redis_options.url(value)


def redis_options(value: str) -> tuple[tuple[str, Any], ...]:
    from c2c_otel import redis_options

    return redis_options.parse(value)


def level(value: str) -> str:
    name = value.strip().upper()
    if name not in logging.getLevelNamesMapping():
        raise ValueError(value)
    return name


def one_of(*choices: str) -> Callable[[str], str]:
    def decode(value: str) -> str:
        word = value.strip().lower()
        if word not in choices:
            raise ValueError(value)
        return word

    return decode


def header(value: str) -> str:
    name = value.strip()
    if not name or not all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in name):
        raise ValueError(value)
    return name


def names(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def loggers(value: str) -> tuple[str, ...]:
    return names(value.replace(":", ","))


def packages(value: str) -> tuple[str, ...]:
    names = tuple(value.replace(",", " ").split())
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        raise ValueError(value)
    return names


def filters(value: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in names(value):
        name, separator, wanted = part.partition("=")
        if not separator or not name.strip():
            raise ValueError(value)
        pairs.append((name.strip(), wanted.strip()))
    return tuple(pairs)


_PRIVATE = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "::1",
    "fc00::/7",
    "fe80::/10",
)


def networks(value: str) -> tuple[Network, ...]:
    """Networks and addresses; ``private`` stands for loopback and the private ranges, ``none`` for nobody."""
    words = value.replace(",", " ").split()
    if not words or ("none" in words and len(words) > 1):
        raise ValueError(value)
    texts = [text for word in words for text in (_PRIVATE if word == "private" else [word]) if word != "none"]
    return tuple(ipaddress.ip_network(text) for text in texts)


EXPECTED: Mapping[Callable[[str], Any], str] = {
    text: "text",
    flag: "one of 1, true, yes, on, 0, false, no, off",
    base_path: "a path that starts with one '/', or nothing",
    page_path: "a path such as /profiler",
    interval: "a number of seconds, 0.0001 to 1",
    packages: "names of packages with spaces between them",
    seconds: "a number of seconds greater than 0",
    duration: "a number of seconds, 0 or more",
    port: "a port number, 0 to 65535",
    count: "an integer of 1 or more",
    networks: "networks such as 10.0.0.0/8 with commas between them, private, or none",
    natural: "an integer of 0 or more",
    address: "host:port ([address]:port for IPv6)",
    addresses: "host:port,host:port ([address]:port for IPv6)",
    redis_url: "a URL such as redis://:password@host:6379/0, rediss://... or unix:///path",
    redis_options: "key=value,key=value",
    level: "a logging level such as DEBUG, INFO, WARNING, ERROR",
    header: "the name of an HTTP header",
    names: "names with commas between them",
    filters: "name=value,name=value",
    loggers: "names with colons or commas between them",
    Path: "a path",
}
