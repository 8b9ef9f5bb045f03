"""Request classes made once, not with every request.

Pyramid gives a request that has added properties (``request.tm``, cornice's, an application's own) a class of its
own, made anew each time: about 30 us. The class depends on nothing but its parent and the properties, so it is kept
for as long as these are the same objects.
"""

from __future__ import annotations

from typing import Any

from pyramid.util import InstancePropertyHelper

__all__ = ["RequestClasses"]

_MOST = 16
"""Parents of which the class is kept. A request factory that calls ``set_property`` has a new one each time."""


class RequestClasses:
    """Applies the extensions of one application to its requests. Thread-safe: at worst a class is made twice."""

    def __init__(self) -> None:
        self._made: dict[type, tuple[dict[str, Any], type]] = {}

    def apply(self, request: Any, extensions: Any) -> None:
        """What ``pyramid.request.apply_request_extensions`` does."""
        for name, function in extensions.methods.items():
            setattr(request, name, function.__get__(request, request.__class__))
        descriptors = extensions.descriptors
        if not descriptors:
            return
        parent = request.__class__
        made = self._made.get(parent)
        if made is not None and made[0] == descriptors:
            request.__class__ = made[1]
            return
        InstancePropertyHelper.apply_properties(request, descriptors)
        if made is None and len(self._made) >= _MOST:
            self._made.clear()
        self._made[parent] = (dict(descriptors), request.__class__)
