"""A record -> JSON lines, CEE datagrams; the same from the SDK's records; the wire itself."""

from __future__ import annotations

import enum
import io
import json
import logging
import os
import re
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExportResult,
    SimpleLogRecordProcessor,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from c2c_otel_exporters import background, guard, hostname, log_lines, logs, plain

TRACE = 0xAF7651916CD43DD8448EB211C80319C
SPAN = 0x7AD6B7169203331
CONTEXT = {
    "client_addr": "10.0.0.1",
    "method": "GET",
    "matched_route": "hello",
    "path": "/hello",
    "request_id": "r-1",
    "trace_id": f"{TRACE:032x}",
    "span_id": f"{SPAN:016x}",
}


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    background.allow(False)
    hostname.reset()
    guard.reset()
    logs.configure()


def make(message: object = "hello %s", *args: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    logger = logging.getLogger("shop.views")
    return logger.makeRecord("shop.views", level, "/app/views.py", 42, message, args, None, "view", extra or None)  # type: ignore[arg-type]


def parse(line: bytes) -> dict[str, Any]:
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    result: dict[str, Any] = json.loads(line)
    return result


def parse_cee(datagram: bytes) -> tuple[int, dict[str, Any]]:
    match = re.fullmatch(rb"<(\d+)>: @cee: (\{.*\})\0", datagram)
    assert match, datagram
    return int(match[1]), json.loads(match[2])


def error_record() -> logging.LogRecord:
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        return logging.getLogger("shop").makeRecord("shop", 40, "f.py", 1, "failed", (), sys.exc_info(), "g")


# -- fields -----------------------------------------------------------------------------------------------------------


def test_a_line_has_the_fields_of_the_contract_in_their_order() -> None:
    record = make("hello %s", "wörld")
    fields = parse(log_lines.json_line(record, CONTEXT))
    assert fields == {
        "host": hostname.host_name(),
        "timestamp": record.created,
        "level": 6,
        "level_name": "INFO",
        "source_facility": "shop.views",
        "logger_name": "shop.views",
        "file": "/app/views.py",
        "line": 42,
        "function": "view",
        "msg": "hello wörld",
        "pid": os.getpid(),
        "thread_name": threading.current_thread().name,
        "process_name": "MainProcess",
        **CONTEXT,
    }
    assert list(fields) == [name for name in log_lines.FIXED if name in fields]


@pytest.mark.parametrize(
    ("level", "severity"), [(10, 7), (20, 6), (30, 4), (40, 3), (50, 2), (5, 7), (25, 6), (35, 4), (60, 2), (0, 7)]
)
def test_levels_are_syslog_severities(level: int, severity: int) -> None:
    assert log_lines.encode(make(level=level), {})["level"] == severity
    assert parse_cee(log_lines.cee_datagram(make(level=level), {}))[0] == 8 + severity


def test_an_exception_gives_full_message_and_its_flag() -> None:
    fields = parse(log_lines.json_line(error_record(), {}))
    assert fields["msg"] == "failed"
    assert fields["full_message"].startswith("Traceback (most recent call last):")
    assert fields["full_message"].endswith("ValueError: bad\nthing")
    assert fields["full_msg"] == "true"


def test_a_stack_and_a_cached_traceback_give_it_too() -> None:
    record = make("x")
    record.exc_text, record.stack_info = "Traceback text", "Stack text"
    assert log_lines.encode(record, {})["full_message"] == "Traceback text\nStack text"
    nothing = make("x")
    nothing.exc_info = (None, None, None)  # logger.exception outside of an except block
    assert "full_msg" not in log_lines.encode(nothing, {})


def test_extras_lose_their_underscores_and_override_nothing() -> None:
    record = make("x", _user="bob", __deep=1, referer="/a", host="theirs", _path="mine", msg_="m")
    fields = parse(log_lines.json_line(record, CONTEXT))
    assert (fields["user"], fields["deep"], fields["referer"], fields["msg_"]) == ("bob", 1, "/a", "m")
    assert fields["host"] == hostname.host_name() and fields["_host"] == "theirs"
    assert fields["path"] == "/hello" and fields["_path"] == "mine"


def test_names_that_become_equal_are_both_kept() -> None:
    fields = log_lines.encode(make("x", a=1, _a=2, __a=3, _=4), {})
    assert (fields["a"], fields["_a"], fields["__a"], fields["_"]) == (1, 2, 3, 4)


class EarlyRecord(logging.LogRecord):
    """One that has an attribute of its own before those of Python."""

    def __init__(self, *args: Any) -> None:
        self.tenant = "acme"
        super().__init__(*args)


class Word(str):
    __slots__ = ()


def test_an_extra_is_one_wherever_it_stands_in_the_record() -> None:
    early = EarlyRecord("shop", 20, "/app/views.py", 42, "x", (), None)
    early.__dict__["_last"] = True
    late = make("x", tenant="acme")
    del late.stack_info
    late.stack_info = None  # moves one of Python's behind the extra
    for record in (early, late):
        fields = log_lines.encode(record, {})
        assert fields["tenant"] == "acme" and not {"stack_info", "args", "name"} & fields.keys()
    assert log_lines.encode(early, {})["last"] is True


def test_a_name_that_is_no_plain_text_becomes_one() -> None:
    record = make("x")
    odd: dict[Any, object] = {7: "seven", Word("word"): 1, Word("_host"): 2, "": 3}
    record.__dict__.update(odd)
    fields = parse(log_lines.json_line(record, {}))
    assert (fields["7"], fields["word"], fields["_host"], fields[""]) == ("seven", 1, 2, 3)


def test_what_formatters_add_to_a_record_is_no_extra() -> None:
    record = make("x")
    logging.Formatter("%(asctime)s %(message)s").format(record)
    assert not {"asctime", "message", "taskName"} & log_lines.encode(record, {}).keys()


def test_arguments_that_do_not_fit_do_not_lose_the_line() -> None:
    fields = parse(log_lines.json_line(make("%d items", "many"), {}))
    assert fields["msg"].startswith("%d items ('many',) (%d format:")


class Angry:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


LOOP: dict[str, object] = {}
LOOP["self"] = LOOP
SHARED: list[object] = []
for _ in range(200):
    SHARED = [SHARED, SHARED]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        ([1, (2.5, None)], [1, [2.5, None]]),
        ({"a": {1: b"\xff"}}, {"a": {"1": "\\xff"}}),
        ({1, 2}, [1, 2]),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "Colour.RED"),
        (Number.ONE, 1),
        (2**70, "0x400000000000000000"),
        ([10**5000], None),
        (float("nan"), None),
        ("\udcff", "\\udcff"),
        (Angry(), "<Angry, which cannot be shown>"),
    ],
)
def test_any_extra_has_a_value_that_json_can_hold(value: object, shown: object) -> None:
    result = parse(log_lines.json_line(make("x", extra_value=value), {}))["extra_value"]
    if shown is not None or value is None:
        assert result == shown


