"""An application whose names, statements and keys are as hostile as they can be. For the collectors' tests."""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy
from opentelemetry import metrics, trace
from pyramid.config import Configurator
from sqlalchemy.pool import StaticPool

from c2c_otel import stats

NASTY = ("a|b:c#d,e@f", "line\nbreak:1|c", "ü\u2028\x85é", "", " ", "%s{}", "x" * 300)
ROUTES = ("plain", *NASTY)
TAG_VALUES = (*NASTY, "back\\slash\"quote'", "\ud800 alone", "k:v,k2:v2|#x", "🎉")

engine = sqlalchemy.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
meter = metrics.get_meter("hostile|:#\n")
counter = meter.create_counter("hostile.events", description='a "quoted" \\ back\nslash')
level = meter.create_up_down_counter("hostile.level", description="Level")
sizes = meter.create_histogram("hostile.sizes", unit="By", description="Sizes")
logger = logging.getLogger("hostile")


def main() -> Any:
    """The application factory."""
    config = Configurator()
    config.include("c2c_otel")
    for number, name in enumerate(ROUTES):
        config.add_route(name, f"/route/{number}")
        config.add_view(lambda request: {"ok": 1}, route_name=name, renderer="json")
    for view in (measure, sql, instruments):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__, renderer="json")
    return config.make_wsgi_app()


def measure(request: Any) -> dict[str, Any]:
    for text in TAG_VALUES:
        stats.increment_counter(["count", text], 2, {"value": text, text: "name"})
        with stats.timer_context(["time", text, text], {"a": text}):
            pass
    stats.set_gauge(["below", "zero"], -12.5)
    stats.set_gauge(["above", "zero"], -3)
    stats.set_gauge(["above", "zero"], 4)
    stats.set_gauge(["tiny"], 1e-9)
    stats.increment_counter(["down"], -3)
    stats.increment_counter(["long"], 1, {"long": "y" * 3000})
    for number in (float("nan"), float("inf"), 10**400, "many", None):
        stats.increment_counter(["no", "number"], number)  # type: ignore[arg-type] # what is no number is dropped
    return {}


def sql(request: Any) -> dict[str, Any]:
    with engine.connect() as connection:
        for statement in (
            "SELECT 'it''s:1|c\n#x' AS \"a|b#c,d\"",
            'SELECT 1 AS "ü\u2028é"',
            "/* comment:1|c */ SELECT\n\n1 -- end",
            "SELECT " + ", ".join(f"{number} AS column_{number}" for number in range(500)),
            "SELECT 1 WHERE 1 IN (1, ')', 3)",
        ):
            connection.exec_driver_sql(statement)
        for broken in ("SELEKT 1", 'SELECT * FROM "no:such|table#\n"'):
            try:
                connection.exec_driver_sql(broken)
            except sqlalchemy.exc.OperationalError:
                pass
    return {}


def instruments(request: Any) -> dict[str, Any]:
    for text in TAG_VALUES:
        if text != "\ud800 alone":  # which OTLP cannot hold; a span attribute below has it
            counter.add(1, {"value": text})
    level.add(-5)
    sizes.record(1e12, {"a|b": "c,d\n"})
    with trace.get_tracer("hostile\n").start_as_current_span("name|:#\n") as span:
        span.set_attribute("lone", "\ud800")
        span.set_attribute("fine", "ü\n")
    logger.warning("line\nbreak \ud800 \x00 @cee: {}", extra={"a|b": "\ud800"})
    return {}
