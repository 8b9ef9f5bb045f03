"""The renderers ``json`` and ``fast_json``: indented by two, keys sorted, application/json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from pyramid.renderers import JSON

__all__ = ["FastJson", "includeme"]

_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS


class FastJson:
    """A renderer factory that encodes with orjson: quick, and without adapters for further types (those with a
    ``__json__`` method are understood)."""

    def __call__(self, info: Any) -> Callable[[Any, Any], bytes]:
        return _fast


def _fast(value: Any, system: Any) -> bytes:
    request = system.get("request")
    if request is not None:
        response = request.response
        if response.content_type == response.default_content_type:
            response.content_type = "application/json"

    def adapted(found: Any) -> Any:
        try:
            method = found.__json__
        except AttributeError:
            raise TypeError(f"{found!r} is not JSON serializable") from None
        return method(request)

    return orjson.dumps(value, default=adapted, option=_OPTIONS)


def includeme(config: Any) -> None:
    config.add_renderer("json", JSON(indent=2, sort_keys=True))
    config.add_renderer("fast_json", FastJson())
