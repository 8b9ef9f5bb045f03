"""The servers as pytest fixtures: started with the first test that asks, shared by the run, stopped at its end.

A test that breaks its server (promotes, fails over, stops it) starts one of its own instead. Between two tests the
shared ones keep what they have: use names of your own, or their ``clear`` and ``flush``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NoReturn, TypeVar

import pytest

from tests import servers
from tests.servers.account import on_ci

__all__ = [
    "chromium",
    "dot",
    "otlp_receiver",
    "postgres",
    "prometheus",
    "promtool",
    "pushgateway",
    "redis_server",
    "rsyslog",
    "sentinel",
    "sentry_server",
    "statsd",
    "udp_sink",
]

S = TypeVar("S", bound=servers.Server)


def missing(server: str, why: servers.Unavailable) -> NoReturn:
    """Fail the test on CI, skip it elsewhere; both say which server and what to install."""
    message = f"{server} cannot be had: {why}"
    if on_ci():
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@contextmanager
def running(server: S) -> Iterator[S]:
    """The started server; where it cannot be had, `missing`."""
    with ExitStack() as stack:
        try:
            stack.enter_context(server)
        except servers.Unavailable as why:
            missing(server.name, why)
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """Primary and replica; every statement in `log()`, each line led by the application_name."""
    with running(servers.Postgres(replica=True, conf={"log_line_prefix": "%a ", "log_statement": "all"})) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Redis]:
    """One Redis, empty at the start of the run."""
    with running(servers.Redis()) as server:
        yield server


@pytest.fixture(scope="session")
def sentinel() -> Iterator[servers.Sentinel]:
    """Master, replica and sentinel; not for failing over."""
    with running(servers.Sentinel()) as server:
        yield server


@pytest.fixture(scope="session")
def statsd() -> Iterator[servers.Statsd]:
    """The original statsd, which flushes ten times a second."""
    with running(servers.Statsd()) as server:
        yield server


@pytest.fixture(scope="session")
def rsyslog() -> Iterator[servers.Rsyslog]:
    """rsyslog with mmjsonparse, listening on UDP."""
    with running(servers.Rsyslog()) as server:
        yield server


@pytest.fixture(scope="session")
def prometheus() -> Iterator[servers.Prometheus]:
    """A Prometheus without targets; see `scrape`."""
    with running(servers.Prometheus()) as server:
        yield server


@pytest.fixture(scope="session")
def pushgateway() -> Iterator[servers.Pushgateway]:
    """A Pushgateway; `clear` it."""
    with running(servers.Pushgateway()) as server:
        yield server


@pytest.fixture(scope="session")
def promtool() -> Callable[[str | bytes], tuple[int, str]]:
    """``promtool(scrape) -> (exit code, what it says)``"""
    try:
        servers.promtool("")
    except servers.Unavailable as why:
        missing("promtool", why)
    return servers.promtool


@pytest.fixture(scope="session")
def dot() -> Callable[[str | bytes], str]:
    """``dot(text) -> SVG``"""
    try:
        servers.dot("digraph {}")
    except servers.Unavailable as why:
        missing("Graphviz", why)
    return servers.dot


@pytest.fixture(scope="session")
def chromium() -> servers.Chromium:
    """A browser for `page` and `screenshot`."""
    try:
        return servers.Chromium()
    except servers.Unavailable as why:
        missing("Chromium", why)


@pytest.fixture
def otlp_receiver() -> Iterator[servers.OtlpReceiver]:
    """An OTLP/HTTP receiver of this test's own: it costs nothing to start."""
    with servers.OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture
def udp_sink() -> Iterator[servers.UdpSink]:
    """A UDP socket of this test's own."""
    with servers.UdpSink() as sink:
        yield sink


@pytest.fixture
def sentry_server() -> Iterator[servers.Sentry]:
    """A Sentry of this test's own."""
    with servers.Sentry() as server:
        yield server
