"""Where a request id comes from and where it goes, and what bad input does to it: nothing."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import pytest

from tests.integration.collectors_demo import demo, internal_failures
from tests.servers import Gunicorn, OtlpReceiver, Postgres, Redis, wait_until

HEADERS = ["X-My-Id", "X-Request-ID", "X-Correlation-ID", "Request-ID", "X-Varnish", "X-Amzn-Trace-Id"]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


class Other:
    """Another service: keeps the headers of each call."""

    def __enter__(self) -> Self:
        self.calls: list[dict[str, str]] = []
        other = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                other.calls.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def other() -> Iterator[Other]:
    with Other() as other:
        yield other


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


def started(other: Other, receiver: OtlpReceiver, postgres: Postgres, redis: Redis, **env: str) -> Gunicorn:
    environ = {
        "DEMO_CALL_URL": other.url,
        "LOG_TYPE": "json",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        **env,
    }
    arguments = ("-w", "1", "--threads", "4", "--limit-request-field_size", "20000", "--access-logfile", "-")
    return demo(*arguments, postgres=postgres, redis=redis, env=environ)


@pytest.fixture(scope="module")
def server(other: Other, receiver: OtlpReceiver, postgres: Postgres, redis_server: Redis) -> Iterator[Gunicorn]:
    with started(other, receiver, postgres, redis_server, C2C_REQUEST_ID_HEADER="X-My-Id") as server:
        yield server


def lines(server: Gunicorn) -> list[dict[str, object]]:
    """What was logged as JSON; gunicorn's arbiter writes text."""
    return [json.loads(line) for line in server.stdout.read_text().splitlines() if line.startswith("{")]


@pytest.mark.parametrize("first", range(len(HEADERS)))
def test_the_first_of_the_headers_counts(server: Gunicorn, first: int) -> None:
    sent = {name: f"from {name}; a=b" for name in reversed(HEADERS[first:])}
    answer = server.get("/api/log", sent)
    assert answer.headers["x-request-id"] == f"from {HEADERS[first]}; a=b"
    assert json.loads(answer.body) == {"request_id": f"from {HEADERS[first]}; a=b"}


@pytest.mark.parametrize("bad", ["", " ", "x" * 129, "tab\tinside", "caf\xe9", "y" * 10_000])
def test_an_invalid_one_is_replaced(server: Gunicorn, bad: str) -> None:
    answer = server.get("/api/log", {"X-My-Id": bad, "X-Request-ID": bad})
    assert re.fullmatch(UUID, answer.headers["x-request-id"])
    answer = server.get("/api/log", {"X-My-Id": bad, "X-Varnish": "fine"})
    assert answer.headers["x-request-id"] == "fine"


def test_by_default_it_is_the_trace_id(server: Gunicorn, receiver: OtlpReceiver) -> None:
    given = server.get("/api/log").headers["x-request-id"]
    assert re.fullmatch(UUID, given)
    receiver.wait_for(lambda: any(span["trace_id"] == given.replace("-", "") for span in receiver.spans))
    joined = server.get("/api/log", {"traceparent": TRACEPARENT})
    assert joined.headers["x-request-id"].replace("-", "") == TRACE
    receiver.wait_for(lambda: [s for s in receiver.spans if s["trace_id"] == TRACE and s["kind"] == "SERVER"])
    (span,) = [s for s in receiver.spans if s["trace_id"] == TRACE and s["kind"] == "SERVER"]
    assert span["parent_span_id"] == "00f067aa0ba902b7"


def test_it_goes_everywhere(server: Gunicorn, receiver: OtlpReceiver, other: Other, postgres: Postgres) -> None:
    request_id = "goes everywhere: it's 100%; é is not sent".replace("é", "e")
    for path in ("/api/activity", "/api/call", "/api/cache/everywhere", "/api/log", "/api/stream"):
        assert server.get(path, {"X-My-Id": request_id}).headers["x-request-id"] == request_id
    activity = json.loads(server.get("/api/activity", {"X-My-Id": request_id}).body)
    assert activity == {"application_name": request_id, "request_id": request_id}
    assert (other.calls[-1]["x-my-id"], other.calls[-1]["x-request-id"]) == (request_id, request_id)
    wait_until("PostgreSQL's log", lambda: f"{request_id} LOG:  statement: SELECT application_name" in postgres.log())

    def spans() -> set[str]:
        return {span["name"] for span in receiver.spans if span["attributes"].get("c2c.request_id") == request_id}

    receiver.wait_for(lambda: "GET /api/stream" in spans())
    assert spans() >= {"GET /api/activity", "SELECT pg_stat_activity", "GET", "SET", "GET /api/stream", "render json"}
    logged = [line for line in lines(server) if line.get("request_id") == request_id]
    said = {line["msg"] for line in logged}
    assert said >= {f"logged for {request_id}", "streaming part 4"}
    (call,) = [span for span in receiver.spans if span["attributes"].get("url.full") == other.url]
    assert re.fullmatch(f"00-{call['trace_id']}-{call['span_id']}-0[13]", other.calls[-1]["traceparent"])


