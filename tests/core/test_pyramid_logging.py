"""The handlers: what they write in and out of a request, and that they never harm who logs."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from pyramid.registry import Registry
from pyramid.testing import DummyRequest, setUp, tearDown

from c2c_otel import current_request
from c2c_otel.pyramid_logging import MAX_NESTING, JsonLogHandler, PyramidCeeSysLogHandler, log_context, note_request
from c2c_otel_exporters import guard, log_lines

ENVIRON = {
    "REMOTE_ADDR": "192.0.2.7",
    "REQUEST_METHOD": "POST",
    "SCRIPT_NAME": "/shop",
    "PATH_INFO": "/caf\xc3\xa9 au lait",  # latin-1 text of UTF-8 bytes, as WSGI has it
    "QUERY_STRING": "secret=x",
}


def span(trace_id: int, span_id: int) -> NonRecordingSpan:
    return NonRecordingSpan(SpanContext(trace_id, span_id, False, TraceFlags(1)))


@contextmanager
def serving(inner: Any = None, **environ: str) -> Iterator[current_request.CurrentRequest]:
    """A request with span 1/2 and, where given, another current span."""
    current = current_request.CurrentRequest({**ENVIRON, **environ}, "req 1", span(1, 2), 0)
    current.route_name = "buy"
    token = otel_context.attach(
        set_span_in_context(inner or current.span, otel_context.set_value(current_request.KEY, current))
    )
    try:
        yield current
    finally:
        otel_context.detach(token)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("c2c_test.handlers")
    logger.propagate = False
    logger.setLevel("DEBUG")
    yield logger
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    guard.reset()


@pytest.fixture
def lines(logger: logging.Logger) -> Callable[[], list[dict[str, Any]]]:
    stream = io.StringIO()
    logger.addHandler(JsonLogHandler(stream))
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def sink() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        yield server


def received(sink: socket.socket) -> tuple[int, dict[str, Any]]:
    match = re.fullmatch(rb"<(\d+)>: @cee: (\{.*\})\0", sink.recv(70_000))
    assert match
    return int(match[1]), json.loads(match[2])


# -- the request ------------------------------------------------------------------------------------------------------


def test_a_line_in_a_request_has_its_fields(logger: logging.Logger, lines: Any) -> None:
    with serving(inner=span(1, 3)):
        logger.info("in")
    logger.info("out")
    inside, outside = lines()
    assert {name: inside[name] for name in list(inside)[13:]} == {
        "client_addr": "192.0.2.7",
        "method": "POST",
        "matched_route": "buy",
        "path": "/shop/caf%C3%A9%20au%20lait",
        "request_id": "req 1",
        "trace_id": f"{1:032x}",
        "span_id": f"{3:016x}",
    }
    assert list(outside)[-1] == "process_name"


def test_a_span_or_a_request_alone_is_enough() -> None:
    token = otel_context.attach(set_span_in_context(span(1, 4)))
    assert log_context() == {"trace_id": f"{1:032x}", "span_id": f"{4:016x}"}
    otel_context.detach(token)
    current = current_request.CurrentRequest(ENVIRON, "req 1", INVALID_SPAN, 0)
    token = otel_context.attach(otel_context.set_value(current_request.KEY, current, otel_context.Context()))
    assert list(log_context()) == ["client_addr", "method", "path", "request_id"]
    otel_context.detach(token)
    assert log_context() == {}


def test_a_line_after_the_span_still_belongs_to_the_request() -> None:
    with serving(inner=INVALID_SPAN):
        assert log_context()["span_id"] == f"{2:016x}"


@pytest.mark.parametrize(
    ("forwarded", "client"), [("203.0.113.9, 10.0.0.1", "203.0.113.9"), ("", None), (" 1.2.3.4 ", "1.2.3.4")]
)
def test_the_client_is_the_first_hop(forwarded: str, client: str | None) -> None:
    with serving(HTTP_X_FORWARDED_FOR=forwarded):
        assert log_context().get("client_addr") == client


def test_the_route_is_known_before_the_instrumentor_says_it() -> None:
    with serving() as current:
        current.route_name = None
        assert "matched_route" not in log_context()
        current.request = DummyRequest(matched_route=None)
        assert "matched_route" not in log_context()
        current.request.matched_route = type("Route", (), {"name": "late"})
        assert log_context()["matched_route"] == "late"


def test_pyramids_own_request_where_nothing_is_instrumented() -> None:
    request = DummyRequest(path="/plain", client_addr="10.9.8.7", c2c_request_id="id-1")
    setUp(request=request, registry=Registry())
    try:
        assert log_context() == {
            "client_addr": "10.9.8.7",
            "method": "GET",
            "path": "/plain",
            "request_id": "id-1",
        }
    finally:
        tearDown()
    assert log_context() == {}


def test_a_request_whose_attributes_raise_keeps_the_line(logger: logging.Logger, lines: Any) -> None:
    class Broken(DummyRequest):
        @property
        def method(self) -> str:
            raise ValueError("no")

        @method.setter
        def method(self, value: str) -> None:
            pass

    setUp(request=Broken(), registry=Registry())
    try:
        logger.info("kept")
    finally:
        tearDown()
    assert lines()[0]["msg"] == "kept"
    assert guard.tally["failed.logs.request"] == 1


# -- JSON -------------------------------------------------------------------------------------------------------------


def test_the_stream_is_stdout_unless_said(capsys: pytest.CaptureFixture[str], logger: logging.Logger) -> None:
    for stream in (None, "stderr", "ext://sys.stdout"):
        logger.addHandler(JsonLogHandler(stream))
    logger.warning("x")
    out, err = capsys.readouterr()
    assert [json.loads(line)["msg"] for line in out.splitlines()] == ["x", "x"]
    assert json.loads(err)["level"] == 4
    with pytest.raises(ValueError, match="expected a stream, 'stdout' or 'stderr'"):
        JsonLogHandler("nowhere")


def test_threads_never_mix_their_lines(logger: logging.Logger, tmp_path: Any) -> None:
    path = tmp_path / "lines"
    with path.open("w") as stream:
        logger.addHandler(JsonLogHandler(stream))
        threads = [
            threading.Thread(target=lambda n=n: [logger.info("%s", str(n) * 5000) for _ in range(50)]) for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    messages = [json.loads(line)["msg"] for line in path.read_text().splitlines()]
    assert sorted(messages) == sorted(str(n) * 5000 for n in range(4) for _ in range(50))


def test_a_line_is_one_write(logger: logging.Logger) -> None:
    """Several workers share one stdout: a line in two writes could be torn by another's."""

    class Raw(io.RawIOBase):
        def __init__(self) -> None:
            self.writes: list[bytes] = []

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.writes.append(bytes(data))
            return len(data)

    raw = Raw()
    stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding="latin-1")
    logger.addHandler(JsonLogHandler(stream))
    for size in (1, 9_000, 100_000):
        logger.info("é" * size)
    assert [json.loads(write)["msg"] for write in raw.writes] == ["é", "é" * 9_000, "é" * 100_000]


