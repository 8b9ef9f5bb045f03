"""Tweens that tests name in ``pyramid.tweens``."""

from __future__ import annotations

from typing import Any

from pyramid.response import Response


def passing(handler: Any, registry: Any) -> Any:
    return handler


def short(handler: Any, registry: Any) -> Any:
    """Answers or raises by itself, as the header X-Tween says."""

    def tween(request: Any) -> Any:
        wanted = request.headers.get("X-Tween")
        if wanted == "answer":
            return Response("tween", 418)
        if wanted == "raise":
            raise KeyError("tween")
        return handler(request)

    return tween
