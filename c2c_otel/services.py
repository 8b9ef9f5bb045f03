"""Cornice services that browsers of other origins may call.

from c2c_otel import services

hello = services.create("hello", "/hello", cors_credentials=True)

@hello.get()
def get(request):
    return {"hello": True}
"""

from __future__ import annotations

from typing import Any

from cornice import Service
from cornice.pyramidhook import current_service
from pyramid.interfaces import IRendererFactory

__all__ = ["create"]

_MAX_AGE_SECONDS = 86_400


def create(name: str, path: str, *args: Any, depth: int = 2, **kwargs: Any) -> Service:
    """A `cornice.Service` with defaults, each of which an argument of the same name replaces.

    Every origin is allowed (``cors_origins``), browsers keep the answer to a pre-flight for a day (``cors_max_age``, in
    seconds), nobody keeps other answers (``http_cache=0``), which are rendered by ``fast_json``; what cornice itself
    refuses is JSON with whatever renderer (``error_handler``). Answers to a pre-flight say how long they hold in
    Cache-Control, too, and every answer varies by Origin. ``depth``: how many calls up the module is that
    ``config.scan`` must find; more than 2 for a function of your own around this one.

    With ``cors_credentials=True`` and every origin allowed, any site may read what the user may: name the
    ``cors_origins`` where that matters.
    """
    kwargs.setdefault("cors_origins", ("*",))
    kwargs.setdefault("cors_max_age", _MAX_AGE_SECONDS)
    kwargs.setdefault("http_cache", 0)
    kwargs.setdefault("renderer", "fast_json")
    kwargs.setdefault("error_handler", _refusal)
    filters = kwargs.pop("filters", ())
    filters = [filters] if isinstance(filters, str) or callable(filters) else [*filters]
    return Service(name, path, *args, depth=depth, filters=[_cache, *filters], **kwargs)


def _refusal(request: Any) -> Any:
    """Cornice asks the service's renderer for this, and only its own one can."""
    return request.registry.queryUtility(IRendererFactory, name="cornicejson").render_errors(request)


def _cache(response: Any, request: Any) -> Any:
    """What caches may do with an answer, whoever asks next."""
    response.vary = sorted({*(response.vary or ()), "Origin"})
    if request.method == "OPTIONS":
        asked_for = request.headers.get("Access-Control-Request-Method")
        seconds = current_service(request).cors_max_age_for(asked_for)
        response.headers.pop("Pragma", None)
        response.headers.pop("Expires", None)
        response.cache_control = {"max-age": _MAX_AGE_SECONDS if seconds is None else int(seconds)}
    return response
