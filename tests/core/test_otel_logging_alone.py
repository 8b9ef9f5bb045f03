"""A program that has configured no logging: its warnings stay on stderr when its lines also go to a collector."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from c2c_otel import otel_logging

NAME = "test_otel_logging_alone.program"


@contextmanager
def attached() -> Iterator[InMemoryLogRecordExporter]:
    """At a root logger that has no handler, not even pytest's, which are put there for each test."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # shipped so
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    otel_logging.attach(provider)
    try:
        yield exporter
    finally:
        otel_logging.detach()
        root.handlers = before
        provider.shutdown()


def bodies(exporter: InMemoryLogRecordExporter) -> list[object]:
    return [data.log_record.body for data in exporter.get_finished_logs()]


def test_warnings_reach_stderr_too(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger(NAME)
    logger.setLevel(logging.INFO)
    with attached() as exporter:
        logger.info("said")
        logger.warning("warned %s", "once")
    assert bodies(exporter) == ["said", "warned once"]
    assert capsys.readouterr().err == "warned once\n"


def test_where_a_handler_is_nothing_is_added(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger(NAME)
    handler = logging.NullHandler()
    logger.addHandler(handler)
    try:
        with attached() as exporter:
            logger.getChild("part").warning("warned")
    finally:
        logger.removeHandler(handler)
    assert bodies(exporter) == ["warned"]
    assert capsys.readouterr().err == ""


def test_as_logging_without_a_last_resort(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "lastResort", None)
    with attached() as exporter:
        logging.getLogger(NAME).warning("warned")
    assert bodies(exporter) == ["warned"]
    assert capsys.readouterr().err == ""
