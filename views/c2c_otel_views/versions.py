"""{base}/versions.json: the file that c2c-otel-genversion writes, where it existed at the start."""

from __future__ import annotations

import functools
import json
import logging
from typing import Any

from pyramid.response import Response

from c2c_otel import admin, version
from c2c_otel_views import answers

__all__ = ["includeme", "versions"]

_logger = logging.getLogger("c2c_otel")


def versions(content: bytes, request: Any) -> Response:
    return Response(content, content_type="application/json", charset="utf-8")


def includeme(config: Any) -> None:
    """The file is read once. One that cannot be read or is not JSON is said in the log, and has no route."""
    path = admin.settings_of(config).versions_file
    try:
        content = answers.json_response(json.loads(path.read_bytes())).body
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, RecursionError) as problem:  # TypeError: orjson's, for what it cannot write
        _logger.warning("versions.json is not served: %s cannot be read: %s", path, problem)
        return
    version.count_start(path)
    view = functools.partial(versions, content)
    answers.add_view(config, "c2c_versions", f"{admin.base_path(config)}/versions.json", view)
