"""Services that pages of other origins may call, made by `c2c_otel.services`."""

from __future__ import annotations

from typing import Any

import sqlalchemy

from c2c_otel import services

from .models import Hello

greetings = services.create("greetings", "/api/greetings", description="For pages of other origins.")
caller = services.create("who", "/api/who", description="Who asks, as far as the proxies in between are trusted.")


@greetings.get()
def list_greetings(request: Any) -> dict[str, Any]:
    """By ``fast_json``, the renderer of services: what is not ASCII stays readable."""
    values = request.dbsession.scalars(sqlalchemy.select(Hello.value).order_by(Hello.id).limit(20))
    return {"greetings": [f"¡{value}!" for value in values]}


@caller.get()
def who(request: Any) -> dict[str, Any]:
    return {"client": request.client_addr, "url": request.url, "request_id": request.c2c_request_id}
