"""A Sentry that keeps what it is sent: envelopes over HTTP, decoded strictly, with failures and delays on demand.

https://develop.sentry.dev/sdk/data-model/envelopes/ - an envelope is lines: its headers, then each item's headers and
payload; an item whose headers have no ``length`` ends with its line.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.servers.process import wait_until

__all__ = ["Envelope", "Item", "Sentry", "decode"]

_PATH = re.compile(r"/api/(\d+)/envelope/\Z")
_AUTH = re.compile(r"Sentry (?:\w+=[^,]+, ?)*sentry_key=(\w+)")


@dataclass(frozen=True)
class Item:
    """One item; `payload` is bytes, `json` what they say where they are JSON."""

    headers: dict[str, Any]
    payload: bytes

    @property
    def type(self) -> str:
        return str(self.headers["type"])

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


@dataclass(frozen=True)
class Envelope:
    """One envelope; `raw` is all of it, decompressed."""

    headers: dict[str, Any]
    items: list[Item] = field(default_factory=list)
    raw: bytes = b""


def decode(raw: bytes) -> Envelope:
    """The envelope in these bytes. Raises ValueError for what is not one."""
    head, _, rest = raw.partition(b"\n")
    envelope = Envelope(_object(head), [], raw)
    while rest.strip(b"\n"):
        line, _, rest = rest.partition(b"\n")
        headers = _object(line)
        if "type" not in headers:
            raise ValueError(f"an item without type: {line!r}")
        if "length" in headers:
            payload, rest = rest[: headers["length"]], rest[headers["length"] :]
            if len(payload) != headers["length"] or rest[:1] not in (b"", b"\n"):
                raise ValueError(f"an item of another length: {line!r}")
            rest = rest[1:]
        else:
            payload, _, rest = rest.partition(b"\n")
        envelope.items.append(Item(headers, payload))
    return envelope


def _object(line: bytes) -> dict[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError(f"not an object: {line!r}")
    return found


class Sentry:
    """``with Sentry() as sentry: start(SENTRY_URL=sentry.dsn); sentry.wait_for(1)[0]["transaction"]``

    `envelopes` are all that came, `events` the payloads of their events, `raw` all bytes. What is malformed is
    answered with 400 and kept in `errors`.
    """

    key = "f00dfeedf00dfeedf00dfeedf00dfeed"

    def __init__(self) -> None:
        self.port = 0
        self.statuses: list[tuple[int, dict[str, str]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = 0
        self.clear()

    def clear(self) -> None:
        """Forget what has arrived."""
        self.envelopes: list[Envelope] = []
        self.errors: list[str] = []
        self.requests = 0

    @property
    def dsn(self) -> str:
        """For SENTRY_URL."""
        return f"http://{self.key}@127.0.0.1:{self.port}/42"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events, as they came."""
        return [item.json for envelope in list(self.envelopes) for item in envelope.items if item.type == "event"]

    @property
    def raw(self) -> bytes:
        """All envelopes, decompressed."""
        return b"\n".join(envelope.raw for envelope in list(self.envelopes))

    def fail_next(self, count: int, status: int = 500, **headers: str) -> None:
        """Answer the next requests with this status, and keep nothing of them; 0 closes the connection."""
        self.statuses += [(status, {name.replace("_", "-"): value for name, value in headers.items()})] * count

    def wait_for(self, count: int, where: Callable[[dict[str, Any]], object] = lambda event: True) -> list[Any]:
        """The events for which it is true, once there are that many. Raises NotReady."""

        def there() -> list[Any] | None:
            found = [event for event in self.events if where(event)]
            return found if len(found) >= count else None

        return wait_until("events", there, 20, lambda: f"{self.errors} {self.events!r:.2000}")

    def start(self) -> Self:
        """Listen on a free port of 127.0.0.1, or again on the one it had."""
        sentry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                sentry._receive(self)

            def log_message(self, *args: object) -> None:
                pass

        class HttpServer(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that went away

        self._server = HttpServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="sentry", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close the port."""
        self.gate.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _receive(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        self.waiting += 1
        self.gate.wait(60)
        self.waiting -= 1
        self.requests += 1
        status, more = self.statuses.pop(0) if self.statuses else (200, {})
        if status == 0:
            handler.close_connection = True
            return
        if status == 200:
            try:
                self.envelopes.append(self._decode(handler, body))
            except Exception as error:  # whatever is wrong with it, the sender is told and the test can see it
                self.errors.append(f"{handler.path}: {error!r}")
                status = 400
        handler.send_response(status)
        answer = b"{}"
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(answer)), **more}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer)

    def _decode(self, handler: BaseHTTPRequestHandler, body: bytes) -> Envelope:
        path = _PATH.match(handler.path)
        if path is None or path[1] != "42":
            raise ValueError(f"path {handler.path}")
        auth = _AUTH.match(handler.headers.get("X-Sentry-Auth", ""))
        if auth is None or auth[1] != self.key:
            raise ValueError(f"X-Sentry-Auth {handler.headers.get('X-Sentry-Auth')}")
        if handler.headers.get("Content-Type") != "application/x-sentry-envelope":
            raise ValueError(f"Content-Type {handler.headers.get('Content-Type')}")
        encoding = handler.headers.get("Content-Encoding", "")
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding == "deflate":
            body = zlib.decompress(body)
        elif encoding:
            raise ValueError(f"Content-Encoding {encoding}")
        return decode(body)