@pytest.mark.parametrize("value", [LOOP, SHARED, list(range(10**6)), {str(i): [i] * 99 for i in range(999)}])
def test_loops_and_floods_are_cut(value: object) -> None:
    line = log_lines.json_line(make("x", extra_value=value), {})
    assert parse(line)["msg"] == "x"
    assert len(line) < 100_000
    assert b"more" in line or b"items]" in line


def test_lone_surrogates_and_nul_bytes_keep_the_line() -> None:
    fields = parse(log_lines.json_line(make("a\udc80\0b\n\u2028"), {"path": "/\udcff"}))
    assert (fields["msg"], fields["path"]) == ("a\\udc80\0b\n\u2028", "/\\udcff")


def test_a_nul_does_not_end_a_value_in_syslog() -> None:
    _, fields = parse_cee(log_lines.cee_datagram(make("a\0\0b\\u0000c\\\0d"), {}))
    assert fields["msg"] == "a\u2400\u2400b\\u0000c\\\u2400d"


json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    max_leaves=10,
)
any_text = st.text(st.characters(exclude_categories=()))  # lone surrogates as well


@settings(deadline=None)
@given(any_text, st.dictionaries(any_text, json_like | any_text))
@example("secret=\ud800", {"secret=": "secret=x"})
@example("no X-API-Key", {"X_API_KEY": None, "x-api-key": ["x", 2**70]})
def test_every_line_and_datagram_can_be_read_back(message: str, extra: dict[str, object]) -> None:
    record = make(message)
    record.__dict__.update({name: value for name, value in extra.items() if name not in log_lines._STANDARD})
    fields = parse(log_lines.json_line(record, CONTEXT))
    assert {name: fields[name] for name in CONTEXT} == CONTEXT
    assert fields["line"] == 42
    if "ecret=" not in message and "ECRET=" not in message:
        assert fields["msg"] == plain.valid(message)
    priority, same = parse_cee(log_lines.cee_datagram(record, CONTEXT))
    assert priority == 14
    if b"\\u0000" not in log_lines.json_line(record, CONTEXT):
        assert same == fields


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "GET /c2c?secret=Tr0ub4dor HTTP/1.1",
        "/c2c?a=1&secret=Tr0ub4dor&b=2",
        'Referer: "http://h/c2c?secret=Tr0ub4dor"',
        "secret=Tr0ub4dor\nnext",
        "Cookie: C2C_SECRET=Tr0ub4dor; other=1",
        "secret=Tr0ub4dor'\\Tr0ub4dor",
    ],
)
def test_a_secret_is_in_no_line(text: str) -> None:
    record = make("%s", text, where=text, deep={"list": [text]})
    try:
        raise ValueError(text)
    except ValueError:
        record.exc_info = sys.exc_info()
    for wire in (log_lines.json_line(record, {"path": text}), log_lines.cee_datagram(record, {})):
        assert b"Tr0ub4dor" not in wire
        assert wire.count(b"=***") >= 3
    assert parse(log_lines.json_line(record, {}))["line"] == 42
    assert "Tr0ub4dor" not in log_lines.mask(text)


