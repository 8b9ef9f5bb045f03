"""An HTTP server whose answers a test writes, and that remembers what it was asked."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

NO_CACHE = {"Cache-Control": "max-age=0, must-revalidate, no-cache, no-store"}
OPEN = {"Access-Control-Allow-Origin": "*"}
JSON = {"Content-Type": "application/json"}
GOOD = {**NO_CACHE, **OPEN, **JSON}


class Asked(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Answer = tuple[int, Mapping[str, str], bytes]


class Fake:
    """``url`` ends with a slash. ``answers`` has an `Answer`, or what makes one of an `Asked`, for each path."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.answers: dict[str, Answer | Callable[[Asked], Answer]] = {}
        self.asked: list[Asked] = []
        self.peers: set[Any] = set()

    def answer(self, asked: Asked) -> Answer:
        found = self.answers.get(asked.path.partition("?")[0], (404, GOOD, b'{"message": "no such path"}'))
        return found(asked) if callable(found) else found


@contextmanager
def serving() -> Iterator[Fake]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, dict(self.headers), body)
            fake.asked.append(asked)
            fake.peers.add(self.client_address)
            status, headers, content = fake.answer(asked)
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD" and status != 204:
                self.wfile.write(content)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a client that has not waited
                super().handle_error(request, client_address)  # type: ignore[arg-type] # whatever it came with

    with Server(("127.0.0.1", 0), Handler) as server:
        fake = Fake(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join(5)
