"""From the settings to the arguments of ``sentry_sdk.init``.

``SENTRY_CLIENT_NAME`` is the option ``name``; what its text means is read off the type that sentry-sdk declares for
it, so that an option of a newer version works without a change here.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import sentry_sdk
from sentry_sdk.consts import DEFAULT_OPTIONS, ClientConstructor
from sentry_sdk.integrations import Integration

from c2c_otel import decoders
from c2c_otel.settings import ConfigurationError, Settings

__all__ = ["arguments"]

_DSN = "a DSN such as https://key@sentry.example.com/42"

_DEFAULTS: Mapping[str, Any] = {
    # Frames, requests and traces are ours; what patches libraries costs each request, and sends headers along.
    "default_integrations": False,
    "auto_enabling_integrations": False,
    "propagate_traces": False,
    "trace_propagation_targets": [],
    "auto_session_tracking": False,
    "enable_backpressure_handling": False,
}

_SEVERAL_TYPES = re.compile(r"(?:List|Sequence|AbstractSet|Set|Tuple|FrozenSet)\[(.*)\]\Z", re.IGNORECASE)
_CHOICE = re.compile(r"Literal\[(.*)\]\Z")
_CHOICES = {"max_request_body_size": ("never", "small", "medium", "always")}
_HIDDEN = frozenset({"http_proxy", "https_proxy", "proxy_headers"})
"""Their values may hold credentials: no message shows them."""


def arguments(settings: Settings) -> dict[str, Any]:
    """For ``sentry_sdk.init``, without what reports and scrubs. Raises `ConfigurationError`."""
    url = settings.sentry_url or ""
    try:
        sentry_sdk.utils.Dsn(url)
    except Exception:  # BadDsn, and what it lets through
        raise ConfigurationError("SENTRY_URL", "***", _DSN) from None
    made = {name: value for name, value in _DEFAULTS.items() if name in DEFAULT_OPTIONS}
    made |= {"dsn": url, "ignore_errors": ["SystemExit"], "integrations": [], "disabled_integrations": []}
    for name, text in settings.sentry_client.items():
        option, value = _option(name, text)
        made[option] = value
    if settings.git_hash and made.get("release") in (None, "latest"):
        made["release"] = settings.git_hash
    return made


def _option(name: str, text: str) -> tuple[str, Any]:
    variable = f"SENTRY_CLIENT_{name.upper()}"
    if name == "ignore_exceptions":
        return "ignore_errors", _names(text)
    if name == "dsn":
        raise ConfigurationError(variable, "***", "nothing", "Set SENTRY_URL instead.")
    if name not in DEFAULT_OPTIONS:
        raise ConfigurationError(variable, text, "an option of sentry_sdk.init")
    if name in ("integrations", "disabled_integrations"):
        return name, [_integration(variable, text, found) for found in _names(text)]
    decode, expected = _decoder(name)
    if decode is None:
        raise ConfigurationError(variable, text, "nothing: a text cannot give this option", "Remove it.")
    try:
        value = decode(text)
    except ValueError:
        raise ConfigurationError(variable, "***" if name in _HIDDEN else text, expected) from None
    return name, value


Decoder = Callable[[str], Any]


def _decoder(name: str) -> tuple[Decoder | None, str]:
    """How the text of an option is decoded, and what is expected of it; None where no text will do."""
    if name in _CHOICES:
        return _one_of(_CHOICES[name])
    parameter = inspect.signature(ClientConstructor.__init__).parameters.get(name)
    if parameter is None or name.startswith("_"):
        return None, ""
    annotation = parameter.annotation
    kind = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return _by_type(kind.replace("typing.", "").strip("\"' "), name)


def _by_type(kind: str, name: str) -> tuple[Decoder | None, str]:
    if kind.startswith("Optional[") and kind.endswith("]"):
        return _by_type(kind[len("Optional[") : -1], name)
    if name.endswith("sample_rate"):
        return _rate, "a number from 0 to 1"
    if choice := _CHOICE.match(kind):
        return _one_of(tuple(part.strip(" '\"") for part in choice[1].split(",")))
    several = _SEVERAL_TYPES.match(kind)
    return _TYPES.get(f"several {several[1]}" if several else kind, (None, ""))


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pairs(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in _names(text)]
    if not all(name.strip() and separator for name, separator, _ in pairs):
        raise ValueError(text)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _flag_or_text(text: str) -> bool | str:
    try:
        return decoders.flag(text)
    except ValueError:
        return text


def _integers(text: str) -> list[int]:
    return [int(part) for part in _names(text)]


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _rate(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError(text)
    return number


def _one_of(choices: tuple[str, ...]) -> tuple[Decoder, str]:
    def decode(text: str) -> str:
        if text.strip().lower() not in choices:
            raise ValueError(text)
        return text.strip().lower()

    return decode, f"one of {', '.join(choices)}"


_TYPES: Mapping[str, tuple[Decoder, str]] = {
    "str": (str, "text"),
    "bool": (decoders.flag, "one of 1, true, yes, on, 0, false, no, off"),
    "int": (int, "an integer"),
    "float": (_number, "a number"),
    "Union[bool, str]": (_flag_or_text, "one of 1, 0, true, false, or a text"),
    "Dict[str, str]": (_pairs, "name=value,name=value"),
    "several str": (_names, "texts with commas between them"),
    "several Union[type, str]": (_names, "texts with commas between them"),
    "several int": (_integers, "integers with commas between them"),
}


def _integration(variable: str, text: str, name: str) -> Integration:
    """One of sentry-sdk's by its name: ``sqlalchemy``, ``redis``, ``stdlib`` ..."""
    expected = "names of integrations of sentry-sdk, with commas between them"
    if not re.fullmatch(r"\w+", name):
        raise ConfigurationError(variable, text, expected)
    try:
        module = import_module(f"sentry_sdk.integrations.{name}")
    except Exception:  # it is not there, or what it is for is not
        raise ConfigurationError(variable, text, expected, f"{name} cannot be imported.") from None
    for found in vars(module).values():
        if isinstance(found, type) and issubclass(found, Integration) and found.__module__.startswith(module.__name__):
            return found()
    raise ConfigurationError(variable, text, expected)
