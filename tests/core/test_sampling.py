"""`MeasureAll` and the short cut through the SDK's stock samplers."""

from __future__ import annotations

import random
from typing import Any

import pytest
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from c2c_otel import sampling, tracing

STOCK = {
    "on": ALWAYS_ON,
    "off": ALWAYS_OFF,
    "record": StaticSampler(Decision.RECORD_ONLY),
    "parent on": DEFAULT_ON,
    "parent off": DEFAULT_OFF,
    "ratio": TraceIdRatioBased(0.5),
    "ratio 0": TraceIdRatioBased(0),
    "ratio 1": TraceIdRatioBased(1),
    "parent ratio": ParentBasedTraceIdRatio(0.5),
    "odd": ParentBased(ALWAYS_OFF, ALWAYS_OFF, ALWAYS_ON, StaticSampler(Decision.RECORD_ONLY), TraceIdRatioBased(0.2)),
}


class Seen(SpanProcessor):
    def __init__(self) -> None:
        self.ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)


def parents() -> list[Context]:
    state = TraceState([("a", "b")])
    made = [Context()]
    for remote in (False, True):
        for flags in (0, 1, 2, 3):
            parent = api.NonRecordingSpan(SpanContext(random.getrandbits(128), 5, remote, TraceFlags(flags), state))
            made.append(api.set_span_in_context(parent, Context()))
    return made


def by_rules(rules: sampling.Rules, context: Context, trace_id: int) -> int:
    parent = api.get_current_span(context).get_span_context()
    answer = rules.root
    if parent.is_valid:
        answer = rules[(1 if parent.is_remote else 3) + (parent.trace_flags & 1)]
    if answer == sampling.ASK_RATIO:
        return sampling.SAMPLE if trace_id & (2**64 - 1) < rules.bound else rules.otherwise
    return answer


@pytest.mark.parametrize("name", STOCK)
@pytest.mark.parametrize("measure", [False, True])
def test_rules_decide_as_the_sampler_does(name: str, measure: bool) -> None:
    sampler = sampling.MeasureAll(STOCK[name]) if measure else STOCK[name]
    rules = sampling.rules(sampler)
    assert rules is not None
    for context in parents():
        for _ in range(20):
            trace_id = random.getrandbits(128)
            wanted = sampler.should_sample(context, trace_id, "n").decision.value
            assert by_rules(rules, context, trace_id) == wanted


def test_samplers_with_a_mind_of_their_own_have_no_rules() -> None:
    class Loud(StaticSampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            return super().should_sample(*args, **kwargs)

    class Mine(sampling.MeasureAll):
        should_sample = Loud.should_sample

    loud = Loud(Decision.DROP)
    patched = StaticSampler(Decision.DROP)
    patched.should_sample = loud.should_sample  # type: ignore[method-assign]
    two_ratios = ParentBased(TraceIdRatioBased(0.1), TraceIdRatioBased(0.2))
    for sampler in (loud, patched, two_ratios, ParentBased(loud), sampling.MeasureAll(loud), Mine(ALWAYS_ON)):
        assert sampling.rules(sampler) is None


@pytest.mark.parametrize("provider", [sdk.TracerProvider, tracing.TracerProvider])
def test_a_dropped_span_is_measured_with_its_attributes_and_not_exported(provider: Any) -> None:
    exporter, seen = InMemorySpanExporter(), Seen()
    made = provider(sampler=sampling.MeasureAll(DEFAULT_ON), shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    made.add_span_processor(seen)
    unsampled = api.NonRecordingSpan(SpanContext(7, 8, True, TraceFlags(0), TraceState([("a", "b")])))
    tracer = made.get_tracer("test")
    span = tracer.start_span("n", api.set_span_in_context(unsampled, Context()), attributes={"http.route": "/x"})
    child = tracer.start_span("c", api.set_span_in_context(span, Context()))
    assert span.is_recording()
    child.end()
    span.end()
    assert exporter.get_finished_spans() == ()
    assert [dict(s.attributes or {}) for s in seen.ended] == [{}, {"http.route": "/x"}]
    for ended in seen.ended:
        context = ended.get_span_context()
        assert context.trace_id == 7 and not context.trace_flags.sampled and context.trace_state == {"a": "b"}


def test_what_nobody_would_see_is_not_recorded_but_inherited() -> None:
    made = tracing.TracerProvider(sampler=sampling.MeasureAll(ALWAYS_OFF), shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    tracer = made.get_tracer("test")
    span = tracer.start_span("n", attributes={"a": 1})
    child = tracer.start_span("n", api.set_span_in_context(span, Context()))
    assert not span.is_recording() and span.get_span_context().is_valid
    assert child.get_span_context().trace_id == span.get_span_context().trace_id
    assert not child.get_span_context().trace_flags.sampled
    made.add_span_processor(Seen())
    assert tracer.start_span("n").is_recording()


def test_attributes_that_the_root_adds_to_a_drop_are_kept() -> None:
    class Adding(Sampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            return SamplingResult(Decision.DROP, {"why": "because"})

        def get_description(self) -> str:
            return "Adding"

    result = sampling.MeasureAll(Adding()).should_sample(None, 1, "n", attributes={"a": 1})
    assert result.decision is Decision.RECORD_ONLY and dict(result.attributes or {}) == {"a": 1, "why": "because"}


def test_a_sampler_that_fails_drops_the_span() -> None:
    from c2c_otel_exporters import guard

    class Failing(Sampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            raise RuntimeError("no")

        def get_description(self) -> str:
            return "Failing"

    guard.strict(False)
    try:
        span = tracing.TracerProvider(sampler=Failing(), shutdown_on_exit=False).get_tracer("t").start_span("n")
        assert not span.is_recording() and guard.tally["failed.sampler.should_sample"] == 1
    finally:
        guard.strict(None)
        guard.reset()


def test_a_sampler_given_to_the_tracer_later_counts() -> None:
    tracer: Any = tracing.TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False).get_tracer("t")
    assert tracer.start_span("n").is_recording()
    tracer.sampler = ALWAYS_OFF
    assert not tracer.start_span("n").is_recording()


@pytest.mark.parametrize(
    ("name", "argument", "description"),
    [
        (None, None, "MeasureAll{ParentBased{root:AlwaysOnSampler,"),
        ("always_off", None, "MeasureAll{AlwaysOffSampler}"),
        ("traceidratio", "0.25", "MeasureAll{TraceIdRatioBased{0.25}}"),
    ],
)
def test_the_standard_variables_choose_the_sampler(
    monkeypatch: pytest.MonkeyPatch, name: str | None, argument: str | None, description: str
) -> None:
    for variable, value in (("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", argument)):
        monkeypatch.delenv(variable, raising=False)
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert sampling.from_environment().get_description().startswith(description)
    provider = tracing.TracerProvider(shutdown_on_exit=False)
    assert provider.sampler.get_description().startswith(description)


def test_measuring_all_twice_is_measuring_all() -> None:
    assert sampling.MeasureAll(sampling.MeasureAll(ALWAYS_ON)).root is ALWAYS_ON
