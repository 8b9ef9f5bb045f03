"""Views that do what services do: query, cache, call, stream, fail and measure."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import prometheus_client
import redis
import requests
import sqlalchemy
from opentelemetry import metrics
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPBadRequest, HTTPNotFound, HTTPServiceUnavailable
from pyramid.response import Response
from pyramid.view import view_config

from c2c_otel import stats

from .models import Hello

_logger = logging.getLogger(__name__)
_audit = logging.getLogger("acceptance_tests.audit")
_orders = metrics.get_meter(__name__).create_counter("demo.orders", unit="{order}", description="Orders taken")
_sizes = prometheus_client.Summary("demo_order_size", "Items in an order")


def includeme(config: Configurator) -> None:
    """Routes, and the Redis client where ``demo.redis_url`` names one."""
    url = config.registry.settings.get("demo.redis_url")
    config.registry.redis = redis.Redis.from_url(url) if url else None
    config.add_route("home", "/")
    config.add_route("hello", "/api/hello")
    config.add_route("hello_one", "/api/hello/{id}")
    config.add_route("activity", "/api/activity")
    config.add_route("audit", "/api/audit")
    config.add_route("cache", "/api/cache/{key}")
    config.add_route("call", "/api/call")
    config.add_route("stream", "/api/stream")
    config.add_route("error", "/api/error")
    config.add_route("order", "/api/order")
    config.add_route("log", "/api/log")
    config.scan(".views")


_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>c2c-otel demo</title>
<link rel="icon" href="data:,">
<style>
body {{ font-family: sans-serif; line-height: 1.5; margin: 2rem auto; max-width: 44rem; padding: 0 1rem }}
dt {{ font-family: monospace; font-size: 1.1rem; margin-top: 0.8rem }}
dd {{ color: #555; margin: 0 }}
</style>
<h1>c2c-otel demo</h1>
<p>Each request is a trace, lines of statsd and a part of the metrics. Open a few, then look at the metrics.</p>
<dl>
{links}
</dl>
"""
_LINKS = {
    "/api/hello": "a list from the database, rendered as JSON",
    "/api/hello/1": "one row of it",
    "/api/greetings": "a service for pages of other origins, rendered by orjson",
    "/api/who": "who asks: behind a trusted proxy, whom that one names",
    "/api/audit": "which greetings were added: log records in a table of the database",
    "/api/call": "a call to another service (here: to this one), in the same trace and with the same request id",
    "/api/stream": "a body that logs while it is sent",
    "/api/order": "timers, a counter and a gauge of the application's own",
    "/api/error": "an exception, on purpose: JSON with the status 500",
    "/metrics": "what Prometheus sees, all workers together",
    "/c2c/health_check?max_level=3": "the database, the disk, the migrations: 200 where all is well",
    "/c2c": "the index of the views, with a login: the secret is where the demo was started",
}


@view_config(route_name="home")
def home(request: Any) -> Response:
    """What there is to try."""
    links = "\n".join(f'<dt><a href="{path}">{path}</a></dt><dd>{what}</dd>' for path, what in _LINKS.items())
    return Response(_PAGE.format(links=links))


@view_config(route_name="hello", request_method="GET", renderer="json")
def hello_list(request: Any) -> list[dict[str, Any]]:
    rows = request.dbsession.scalars(sqlalchemy.select(Hello).order_by(Hello.id).limit(20))
    return [{"id": row.id, "value": row.value} for row in rows]


@view_config(route_name="hello", request_method="POST", renderer="json")
def hello_add(request: Any) -> dict[str, Any]:
    try:
        row = Hello(value=str(request.json_body["value"]))
    except (ValueError, KeyError, TypeError) as error:
        raise HTTPBadRequest('expected a JSON body such as {"value": "you"}') from error
    request.dbsession.add(row)
    request.dbsession.flush()
    _audit.info("hello %s was added", row.id)
    return {"id": row.id, "value": row.value}


@view_config(route_name="hello_one", renderer="json")
def hello_one(request: Any) -> dict[str, Any]:
    row = request.dbsession.get(Hello, int(request.matchdict["id"]) if request.matchdict["id"].isdigit() else -1)
    if row is None:
        raise HTTPNotFound(f"no hello {request.matchdict['id']}")
    return {"id": row.id, "value": row.value}


@view_config(route_name="activity", renderer="json")
def activity(request: Any) -> dict[str, Any]:
    """What PostgreSQL shows of this very connection."""
    name = request.dbsession.scalar(
        sqlalchemy.text("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    )
    return {"application_name": name, "request_id": request.c2c_request_id}


@view_config(route_name="audit", renderer="json")
def audit(request: Any) -> list[dict[str, Any]]:
    """What `c2c_otel.sqlalchemylogger` has written; it makes the table with the first record."""
    session = request.dbsession
    if not sqlalchemy.inspect(session.connection()).has_table("audit"):
        return []
    rows = session.execute(sqlalchemy.text("SELECT level, msg, created_at FROM audit ORDER BY id DESC LIMIT 20"))
    return [{"level": row.level, "msg": row.msg, "created_at": str(row.created_at)} for row in rows]


@view_config(route_name="cache", renderer="json")
def cache(request: Any) -> dict[str, Any]:
    client = request.registry.redis
    if client is None:
        raise HTTPServiceUnavailable("DEMO_REDIS_URL is not set")
    key = request.matchdict["key"]
    found = client.get(key)
    client.set(key, "seen", ex=60)
    return {"key": key, "found": found is not None}


@view_config(route_name="call", renderer="json")
def call(request: Any) -> dict[str, Any]:
    """Calls another service: ``demo.call_url``, by default this one."""
    url = request.registry.settings.get("demo.call_url") or request.route_url("hello")
    answer = requests.get(url, timeout=5)
    return {"status": answer.status_code, "request_id": answer.headers.get("X-Request-ID")}


@view_config(route_name="stream")
def stream(request: Any) -> Response:
    def body() -> Iterator[bytes]:
        for number in range(5):
            _logger.info("streaming part %s", number)
            yield f"part {number}\n".encode()

    return Response(app_iter=body(), content_type="text/plain")


@view_config(route_name="error")
def error(request: Any) -> Response:
    raise RuntimeError("asked for")


@view_config(route_name="log", renderer="json")
def log(request: Any) -> dict[str, Any]:
    _logger.info("logged for %s", request.c2c_request_id, extra={"answer": 42})
    return {"request_id": request.c2c_request_id}


@view_config(route_name="order", renderer="json")
def order(request: Any) -> dict[str, Any]:
    """Measures by every API there is."""
    with stats.timer_context(["order", "total"]), stats.outcome_timer_context(["order", "check"]):
        stats.increment_counter(["order", "items"], 3)
    stats.set_gauge(["order", "last"], 3)
    _orders.add(1, {"kind": "demo"})
    _sizes.observe(3)
    return {"items": 3}
