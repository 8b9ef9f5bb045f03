"""An application that fails in each of the ways there are, with secrets wherever one can be. ``APP_LATE``: with an
exception view of its own; ``APP_INCLUDE=false``: without c2c_otel."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import sentry_sdk
from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound, HTTPServiceUnavailable
from pyramid.response import Response

from c2c_otel import sentry

_logger = logging.getLogger(__name__)

PLANTED = "pl4nted"
"""In every secret of the tests, and in nothing else."""


def plant(where: str) -> str:
    """A secret that is not in the source as a text."""
    return f"{PLANTED[:3]}{PLANTED[3:]}-{where}"


class Refused(Exception):
    """What the application's own exception view knows."""


def _fail(**more: Any) -> None:
    password = plant("local")
    config = {"db": {"user": "me", "pass" + "word": plant("nested")}, "url": f"postgresql://me:{plant('url')}@db/x"}
    pairs = [("Author" + "ization", f"Bearer {plant('pair')}"), ("Accept", "*/*")]
    settings = os.environ.get("C2C_SECRET")
    harmless = "seen by who debugs"
    raise ValueError(
        f"failed with token={plant('message')} for {len([password, config, pairs, settings, harmless, more])}"
    )


def fail(request: Any) -> None:
    """An exception that nobody handles."""
    _logger.info("about to fail, %s", request.url, extra={"api_key": plant("extra")})
    _fail(environ=dict(request.environ), body=request.body)


def body(request: Any) -> None:
    """The same, when the body was read."""
    assert request.json_body["name"]
    _fail()


def refused(request: Any) -> None:
    """What an exception view of the application answers."""
    raise Refused(request.params.get("status", "500"))


def _answer_refused(error: Any, request: Any) -> Response:
    return Response("refused", int(str(error)))


def logged(request: Any) -> Response:
    """Logged, and answered."""
    _logger.warning("no event")
    _logger.error("event of %s", "logging", extra={"answer": 42, "session_token": plant("log")})
    return Response("logged")


def excluded(request: Any) -> Response:
    """Logged by a logger that is left out."""
    for name in ("left.out", "out.left", "not.left"):
        logging.getLogger(name).error("by %s", name)
    return Response("logged")


def missing(request: Any) -> None:
    """An answer, not a failure."""
    raise HTTPNotFound("nothing here")


def unavailable(request: Any) -> None:
    """An answer, too."""
    raise HTTPServiceUnavailable("come again")


def stream(request: Any) -> Response:
    """Fails while its body is sent."""

    def chunks() -> Iterator[bytes]:
        yield b"one"
        raise RuntimeError("the body broke")

    return Response(app_iter=chunks())


def user(request: Any) -> Response:
    """What it tells sentry-sdk belongs to this request alone."""
    sentry_sdk.set_user({"id": request.params["id"]})
    sentry_sdk.set_tag("mine", request.params["id"])
    _logger.info("breadcrumb of %s", request.params["id"])
    if "fail" in request.params:
        raise RuntimeError(f"of user {request.params['id']}")
    return Response("fine")


def thread(request: Any) -> Response:
    """Fails in a thread of its own."""

    def run() -> None:
        raise LookupError("in a thread")

    started = threading.Thread(target=run)
    started.start()
    started.join()
    return Response("started")


def job(request: Any) -> Response:
    """Fails in a block, and goes on."""
    try:
        with sentry.capture_exceptions():
            raise ArithmeticError("in a block")
    except ArithmeticError:
        return Response("went on")


def sql(request: Any) -> None:
    """A statement that fails, with its parameters."""
    import sqlalchemy

    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("INSERT INTO nowhere VALUES (:a)"), {"a": plant("parameter")})


def threads(request: Any) -> Response:
    """Which threads run, in which process."""
    names = ",".join(sorted(thread.name for thread in threading.enumerate()))
    return Response(f"{os.getpid()} {names}")


VIEWS = (fail, body, refused, logged, excluded, missing, unavailable, stream, user, thread, job, sql, threads)


def main() -> Any:
    """``gunicorn tests.apps.sentry:main()``"""
    config = Configurator(settings={"my.session_secret": plant("ini")})
    if os.environ.get("APP_INCLUDE", "true") != "false":
        config.include("c2c_otel")
    for view in VIEWS:
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__)
    if os.environ.get("APP_LATE"):
        config.add_exception_view(_answer_refused, context=Refused)
    if os.environ.get("APP_LOG_AT_START"):
        _logger.error("at the start")
    return config.make_wsgi_app()
