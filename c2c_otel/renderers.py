"""The renderers ``json`` and ``fast_json``: indented by two, keys sorted, application/json."""

from __future__ import annotations

import dataclasses
import decimal
import json
from collections.abc import Callable
from typing import Any

import orjson
from pyramid.renderers import JSON

from c2c_otel import pretty_json

__all__ = ["FastJson", "includeme"]

_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS


class FastJson:
    """A renderer factory that encodes with orjson: quick, non-ASCII kept, and without adapters for further types.

    Objects with a ``__json__(request)`` are understood, decimals become numbers, dates their ISO 8601 text; of other
    dataclasses the fields without a leading underscore are written. What orjson has no way to write (an integer of
    more than 64 bits, half of a surrogate pair) the standard library writes."""

    def __call__(self, info: Any) -> Callable[[Any, Any], str]:
        return _render


def _render(value: Any, system: Any) -> str:
    request = system.get("request")
    if request is not None:
        response = request.response
        if response.content_type == response.default_content_type:
            response.content_type = "application/json"

    def adapted(found: Any) -> Any:
        if isinstance(found, decimal.Decimal):
            return float(found)
        method = getattr(found, "__json__", None)
        if method is not None:
            return method(request)
        if dataclasses.is_dataclass(found) and not isinstance(found, type):
            names = (field.name for field in dataclasses.fields(found) if field.name[0] != "_")
            return {name: getattr(found, name) for name in names}
        raise TypeError(f"{found!r} is not JSON serializable")

    try:
        return orjson.dumps(value, adapted, _OPTIONS).decode()
    except orjson.JSONEncodeError:
        return _written_slowly(value, adapted)


def _written_slowly(value: Any, adapted: Callable[[Any], Any]) -> str:
    def plain(found: Any) -> Any:
        """What orjson writes by itself, and the standard library does not."""
        try:
            return orjson.loads(orjson.dumps(found, option=_OPTIONS))
        except orjson.JSONEncodeError:
            return adapted(found)

    text = json.dumps(value, default=plain, indent=2, sort_keys=True, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=plain, indent=2, sort_keys=True)
    return text


def includeme(config: Any) -> None:
    config.add_renderer("json", JSON(serializer=pretty_json.dumps))
    config.add_renderer("fast_json", FastJson())
