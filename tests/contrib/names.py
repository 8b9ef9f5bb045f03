"""Names that contrib's instrumentors give to what ours give the stable names, as contrib's own tests look for them.

Which ones they look for is what OTEL_SEMCONV_STABILITY_OPT_IN says at that moment: the old ones, the stable ones
(``http``, ``database``) or both (``http/dup``, ``database/dup``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from opentelemetry.instrumentation._semconv import (
    _get_schema_url_for_signal_types,
    _OpenTelemetrySemanticConventionStability,
    _OpenTelemetryStabilitySignalType,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

__all__ = ["SCOPES", "contrib_scope", "translated"]

SCOPES = {
    "c2c_otel.pyramid": "opentelemetry.instrumentation.pyramid.callbacks",
    "c2c_otel.redis": "opentelemetry.instrumentation.redis",
    "c2c_otel.requests": "opentelemetry.instrumentation.requests",
    "c2c_otel.sqlalchemy": "opentelemetry.instrumentation.sqlalchemy",
}


class Old(NamedTuple):
    """What a stable attribute was called. ``name`` None: there was none, or contrib does not record it.
    ``signal``: the word of the variable that decides."""

    name: str | None
    signal: str = "http"
    value: Callable[[Any], Any] = lambda value: value


_DATABASE = {
    "db.system.name": Old("db.system", "database"),
    "db.query.text": Old("db.statement", "database"),
    "db.operation.name": Old("db.operation", "database"),
    "db.query.summary": Old(None, "database"),
    "server.address": Old("net.peer.name"),
    "server.port": Old("net.peer.port"),
}
_ATTRIBUTES: dict[str, dict[str, Old]] = {
    "c2c_otel.sqlalchemy": {**_DATABASE, "db.namespace": Old("db.name", "database")},
    "c2c_otel.redis": {**_DATABASE, "db.namespace": Old("db.redis.database_index", "database", int)},
    "c2c_otel.requests": {
        "http.request.method": Old("http.method"),
        "http.request.method_original": Old(None),
        "http.response.status_code": Old("http.status_code"),
        "url.full": Old("http.url"),
        "network.protocol.version": Old(None),
        "server.address": Old(None),
        "server.port": Old(None),
        "error.type": Old(None),
    },
    "c2c_otel.pyramid": {
        "http.request.method": Old("http.method"),
        "http.response.status_code": Old("http.status_code"),
        "url.scheme": Old("http.scheme"),
        "url.path": Old(None),
        "url.query": Old(None),
        "server.address": Old("http.server_name"),
        "server.port": Old("net.host.port"),
        "network.protocol.version": Old("http.flavor"),
        "user_agent.original": Old("http.user_agent"),
        "error.type": Old(None),
    },
}

_ADDED = frozenset({"c2c.request_id", "pyramid.route.name"})
"""Which issue 1 asks for, and neither convention has."""


def translated(span: ReadableSpan) -> ReadableSpan:
    """A span of ours as contrib's tests would see it; any other span as it is."""
    scope = span.instrumentation_scope
    if scope is None or scope.name not in SCOPES:
        return span
    stable = span.attributes or {}
    attributes = _attributes(stable, _ATTRIBUTES[scope.name])
    attributes.update(_DERIVED.get(scope.name, _nothing)(stable))
    return ReadableSpan(
        _NAMES.get(scope.name, _same)(span.name, stable),
        span.context,
        span.parent,
        span.resource,
        attributes,
        span.events,
        span.links,
        span.kind,
        None,
        span.status,
        span.start_time,
        span.end_time,
        contrib_scope(scope.name),
    )


def contrib_scope(ours: str) -> InstrumentationScope:
    """What contrib calls itself where ours is called so: who has made a span is what differs, and nothing else."""
    name = SCOPES[ours]
    version = import_module(f"{'.'.join(name.split('.')[:3])}.version").__version__
    return InstrumentationScope(name, version, _schema(ours))


def _schema(ours: str) -> str:
    signals = [_OpenTelemetryStabilitySignalType.HTTP]
    if ours in ("c2c_otel.redis", "c2c_otel.sqlalchemy"):
        signals.append(_OpenTelemetryStabilitySignalType.DATABASE)
    _OpenTelemetrySemanticConventionStability._initialize()
    return str(_get_schema_url_for_signal_types(signals))


def _same(name: str, _: Mapping[str, Any]) -> str:
    return name


def _sql(name: str, stable: Mapping[str, Any]) -> str:
    """The stable ``{summary of the query}``; contrib's ``{operation} {namespace}``."""
    if "db.query.text" not in stable:
        return name
    return " ".join(str(stable[key]) for key in ("db.operation.name", "db.namespace") if stable.get(key))


def _redis(name: str, _: Mapping[str, Any]) -> str:
    """A pipeline's without the conventions' prefix."""
    return name.removeprefix("MULTI ").removeprefix("PIPELINE ")


def _pyramid(name: str, stable: Mapping[str, Any]) -> str:
    """The stable ``{method} {route}``; contrib's ``{route}``."""
    return str(stable.get("http.route", name))


_NAMES: dict[str, Callable[[str, Mapping[str, Any]], str]] = {
    "c2c_otel.pyramid": _pyramid,
    "c2c_otel.redis": _redis,
    "c2c_otel.sqlalchemy": _sql,
}


def _nothing(_: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _transport(stable: Mapping[str, Any]) -> dict[str, Any]:
    """Not among the stable conventions for Redis; it follows from what is: a Unix socket has no port."""
    if "server.address" not in stable:
        return {}
    tcp = "server.port" in stable
    mode = _mode("http")
    found = {} if mode == "old" else {"network.transport": "tcp" if tcp else "unix"}
    return found if mode == "stable" else {**found, "net.transport": "ip_tcp" if tcp else "other"}


def _addressed(stable: Mapping[str, Any]) -> dict[str, Any]:
    """The old attributes of a server that are made of several of the stable ones."""
    if _mode("http") == "stable":
        return {}
    host, port, scheme = (stable[key] for key in ("server.address", "server.port", "url.scheme"))
    query = stable.get("url.query")
    target = stable["url.path"] + (f"?{query}" if query else "")
    authority = host if (scheme, port) in (("http", 80), ("https", 443)) else f"{host}:{port}"
    return {
        "http.host": authority,
        "net.host.name": host,
        "http.target": target,
        "http.url": f"{scheme}://{authority}{target}",
    }


_DERIVED: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "c2c_otel.pyramid": _addressed,
    "c2c_otel.redis": _transport,
}


def _attributes(stable: Mapping[str, Any], table: Mapping[str, Old]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in stable.items():
        if key in _ADDED:
            continue
        old = table.get(key)
        mode = "stable" if old is None else _mode(old.signal)
        if mode != "old":
            found[key] = value
        if old is not None and old.name is not None and mode != "stable":
            found[old.name] = old.value(value)
    return found


def _mode(signal: str) -> str:
    """``old``, ``stable`` or ``both``."""
    asked = [word.strip() for word in os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")]
    if f"{signal}/dup" in asked:
        return "both"
    return "stable" if signal in asked else "old"
