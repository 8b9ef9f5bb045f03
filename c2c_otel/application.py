"""What is decided about one Pyramid application before it is made, kept with its registry."""

from __future__ import annotations

import dataclasses
from typing import Any

from c2c_otel.settings import Settings

__all__ = ["Application", "of"]

_ATTRIBUTE = "c2c_otel"


@dataclasses.dataclass
class Application:
    """``traced``: requests have spans and measurements. ``included``: the include was called, with these
    ``settings`` (the application's own ini in them) and this ``route_prefix``."""

    traced: bool = False
    included: bool = False
    settings: Settings | None = None
    route_prefix: str | None = None


def of(registry: Any) -> Application:
    """The decisions of the application with this registry; fresh ones where nothing has been decided yet."""
    application = getattr(registry, _ATTRIBUTE, None)
    if not isinstance(application, Application):
        application = Application()
        setattr(registry, _ATTRIBUTE, application)
    return application
