"""The Pyramid application that every peer runs, and the requests that are timed.

It knows nothing of telemetry: a peer instruments before it is made, or is included by `make`. It runs with
Pyramid 1.10 to 2.1, SQLAlchemy 1.4 to 2.1 and redis-py 3 to 8.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

PATHS = {
    "json": "/json",
    "select": "/select",
    "redis": "/redis",
    "mix": "/mix",
    "call": "/call",
    "404": "/missing",
    "stream": "/stream",
    "log": "/log",
}
"""Scenario -> the path it asks for."""

STATUS = {name: 404 if name == "404" else 200 for name in PATHS}
CHUNKS = 5


def make(configure: Callable[[Any], None], redis_port: int) -> Callable[..., Any]:
    """The WSGI application; `configure` gets the Configurator first."""
    import redis
    import requests
    import sqlalchemy
    from pyramid.config import Configurator
    from pyramid.response import Response

    engine = sqlalchemy.create_engine("sqlite://")
    select = sqlalchemy.text("SELECT id, value FROM hello WHERE id = :id")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE hello (id INTEGER PRIMARY KEY, value TEXT)"))
        connection.execute(sqlalchemy.text("INSERT INTO hello VALUES (1, 'world')"))
    client = redis.Redis(port=redis_port, socket_timeout=5)
    client.set("key", "value")
    session = requests.Session()
    session.trust_env = False  # no look through the environment for proxies in each call
    session.mount("http://", remote_adapter())
    logger = logging.getLogger("bench")

    def plain(request: Any) -> dict[str, Any]:
        return {"hello": "world"}

    def one_select(request: Any) -> dict[str, Any]:
        with engine.connect() as connection:
            row = connection.execute(select, {"id": 1}).first()
        return {"hello": row[1]}

    def one_get(request: Any) -> dict[str, Any]:
        return {"hello": client.get("key").decode()}

    def mix(request: Any) -> dict[str, Any]:
        with engine.connect() as connection:
            rows = [connection.execute(select, {"id": 1}).first() for _ in range(3)]
        return {"hello": rows[0][1], "also": [client.get("key").decode() for _ in range(2)]}

    def call(request: Any) -> dict[str, Any]:
        answer = session.get("http://remote.example:8080/thing", timeout=5)
        return {"hello": answer.json()["hello"]}

    def stream(request: Any) -> Any:
        def parts() -> Iterator[bytes]:
            for _ in range(CHUNKS):
                yield b"part\n"

        return Response(app_iter=parts(), content_type="text/plain")

    def log(request: Any) -> dict[str, Any]:
        logger.info("said %s to %s", "hello", "world", extra={"answer": 42})
        return {"hello": "world"}

    config = Configurator(settings={})
    configure(config)
    for name, view in {"json": plain, "select": one_select, "redis": one_get, "mix": mix, "call": call}.items():
        config.add_route(name, PATHS[name])
        config.add_view(view, route_name=name, renderer="json")
    config.add_route("stream", PATHS["stream"])
    config.add_view(stream, route_name="stream")
    config.add_route("log", PATHS["log"])
    config.add_view(log, route_name="log", renderer="json")
    application: Callable[..., Any] = config.make_wsgi_app()
    return application


sent: list[dict[str, str]] = []
"""Headers of the last outgoing call."""


def remote_adapter() -> Any:
    """The outgoing call without a network: an HTTPAdapter whose connection pool answers by itself.

    What is timed or wrapped by anybody (``Session.send``, ``HTTPAdapter.send``) is requests' own. A loopback server
    instead would add its noise and system calls to both sides of each subtraction.
    """
    from requests.adapters import HTTPAdapter
    from urllib3.response import HTTPResponse

    class Pool:
        def urlopen(self, **kwargs: Any) -> Any:
            sent[:] = [dict(kwargs["headers"])]
            body = io.BytesIO(b'{"hello": "world"}')
            return HTTPResponse(body, {"Content-Type": "application/json"}, 200, preload_content=False)

    class Adapter(HTTPAdapter):  # type: ignore[misc]  # requests has no types in most of the environments
        def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
            return pool

    pool = Pool()
    return Adapter()


class Nowhere:
    """A stream for log lines that costs as little as can be; remembers the last one."""

    last = ""

    def write(self, text: str) -> int:
        if len(text) > 1:
            self.last = text
        return len(text)

    def flush(self) -> None:
        pass


class PlainJson(logging.Formatter):
    """The plainest JSON line: what a service without any of the peers would write."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)),
                "level": record.levelname,
                "logger": record.name,
                "message": record.getMessage(),
                "answer": record.__dict__.get("answer"),
            }
        )


def log_to(handler: logging.Handler) -> None:
    """The handler of the application's logger alone; what a peer itself logs, its errors of a 404, goes nowhere."""
    logging.getLogger().addHandler(logging.NullHandler())
    logger = logging.getLogger("bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)


def plain_handler(stream: Any) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainJson())
    return handler


def environ(path: str) -> dict[str, Any]:
    """What a server gives for one GET."""
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "HTTP_HOST": "shop.example:8080",
        "HTTP_USER_AGENT": "bench/1",
        "HTTP_ACCEPT": "*/*",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": None,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def served(redis_port: str) -> Callable[..., Any]:
    """For ``gunicorn "application:served('6379')"``."""
    return make(lambda config: None, int(redis_port))
