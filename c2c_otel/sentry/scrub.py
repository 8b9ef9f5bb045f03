"""What must not leave in an event: it is looked through once, when sentry-sdk has made it plain JSON.

A value goes where its name tells that it is a secret (a local variable, a header, a field of a body, the first of a
pair); a text loses the values that are known to be secrets, and whatever stands beside such a name in it. Where in
doubt, it goes: who debugs can do without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from c2c_otel.instrumentation import wsgi_attributes
from c2c_otel_exporters import guard, masking

__all__ = ["Scrubber", "is_secret_name", "secrets_of"]

MASK = masking.MASK

_WORDS = (
    r"secret|passw|passphrase|token|credential|signature|api[-_. ]?key|access[-_]?key|private[-_]?key|auth|cookie"
    r"|session|csrf|xsrf|pwd|jwt|dsn"
)
_NAME = re.compile(_WORDS, re.IGNORECASE)
_STRONG_NAME = re.compile(r"secret|passw|passphrase|token|credential|(api|access|private)[-_]?key|pwd", re.IGNORECASE)
_SHORT = 200
_QUOTES = "bBrRuUfF'\"\\"

# -- texts ------------------------------------------------------------------------------------------------------------

_SUSPECT = re.compile(
    rf"{_WORDS}|://|parameters:|basic\s|bearer|digest|negotiate|DETAIL|Failing row|LINE \d|Command #"
    r"|[?&;](?:key|sig|code)=",
    re.IGNORECASE,
)

_HEADER = re.compile(  # to the end of its line; where its value is quoted, it is a pair
    r"((?:set-)?cookie|(?:proxy-)?authorization|x[-_]api[-_]key)(\s*[:=]\s*)(?!\\*[bBrRuU]?\\*['\"\[({])[^'\"\r\n\\]+",
    re.IGNORECASE,
)
_SCHEME = re.compile(
    r"\b(bearer|negotiate|digest)\s+[^\s'\"]{4,}|\b(basic)\s+(?=\S*[A-Z0-9=])[A-Za-z0-9+/=_-]{6,}", re.I
)
_PAIR = re.compile(
    rf"((?:{_WORDS})[\w.\-]{{0,40}}(?:\\*['\"]?\s*(?:=>|:=|=|:|%3[dDaA])\s*|\\*['\"]\s*,\s*))"
    r"(?:"
    r"[bBrRuUfF]{0,2}(\\*['\"])(?:\\.|(?!\2).)*(?:\2|\Z)"  # a text in quotes
    r"|[\w.]{0,80}[\[({][^\])}]*[\])}]?"  # a list, a call
    r"|[^\s&;,)\]}'\"]+"
    r")",
    re.IGNORECASE | re.DOTALL,
)
_OPTION = re.compile(rf"(?<!\S)(-{{1,2}}[\w\-]{{0,40}}(?:{_WORDS})[\w\-]{{0,40}}\s+)[^\s'\"]+", re.IGNORECASE)
_SHORT_PARAMETER = re.compile(r"([?&;](?:key|sig|code)=)[^&#;\s'\"]+", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^\s:/@'\"]{0,200}:)(?!\d{1,5}/)[^\s'\"@]{0,1000}@")
_SQL_PARAMETERS = re.compile(r"\[parameters: .*?(?=\(Background on this error|\Z)", re.DOTALL)
_SQL_DETAIL = re.compile(
    r"(DETAIL:\s+|Failing row contains |LINE \d+: |Command # \d+ )(?:(?!\\n)[^\n])*"  # values of rows, and of commands
)


def is_secret_name(name: str) -> bool:
    """Whether what has this name (a variable, a key, a header; as it is, or as `repr` shows it) is a secret."""
    return _NAME.search(name) is not None or wsgi_attributes.is_secret_name(name.strip(_QUOTES))


class Scrubber:
    """``secrets``: values that go wherever they stand; one of less than four characters only where it is all."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if secret}
        self._whole = frozenset(known)
        spelled = {spelling for secret in known if len(secret) >= 4 for spelling in _spellings(secret)}
        ordered = sorted(spelled, key=lambda text: (-len(text), text))
        # of a short one, only where it is a word: "admin" is a part of too much else
        parts = [re.escape(t) if len(t) >= masking.SHORTEST else rf"(?<!\w){re.escape(t)}(?!\w)" for t in ordered]
        self._values = re.compile("|".join(parts)) if parts else None
        self._remembered = lru_cache(maxsize=4096)(self._clean)

    def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The event without secrets. A part of it that cannot be looked through is left out."""
        clean: dict[str, Any] = {}
        for name, part in event.items():
            if name == "_meta":  # what was cut, by place: the places may be gone
                continue
            try:
                clean[name] = self._part(name, part)
            except Exception:
                guard.count("failed.sentry.scrub")
                guard.warn_once("sentry.scrub", "A part of an event cannot be looked through and is left out: %s", name)
        return clean

    def _part(self, name: str, part: Any) -> Any:
        if name in ("exception", "threads", "stacktrace"):
            part = _without_foreign_variables(part)
        if name == "logentry" and isinstance(part, dict):  # the message is there, formatted; these have no names
            part = {key: value for key, value in part.items() if key != "params"}
        return self.value(part)

    def value(self, value: Any) -> Any:
        """Any JSON value without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self._key(key): self._named(key, item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return self._items(list(value))
        return value

    def _key(self, key: Any) -> Any:
        return self.text(key) if isinstance(key, str) and len(key) > 3 else key

    def _named(self, name: Any, value: Any) -> Any:
        if not isinstance(name, str) or value is None or isinstance(value, bool) or value == "":
            return self.value(value)
        if _NAME.search(name) or (isinstance(value, str | list | dict) and is_secret_name(name)):
            return MASK
        return self.value(value)

    def _items(self, items: list[Any]) -> list[Any]:
        """Of a list; the second of a pair goes with the first, and what follows an option of a command."""
        found = []
        name: Any = None
        for item in items:
            secret = isinstance(name, str) and (len(items) == 2 or name.strip(_QUOTES).startswith("-"))
            if secret and len(name) < 80 and "=" not in name and is_secret_name(name) and isinstance(item, str | list):
                found.append(MASK)
            else:
                found.append(self.value(item))
            name = item
        return found

    def text(self, text: str) -> str:
        """A text without secrets. The same lines of source stand in event after event: short texts are remembered."""
        return self._remembered(text) if len(text) <= _SHORT else self._clean(text)

    def _clean(self, text: str) -> str:
        if text in self._whole or (text and text.strip(_QUOTES) in self._whole):
            return MASK
        if self._values is not None:
            text = self._values.sub(MASK, text)
        text = masking.mask(text)
        if not _SUSPECT.search(text):
            return text
        for clean in _CLEANERS:
            text = clean(text)
        return text


_CLEANERS: tuple[Callable[[str], str], ...] = (
    lambda text: _SQL_PARAMETERS.sub(f"[parameters: {MASK}]\n", text),
    lambda text: _SQL_DETAIL.sub(rf"\1{MASK}", text),
    lambda text: _URL_PASSWORD.sub(rf"\1{MASK}@", text),
    lambda text: _HEADER.sub(rf"\1\2{MASK}", text),
    lambda text: _SCHEME.sub(lambda found: f"{found[1] or found[2]} {MASK}", text),
    lambda text: _PAIR.sub(lambda found: f"{found[1]}{found[2] or ''}{MASK}{found[2] or ''}", text),
    lambda text: _OPTION.sub(rf"\1{MASK}", text),
    lambda text: _SHORT_PARAMETER.sub(rf"\1{MASK}", text),
)


def _without_foreign_variables(part: Any) -> Any:
    """Local variables are those of the application's own frames alone: libraries have headers, cookies, the
    parameters of statements and of connections in theirs."""
    if isinstance(part, dict):
        if "vars" in part and part.get("in_app") is not True:
            part = {key: value for key, value in part.items() if key != "vars"}
        return {key: value if key == "vars" else _without_foreign_variables(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_without_foreign_variables(item) for item in part]
    return part


def _spellings(secret: str) -> set[str]:
    plain = secret.encode("utf-8", "replace")
    escaped = {repr(secret)[1:-1], repr(plain)[2:-1], secret.replace('"', '\\"')}
    return {secret, quote(plain, safe=""), quote_plus(plain), quote(plain), unquote(secret), *escaped} - {""}


# -- what is known to be a secret -------------------------------------------------------------------------------------

_SHORTEST = 6  # what is shorter is a flag, a number, a name
_IN_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-]*://[^\s:/@]*:([^\s@]+)@")


def secrets_of(values: Mapping[str, Any]) -> Iterator[str]:
    """Secrets among settings or variables, by their names; and the passwords in URLs."""
    for name, value in values.items():
        if not isinstance(value, str) or not value:
            continue
        if password := _IN_URL.search(value):
            yield password[1]
            yield unquote(password[1])
        elif _STRONG_NAME.search(str(name)) and len(value) >= _SHORTEST and not value.startswith("/"):
            yield value
