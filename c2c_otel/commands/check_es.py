"""``c2c-otel-check-es``: whether log lines arrive in Elasticsearch, as statistics.

| name | what |
|---|---|
| timer ``get_max_timestamp`` | the search for the newest entry |
| gauge ``max_age`` | seconds since the newest entry |
| gauge ``roundtrip`` | seconds until a line of this process can be found; ``LOG_TIMEOUT`` where it cannot |

Exit codes: 0; 1 where Elasticsearch does not answer, has no entry, or the line has not arrived in ``LOG_TIMEOUT``;
2 for a usage error or a setting that cannot be used.
"""

from __future__ import annotations

import logging
import sys
import time
import uuid
from collections.abc import Sequence

from c2c_otel import stats
from c2c_otel.commands import shell
from c2c_otel.elasticsearch import Indexes
from c2c_otel.settings import ConfigurationError, Settings

__all__ = ["FIELD", "check", "main"]

_PROGRAM = "c2c-otel-check-es"

FIELD = "check_uuid"
"""The field of the log line that is looked for."""

_PAUSE = 1.0  # seconds between two looks

_logger = logging.getLogger(__name__)


@shell.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The console script."""
    shell.parser(
        _PROGRAM,
        "Measure how old the newest entry in Elasticsearch is, and how long a log line needs to get there. All is said"
        " by variables: ES_URL, ES_INDEXES, ES_AUTH, ES_FILTERS, LOG_TIMEOUT; LOG_TYPE and its like for the line;"
        " STATSD_ADDRESS or OTEL_EXPORTER_OTLP_ENDPOINT for what is measured.",
        f"ES_URL=https://es:9200 ES_INDEXES='logstash-*' ES_AUTH=reader:secret STATSD_ADDRESS=statsd:8125 {_PROGRAM}\n"
        f"ES_FILTERS=kubernetes.namespace=shop LOG_TYPE=logstash LOG_HOST=syslog LOG_TIMEOUT=60 ... {_PROGRAM}",
        "0; 1: no answer, no entry, or the line did not arrive in time; 2: usage, or a setting that cannot be used",
    ).parse_args(arguments)
    from c2c_otel import setup_process

    settings = setup_process.init()
    return 0 if check(settings, _indexes(settings)) else 1


def _indexes(settings: Settings) -> Indexes:
    for name, value, example in (
        ("ES_URL", settings.es_url, "https://elasticsearch:9200"),
        ("ES_INDEXES", settings.es_indexes, "logstash-*"),
    ):
        if not value:
            raise ConfigurationError(name, "", f"a value such as {example}", "Set it.")
    assert settings.es_url and settings.es_indexes
    try:
        return Indexes(settings.es_url, settings.es_indexes, settings.es_auth)
    except ValueError as error:
        raise ConfigurationError("ES_URL", "***", str(error).removeprefix("expected ")) from None


def check(settings: Settings, indexes: Indexes) -> bool:
    """Measure; whether all is well. The second half is done where the first one fails, too."""
    fresh = _age(settings, indexes)
    arrived = _round_trip(indexes, settings.log_timeout) if settings.log_timeout else True
    return fresh and arrived


def _age(settings: Settings, indexes: Indexes) -> bool:
    try:
        with stats.timer_context(["get_max_timestamp"]):
            newest = indexes.newest(settings.es_filters)
    except OSError as error:
        _logger.error("The newest entry cannot be asked for: %s", error)
        return False
    if newest is None:
        _logger.error("There is no entry in %s", settings.es_indexes)
        return False
    age = round(time.time() - newest, 3)
    stats.set_gauge(["max_age"], age)
    _logger.info("The newest entry is %s s old", age)
    return True


def _round_trip(indexes: Indexes, timeout: float) -> bool:
    """The line that travels is one of `_logger`, on whatever way the log is sent."""
    mark = str(uuid.uuid4())
    if not _logger.isEnabledFor(logging.INFO):
        _logger.setLevel(logging.INFO)
    _logger.info("A line to be found again", extra={FIELD: mark})
    start = time.monotonic()
    trouble = ""
    while True:
        try:
            found = indexes.has(FIELD, mark)
        except OSError as error:
            found, trouble = False, f" ({error})"
        seconds = round(time.monotonic() - start, 3)
        if found:
            stats.set_gauge(["roundtrip"], seconds)
            _logger.info("The line was found after %s s", seconds)
            return True
        if seconds >= timeout:
            stats.set_gauge(["roundtrip"], timeout)
            _logger.error("The line was not found within %s s%s", timeout, trouble)
            return False
        time.sleep(min(_PAUSE, max(0.0, timeout - seconds)))


if __name__ == "__main__":
    sys.exit(main())
