"""What a peer is to worker.py, and the application with nothing added; run in the environments of the peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import application


class Bare:
    """The application and nothing else; its log lines are plain JSON."""

    def instrument(self, statsd_port: int) -> None:
        """Before anything is imported that could be instrumented."""

    def configure(self, config: Any) -> None:
        """The include, for those who have one."""

    def handler(self, stream: Any) -> Any:
        return application.plain_handler(stream)

    def shown(self) -> dict[str, float]:
        """Totals since the start: spans ended and given to the exporter, requests in /metrics, things dropped."""
        return {}

    def quiet(self) -> None:
        """End what does something every second."""

    def settle(self) -> None:
        """Wait for what threads have still to do with the requests so far."""


class BareInclude(Bare):
    """What the include includes, without it: pyramid_tm, cornice, an indenting JSON renderer."""

    def configure(self, config: Any) -> None:
        from pyramid.renderers import JSON

        config.include("pyramid_tm")
        config.include("cornice")
        config.add_renderer("json", JSON(indent=2, sort_keys=True))


class Tween(Bare):
    """The floor: a tween, without which nothing can be said of a request, in a Pyramid that has no other."""

    def tween(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def empty(request: Any) -> Any:
            return handler(request)

        return empty

    def configure(self, config: Any) -> None:
        Tween.made = staticmethod(lambda handler, registry: self.tween(handler))
        config.add_tween(f"{__name__}.Tween.made")

    made: Callable[[Callable[[Any], Any], Any], Callable[[Any], Any]]


class TweenClocks(Tween):
    """And two readings of the clock."""

    def tween(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        from time import perf_counter_ns

        def timed(request: Any) -> Any:
            started = perf_counter_ns()
            try:
                return handler(request)
            finally:
                perf_counter_ns() - started

        return timed


class TweenUpdate(Tween):
    """And what it took is added to what a dictionary has for that method and route."""

    def tween(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        from time import perf_counter_ns

        totals: dict[tuple[str, str | None], int] = {}

        def added(request: Any) -> Any:
            started = perf_counter_ns()
            try:
                return handler(request)
            finally:
                route = request.matched_route
                key = (request.method, route.name if route is not None else None)
                totals[key] = totals.get(key, 0) + perf_counter_ns() - started

        return added


def served(text: str, prefix: str) -> float:
    """Requests that the server's duration histogram has counted, over all of its series."""
    return counted(text, lambda name: name.startswith(prefix) and "duration" in name)


def counted(text: str, wanted: Callable[[str], bool]) -> float:
    """The ``_count`` of all series whose metric's name is wanted."""
    lines = (line for line in text.splitlines() if line.partition("{")[0].endswith("_count"))
    return sum(float(line.rpartition(" ")[2]) for line in lines if wanted(line.partition("{")[0]))
