"""Cornice services for a test that scans."""

from __future__ import annotations

from typing import Any

from cornice import Service
from cornice.resource import resource

scanned = Service(name="scanned", path="/scanned")


@scanned.get()
def get_scanned(request: Any) -> Any:
    return {"scanned": True}


@resource(collection_path="/things", path="/things/{id}")
class Thing:
    def __init__(self, request: Any, context: Any = None) -> None:
        self.request = request

    def get(self) -> Any:
        return {"id": self.request.matchdict["id"]}
