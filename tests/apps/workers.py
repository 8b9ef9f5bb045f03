"""An application for tests of several workers: each answer names the process that gave it.

Everything is measured by instruments that are made where the module is imported, which is in the arbiter with
``--preload``. Set by the environment: ``APP_INCLUDE`` (false: without c2c_otel), ``APP_SQL`` (an SQLAlchemy URL),
``APP_CALL`` (the URL of another service).
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable
from typing import Any

import prometheus_client
from opentelemetry import metrics, trace
from pyramid.config import Configurator

from c2c_otel import stats
from c2c_otel.metrics import Provider, add_provider

_logger = logging.getLogger(__name__)
_meter = metrics.get_meter(__name__)
_done = _meter.create_counter("jobs.done", unit="{job}")
_size = _meter.create_histogram("jobs.size", explicit_bucket_boundaries_advisory=[1, 10])
_open = _meter.create_up_down_counter("jobs.open")
_seen = _meter.create_observable_counter("jobs.seen", callbacks=[lambda options: [metrics.Observation(7)]])
_classic = prometheus_client.Counter("jobs_classic", "Jobs as prometheus_client counts them")
_classic.inc(0)
_answered = itertools.count(1)


class _Answered(Provider):
    """A provider's counter: what each process tells of itself is added up."""

    def __init__(self) -> None:
        super().__init__("jobs_provided_total", "Jobs as a provider tells them", "counter")
        self.total = 0

    def get_data(self) -> list[tuple[dict[str, str], float]]:
        return [({}, self.total)]


_provided = _Answered()
add_provider(_provided)
_at_import = {  # what is recorded here is recorded in the arbiter with --preload, and in each worker without
    "APP_RECORD_AT_IMPORT": os.environ.get("APP_RECORD_AT_IMPORT")
}
if _at_import["APP_RECORD_AT_IMPORT"]:
    _done.add(1000)
    stats.increment_counter(["at", "import"], 1000)
    stats.set_gauge(["at", "import"], 1)


def _who(**more: Any) -> dict[str, Any]:
    return {"pid": os.getpid(), "order": next(_answered), **more}


def work(request: Any) -> dict[str, Any]:
    """Everything at once, with the number that the request brings: a log line, a counter, SQL and an outgoing call."""
    number = request.matchdict["number"]
    trace_id = f"{trace.get_current_span().get_span_context().trace_id:032x}"
    answer = _who(request_id=request.c2c_request_id, trace_id=trace_id)
    _logger.info("work %s", number, extra={"seen_request_id": request.c2c_request_id, "seen_trace_id": trace_id})
    stats.increment_counter(["work", number])
    engine = request.registry.engine
    if engine is not None:
        import sqlalchemy

        with engine.connect() as connection:
            query = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
            answer["application_name"] = connection.scalar(sqlalchemy.text(query))
    url = os.environ.get("APP_CALL")
    if url:
        import requests

        answer["called"] = requests.get(f"{url}/{number}", timeout=20).status_code
    return answer


def job(request: Any) -> dict[str, Any]:
    """One job, by each of the ways to count."""
    _done.add(1, {"kind": "test"})
    _size.record(5)
    _classic.inc()
    _provided.total += 1
    stats.increment_counter(["job"])
    return _who()


def gauge(request: Any) -> dict[str, Any]:
    """A gauge of the application's, and an up-down counter."""
    value = float(request.matchdict["value"])
    stats.set_gauge(["depth"], value)
    stats.set_gauge(["depth", "of", str(os.getpid())], value)
    _open.add(value)
    return _who()


def body(request: Any) -> Iterable[bytes]:
    """Nothing but an answer, in two parts."""
    yield f"{os.getpid()}".encode()
    yield b"\n"


def main() -> Any:
    """``gunicorn tests.apps.workers:main()``"""
    config = Configurator(settings={})
    if os.environ.get("APP_INCLUDE", "true") != "false":
        config.include("c2c_otel")
    config.registry.engine = None
    if url := os.environ.get("APP_SQL"):
        import sqlalchemy

        config.registry.engine = sqlalchemy.create_engine(url)
    for name, path, view in (
        ("work", "/number/{number}", work),
        ("job", "/job", job),
        ("gauge", "/gauge/{value}", gauge),
    ):
        config.add_route(name, path)
        config.add_view(view, route_name=name, renderer="json")
    return config.make_wsgi_app()
