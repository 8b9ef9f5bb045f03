"""What must not be written anywhere: secrets, in texts and in JSON, become ``***``.

Known by their names (the parameter ``secret`` in any percent-encoding, the cookie ``C2C_SECRET``, the header
``X-API-Key``), and by their values, which `protect` is told. A text without any costs a few searches for short strings.

>>> mask("GET /c2c?s%65cret=abc&limit=3")
'GET /c2c?s%65cret=***&limit=3'
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

import orjson

__all__ = ["MASK", "SHORTEST", "is_suspicious", "mask", "mask_json", "protect", "protected"]

MASK = "***"

SHORTEST = 8
"""Characters of a secret that is known by its value: of a shorter one, too much else would be masked."""

_BARE = re.compile(r"[0-9eE+.-]*\Z")  # what could be a part of a number in JSON

_NAME = r"(?:" + "".join(f"(?:{c}|%{ord(c):x})" for c in "secret") + r"|SECRET)(?:=|%3[dD])"
_HEADER_NAME = r"[xX][-_][aA][pP][iI][-_][kK][eE][yY]"
_HEADER = _HEADER_NAME + r"(?:\s*[:=]\s*|(?:\\?[\"'])\s*[:,=]\s*)(?:\\?[\"'])?"
_SPELLED = re.compile(r"%(?:7[234]|6[35]|3[dD])")

# In JSON text a value ends at a separator, a blank, a quote or an escaped control character.
_PARAMETER = re.compile(rf'({_NAME})[^&#\s"]+')
_PARAMETER_JSON = re.compile(rb"(" + _NAME.encode() + rb')(?:[^&#\s"\\]|\\\\|\\u[0-9a-f]{4})+')
_KEY = re.compile(rf"({_HEADER})(?:[^\s\"'\\,;&]|\\(?![\"']))+")
_NAMES_VALUE = re.compile(_HEADER_NAME + r"\Z")

_values: tuple[str, ...] = ()
_values_json: tuple[tuple[str, re.Pattern[bytes]], ...] = ()


def protect(secrets: Iterable[str]) -> None:
    """Mask these values from now on, wherever they stand; also as a URL, JSON or a header's Latin-1 spells them.

    Left out are values shorter than `SHORTEST`, and those that could be numbers: they would break what they are in."""
    global _values, _values_json
    known = set(_values)
    for secret in secrets:
        if len(secret) >= SHORTEST and not _BARE.match(secret):
            plain = secret.encode("utf-8", "replace")
            known |= {secret, quote(plain, safe=""), quote_plus(plain), quote(plain), plain.decode("latin-1")}
            known.add(orjson.dumps(plain.decode())[1:-1].decode())
    _values = tuple(sorted(known, key=lambda value: (-len(value), value)))
    _values_json = tuple(map(_json_value, _values))


def protected() -> tuple[str, ...]:
    """The values that are masked, the longest first."""
    return _values


def _forget() -> None:
    """For tests."""
    global _values, _values_json
    _values, _values_json = (), ()


def _json_value(value: str) -> tuple[str, re.Pattern[bytes]]:
    """As it stands in JSON. The pattern does not begin within an escape: before it are whole ``\\\\`` alone."""
    text = orjson.dumps(value.encode("utf-8", "replace").decode())[1:-1]
    return text.decode(), re.compile(rb"(?<!\\)((?:\\\\)*)" + re.escape(text))


def is_suspicious(text: str) -> bool:
    """Whether `mask` has to look closer."""
    for value in _values:
        if value in text:
            return True
    if "secret" in text or "SECRET" in text or ("%" in text and _SPELLED.search(text)):
        return True
    return _has_header(text)


def _has_header(text: str) -> bool:
    """Whether the header's name is there. Long needles and single characters are what `str` finds fastest; lower
    case is made only of a text with a capital that the name could have."""
    if "A" in text or "X" in text or "K" in text:
        text = text.lower()
    return "x-api-key" in text or "x_api_key" in text


def mask(text: str) -> str:
    """The text without secrets."""
    if not is_suspicious(text):
        return text
    for value in _values:
        text = text.replace(value, MASK)
    return _KEY.sub(r"\1***", _PARAMETER.sub(r"\1***", text))


def mask_json(text: bytes) -> bytes:
    """JSON without secrets; still JSON."""
    look = text.decode()  # searching a short text in bytes costs three times as much as in a str
    for value, pattern in _values_json:
        if value in look:
            text = pattern.sub(rb"\1***", text)
    if ("=" in look and ("secret=" in look or "SECRET=" in look)) or ("%" in look and _SPELLED.search(look)):
        text = _PARAMETER_JSON.sub(rb"\1***", text)
    if _has_header(look):
        text = orjson.dumps(_without_keys(orjson.loads(text)))
    return text


def _without_keys(value: object) -> object:
    """Parsed JSON without the header's values: in texts, in an object under its name, in a list after its name.

    In the bytes, the end of a text that ends with the name looks like the name of an object's member."""
    if isinstance(value, str):
        return _KEY.sub(r"\1***", value)
    if isinstance(value, dict):
        return {
            _KEY.sub(r"\1***", name): _hidden(item) if _NAMES_VALUE.search(name) else _without_keys(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        named = [False, *(isinstance(item, str) and _NAMES_VALUE.search(item) is not None for item in value)]
        return [_hidden(item) if flag else _without_keys(item) for flag, item in zip(named, value, strict=False)]
    return value


def _hidden(value: object) -> object:
    """What says only whether there is a value stays."""
    return value if value is None or isinstance(value, bool) or value == "" else MASK
