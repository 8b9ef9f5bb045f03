"""The request id on its way in, through and out."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, propagate
from opentelemetry import context as context_api
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanContext
from requests.structures import CaseInsensitiveDict

from c2c_otel import request_id
from c2c_otel.request_id import RequestIdPropagator
from c2c_otel_exporters import guard

TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
AS_ID = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    before = propagate.get_global_textmap()
    guard.reset()
    yield
    propagate.set_global_textmap(before)
    request_id.configure()
    guard.reset()


def in_trace() -> Context:
    return api.set_span_in_context(api.NonRecordingSpan(SpanContext(TRACE_ID, 1, False)), Context())


# -- what is accepted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("abc", "abc"),
        ("  a b=c;d \t", "a b=c;d"),
        ("x" * 128, "x" * 128),
        ("x" * 129, None),
        (" " * 200 + "x", "x"),
        ("", None),
        ("   ", None),
        ("a\nb", None),
        ("a\x7f", None),
        ("é", None),
        ("a\x00", None),
        (None, None),
        (5, None),
    ],
)
def test_accepted(value: Any, wanted: str | None) -> None:
    assert request_id.accepted(value) == wanted


@given(st.text() | st.text(st.characters(max_codepoint=255), max_size=140))
def test_whatever_is_accepted_is_safe_to_log_and_to_send(value: str) -> None:
    found = request_id.accepted(value)
    if found is not None:
        assert found == value.strip(" \t") and 1 <= len(found) <= 128
        assert set(found.encode()) <= set(range(0x20, 0x7F))


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128))
def test_every_printable_text_is_accepted(value: str) -> None:
    assert request_id.accepted(value) == value


def test_headers_are_tried_in_order_and_invalid_ones_passed_over() -> None:
    environ = {
        "HTTP_X_REQUEST_ID": "one",
        "HTTP_X_CORRELATION_ID": "two",
        "HTTP_REQUEST_ID": "three",
        "HTTP_X_VARNISH": "1234 567",
        "HTTP_X_AMZN_TRACE_ID": "Root=1-67891233-abcdef012345678912345678;Sampled=1",
    }
    found = []
    for key in list(environ):
        found.append(request_id.from_environ(environ))
        environ[key] = "x" * 200
    assert found == ["one", "two", "three", "1234 567", "Root=1-67891233-abcdef012345678912345678;Sampled=1"]
    assert request_id.from_environ(environ) is None


def test_a_configured_header_comes_first_and_is_also_sent() -> None:
    request_id.configure("X-My-Id")
    assert request_id.from_environ({"HTTP_X_MY_ID": "mine", "HTTP_X_REQUEST_ID": "other"}) == "mine"
    carrier: dict[str, str] = {}
    RequestIdPropagator().inject(carrier, request_id.set_in(Context(), "abc"))
    assert carrier == {"X-Request-ID": "abc", "X-My-Id": "abc"}
    assert RequestIdPropagator().fields == {"X-Request-ID", "X-My-Id"}
    request_id.configure()
    assert request_id.from_environ({"HTTP_X_MY_ID": "mine"}) is None
    assert RequestIdPropagator().fields == {"X-Request-ID"}


def test_a_known_header_may_be_preferred() -> None:
    headers = request_id.Headers("x-varnish")
    assert headers.received == ("x-varnish", "X-Request-ID", "X-Correlation-ID", "Request-ID", "X-Amzn-Trace-Id")
    assert headers.sent == ("X-Request-ID", "x-varnish")
    assert request_id.Headers("x-request-id").sent == ("X-Request-ID",)


@pytest.mark.parametrize("header", ["", "a b", "a:b", "é", "a\n"])
def test_what_is_no_header_name_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match="no HTTP header name"):
        request_id.configure(header)


# -- the id itself ------------------------------------------------------------------------------------------------


@given(st.integers(1, 2**128 - 1))
def test_the_default_is_the_trace_id_with_dashes(trace_id: int) -> None:
    text = request_id.from_trace_id(trace_id)
    assert [len(part) for part in text.split("-")] == [8, 4, 4, 4, 12]
    assert text.replace("-", "") == api.format_trace_id(trace_id)


def test_get_prefers_the_contexts_then_the_traces() -> None:
    assert request_id.get() is None and request_id.get(Context()) is None
    assert request_id.get(in_trace()) == AS_ID
    token = context_api.attach(request_id.set_in(in_trace(), "abc"))
    try:
        assert request_id.get() == "abc"
    finally:
        context_api.detach(token)


# -- the propagator -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "carrier",
    [
        {"X-Request-ID": "abc"},
        {"x-request-id": "abc"},
        {"X-Request-ID": ["\n", "abc"]},
        {"X-Request-ID": "\n", "request-id": "abc"},
        CaseInsensitiveDict({"X-REQUEST-ID": "abc"}),
    ],
)
def test_extract(carrier: Any) -> None:
    context = RequestIdPropagator().extract(carrier, Context({"other": 1}))
    assert dict(context) == {"other": 1, request_id.REQUEST_ID_KEY: "abc"}


def test_extract_without_an_id_changes_nothing() -> None:
    context = Context({"other": 1})
    assert RequestIdPropagator().extract({"X-Request-ID": "\n"}, context) is context
    token = context_api.attach(request_id.set_in(Context(), "left behind"))
    assert RequestIdPropagator().extract({}) == {}
    context_api.detach(token)


@pytest.mark.parametrize("carrier", [{"x-request-id": "theirs"}, CaseInsensitiveDict({"X-REQUEST-ID": "theirs"})])
def test_inject_leaves_what_is_there(carrier: Any) -> None:
    RequestIdPropagator().inject(carrier, request_id.set_in(Context(), "abc"))
    assert list(carrier.values()) == ["theirs"]


def test_inject_outside_of_everything_sends_nothing() -> None:
    carrier: dict[str, str] = {}
    RequestIdPropagator().inject(carrier, Context())
    assert carrier == {}
    RequestIdPropagator("X-Own").inject(carrier, in_trace())
    assert carrier == {"X-Request-ID": AS_ID, "X-Own": AS_ID}


def test_it_is_an_entry_point() -> None:
    from importlib.metadata import entry_points

    (found,) = entry_points(group="opentelemetry_propagator", name="c2c_request_id")
    assert isinstance(found.load()(), RequestIdPropagator)


def test_install_adds_it_once() -> None:
    propagate.set_global_textmap(CompositePropagator([]))
    request_id.install("X-Own")
    first = propagate.get_global_textmap()
    request_id.install("X-Other")
    assert propagate.get_global_textmap() is first and first.fields == {"X-Request-ID", "X-Other"}
    carrier: dict[str, str] = {}
    propagate.inject(carrier, request_id.set_in(Context(), "abc"))
    assert carrier == {"X-Request-ID": "abc", "X-Other": "abc"}


def test_the_span_processor_works_with_the_sdks_provider() -> None:
    ended: list[ReadableSpan] = []

    class Seen(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            ended.append(span)

    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(request_id.RequestIdSpanProcessor())
    provider.add_span_processor(Seen())
    tracer = provider.get_tracer("t")
    tracer.start_span("n", request_id.set_in(Context(), "abc")).end()
    token = context_api.attach(request_id.set_in(Context(), "current"))
    tracer.start_span("n").end()
    context_api.detach(token)
    tracer.start_span("n", Context()).end()
    assert [dict(s.attributes or {}) for s in ended] == [
        {"c2c.request_id": "abc"},
        {"c2c.request_id": "current"},
        {},
    ]


# -- the remote context -------------------------------------------------------------------------------------------


class Refusing(TextMapPropagator):
    """Must not be asked."""

    @property
    def fields(self) -> set[str]:
        return {"traceparent", "X-B3-TraceId"}

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Context:
        raise AssertionError("was asked")

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None: ...


def remote(environ: dict[str, Any], trace_context: str = "accept") -> Context:
    return request_id.remote_context({"REQUEST_METHOD": "GET", **environ}, trace_context)


def trace_of(context: Context) -> int:
    return api.get_current_span(context).get_span_context().trace_id


def test_a_request_joins_the_trace_and_the_baggage_of_its_caller() -> None:
    context = remote({"HTTP_TRACEPARENT": TRACEPARENT, "HTTP_TRACESTATE": "a=b", "HTTP_BAGGAGE": "k=v"})
    span_context = api.get_current_span(context).get_span_context()
    assert span_context.trace_id == TRACE_ID and span_context.is_remote and span_context.trace_state == {"a": "b"}
    assert dict(baggage.get_all(context)) == {"k": "v"}
    assert request_id.get(context) == AS_ID and request_id.REQUEST_ID_KEY not in context


def test_nothing_the_thread_had_is_inherited() -> None:
    token = context_api.attach(request_id.set_in(baggage.set_baggage("left", "behind", in_trace()), "old"))
    try:
        assert remote({}) == {}
        assert dict(baggage.get_all(remote({"HTTP_BAGGAGE": "k=v"}))) == {"k": "v"}
        assert trace_of(remote({"HTTP_TRACEPARENT": "nonsense"})) == 0
    finally:
        context_api.detach(token)


def test_the_request_id_is_in_it() -> None:
    request_id.install()
    assert request_id.get(remote({"HTTP_X_CORRELATION_ID": "abc"})) == "abc"
    both = remote({"HTTP_X_REQUEST_ID": "abc", "HTTP_TRACEPARENT": TRACEPARENT})
    assert request_id.get(both) == "abc" and trace_of(both) == TRACE_ID
    assert request_id.get(remote({"HTTP_X_REQUEST_ID": "abc", "HTTP_TRACEPARENT": TRACEPARENT}, "ignore")) == "abc"


def test_at_a_public_edge_trace_and_baggage_are_ignored() -> None:
    assert remote({"HTTP_TRACEPARENT": TRACEPARENT, "HTTP_BAGGAGE": "k=v"}, "ignore") == {}


def test_propagators_are_not_asked_when_none_of_their_headers_is_there() -> None:
    propagate.set_global_textmap(CompositePropagator([Refusing(), RequestIdPropagator()]))
    assert dict(remote({"HTTP_X_REQUEST_ID": "abc", "HTTP_ACCEPT": "*/*"})) == {request_id.REQUEST_ID_KEY: "abc"}
    assert not guard.tally
    assert remote({"HTTP_X_B3_TRACEID": "1"}) == {} and guard.tally["dropped.trace_context"] == 1


@pytest.mark.parametrize(
    "value",
    [
        "",
        "garbage",
        "00-0-0-0",
        TRACEPARENT.replace("4bf", "xyz"),
        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
        "ff" + TRACEPARENT[2:],
    ],
)
def test_a_malformed_traceparent_makes_a_fresh_trace(value: str) -> None:
    assert trace_of(remote({"HTTP_TRACEPARENT": value})) == 0


@pytest.mark.parametrize("key", ["HTTP_TRACEPARENT", "HTTP_TRACESTATE", "HTTP_BAGGAGE"])
def test_an_over_long_header_makes_a_fresh_trace(key: str) -> None:
    environ = {"HTTP_TRACEPARENT": TRACEPARENT, "HTTP_TRACESTATE": "a=b", "HTTP_X_REQUEST_ID": "abc"}
    context = remote({**environ, key: environ.get(key, "k=") + "-" * 8192})
    assert dict(context) == {request_id.REQUEST_ID_KEY: "abc"} and guard.tally["dropped.trace_context"] == 1


header = st.text(st.characters(max_codepoint=255), max_size=80) | st.sampled_from([TRACEPARENT, "a=b", "k=v;p=1,x"])
name = st.sampled_from(["TRACEPARENT", "TRACESTATE", "BAGGAGE", "X_REQUEST_ID", "X_VARNISH"])


@given(st.dictionaries(name.map("HTTP_{}".format), header))
def test_no_header_raises(environ: dict[str, str]) -> None:
    context = remote(environ)
    found = context.get(request_id.REQUEST_ID_KEY)
    assert found is None or set(str(found)) <= set(string.printable)
    assert trace_of(context) in (0, TRACE_ID)
