"""The texts that say which Redis: a URL, sentinels, and the client options ``key=value,key=value``.

Values of options are YAML scalars, as they were for c2cwsgiutils. Of YAML that is a few lines, so it is read here; what
an option must be is known for those that redis-py documents, and its constructor knows the other names.

>>> parse("socket_timeout=3,ssl=true,client_name='a, b',password=0123")
(('socket_timeout', 3.0), ('ssl', True), ('client_name', 'a, b'), ('password', '0123'))
"""

from __future__ import annotations

import difflib
import inspect
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from c2c_otel.settings import PartError

__all__ = ["SENTINELS", "parse", "scalar", "url"]

SENTINELS = "sentinel_"
"""Options that begin with it are for the clients that talk to the sentinels themselves: ``sentinel_password``."""


_HIDDEN = "***"

# -- YAML scalars -----------------------------------------------------------------------------------------------------

_ON = frozenset({"true", "yes", "on"})
_OFF = frozenset({"false", "no", "off"})
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)\Z")
_HEXADECIMAL = re.compile(r"[-+]?0x[0-9a-fA-F_]+\Z")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*)?\.?[0-9_]+([eE][-+]?[0-9]+)?\Z|[-+]?[0-9][0-9_]*\.\Z")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)\Z")


def scalar(text: str) -> Any:
    """A YAML scalar: null, a truth value, an integer, a float, or text, which may be quoted. Raises ValueError."""
    if text[:1] in ("'", '"'):
        return _unquoted(text)
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in (text.lower(), text.upper(), text.capitalize()):
        if text.lower() in _ON:
            return True
        if text.lower() in _OFF:
            return False
    return _number(text)


def _number(text: str) -> Any:
    if _INTEGER.match(text):
        return int(text.replace("_", ""))
    if _HEXADECIMAL.match(text):
        return int(text.replace("_", ""), 16)
    if (infinite := _INFINITE.match(text)) is not None:
        return -math.inf if infinite[1] == "-" else math.inf
    if text in (".nan", ".NaN", ".NAN"):
        return math.nan
    if _FLOAT.match(text) and text[-1:] != "_" and not re.match(r"[-+]?0[0-9]+\Z", text):
        return float(text.replace("_", ""))
    return text


def _unquoted(text: str) -> str:
    quote = text[0]
    if len(text) < 2 or text[-1] != quote:
        raise ValueError(text)
    if quote == "'":
        return text[1:-1].replace("''", "'")
    return str(json.loads(text))  # the escapes that JSON has are those of YAML that anybody uses


# -- options ----------------------------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    decode: Callable[[str], Any]
    expected: str


def _as_text(text: str) -> str | None:
    """As it is written: a password of digits is no number."""
    if text in ("~", "null"):
        return None
    return _unquoted(text) if text[:1] in ("'", '"') else text


def _as_flag(text: str) -> bool:
    value = scalar(text)
    if value not in (True, False):
        raise ValueError(text)
    return bool(value)


def _as_seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError(text)
    return number


def _as_count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _as_protocol(text: str) -> int:
    return {"2": 2, "3": 3}[text]


_TEXT = _Kind(_as_text, "text")
_FLAG = _Kind(_as_flag, "true or false")
_SECONDS = _Kind(_as_seconds, "a number of seconds greater than 0")
_COUNT = _Kind(_as_count, "an integer of 0 or more")
_PROTOCOL = _Kind(_as_protocol, "2 or 3")
_ANY = _Kind(scalar, "a YAML scalar")

_KINDS = {
    **dict.fromkeys(("username", "password", "client_name", "encoding", "encoding_errors", "force_master_ip"), _TEXT),
    **dict.fromkeys(("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data"), _TEXT),
    **dict.fromkeys(("ssl_cert_reqs", "ssl_password", "ssl_ciphers"), _TEXT),
    **dict.fromkeys(("ssl", "ssl_check_hostname", "ssl_validate_ocsp", "ssl_validate_ocsp_stapled"), _FLAG),
    **dict.fromkeys(("socket_keepalive", "decode_responses", "retry_on_timeout"), _FLAG),
    **dict.fromkeys(("socket_timeout", "socket_connect_timeout"), _SECONDS),
    **dict.fromkeys(("db", "max_connections", "health_check_interval", "socket_read_size"), _COUNT),
    **dict.fromkeys(("min_other_sentinels",), _COUNT),
    "protocol": _PROTOCOL,
}

