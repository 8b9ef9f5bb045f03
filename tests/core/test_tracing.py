"""What lean spans do beside equalling the SDK's (test_tracing_same_as_sdk.py)."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context as context_api
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common._internal import _encode_key_value
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, ReadableSpan, SpanLimits, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, Sampler, StaticSampler
from opentelemetry.trace import Link, SpanContext, StatusCode, TraceFlags

from c2c_otel import _sdk_private, lean, readable, request_id, sampling, tracing
from c2c_otel_exporters import guard


@pytest.fixture(autouse=True)
def fresh_guard() -> Iterator[None]:
    guard.reset()
    yield
    guard.strict(None)
    guard.reset()


class Seen(SpanProcessor):
    def __init__(self) -> None:
        self.ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)


def provider(*processors: SpanProcessor, sampler: Sampler = ALWAYS_ON, **more: Any) -> tracing.TracerProvider:
    made = tracing.TracerProvider(sampler=sampler, shutdown_on_exit=False, **more)
    for processor in processors:
        made.add_span_processor(processor)
    return made


def tracer(*processors: SpanProcessor, **more: Any) -> Any:
    return provider(*processors, **more).get_tracer("test")


def memory() -> tuple[InMemorySpanExporter, SimpleSpanProcessor]:
    exporter = InMemorySpanExporter()
    return exporter, SimpleSpanProcessor(exporter)


def round_trip(*spans: ReadableSpan) -> Any:
    """What a collector receives."""
    sent = ExportTraceServiceRequest.FromString(encode_spans(spans).SerializeToString())
    return [s for r in sent.resource_spans for scope in r.scope_spans for s in scope.spans]


# -- what it is ---------------------------------------------------------------------------------------------------


def test_a_lean_span_is_an_sdk_span_to_who_asks() -> None:
    made = provider()
    span = made.get_tracer("test").start_span("name")
    assert isinstance(made, sdk.TracerProvider)
    assert isinstance(made.get_tracer("test"), sdk.Tracer)
    assert isinstance(span, sdk.Span) and isinstance(span, ReadableSpan) and isinstance(span, api.Span)
    assert type(span) is lean.Span


def test_an_untouched_span_has_no_dictionary_and_no_lock() -> None:
    span = tracer().start_span("name", attributes={"a": 1})
    span.set_attribute("b", "2")
    span.end()
    assert vars(span) == {}


def test_a_tracer_is_made_once() -> None:
    made = provider()
    assert made.get_tracer("one", "1") is made.get_tracer("one", "1")
    assert made.get_tracer("one", "1") is not made.get_tracer("one", "2")


def test_a_span_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError, match="via a tracer"):
        lean.Span("name", api.INVALID_SPAN_CONTEXT)


def test_to_json_and_repr_read_a_lean_span() -> None:
    span = tracer(resource=Resource({"service.name": "s"})).start_span("name", attributes={"a": [1]})
    span.add_event("happened")
    assert '"a": [\n' in span.to_json() and '"happened"' in span.to_json()
    assert repr(span).startswith('Span(name="name", context=SpanContext(')


def test_a_disabled_sdk_makes_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert isinstance(tracing.TracerProvider(shutdown_on_exit=False).get_tracer("x"), api.NoOpTracer)


def test_spans_are_counted_by_the_sdk_where_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    assert type(tracer().start_span("name")) is sdk._Span


def test_a_disabled_tracer_hands_on_its_parent() -> None:
    made = tracer()
    made._set_tracer_config(sdk._TracerConfig(is_enabled=False))
    parent = SpanContext(1, 2, True)
    span = made.start_span("n", api.set_span_in_context(api.NonRecordingSpan(parent), Context()))
    assert span.get_span_context() is parent and not span.is_recording()


# -- private names ------------------------------------------------------------------------------------------------


def test_no_private_name_is_missing_from_the_pinned_sdk() -> None:
    assert _sdk_private.missing() == []


@pytest.mark.parametrize("name", ["_new_links", "_add_event", "_readable_span"])
def test_a_private_name_that_is_gone_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delattr(sdk.Span, name)
    assert _sdk_private.missing() == [f"Span.{name}"]


def test_without_its_private_names_the_sdk_makes_the_spans(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_sdk_private, "missing", lambda: ["Span._gone"])
    exporter, processor = memory()
    for _ in range(2):
        made = provider(processor)
        with made.get_tracer("x").start_as_current_span("one") as span:
            assert type(span) is sdk._Span
    assert [s.name for s in exporter.get_finished_spans()] == ["one", "one"]
    assert [r.getMessage() for r in caplog.records] == [
        "Spans are the SDK's own, which cost more: this SDK has no Span._gone"
    ]


# -- after the end ------------------------------------------------------------------------------------------------


def test_late_calls_are_warned_about_and_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()
    span = tracer(seen).start_span("name", attributes={"a": 1})
    span.end(7)
    before = seen.ended[0].to_json()
    span.set_attribute("b", 1)
    span.set_attributes({"b": 1})
    span.add_event("b")
    span.add_link(SpanContext(1, 2, False))
    span.update_name("b")
    span.set_status(StatusCode.ERROR)
    span.start()
    span.end(8)
    assert span.to_json() == before and len(seen.ended) == 1
    assert [r.getMessage() for r in caplog.records] == [
        "Setting attribute on ended span.",
        "Setting attribute on ended span.",
        "Tried calling _add_event on an ended span.",
        "Tried calling _add_link on an ended span.",
        "Tried calling update_name on an ended span.",
        "Tried calling set_status on an ended span.",
        "Calling start() on a started span.",
        "Calling end() on an ended span.",
    ]


def test_what_was_exported_does_not_follow_the_span() -> None:
    seen = Seen()
    span = tracer(seen).start_span("name", attributes={"a": 1})
    span.end()
    with pytest.raises(TypeError):
        span._attributes["sneaked"] = 1
    assert dict(seen.ended[0].attributes or {}) == {"a": 1}


# -- attributes that cannot be sent -------------------------------------------------------------------------------


class Mute:
    def __str__(self) -> str:
        raise ValueError("no words")


def endless() -> list[Any]:
    itself: list[Any] = []
    itself.append(itself)
    return itself


def deep(levels: int) -> Any:
    return {"k": deep(levels - 1)} if levels else 1


BAD: list[Any] = [
    2**63,
    -(2**63) - 1,
    "\ud800",
    ["ok", "\udfff"],
    {"\ud800": 1},
    {"a": 2**64},
    Mute(),
    endless(),
    deep(40),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("way", ["start", "set", "set many", "event", "link", "link at start"])
def test_an_attribute_that_cannot_be_encoded_is_dropped_and_counted(way: str, bad: Any) -> None:
    seen = Seen()
    given = {"bad": bad, "good": 1}
    at_start: dict[str, Any] = {"start": {"attributes": given}}.get(way, {})
    if way == "link at start" and not isinstance(bad, Mute) and bad != BAD[7]:
        at_start = {"links": [Link(SpanContext(1, 2, True), given)]}
    span = tracer(seen).start_span("n", **at_start)
    if way == "set":
        span.set_attribute("bad", bad)
        span.set_attribute("good", 1)
    elif way == "set many":
        span.set_attributes(given)
    elif way == "event":
        span.add_event("e", given)
    elif way == "link" or (way == "link at start" and not at_start):
        span.add_link(SpanContext(1, 2, True), given)
    span.end()
    (sent,) = round_trip(*seen.ended)
    attributes = [
        *sent.attributes,
        *(a for e in sent.events for a in e.attributes),
        *(a for x in sent.links for a in x.attributes),
    ]
    assert [(a.key, a.value.int_value) for a in attributes] == [("good", 1)]
    assert guard.tally["dropped.span_attribute"] == 1


def test_links_that_cannot_be_cleaned_do_not_stop_the_span() -> None:
    seen = Seen()
    tracer(seen).start_span("n", links=[Link(SpanContext(1, 2, True), {"a": Mute()})]).end()
    assert not seen.ended[0].links and guard.tally["dropped.span_link"] == 1


@pytest.mark.parametrize("attributes", [5, ["ab"], "text", object()])
def test_attributes_that_are_no_mapping_are_dropped(attributes: Any) -> None:
    seen = Seen()
    span = tracer(seen).start_span("n", attributes=attributes)
    span.set_attributes(attributes)
    span.add_event("e", attributes)
    span.end()
    assert seen.ended[0].attributes == {} and len(seen.ended[0].events) == 1
    assert guard.tally["dropped.span_attribute"] == 3


def test_a_key_that_is_no_utf8_is_dropped() -> None:
    seen = Seen()
    tracer(seen).start_span("n", attributes={"\ud800": 1, "é": 2}).end()
    assert dict(seen.ended[0].attributes or {}) == {"é": 2}


def test_texts_times_and_kinds_that_would_cost_the_batch_are_mended() -> None:
    seen = Seen()
    made = tracer(seen)
    span = made.start_span("/caf\udce9", kind="server", start_time=-1)
    span.add_event("e\ud800", timestamp=1.5)
    span.set_status(StatusCode.ERROR, "no file \udce9")
    span.add_link(SpanContext(2**130, 1, False), {"a": 1})
    span.end(2**70)
    made.start_span(None).end()
    first, second = round_trip(*seen.ended)
    assert (first.name, first.events[0].name, first.status.message) == ("/caf?", "e?", "no file ?")
    assert first.kind == 1 and len(first.links) == 0 and first.events[0].time_unix_nano == 1
    assert 0 < first.start_time_unix_nano <= first.end_time_unix_nano
    assert second.name == "None" and guard.tally["dropped.span_link"] == 1


leaves = st.none() | st.booleans() | st.floats() | st.binary() | st.integers(-(2**65), 2**65) | st.text(st.characters())
values = st.recursive(
    leaves,
    lambda v: st.lists(v, max_size=3).map(tuple) | st.dictionaries(st.text(st.characters()), v, max_size=3),
    max_leaves=6,
)


@given(values)
def test_encodable_says_what_the_encoder_does(value: Any) -> None:
    try:
        _encode_key_value("key", value)
    except Exception:
        assert not readable.encodable(value)
    else:
        assert readable.encodable(value)


def test_limits_hold_for_attributes_given_one_by_one() -> None:
    seen = Seen()
    span = tracer(seen, span_limits=SpanLimits(max_span_attributes=2, max_span_attribute_length=3)).start_span("n")
    for name in "abc":
        span.set_attribute(name, name * 5)
    span.end()
    assert dict(seen.ended[0].attributes or {}) == {"b": "bbb", "c": "ccc"}
    assert seen.ended[0].dropped_attributes == 1


# -- processors ---------------------------------------------------------------------------------------------------


class Failing(SpanProcessor):
    def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
        raise RuntimeError("start")

    def _on_ending(self, span: sdk.Span) -> None:
        raise RuntimeError("ending")

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("end")


def test_a_processor_that_fails_is_nobody_elses_problem(caplog: pytest.LogCaptureFixture) -> None:
    guard.strict(False)
    seen = Seen()
    made = tracer(Failing(), seen)
    for _ in range(2):
        with made.start_as_current_span("name"):
            pass
        assert api.get_current_span() is api.INVALID_SPAN
    assert len(seen.ended) == 2
    places = {place: n for place, n in guard.tally.items() if place.startswith("failed.")}
    assert places == {
        "failed.span_processor.on_start": 2,
        "failed.span_processor.on_ending": 2,
        "failed.span_processor.on_end": 2,
    }
    assert len(caplog.records) == 3


def test_under_pytest_a_failing_processor_is_heard_and_leaks_no_context() -> None:
    class FailsAtEnd(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise RuntimeError("end")

    made = tracer(FailsAtEnd())
    with pytest.raises(RuntimeError, match="end"), made.start_as_current_span("name"):
        pass
    assert api.get_current_span() is api.INVALID_SPAN


def test_a_span_is_made_readable_once_and_only_for_who_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    ended = readable.Ended
    monkeypatch.setattr(readable, "Ended", lambda *a: made.append(a) or ended(*a))
    first, second = Seen(), Seen()
    tracer(first, second).start_span("two look").end()
    assert len(made) == 1 and first.ended[0] is second.ended[0]
    tracer().start_span("nobody looks").end()
    _, simple = memory()
    batch = BatchSpanProcessor(InMemorySpanExporter())
    tracer(simple, batch, sampler=StaticSampler(Decision.RECORD_ONLY)).start_span("unsampled").end()
    batch.shutdown()
    assert len(made) == 1


def test_an_ended_span_is_put_together_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    described = []
    describe = lean.Span._describe
    monkeypatch.setattr(lean.Span, "_describe", lambda *a: described.append(a) or describe(*a))
    seen = Seen()
    span = tracer(seen).start_span("name", attributes={"a": "b", "bad": "\ud800"})
    span.end()
    (ended,) = seen.ended
    assert ended.context is span.get_span_context() and described == []
    assert (ended.name, dict(ended.attributes or {})) == ("name", {"a": "b"})
    assert (ended.end_time, ended.kind, ended.events, ended.links) == (span.end_time, span.kind, (), ())
    assert len(described) == 1 and guard.tally["dropped.span_attribute"] == 1
    with pytest.raises(AttributeError, match="'Ended' object has no attribute '_nothing'"):
        ended._nothing  # type: ignore[attr-defined] # noqa: B018 - that is the point


def test_an_unsampled_span_reaches_those_who_want_all() -> None:
    exporter, simple = memory()
    seen = Seen()
    tracer(simple, seen, sampler=sampling.MeasureAll(ALWAYS_OFF)).start_span("n", attributes={"a": 1}).end()
    assert exporter.get_finished_spans() == ()
    (ended,) = seen.ended
    assert dict(ended.attributes or {}) == {"a": 1} and not ended.get_span_context().trace_flags.sampled


def test_a_batch_processor_whose_on_end_is_overridden_sees_unsampled_spans() -> None:
    class Counting(BatchSpanProcessor):
        count = 0

        def on_end(self, span: ReadableSpan) -> None:
            self.count += 1

    processor = Counting(InMemorySpanExporter())
    tracer(processor, sampler=sampling.MeasureAll(ALWAYS_OFF)).start_span("n").end()
    processor.shutdown()
    assert processor.count == 1


def test_hooks_are_found_where_they_are() -> None:
    started: list[str] = []

    class Starts(SpanProcessor):
        def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
            started.append(span.name)

    on_instance = SpanProcessor()
    ended: list[str] = []
    on_instance.on_end = lambda span: ended.append(span.name)  # type: ignore[method-assign]
    tracer(Starts(), on_instance, SpanProcessor()).start_span("n").end()
    processors = lean.Processors()
    assert started == ended == ["n"] and processors.idle
    processors.add_span_processor(SpanProcessor())
    assert processors.idle and not processors.watching_unsampled
    processors._span_processors = (Starts(),)
    assert processors.idle and len(processors.starting) == 1
    processors.add_span_processor(Seen())
    assert not processors.idle and processors.watching_unsampled


def test_a_processor_added_later_sees_the_spans_that_run() -> None:
    made, seen = provider(), Seen()
    span = made.get_tracer("test").start_span("n")
    made.add_span_processor(seen)
    span.end()
    assert [s.name for s in seen.ended] == ["n"]


def test_the_sdks_concurrent_processor_works() -> None:
    exporter, simple = memory()
    seen = Seen()
    made = provider(simple, seen, active_span_processor=ConcurrentMultiSpanProcessor(2))
    made.get_tracer("test").start_span("n").end()
    made.shutdown()
    assert len(exporter.get_finished_spans()) == len(seen.ended) == 1


def test_renew_replaces_what_it_brought_and_keeps_what_others_added() -> None:
    stays, parents, childs = Seen(), Seen(), Seen()
    made = provider(stays, resource=Resource({"process.pid": 1}))
    test = made.get_tracer("test")
    made.renew(Resource({"process.pid": 2}), [parents])
    old = test.start_span("old")
    made.renew(Resource({"process.pid": 3}), [childs])
    test.start_span("new").end()
    old.end()
    assert [s.name for s in stays.ended] == [s.name for s in childs.ended] == ["new", "old"]
    assert parents.ended == [] and made.resource.attributes["process.pid"] == 3
    assert [s.resource.attributes["process.pid"] for s in childs.ended] == [3, 2]


# -- the current span ---------------------------------------------------------------------------------------------


def test_a_decorated_function_has_a_span_for_each_call() -> None:
    exporter, simple = memory()
    made = tracer(simple)

    @made.start_as_current_span("call", attributes={"a": 1})
    def fall(n: int) -> int:
        """Down."""
        return fall(n - 1) + 1 if n else 0

    assert fall(2) == 2 and fall.__name__ == "fall" and fall.__doc__ == "Down."
    spans = exporter.get_finished_spans()
    assert [s.name for s in spans] == ["call"] * 3
    assert [s.parent and s.parent.span_id for s in spans] == [spans[1].context.span_id, spans[2].context.span_id, None]


def test_a_decorated_coroutine_has_a_span_until_it_is_done() -> None:
    exporter, simple = memory()
    made = tracer(simple)

    @made.start_as_current_span("call")
    async def work(n: int) -> int:
        before = api.get_current_span()
        await asyncio.sleep(0)
        assert api.get_current_span() is before and before.is_recording()
        return n

    async def both() -> list[int]:
        return await asyncio.gather(work(1), work(2))

    assert asyncio.run(both()) == [1, 2]
    spans = exporter.get_finished_spans()
    assert len({s.context.span_id for s in spans}) == 2 and all(s.parent is None for s in spans)


def test_the_span_starts_on_entry() -> None:
    made = tracer()
    manager = made.start_as_current_span("later")
    with made.start_as_current_span("outer") as outer, manager as later:
        assert later.parent == outer.get_span_context()
        with pytest.raises(RuntimeError, match="entered twice"):
            manager.__enter__()


def test_an_exception_is_noted_and_goes_on() -> None:
    exporter, simple = memory()
    made = tracer(simple)
    with pytest.raises(StopIteration), made.start_as_current_span("n"):
        raise StopIteration("enough")
    (span,) = exporter.get_finished_spans()
    assert span.status.description == "StopIteration: enough"
    assert span.events[0].attributes["exception.type"] == "StopIteration"
    assert 'raise StopIteration("enough")' in str(span.events[0].attributes["exception.stacktrace"])


def test_an_exception_without_words_does_not_hide_itself() -> None:
    class Wordless(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    guard.strict(False)
    exporter, simple = memory()
    with pytest.raises(Wordless), tracer(simple).start_as_current_span("n"):
        raise Wordless
    assert len(exporter.get_finished_spans()) == 1 and guard.tally["failed.tracing.record_exception"] == 1


def test_a_closed_generator_ends_its_span_without_an_error() -> None:
    exporter, simple = memory()
    made = tracer(simple)

    def rows() -> Iterator[int]:
        with made.start_as_current_span("rows"):
            yield 1
            yield 2

    iterator = rows()
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.UNSET and not span.events
    assert api.get_current_span() is api.INVALID_SPAN


def test_a_generator_closed_on_another_thread_still_ends_its_span(caplog: pytest.LogCaptureFixture) -> None:
    exporter, simple = memory()
    made = tracer(simple)

    def rows() -> Iterator[int]:
        with made.start_as_current_span("rows"):
            yield 1

    iterator = rows()
    thread = threading.Thread(target=next, args=(iterator,))
    thread.start()
    thread.join()
    iterator.close()  # type: ignore[attr-defined]
    assert len(exporter.get_finished_spans()) == 1
    assert [r.getMessage() for r in caplog.records] == ["Failed to detach context"]  # as the API says it


def test_attach_span_and_detach() -> None:
    span = tracer().start_span("n")
    context = context_api.set_value("other", 1, Context())
    token = tracing.attach_span(span, context)
    assert api.get_current_span() is span and context_api.get_value("other") == 1
    tracing.detach(token)
    assert api.get_current_span() is api.INVALID_SPAN and dict(context) == {"other": 1}


def test_a_span_has_the_request_id_of_its_context() -> None:
    seen = Seen()
    made = tracer(seen)
    made.start_span("with", request_id.set_in(Context(), "abc")).end()
    made.start_span("without", Context()).end()
    assert [dict(s.attributes or {}) for s in seen.ended] == [{"c2c.request_id": "abc"}, {}]


# -- ids, flags, forks --------------------------------------------------------------------------------------------


def test_ids_do_not_repeat_when_the_application_seeds_random() -> None:
    ids = tracing.FastIdGenerator()
    found = set()
    for _ in range(3):
        random.seed(1)
        found.add(ids.generate_trace_id())
        found.add(ids.generate_span_id())
        found.add(tracer().start_span("n").get_span_context().trace_id)
    assert len(found) == 9


def test_flags_say_sampled_and_random() -> None:
    made = tracer()
    root = made.start_span("n").get_span_context()
    assert root.trace_flags == TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID and type(root.trace_flags) is TraceFlags
    old = api.set_span_in_context(api.NonRecordingSpan(SpanContext(1, 2, True, TraceFlags(1))), Context())
    assert made.start_span("n", old).get_span_context().trace_flags == TraceFlags.SAMPLED


def test_forked_children_have_ids_and_a_resource_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process")
    made = provider(resource=Resource({"process.pid": os.getpid()}))
    test = made.get_tracer("test")
    reading, writing = os.pipe()
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                span = test.start_span("n")
                pids = made.resource.attributes["process.pid"] == span.resource.attributes["process.pid"] == os.getpid()
                os.write(writing, f"{span.get_span_context().trace_id:032x} {pids}\n".encode())
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    os.close(writing)
    with open(reading) as pipe:
        lines = pipe.read().split("\n")[:-1]
    ids = {line.split()[0] for line in lines} | {f"{test.start_span('n').get_span_context().trace_id:032x}"}
    assert len(lines) == 3 and len(ids) == 4
    assert all(line.endswith(" True") for line in lines)


def test_many_threads_may_set_attributes_of_one_span() -> None:
    seen = Seen()
    span = tracer(seen, span_limits=SpanLimits(max_span_attributes=SpanLimits.UNSET)).start_span("n")

    def work(number: int) -> None:
        for i in range(300):
            span.set_attribute(f"own.{number}.{i}", i)
            span.set_attribute("shared", number)
            span.add_event("e")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    span.end()
    (ended,) = seen.ended
    assert len(ended.attributes or {}) == 1201 and len(ended.events) + ended.dropped_events == 1200


def test_a_parent_that_is_no_span_context_is_an_error_as_with_the_sdk() -> None:
    class Odd(api.NonRecordingSpan):
        def get_span_context(self) -> Any:
            return "odd"

    context = api.set_span_in_context(Odd(api.INVALID_SPAN_CONTEXT), Context())
    with pytest.raises(TypeError, match="must be a SpanContext"):
        tracer().start_span("n", context)


def test_warnings_are_the_sdks_to_filter() -> None:
    assert logging.getLogger("opentelemetry.sdk.trace") is lean._logger
