"""Against a real server, in this process."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import waitress.server
from pyramid.config import Configurator
from pyramid.response import FileResponse, Response

from tests import pyramid_kit as kit
from tests.pyramid_kit import FakeTelemetry


@pytest.fixture
def fake(monkeypatch: Any) -> FakeTelemetry:
    fake = kit.install(monkeypatch)
    monkeypatch.setattr(fake, "ended", threading.Condition(), raising=False)
    return fake


@contextmanager
def serving(app: Any) -> Iterator[int]:
    """waitress with one thread, so that each request comes to the thread of the one before."""
    server = waitress.server.create_server(app, host="127.0.0.1", port=0, threads=1)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server.effective_port  # type: ignore[union-attr]
    finally:
        server.close()
        server.task_dispatcher.shutdown()  # type: ignore[union-attr]
        thread.join(5)


def fetch(port: int, path: str, method: str = "GET") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path)
    response = connection.getresponse()
    response.body = response.read()  # type: ignore[attr-defined]
    connection.close()
    return response


def make(tmp_path: Path) -> Any:
    (tmp_path / "file.bin").write_bytes(b"z" * 300_000)

    def stream(request: Any) -> Response:
        def body() -> Iterator[bytes]:
            for _ in range(10_000):
                yield b"y" * 10_000

        return Response(app_iter=body())

    def broken(request: Any) -> Response:
        def body() -> Iterator[bytes]:
            yield b"x"
            raise OSError("half way")

        return Response(app_iter=body())

    views = {
        "hello": lambda request: Response("hello"),
        "length": lambda request: Response(app_iter=[b"guessed"]),
        "file": lambda request: FileResponse(str(tmp_path / "file.bin"), request),
        "stream": stream,
        "broken": broken,
    }
    config = Configurator()
    config.include("c2c_otel")
    for name, view in views.items():
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name)
    return config.make_wsgi_app()


def wait_for(fake: FakeTelemetry, count: int) -> None:
    """The server closes a body after the client has all of it."""
    pause = threading.Event()
    for _ in range(6000):
        if len(fake.sink.routes) >= count:
            return
        pause.wait(0.01)
    raise AssertionError(fake.sink.routes)


def test_each_request_is_measured_once(fake: FakeTelemetry, tmp_path: Path) -> None:
    with serving(make(tmp_path)) as port:
        hello = fetch(port, "/hello")
        assert hello.body == b"hello"  # type: ignore[attr-defined]
        assert hello.headers["X-Request-ID"] and hello.headers["Server-Timing"].startswith("route;desc=hello, ")
        assert fetch(port, "/length").headers["Content-Length"] == "7"
        assert fetch(port, "/hello", "HEAD").headers["Content-Length"] == "5"
        assert len(fetch(port, "/file").body) == 300_000  # type: ignore[attr-defined]
        assert fetch(port, "/nowhere").status == 404
        assert fetch(port, "/c2c/debug/time").status == 200
        wait_for(fake, 6)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100)
        wait_for(fake, 7)
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            response = fetch(port, "/broken")
            raise http.client.IncompleteRead(response.body)  # type: ignore[attr-defined]
        wait_for(fake, 8)
        fetch(port, "/hello")
        wait_for(fake, 9)
    assert [(route[0], route[1], route[3], route[5]) for route in fake.sink.routes] == [
        ("GET", "hello", 200, None),
        ("GET", "length", 200, None),
        ("HEAD", "hello", 200, None),
        ("GET", "file", 200, None),
        ("GET", None, 404, None),
        ("GET", "c2c_debug_time", 200, None),
        ("GET", "stream", 200, None),
        ("GET", "broken", 200, "OSError"),
        ("GET", "hello", 200, None),
    ]
    assert [span.parent for span in fake.spans] == [None] * 9
    assert len({span.context.trace_id for span in fake.spans}) == 9
