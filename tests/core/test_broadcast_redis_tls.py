"""rediss://: what is asked and stored goes through TLS, and a server that nobody vouches for is not talked to."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from c2c_otel.broadcast.node import Node
from c2c_otel.broadcast.redis import RedisTransport
from c2c_otel.settings import Settings
from c2c_otel.shared import Unavailable
from c2c_otel.shared_redis import RedisBackend
from tests import servers
from tests.servers import wait_until
from tests.servers.find import find
from tests.servers.fixtures import missing


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of 127.0.0.1, signed by itself, and its key."""
    try:
        openssl = find("openssl", packages=["openssl"], places=["/usr/bin/openssl"])
    except servers.Unavailable as why:
        missing("openssl", why)
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    argv = [openssl.path, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=redis"]
    argv += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(cert), "-keyout", str(key)]
    subprocess.run(argv, check=True, capture_output=True, env=openssl.environ())
    return cert, key


class _Front:
    """TLS in front of a Redis that was built without."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._redis, self._context = port, context
        self.ready = threading.Event()
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.loop = asyncio.new_event_loop()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self._redis)
        self.writers.append(to_redis)
        await asyncio.gather(self._pump(reader, to_redis), self._pump(from_redis, writer))

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(lambda loop, context: None)
        server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context))
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(self._end(server))
        self.loop.close()

    async def _end(self, server: asyncio.Server) -> None:
        server.close()
        for writer in self.writers:
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports close in the next round of the loop


@pytest.fixture
def front(redis_server: servers.Redis, certificate: tuple[Path, Path]) -> Iterator[_Front]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    front = _Front(redis_server.port, context)
    thread = threading.Thread(target=front.run, daemon=True)
    thread.start()
    assert front.ready.wait(10)
    yield front
    front.loop.call_soon_threadsafe(front.loop.stop)
    thread.join(10)


class NamedNode(Node):
    """Several in one process."""

    def __init__(self, name: str) -> None:
        self._given = name
        super().__init__()

    @property
    def name(self) -> str:
        return self._given


def load(front: _Front, options: str) -> Settings:
    url = f"rediss://127.0.0.1:{front.port}"
    return Settings.load({"C2C_REDIS_URL": url, "C2C_REDIS_OPTIONS": options, "C2C_BROADCAST_PREFIX": "tls_"})


def test_questions_answers_and_state_through_tls(front: _Front, certificate: tuple[Path, Path]) -> None:
    settings = load(front, f"ssl_ca_certs={certificate[0]}")
    nodes = [NamedNode(f"host/{number}") for number in range(3)]
    for node in nodes:
        node.subscribe("long", lambda size: "x" * size)
        node.join(RedisTransport(settings))
    try:
        for size in (1, 100_000, 1_000_000, 16_384):
            answers = nodes[0].broadcast("long", {"size": size}, True, 30)
            assert answers is not None
            assert answers.missing == ()
            assert answers == ["x" * size] * 3
        heard: list[int] = []
        nodes[1].subscribe("told", lambda number: heard.append(number))
        assert nodes[1].transport is not None
        wait_until("the subscription", lambda: nodes[0].broadcast("told", {"number": -1}, True, 5) and heard)
        for number in range(100):
            nodes[0].broadcast("told", {"number": number}, False, 30)
        wait_until("all of them", lambda: [number for number in heard if number >= 0] == list(range(100)))
    finally:
        for node in nodes:
            node.leave()
    backend = RedisBackend(settings)
    backend.write("levels", "a", {"value": 1, "expires": None})
    assert backend.read("levels") == {"a": {"value": 1, "expires": None}}
    assert front.connections > 4


def test_a_server_that_nobody_vouches_for(front: _Front, caplog: pytest.LogCaptureFixture) -> None:
    settings = load(front, "socket_timeout=1")
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        RedisBackend(settings).read("levels")
    node = NamedNode("host/1")
    node.subscribe("who", lambda: 1)
    node.join(RedisTransport(settings))
    try:
        answers = node.broadcast("who", {}, True, 5)
        assert answers == [1, None]
        assert answers.missing == (f"rediss://127.0.0.1:{front.port}/0",)
    finally:
        node.leave()
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
