"""A script of the demo application: ``python -m acceptance_tests.app.script`` counts the greetings, and says so.

It needs no Pyramid and no server. With ``--fail`` it ends with an exception, which Sentry gets.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

import sqlalchemy

from c2c_otel import setup_process, stats

from .models import Hello

_logger = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """The script."""
    setup_process.init()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # what waits to be sent is sent
    engine = sqlalchemy.create_engine(os.environ["SQLALCHEMY_URL"])
    with stats.timer_context(["script", "count"]), engine.connect() as connection:
        count = connection.scalar(sqlalchemy.select(sqlalchemy.func.count(Hello.id)))
    stats.set_gauge(["script", "hello"], float(count or 0))
    _logger.info("%s greetings", count)
    if "--fail" in arguments:
        raise RuntimeError("asked for")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
