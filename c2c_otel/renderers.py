"""The renderers ``json`` and ``fast_json``: indented by two, keys sorted, application/json."""

from __future__ import annotations

import decimal
import json
from collections.abc import Callable
from typing import Any

import orjson
from pyramid.renderers import JSON

__all__ = ["FastJson", "includeme"]

_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS


class FastJson:
    """A renderer factory that encodes with orjson: quick, non-ASCII kept, and without adapters for further types.

    Objects with a ``__json__(request)`` are understood, decimals become numbers. What orjson has no way to write
    (an integer of more than 64 bits) the standard library writes."""

    def __call__(self, info: Any) -> Callable[[Any, Any], bytes]:
        return _render


def _render(value: Any, system: Any) -> bytes:
    request = system.get("request")
    if request is not None:
        response = request.response
        if response.content_type == response.default_content_type:
            response.content_type = "application/json"

    def adapted(found: Any) -> Any:
        if isinstance(found, decimal.Decimal):
            return float(found)
        method = getattr(found, "__json__", None)
        if method is None:
            raise TypeError(f"{found!r} is not JSON serializable")
        return method(request)

    try:
        return orjson.dumps(value, default=adapted, option=_OPTIONS)
    except orjson.JSONEncodeError:
        return json.dumps(value, default=adapted, indent=2, sort_keys=True, ensure_ascii=False).encode()


def includeme(config: Any) -> None:
    config.add_renderer("json", JSON(indent=2, sort_keys=True))
    config.add_renderer("fast_json", FastJson())