def test_postgresql_gets_63_bytes_and_its_connection_back(server: Gunicorn, postgres: Postgres) -> None:
    request_id = "z" * 128
    answer = json.loads(server.get("/api/activity", {"X-Request-ID": request_id}).body)
    assert answer == {"application_name": "z" * 63, "request_id": request_id}
    server.get("/api/hello/1", {"X-Request-ID": "rolled back"})
    names = postgres.execute("SELECT application_name FROM pg_stat_activity WHERE datname LIKE 'collectors_%'")
    assert names
    assert {name for (name,) in names} == {""}


def test_a_public_edge_starts_its_own_trace(
    other: Other, receiver: OtlpReceiver, postgres: Postgres, redis_server: Redis
) -> None:
    with started(other, receiver, postgres, redis_server, C2C_TRACE_CONTEXT="ignore") as edge:
        receiver.clear()
        answer = edge.get("/api/call", {"traceparent": TRACEPARENT, "baggage": "user=me", "tracestate": "a=b"})
        given = answer.headers["x-request-id"]
        assert given.replace("-", "") != TRACE
        assert "x-my-id" not in other.calls[-1]
        assert other.calls[-1]["x-request-id"] == given
        assert TRACE not in other.calls[-1]["traceparent"]
        assert not {"baggage", "tracestate"} & set(other.calls[-1])
        receiver.wait_for(lambda: any(span["kind"] == "SERVER" for span in receiver.spans))
        assert {span["trace_id"] for span in receiver.spans} == {given.replace("-", "")}
        # the request id is text that a client may choose, and stays so
        assert edge.get("/", {"X-Request-ID": "mine"}).headers["x-request-id"] == "mine"
        assert edge.get("/", {"X-My-Id": "mine"}).headers["x-request-id"] != "mine"


# -- bad input --------------------------------------------------------------------------------------------------


def raw(server: Gunicorn, request: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of a request that no client library would send."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            answer = file.read()
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:])
    return int(head[0].split()[1]), {name.lower(): value for name, value in headers.items()}


BAD_TRACEPARENTS = [
    "garbage",
    "00-zzz92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
    f"00-{TRACE}-0000000000000000-01",
    f"ff-{TRACE}-00f067aa0ba902b7-01",
    f"00-{TRACE}-00f067aa0ba902b7-01-more",
    f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
    "00-" + "4" * 12_000,
    "\xff\xfe",
]

BAD_REQUESTS = [
    # what is served, and with which status
    (b"GET /api/log?%zz=%&&&=;%ff HTTP/1.1", 200),
    (b"GET /api/log?" + b"q" * 2000 + b" HTTP/1.1", 200),
    (b"GET /api/cache/%zz HTTP/1.1", 200),
    (b"GET /api/cache/%E2%82%AC%0a%00 HTTP/1.1", 200),
    (b"GET //api//log HTTP/1.1", 404),
    (b"GET http://[::1/api/log HTTP/1.1", None),
    (b"GET http://evil.example/api/log?x=y HTTP/1.1", 200),
    (b"FOO /api/log HTTP/1.1", 200),
    (b"M-SEARCH /api/log HTTP/1.1", 200),
    (b"OPTIONS * HTTP/1.1", 404),
    (b"HEAD /api/log HTTP/1.1", 200),
]


@pytest.mark.parametrize("value", BAD_TRACEPARENTS, ids=lambda value: value[:60])
def test_a_malformed_traceparent_starts_a_trace(server: Gunicorn, value: str) -> None:
    answer = server.get("/api/log", {"traceparent": value})
    assert answer.status == 200
    given = answer.headers["x-request-id"]
    assert re.fullmatch(UUID, given)
    assert given.replace("-", "") != TRACE
    assert internal_failures(server.get("/metrics").body.decode()) == []


@pytest.mark.parametrize(("line", "status"), BAD_REQUESTS, ids=lambda value: str(value)[:40])
def test_garbage_is_served(server: Gunicorn, line: bytes, status: int | None) -> None:
    found, headers = raw(server, line + b"\r\nHost: x y{}%\r\nConnection: close\r\n\r\n")
    assert found == status or status is None
    if found != 400:
        assert re.fullmatch(UUID, headers["x-request-id"])
    assert internal_failures(server.get("/metrics").body.decode()) == []


def test_a_path_that_is_no_utf8_is_the_applications_affair(server: Gunicorn) -> None:
    """Pyramid raises URLDecodeError; the span ends with it as any other."""
    for path in ("/api/hello/%ff%fe", "/%c3%28", "/c2c/%ff"):
        assert server.get(path).status in (400, 404, 500)
    assert internal_failures(server.get("/metrics").body.decode()) == []
    assert server.get("/api/log").status == 200


def test_nothing_of_this_was_our_failure(server: Gunicorn) -> None:
    said = server.stdout.read_text() + server.stderr.read_text()
    assert "c2c-otel failed" not in said
    ours = [line for line in lines(server) if line["logger_name"] == "c2c_otel" and line["level"] != 6]
    assert [line for line in ours if "trace headers" not in str(line["msg"])] == []
    scrape = server.get("/metrics").body.decode()
    methods = set(re.findall(r'http_request_method="([^"]*)"', scrape))
    assert methods <= {"GET", "HEAD", "OPTIONS", "_OTHER"}
    routes = set(re.findall(r'http_route="([^"]*)"', scrape))
    assert not {route for route in routes if "%" in route or "evil" in route}
