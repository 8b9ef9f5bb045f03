"""/metrics on a port that the workers share."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Iterator

import pytest

from c2c_otel import prometheus_port
from c2c_otel_exporters import guard
from tests.servers import wait_until

TEXT = "text/plain; version=0.0.4; charset=utf-8"


@pytest.fixture(autouse=True)
def clean_guard() -> Iterator[None]:
    guard.reset()
    yield
    guard.strict(None)
    guard.reset()


@pytest.fixture
def server() -> Iterator[prometheus_port.Server]:
    made = prometheus_port.serve("127.0.0.1", 0, lambda accept: (TEXT, f"# accept {accept}\n".encode()))
    yield made
    made.close()


def ask(
    server: prometheus_port.Server, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    assert server.address is not None
    connection = http.client.HTTPConnection(*server.address, timeout=5)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_metrics_as_they_are_rendered(server: prometheus_port.Server) -> None:
    status, headers, body = ask(server, "GET", "/metrics?debug=1", {"Accept": "application/openmetrics-text;q=0.5"})
    assert (status, headers["content-type"]) == (200, TEXT)
    assert body == b"# accept application/openmetrics-text;q=0.5\n"
    assert headers["server"] == "c2c-otel"


def test_head_has_the_length_and_no_body(server: prometheus_port.Server) -> None:
    status, headers, body = ask(server, "HEAD", "/metrics")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == len(b"# accept \n")


def test_hint_and_what_is_not_there(server: prometheus_port.Server) -> None:
    assert ask(server, "GET", "/")[::2] == (200, b"The metrics are at /metrics\n")
    assert ask(server, "GET", "/c2c/stats.json")[0] == 404
    assert ask(server, "GET", "/metrics/")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods(server: prometheus_port.Server, method: str) -> None:
    status, headers, _ = ask(server, method, "/metrics")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_connection_is_kept_for_the_next_scrape(server: prometheus_port.Server) -> None:
    assert server.address is not None
    connection = http.client.HTTPConnection(*server.address, timeout=5)
    for _ in range(3):
        connection.request("GET", "/metrics")
        used = connection.sock
        assert connection.getresponse().read() == b"# accept \n"
        assert connection.sock is used is not None
    connection.close()


def test_a_failure_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    guard.strict(False)

    def fail(accept: str) -> tuple[str, bytes]:
        raise OSError("no archive")

    server = prometheus_port.serve("127.0.0.1", 0, fail)
    try:
        assert [ask(server, "GET", "/metrics")[0] for _ in range(2)] == [500, 500]
        wait_until(
            "the failures, which are counted after the answer", lambda: guard.tally["failed.prometheus_port"] == 2
        )
        wait_until("the log line", lambda: caplog.records)
    finally:
        server.close()
    assert len(caplog.records) == 1
    assert guard.tally["failed.prometheus_port"] == 2


def test_a_taken_port_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for _ in range(2):
            server = prometheus_port.serve("127.0.0.1", port, lambda accept: (TEXT, b""))
            assert server.address is None
            server.close()
    (record,) = caplog.records
    assert f"OTEL_EXPORTER_PROMETHEUS_PORT is {port}, on 127.0.0.1: cannot listen there" in record.getMessage()


def test_a_host_that_cannot_be_resolved_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert prometheus_port.serve("nowhere.invalid", 0, lambda accept: (TEXT, b"")).address is None
    assert len(caplog.records) == 1


def test_ipv6() -> None:
    server = prometheus_port.serve("::1", 0, lambda accept: (TEXT, b"six\n"))
    if server.address is None:
        pytest.skip("this machine has no IPv6")
    assert ask(server, "GET", "/metrics")[2] == b"six\n"
    server.close()


def test_closed_port_listens_no_more(server: prometheus_port.Server) -> None:
    address = server.address
    assert address is not None
    server.close()
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_workers_share_the_port() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            prometheus_port.serve("127.0.0.1", port, lambda accept: (TEXT, str(os.getpid()).encode()))
            time.sleep(30)
            os._exit(0)
        children.append(pid)
    own = prometheus_port.serve("127.0.0.1", port, lambda accept: (TEXT, str(os.getpid()).encode()))
    try:
        answered: set[int] = set()
        deadline = time.monotonic() + 20
        while answered != {*children, os.getpid()} and time.monotonic() < deadline:
            answered.add(int(ask(own, "GET", "/metrics")[2]))
        assert answered == {*children, os.getpid()}
    finally:
        own.close()
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
