"""What the end of a request is told as: worked out once for each route, method and status, then remembered.

A `Place` is a route, or no route; an `Ending` one way in which requests to it end: the name of the span, the
attributes that are known at the end, and the two timers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from c2c_otel.instrumentation.wsgi_attributes import OTHER
from c2c_otel_exporters import names

if TYPE_CHECKING:
    from c2c_otel_exporters.sink import SinkLike, Timer

__all__ = ["Ending", "Place", "place_of", "route_of"]

_MOST = 1000
"""Places, and endings of one place, that are remembered."""

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")


class Ending:
    """``name`` and ``attributes`` of the span; attributes are not to be changed."""

    __slots__ = ("_key", "attributes", "bound", "name")

    def __init__(self, place: Place, method: str, status: int, scheme: str, error: str | None) -> None:
        self._key = (method, place.name, place.pattern, status, scheme, error)
        self.bound: tuple[Any, Any, Any] = (None, None, None)
        self.attributes: dict[str, Any] = {"http.response.status_code": status}
        self.name: str | None = None
        if place.name is not None:
            self.attributes["http.route"] = place.pattern
            self.attributes["pyramid.route.name"] = place.name
            self.name = f"{'HTTP' if method == OTHER else method} {place.pattern}"
        if error is not None:
            self.attributes["error.type"] = error

    def timers(self, sink: SinkLike) -> tuple[SinkLike, Timer, Timer | None]:
        """``bound`` for that sink: the sink, its timer of the request, and that of the rendering, if there was one."""
        bound = self.bound
        if bound[0] is not sink:
            bound = self.bound = (sink, sink.timer(names.route, *self._key), None)
        return bound

    def render_timer(self, sink: SinkLike) -> Timer:
        """The timer of the rendering of such requests."""
        found, timer, rendering = self.timers(sink)
        if rendering is None:
            rendering = sink.timer(names.render, *self._key[:4])
            self.bound = (found, timer, rendering)
        return rendering


class Place:
    """``name`` and ``pattern`` (with its leading slash, as ``http.route`` has it) of a route; None for no route.
    ``timing``: how its Server-Timing header begins."""

    __slots__ = ("endings", "name", "pattern", "timing")

    def __init__(self, name: str | None, pattern: str | None) -> None:
        self.name = name
        self.pattern = pattern
        self.timing = f"route;desc={_token(name)}, route;dur=" if name else "route;dur="
        self.endings: dict[tuple[str, int, str, str | None], Ending] = {}

    def ending(self, key: tuple[str, int, str, str | None]) -> Ending:
        """``key``: method, status, scheme, ``error.type``."""
        found = self.endings.get(key)
        if found is None:
            if len(self.endings) >= _MOST:
                self.endings.clear()
            found = self.endings[key] = Ending(self, *key)
        return found


NOWHERE = Place(None, None)
"""Of a request that has matched no route."""

_places: dict[Any, Place] = {}


def place_of(request: Any) -> Place:
    """That of the route that a Pyramid request has matched."""
    route = getattr(request, "matched_route", None)
    if route is None:
        return NOWHERE
    place = _places.get(route)
    if place is None or place.name != route.name:
        pattern = getattr(route, "pattern", "")  # an application may put there what it likes
        place = Place(route.name, pattern if pattern[:1] == "/" else f"/{pattern}")
        if len(_places) >= _MOST:
            _places.clear()
        _places[route] = place
    return place


def route_of(request: Any) -> tuple[str, str] | None:
    """Name and pattern of the route that a request has matched."""
    place = place_of(request)
    return None if place.name is None else (place.name, place.pattern or "/")


def _token(name: str) -> str:
    """A Server-Timing description: as it is where the header's grammar allows it, else quoted."""
    return name if _TOKEN.match(name) else f'"{_UNQUOTABLE.sub("_", name)}"'