def test_what_follows_a_secret_stays() -> None:
    fields = parse(log_lines.json_line(make("GET /c2c?secret=x&b=2#top HTTP/1.1"), {}))
    assert fields["msg"] == "GET /c2c?secret=***&b=2#top HTTP/1.1"
    assert log_lines.mask("nothing = here") == "nothing = here"


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_a_datagram_is_cut_to_what_udp_carries_and_counted() -> None:
    record = make("m" * 100, big="é" * 90_000, small="s")
    datagram = log_lines.cee_datagram(record, CONTEXT)
    assert 65_000 < len(datagram) <= 65507
    _, fields = parse_cee(datagram)
    assert fields["msg"] == "m" * 100 and fields["small"] == "s"
    assert re.fullmatch(r"é+\[\.\.\. \d+ characters cut\]", fields["big"])
    assert guard.tally["dropped.logs.shortened"] == 1


@settings(deadline=None, max_examples=60)
@given(
    st.text(st.sampled_from('a\0é\U0001f600\udcff"='), max_size=20),
    st.integers(0, 3000),
    st.integers(0, 200),
    st.integers(log_lines.MIN_LIMIT, 9000),
)
def test_no_datagram_is_longer_than_its_limit(text: str, times: int, extras: int, limit: int) -> None:
    record = make("%s", text * times, **{f"e{i}": text * (times // 9) for i in range(extras)})
    record.exc_text = text * (times * 2)
    datagram = log_lines.cee_datagram(record, CONTEXT, limit=limit)
    assert len(datagram) <= limit
    _, fields = parse_cee(datagram)
    assert fields["level_name"] == "INFO" and fields["line"] == 42
    guard.reset()


def test_very_many_extras_are_left_out_together() -> None:
    record = make("the message", **{f"e{i}": i for i in range(2000)})
    _, fields = parse_cee(log_lines.cee_datagram(record, CONTEXT, limit=4096))
    assert fields["msg"] == "the message" and fields["request_id"] == "r-1"
    assert fields["dropped_fields"] == 2000


def test_a_huge_line_is_cut_too() -> None:
    line = log_lines.json_line(make("m" * (3 << 20)), {})
    assert len(line) <= log_lines.MAX_LINE
    assert parse(line)["msg"].endswith("characters cut]")


# -- OpenTelemetry ----------------------------------------------------------------------------------------------------


@pytest.fixture
def sink() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        yield server


def in_span() -> otel_context.Context:
    return set_span_in_context(NonRecordingSpan(SpanContext(TRACE, SPAN, False, TraceFlags(1))))


def provider_with(exporter: Any, processor: Any = SimpleLogRecordProcessor) -> LoggerProvider:
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(processor(exporter))
    return provider


@pytest.mark.parametrize("processor", [SimpleLogRecordProcessor, BatchLogRecordProcessor])
def test_an_sdk_record_has_the_same_fields(processor: Any) -> None:
    stream = io.StringIO()
    provider = provider_with(logs.JsonLogExporter(stream), processor)
    attributes = {attribute: f"<{field}>" for field, attribute in logs.ATTRIBUTE_OF.items()}
    attributes |= {"process.pid": 7, "code.line.number": 42, "exception.type": "E", "exception.message": "m"}
    provider.get_logger("shop.views").emit(
        LogRecord(
            timestamp=1_700_000_000_250_000_000,
            context=in_span(),
            severity_number=SeverityNumber.WARN,
            severity_text="WARN",
            body="hello",
            attributes={**attributes, "_user": "bob", "host": "theirs"},
        )
    )
    provider.shutdown()
    fields = parse(stream.getvalue().encode())
    assert fields == {
        "host": hostname.host_name(),
        "timestamp": 1_700_000_000.25,
        "level": 4,
        "level_name": "WARNING",
        "source_facility": "shop.views",
        "logger_name": "shop.views",
        "msg": "hello",
        "pid": 7,
        "trace_id": f"{TRACE:032x}",
        "span_id": f"{SPAN:016x}",
        "line": 42,
        "full_msg": "true",
        "user": "bob",
        "_host": "theirs",
        **{name: f"<{name}>" for name in logs.ATTRIBUTE_OF if name not in ("pid", "line")},
    }


@pytest.mark.parametrize(
    ("severity", "level", "name"),
    [
        (None, 6, "INFO"),
        (SeverityNumber.TRACE, 7, "DEBUG"),
        (SeverityNumber.DEBUG4, 7, "DEBUG"),
        (SeverityNumber.INFO2, 6, "INFO"),
        (SeverityNumber.ERROR, 3, "ERROR"),
        (SeverityNumber.FATAL4, 2, "CRITICAL"),
    ],
)
def test_sdk_severities(severity: SeverityNumber | None, level: int, name: str) -> None:
    stream = io.StringIO()
    provider = provider_with(logs.JsonLogExporter(stream))
    provider.get_logger("x").emit(LogRecord(severity_number=severity, body={"a": 1}))
    fields = parse(stream.getvalue().encode())
    assert (fields["level"], fields["level_name"], fields["pid"]) == (level, name, os.getpid())
    assert "trace_id" not in fields


def test_the_cee_exporter_sends_where_configure_said(sink: socket.socket) -> None:
    logs.configure("127.0.0.1", sink.getsockname()[1], facility=16)
    provider = provider_with(logs.CeeLogExporter())
    provider.get_logger("x").emit(
        LogRecord(severity_number=SeverityNumber.ERROR, body="see /c2c?secret=hunter2", attributes={"n": 1})
    )
    priority, fields = parse_cee(sink.recv(70_000))
    assert (priority, fields["msg"], fields["n"]) == (16 * 8 + 3, "see /c2c?secret=***", 1)
    assert provider.force_flush()
    provider.shutdown()


def test_an_exporter_that_cannot_write_fails_and_does_not_raise() -> None:
    stream = io.StringIO()
    stream.close()
    exporter = logs.JsonLogExporter(stream)
    guard.strict(False)
    try:
        assert exporter.export([object()]) is LogRecordExportResult.FAILURE  # type: ignore[list-item]
        assert guard.tally["failed.logs.json"] == 1
    finally:
        guard.strict(None)


def test_the_exporters_are_entry_points() -> None:
    from importlib.metadata import entry_points

    found = {e.name: e.load() for e in entry_points(group="opentelemetry_logs_exporter") if e.name.startswith("c2c_")}
    assert found == {"c2c_json": logs.JsonLogExporter, "c2c_cee": logs.CeeLogExporter}


def test_a_stream_of_another_encoding_still_gets_utf8() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    stream.write("before\n")
    log_lines.write_line(stream, log_lines.json_line(make("é"), {}))
    before, line = raw.getvalue().split(b"\n", 1)
    assert before == b"before" and parse(line)["msg"] == "é"
