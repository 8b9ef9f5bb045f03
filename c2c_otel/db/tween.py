"""Over pyramid_tm: the scope of a request's sessions, from before its transaction until after its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pyramid.settings import aslist
from pyramid.tweens import EXCVIEW

from c2c_otel.db import scope
from c2c_otel.db.readonly import ReadOnlyError
from c2c_otel.settings import ConfigurationError
from c2c_otel_exporters import guard

__all__ = ["NAME", "add", "factory"]

NAME: Final = "c2c_otel.db.tween.factory"


def add(config: Any) -> None:
    """Once for each application, however many sessions it has. With an explicit ``pyramid.tweens`` that does not name
    it, raises `ConfigurationError`."""
    if getattr(config.registry, "c2c_otel_db", False):
        return
    explicit = aslist(config.registry.settings.get("pyramid.tweens") or "")
    if explicit and NAME not in explicit:
        raise ConfigurationError(
            "pyramid.tweens", " ".join(explicit), f"{NAME} among them", "Add it before pyramid_tm.tm_tween_factory."
        )
    config.add_tween(NAME, over=("pyramid_tm.tm_tween_factory", EXCVIEW))
    config.registry.c2c_otel_db = True


def factory(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """The tween."""

    def tween(request: Any) -> Any:
        mine = scope.Scope(request)
        environ = request.environ
        outer = environ.get(scope.ENVIRON_KEY)  # of a subrequest that was copied from its request
        environ[scope.ENVIRON_KEY] = mine
        token = scope.current.set(mine)
        try:
            return handler(request)
        except ReadOnlyError as error:  # where no exception view has taken it
            return error
        finally:
            scope.current.reset(token)
            if outer is None:
                environ.pop(scope.ENVIRON_KEY, None)
            else:
                environ[scope.ENVIRON_KEY] = outer
            try:
                _close(mine)
            except Exception:
                guard.failed("db.tween")

    return tween


def _close(mine: scope.Scope) -> None:
    if mine.sessions:
        mine.close()