def test_a_stream_that_fails_is_not_the_applications_problem(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    logger.addHandler(JsonLogHandler(stream))
    stream.close()
    logger.info("lost")
    assert "--- Logging error ---" in capsys.readouterr().err
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.info("lost")
    assert capsys.readouterr().err == ""


def test_an_object_that_logs_when_it_is_shown_does_not_loop(logger: logging.Logger, lines: Any) -> None:
    class Talker:
        def __str__(self) -> str:
            logger.info("I am shown", extra={"me": self})
            return "talker"

    logger.info("start", extra={"me": Talker()})
    shown = lines()
    assert len(shown) == MAX_NESTING
    assert shown[-1] == {**shown[-1], "msg": "start", "me": "talker"}
    logger.info("after")
    assert lines()[-1]["msg"] == "after"


def test_format_gives_the_same_object(logger: logging.Logger) -> None:
    record = logger.makeRecord("a", 20, "f", 1, "m", (), None)
    assert json.loads(JsonLogHandler(io.StringIO()).format(record))["msg"] == "m"
    assert PyramidCeeSysLogHandler().format(record).startswith(": @cee: {")


# -- CEE --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["tuple", "two", "text port", "predecessor"])
def test_every_way_to_name_the_server(style: str, logger: logging.Logger, sink: socket.socket) -> None:
    host, port = sink.getsockname()
    arguments: tuple[Any, ...] = {
        "tuple": ((host, port),),
        "two": (host, port),
        "text port": (host, str(port)),
        "predecessor": ((host, port), socket.SOCK_DGRAM),
    }[style]
    logger.addHandler(PyramidCeeSysLogHandler(*arguments))
    with serving():
        logger.error("hello", extra={"_n": 1})
    priority, fields = received(sink)
    assert priority == 11
    assert (fields["msg"], fields["n"], fields["request_id"]) == ("hello", 1, "req 1")


@pytest.mark.parametrize(
    ("facility", "number", "source"),
    [(None, 1, "c2c_test.handlers"), ("local3", 19, "local3"), (16, 16, "c2c_test.handlers"), ("shop", 1, "shop")],
)
def test_facility_and_static_fields(
    facility: Any, number: int, source: str, logger: logging.Logger, sink: socket.socket
) -> None:
    handler = PyramidCeeSysLogHandler(
        sink.getsockname(), facility=facility, debugging_fields=False, application="shop", stage="test", host="mine"
    )
    logger.addHandler(handler)
    logger.info("x", extra={"stage": "own"})
    priority, fields = received(sink)
    assert priority == number * 8 + 6
    assert fields["source_facility"] == source and fields["logger_name"] == "c2c_test.handlers"
    assert (fields["application"], fields["stage"], fields["host"]) == ("shop", "own", log_lines.host_name())
    assert not {"file", "line", "function", "pid", "thread_name", "process_name"} & fields.keys()


def test_extras_can_be_left_out(logger: logging.Logger, sink: socket.socket) -> None:
    logger.addHandler(PyramidCeeSysLogHandler(sink.getsockname(), extra_fields=False))
    logger.info("x", extra={"n": 1})
    assert "n" not in received(sink)[1]


def test_max_bytes_is_kept(logger: logging.Logger, sink: socket.socket) -> None:
    logger.addHandler(PyramidCeeSysLogHandler(sink.getsockname(), max_bytes=5000))
    logger.info("x" * 100_000)
    datagram = sink.recv(70_000)
    assert 4900 < len(datagram) <= 5000


@pytest.mark.parametrize("arguments", [{"socktype": socket.SOCK_STREAM}, {"max_bytes": 100}])
def test_what_cannot_be_done_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        PyramidCeeSysLogHandler(**arguments)


def test_nobody_listening_raises_nothing(
    logger: logging.Logger, sink: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    address = sink.getsockname()
    sink.close()
    logger.addHandler(PyramidCeeSysLogHandler(address))
    for _ in range(3):
        logger.info("x")
    assert capsys.readouterr().err == ""


def test_a_forked_child_logs_through_its_own_socket(logger: logging.Logger, sink: socket.socket) -> None:
    logger.addHandler(PyramidCeeSysLogHandler(sink.getsockname()))
    logger.info("parent")
    child = os.fork()
    if child == 0:
        logger.info("child")
        os._exit(0)
    os.waitpid(child, 0)
    first, second = received(sink)[1], received(sink)[1]
    assert (first["msg"], first["pid"]) == ("parent", os.getpid())
    assert (second["msg"], second["pid"]) == ("child", child)


def test_dictconfig(sink: socket.socket) -> None:
    """In a process of its own: dictConfig changes the root logger."""
    code = f"""
import logging.config
logging.config.dictConfig({{
    "version": 1,
    "handlers": {{
        "json": {{"class": "c2c_otel.pyramid_logging.JsonLogHandler", "stream": "ext://sys.stdout"}},
        "logstash": {{"class": "c2c_otel.pyramid_logging.PyramidCeeSysLogHandler",
                      "address": ["127.0.0.1", {sink.getsockname()[1]}], "application": "shop"}},
    }},
    "root": {{"level": "INFO", "handlers": ["json", "logstash"]}},
}})
logging.getLogger("a").info("hello %s", "you", extra={{"n": [1]}})
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    line = json.loads(done.stdout)
    assert (line["msg"], line["n"]) == ("hello you", [1])
    assert received(sink)[1] == {**line, "application": "shop"}
    assert done.stderr == b""


def test_what_a_server_logs_of_an_exception_belongs_to_its_request(logger: logging.Logger, lines: Any) -> None:
    class Slotted(BaseException):
        __slots__ = ()

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    error = RuntimeError("asked for")
    with serving(span(0xABC, 0xDEF), REQUEST_METHOD="GET", PATH_INFO="/boom") as current:
        note_request(error)
        note_request(Slotted())
        request_id = current.request_id
    logger.error("too late", exc_info=error)
    logger.error("of another", exc_info=RuntimeError())
    with serving(span(0x1, 0x2), REQUEST_METHOD="GET", PATH_INFO="/other"):
        logger.error("the request that logs it comes first", exc_info=error)
    noted, other, first = lines()
    assert (noted["path"], noted["request_id"], noted["method"]) == ("/shop/boom", request_id, "GET")
    assert (noted["trace_id"], noted["span_id"]) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert not {"path", "request_id", "trace_id"} & set(other)
    assert (first["path"], first["trace_id"]) == ("/shop/other", f"{1:032x}")