_ELSEWHERE = frozenset({"host", "port", "unix_socket_path", "connection_pool", "single_connection_client"})
_MEANINGLESS = frozenset({"lib_name", "lib_version"})  # redis-py warns of them
_OBJECTS = re.compile(r"retry.*|.*_func|.*_provider|.*_config|.*_handler|.*_options|.*_context|.*_flags|.*dispatcher|"
                      r"cache|driver_info|ssl_min_version|self")  # fmt: skip

_OPTION = re.compile(r"""\s*([^=,\s]+)\s*=\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^,'"\s][^,]*?|)\s*(?:,|\Z)""")


def parse(text: str) -> tuple[tuple[str, Any], ...]:
    """The options of a text, in its order. Raises `PartError`."""
    found: dict[str, Any] = {}
    position = 0
    text = text.strip().rstrip(",")
    while position < len(text):
        match = _OPTION.match(text, position)
        if match is None:
            after = f" after {list(found)[-1]}" if found else ""
            raise PartError(f"what stands{after}", _HIDDEN, "key=value,... with quotes around a value that has a comma")
        name, value = match.groups()
        kind = _kind(name)
        try:
            found[name] = kind.decode(value)
        except (ValueError, KeyError):
            raise PartError(f"the option {name}", _HIDDEN if kind is _TEXT else value, kind.expected) from None
        position = match.end()
    return tuple(found.items())


def _kind(name: str) -> _Kind:
    plain = name.removeprefix(SENTINELS)
    if plain in _KINDS:
        return _KINDS[plain]
    known = _known_to_redis()
    if plain in known:
        return _ANY
    like = difflib.get_close_matches(plain, {*known, *_KINDS}, 1)
    hint = f", perhaps {like[0]}" if like else ""
    raise PartError("an option", name, f"an argument of the Redis client that is no object{hint}")


def _known_to_redis() -> frozenset[str]:
    """The arguments of the client that is installed which a text can give."""
    import redis

    names = inspect.signature(redis.Redis.__init__).parameters
    return frozenset(n for n in names if not _OBJECTS.fullmatch(n)) - _ELSEWHERE - _MEANINGLESS


# -- URLs -------------------------------------------------------------------------------------------------------------

_SCHEMES = ("redis://", "rediss://", "unix://")


def url(text: str) -> str:
    """The URL as redis-py takes it. Raises `PartError`, which never has a value: there may be a password in it."""
    text = text.strip()
    if "://" not in text:
        text = f"redis://{text}"
    if not text.startswith(_SCHEMES):
        raise PartError("its scheme", _HIDDEN, "redis://, rediss:// or unix://")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise PartError("its host and port", _HIDDEN, "host:port ([address]:port for IPv6), port 1 to 65535") from None
    if parts.scheme == "unix":
        if len(parts.path) < 2 or (parts.hostname and "@" not in parts.netloc):
            raise PartError("its path", _HIDDEN, "unix:///path/to/the/socket")
    else:
        if port == 0 or not parts.hostname:
            raise PartError("its host and port", _HIDDEN, "host:port ([address]:port for IPv6), port 1 to 65535")
        if not re.fullmatch(r"/?|/[0-9]+/?", unquote(parts.path)):
            raise PartError("its path", _HIDDEN, "the number of a database, or nothing")
    _check_query(parse_qsl(parts.query, keep_blank_values=True))
    return text


def _check_query(pairs: Iterable[tuple[str, str]]) -> None:
    for name, value in pairs:
        kind = _kind(name)
        try:
            if kind is not _TEXT:
                kind.decode(value)
        except (ValueError, KeyError):
            raise PartError(f"the option {name}", value, kind.expected) from None
