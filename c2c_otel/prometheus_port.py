"""/metrics on a port of its own, which all workers of a service share (``OTEL_EXPORTER_PROMETHEUS_PORT``).

Each worker listens on the same address with SO_REUSEPORT, and the kernel gives each connection to one of them; any
of them can answer for all.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from c2c_otel_exporters import guard

__all__ = ["Render", "Server", "serve"]

Render = Callable[[str], tuple[str, bytes]]
"""Accept header -> content type and body."""

_logger = logging.getLogger("c2c_otel.prometheus_port")

_IDLE_SECONDS = 30.0
"""After which a connection that asks for nothing is closed; Prometheus asks every 15 or 60 seconds."""

_HINT = b"The metrics are at /metrics\n"


def serve(host: str, port: int, render: Render) -> Server:
    """Listen on a daemon thread. Where that is not possible: one warning, and `Server.address` is None."""
    return Server(host, port, render)


class Server:
    """One worker's share of the port. ``address``: (host, port) it listens on, or None."""

    def __init__(self, host: str, port: int, render: Render) -> None:
        self.address: tuple[str, int] | None = None
        self._http: _HttpServer | None = None
        try:
            self._http = _HttpServer(host, port, render)
        except OSError as error:
            guard.warn_once(
                "prometheus_port",
                "OTEL_EXPORTER_PROMETHEUS_PORT is %s, on %s: cannot listen there (%s). The service goes on without; "
                "free the port or choose another one.",
                port,
                host,
                error,
            )
            return
        self.address = (host, self._http.server_port)
        threading.Thread(
            target=self._http.serve_forever, args=(0.2,), name="c2c_otel_prometheus_port", daemon=True
        ).start()

    def close(self) -> None:
        """Stop listening; scrapes under way are not waited for. Idempotent."""
        http, self._http = self._http, None
        if http is not None:
            http.shutdown()
            http.server_close()
            self.address = None

    def abandon(self) -> None:
        """In a forked child: close its copy of the socket, on which nobody would answer."""
        http, self._http = self._http, None
        if http is not None:
            http.socket.close()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    allow_reuse_port = True

    def __init__(self, host: str, port: int, render: Render) -> None:
        self.render = render
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = family
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type] # an IP socket's address starts with text and port

    def server_bind(self) -> None:
        """As the parent's, without asking the DNS for the name of this host."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment] # text and a number

    def handle_error(self, request: Any, client_address: Any) -> None:
        _logger.debug("A scrape from %s ended early", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    server: _HttpServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer_metrics()
        elif path == "/":
            self._answer(HTTPStatus.OK, "text/plain; charset=utf-8", _HINT)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", _HINT)

    do_HEAD = do_GET  # noqa: N815 - http.server looks for this name

    def _answer_metrics(self) -> None:
        try:
            content_type, body = self.server.render(", ".join(self.headers.get_all("Accept", [])))
        except Exception:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", b"The metrics failed\n")
            guard.failed("prometheus_port")
        else:
            self._answer(HTTPStatus.OK, content_type, body)

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self) -> None:
        self.close_connection = True  # its body is not read
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", b"GET or HEAD\n", Allow="GET, HEAD")

    do_POST = _refuse  # noqa: N815 - likewise
    do_PUT = _refuse  # noqa: N815 - likewise
    do_DELETE = _refuse  # noqa: N815 - likewise
    do_PATCH = _refuse  # noqa: N815 - likewise
    do_OPTIONS = _refuse  # noqa: N815 - likewise

    def version_string(self) -> str:
        return "c2c-otel"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name for it
        _logger.debug(format, *args)
