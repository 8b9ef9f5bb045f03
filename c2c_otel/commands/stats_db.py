"""``c2c-otel-stats-db``: rows, sizes and indexes of a PostgreSQL, to statsd, a Pushgateway and OpenTelemetry.

What is measured is in `c2c_otel.table_statistics`, how it is named in `c2c_otel.statistics_targets`.

Exit codes: 0; 1 where something could not be measured or sent (all else was); 2 for a usage error or a setting that
cannot be used.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from c2c_otel.commands import shell
from c2c_otel.commands.progress import Progress
from c2c_otel.settings import Address, ConfigurationError, Settings

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from c2c_otel.statistics_targets import Target

__all__ = ["main"]

_PROGRAM = "c2c-otel-stats-db"
_EXAMPLES = f"""\
{_PROGRAM} --db postgresql://reader@db/shop
{_PROGRAM} --db postgresql://reader@db/shop --schema shop --statsd-address statsd:8125 --statsd-prefix shop
{_PROGRAM} --db postgresql://reader@db/shop --prometheus-url http://pushgateway:9091 --prometheus-instance shop
{_PROGRAM} --db postgresql://reader@db/shop --otlp http://collector:4318
{_PROGRAM} --db postgresql://reader@db/shop --extra "SELECT 'orders.open', count(*) FROM orders WHERE open"
"""  # noqa: S608 - an example, for --help
_FORMAT = "%(asctime)-15s %(levelname)5s %(name)s %(message)s"

_LOGGER = "c2c_otel.statistics_run"


@shell.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The console script."""
    parser = _parser()
    options = parser.parse_args(arguments)
    settings = Settings.load()
    _set_up_logging(settings, options.verbosity)
    try:
        from c2c_otel.statistics_run import Run
        from c2c_otel.table_statistics import Reader, database_url
    except ImportError as error:
        shell.complain(_PROGRAM, f"{error.name} is not installed; run: pip install 'c2c-otel[postgresql]'")
        return 2
    try:
        url = database_url(options.db)
        targets = _targets(options, settings, url)
    except ValueError as error:
        if isinstance(error, ConfigurationError):
            raise
        parser.error(str(error))
    reader = Reader(url, timeout=options.timeout, exact=options.exact)
    with closing(reader), Progress(sys.stderr) as progress:
        run = Run(reader, targets, progress)
        run.measure(options.schema, options.extra)
        run.commit()
    return 1 if run.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = shell.parser(
        _PROGRAM,
        "Measure the tables of a PostgreSQL: rows, sizes, indexes and their usage. Where no target is named, the"
        " values are printed.",
        _EXAMPLES,
        "0; 1: something could not be measured or sent, all else was; 2: usage",
    )
    add = parser.add_argument
    add("--db", metavar="URL", required=True, help="the database: postgresql://user@host/name")
    add(
        "--schema",
        action="append",
        default=[],
        metavar="NAME",
        help="a schema whose tables are measured, beside public; may be given several times",
    )
    add(
        "--extra",
        action="append",
        default=[],
        metavar="SQL",
        help="a query with rows of a name and a number, sent as count.NAME; may be given several times",
    )
    add("--exact", action="store_true", help="count the rows, which reads each table, instead of the last estimate")
    add("--timeout", type=_seconds, default=60.0, metavar="SECONDS", help="for each statement (default 60; 0: none)")
    add("--statsd-address", "--statsd_address", type=_address, metavar="HOST:PORT", help="send to this statsd")
    add("--statsd-prefix", "--statsd_prefix", default="c2c", metavar="PREFIX", help="of its names (default: c2c)")
    add("--prometheus-url", "--prometheus_url", metavar="URL", help="push to this Pushgateway, as the job db_counts")
    add("--prometheus-instance", "--prometheus_instance", metavar="NAME", help="the instance there (default: none)")
    add(
        "--otlp",
        metavar="URL",
        help="send to this OpenTelemetry collector; without, as OTEL_EXPORTER_OTLP_ENDPOINT and its like say",
    )
    add("--verbosity", type=_level, default="INFO", metavar="LEVEL", help="of the log on stderr (default: INFO)")
    return parser


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 2_000_000:  # PostgreSQL counts milliseconds in 31 bits
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number of seconds, 0 or more, below 2,000,000")
    return number


def _address(text: str) -> Address:
    try:
        address = Settings.load({"STATSD_ADDRESS": text}).statsd_address
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; expected {error.expected}") from None
    if address is None:
        raise argparse.ArgumentTypeError("''; expected host:port")
    return address


def _level(text: str) -> str:
    level = text.upper()
    if level not in logging.getLevelNamesMapping():
        raise argparse.ArgumentTypeError(f"{text!r}; expected a level such as DEBUG, INFO, WARNING, ERROR")
    return level


def _set_up_logging(settings: Settings, level: str) -> None:
    """As ``LOG_TYPE`` says, else text on stderr."""
    from c2c_otel import logging_setup

    if not logging_setup.setup(settings):
        logging.basicConfig(format=_FORMAT)
    logging.getLogger(_LOGGER).setLevel(level)


def _targets(options: argparse.Namespace, settings: Settings, url: URL) -> list[Target]:
    """Raises ValueError for one that cannot be."""
    from c2c_otel.statistics_targets import PrintTarget, PushTarget, StatsdTarget

    targets: list[Target] = []
    if options.statsd_address:
        targets.append(StatsdTarget(options.statsd_address, options.statsd_prefix, settings))
    if options.prometheus_url:
        try:
            targets.append(PushTarget(options.prometheus_url, options.prometheus_instance, settings.statsd_tags))
        except ValueError as error:
            raise ValueError(f"argument --prometheus-url: {error}") from None
    targets += _otlp_targets(options.otlp, settings, url)
    return targets or [PrintTarget()]


def _otlp_targets(endpoint: str | None, settings: Settings, url: URL) -> list[Target]:
    from c2c_otel import otlp
    from c2c_otel.statistics_targets import OtlpTarget

    if endpoint:
        settings = dataclasses.replace(
            settings, otlp_endpoint=endpoint, otlp_metrics_endpoint=None, metrics_exporter=("otlp",)
        )
    exporters = otlp.metric_exporters(settings)
    if not exporters:
        return []
    from opentelemetry.sdk.resources import Resource

    resource = otlp.resource(settings)
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": _PROGRAM}))
    known = {"db.namespace": url.database, "server.address": url.host}
    attributes = tuple((name, value) for name, value in known.items() if value)
    return [OtlpTarget(exporter, resource, attributes) for exporter in exporters]


if __name__ == "__main__":
    sys.exit(main())
