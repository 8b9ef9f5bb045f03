"""Lean spans against the SDK's: the same random calls, the same OTLP bytes and the same answers on the way.

A scenario is played twice from one seed, against providers that differ in their class alone, with the same ids and
the same clock. The clock stands still within a step: how often it is read is nobody's business.
"""

from __future__ import annotations

import enum
import logging
import random
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from c2c_otel import lean, request_id, sampling, tracing

SCENARIOS = 2000
STEPS = 10


class Clock:
    now = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        return self.now


CLOCK = Clock()


@pytest.fixture(autouse=True)
def still_world(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (sdk, lean, tracing):
        monkeypatch.setattr(module, "time_ns", CLOCK)
    # The SDK's generator stands in its stack traces; a class does not.
    monkeypatch.setattr("traceback.format_exception", lambda error: [f"{type(error).__name__}\n"])
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Ids(IdGenerator):
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.says_random = bool(seed % 2)

    def generate_span_id(self) -> int:
        return self.random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        return self.random.getrandbits(128) or 1

    def is_trace_id_random(self) -> bool:
        return self.says_random


class Adding(Sampler):
    """Decides by the name, adds an attribute and changes the trace state."""

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *args: Any, **kwargs: Any) -> SamplingResult:
        decision = list(Decision)[len(name) % 3]
        attributes = args[1] if len(args) > 1 else kwargs.get("attributes")
        return SamplingResult(decision, {**(attributes or {}), "sampler": True}, TraceState([("s", name[:1] or "x")]))

    def get_description(self) -> str:
        return "Adding"


SAMPLERS: list[Sampler] = [
    ALWAYS_ON,
    ALWAYS_ON,
    DEFAULT_ON,
    DEFAULT_ON,
    ALWAYS_OFF,
    DEFAULT_OFF,
    StaticSampler(Decision.RECORD_ONLY),
    TraceIdRatioBased(0.5),
    ParentBased(TraceIdRatioBased(0.4)),
    ParentBased(ALWAYS_ON, remote_parent_not_sampled=TraceIdRatioBased(0.3), local_parent_sampled=ALWAYS_OFF),
    ParentBased(TraceIdRatioBased(0.1), remote_parent_sampled=TraceIdRatioBased(0.9)),
    Adding(),
    ParentBased(Adding()),
]


class Everything(SpanProcessor):
    """Sees all that ends and touches all that starts."""

    def __init__(self, touches: bool) -> None:
        self.ended: list[ReadableSpan] = []
        self.started: list[Any] = []
        self.touches = touches

    def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
        self.started.append((span.name, parent_context is None, dict(span.attributes or {})))
        if self.touches:
            span.set_attribute("touched", [1, 2])

    def on_end(self, span: ReadableSpan) -> None:
        assert isinstance(span, ReadableSpan) and not isinstance(span, sdk.Span)
        self.ended.append(span)


class Text(str):
    pass


class Colour(enum.Enum):
    RED = "red"


class Code(enum.IntEnum):
    ONE = 1


class Bare:
    """Has no text of its own: the SDK drops it."""


class Spoken:
    def __str__(self) -> str:
        return "spoken"


def value(r: random.Random, depth: int = 0) -> Any:
    plain = r.random() < 0.6
    makers: list[Any] = [
        lambda: r.choice(["", "a", "route", "é" * 3, "x" * r.randint(0, 40)]),
        lambda: r.randint(-5, 500),
        lambda: r.choice([0.0, -1.5, 1e300, float("inf")]),
        lambda: r.random() < 0.5,
    ]
    if not plain:
        makers += [
            lambda: None,
            lambda: b"bytes\xff",
            lambda: Text("text" * 5),
            lambda: Code.ONE,
            lambda: Colour.RED,
            Bare,
            Spoken,
            lambda: {1, 2} and {1},
            lambda: 2**70,
            lambda: -(2**63),
            lambda: "\ud800",
            lambda: bytearray(b"ab"),
            lambda: range(3),
        ]
        if depth < 3:
            makers += [
                lambda: [value(r, depth + 1) for _ in range(r.randint(0, 4))],
                lambda: tuple(value(r, depth + 1) for _ in range(r.randint(0, 4))),
                lambda: {key(r): value(r, depth + 1) for _ in range(r.randint(0, 3))},
            ]
    return r.choice(makers)()


def key(r: random.Random) -> Any:
    if r.random() < 0.95:
        return f"k{r.randint(0, 9)}"
    return r.choice(["", None, 7, Bare(), Text("k1"), "\udcff", "c2c.request_id"])


def attributes(r: random.Random) -> dict[Any, Any] | None:
    if r.random() < 0.15:
        return None
    return {key(r): value(r) for _ in range(r.choice([0, 1, 2, 3, 6, 12]))}


def span_context(r: random.Random) -> SpanContext:
    state = TraceState([("vendor", "v1")]) if r.random() < 0.3 else None
    if r.random() < 0.1:
        return api.INVALID_SPAN_CONTEXT
    return SpanContext(
        r.getrandbits(128) or 1, r.getrandbits(64) or 1, r.random() < 0.7, TraceFlags(r.randint(0, 3)), state
    )


def link(r: random.Random) -> Any:
    if r.random() < 0.1:
        return None
    return Link(span_context(r), attributes(r))


def limit(r: random.Random) -> int | None:
    return r.choice([SpanLimits.UNSET, None, None, None, 0, 1, 2, 3, 5])


def limits(r: random.Random) -> SpanLimits | None:
    if r.random() < 0.5:
        return None
    return SpanLimits(*(limit(r) for _ in range(8)))


def when(r: random.Random) -> int | None:
    return r.choice([None, None, CLOCK.now + r.randint(-1000, 1000), 0])


def status(r: random.Random) -> tuple[Any, ...]:
    code = r.choice(list(StatusCode))
    return r.choice(
        [
            (code,),
            (code, "why"),
            (Status(code),),
            (Status(code, "because"),),
            (Status(code, "one"), "two"),
            (Status(StatusCode.ERROR, 5),),  # type: ignore[arg-type] # a caller's mistake
            ("error",),
        ]
    )


class Play:
    """One scenario; what a reader sees on the way is written down."""

    def __init__(self, provider: Any, seed: int, keep_request_id: bool) -> None:
        self.r = random.Random(seed)
        self.keep = keep_request_id
        self.tracers = [provider.get_tracer("one"), provider.get_tracer("two", "1.2", "http://schema", {"a": 1})]
        self.spans: list[Any] = []
        self.seen: list[Any] = []

    def play(self) -> list[Any]:
        for _ in range(STEPS):
            CLOCK.now += 1000
            self.step()
        for span in self.spans:
            if span.is_recording():
                span.end()
        self.spans.reverse()
        for span in self.spans:
            self.look(span)
        return self.seen

    def step(self) -> None:
        r = self.r
        choice = r.random()
        if not self.spans or choice < 0.3:
            self.start()
        elif choice < 0.4:
            self.with_block()
        else:
            span = r.choice(self.spans[-3:])
            self.touch(span)
            self.look(span)

    def context(self) -> Context | None:
        r = self.r
        choice = r.random()
        if choice < 0.3:
            return None
        context = Context({"other": 1})
        if self.keep and r.random() < 0.5:
            context = request_id.set_in(context, f"id{r.randint(0, 9)}")
        if choice < 0.5:
            return context
        if choice < 0.6:
            return context_api.set_value(api.propagation._SPAN_KEY, "no span", context)
        if self.spans and choice < 0.8:
            return api.set_span_in_context(r.choice(self.spans), context)
        return api.set_span_in_context(api.NonRecordingSpan(span_context(r)), context)

    def arguments(self) -> dict[str, Any]:
        r = self.r
        given: dict[str, Any] = {"name": r.choice(["GET", "sel", "ab", "", "é"]), "context": self.context()}
        if r.random() < 0.6:
            given["attributes"] = attributes(r)
        if r.random() < 0.3:
            given["kind"] = r.choice(list(SpanKind))
        if r.random() < 0.2:
            given["links"] = r.choice([None, [link(r) for _ in range(r.randint(0, 5))]])
        if r.random() < 0.2:
            given["start_time"] = when(r)
        if r.random() < 0.2:
            given["record_exception"] = r.random() < 0.5
            given["set_status_on_exception"] = r.random() < 0.5
        return given

    def start(self) -> None:
        given = self.arguments()
        span = self.r.choice(self.tracers).start_span(**given)
        # What the caller does to its own objects afterwards is not the span's.
        for item in (given.get("attributes") or {}).values():
            if isinstance(item, list):
                item.append("later")
        self.spans.append(span)
        self.look(span)

    def with_block(self) -> None:
        r = self.r
        tracer, given, fails = (
            r.choice(self.tracers),
            self.arguments(),
            r.choice([None, None, ValueError, KeyboardInterrupt]),
        )
        way, ends = r.randint(0, 2), r.random() < 0.8
        try:
            if way == 0:
                with tracer.start_as_current_span(**given, end_on_exit=ends) as span:
                    self.inside(span, fails)
            elif way == 1:
                span = tracer.start_span(**given)
                with api.use_span(span, end_on_exit=ends):
                    self.inside(span, fails)
            else:
                with tracer.start_span(**given) as span:
                    self.inside(span, fails)
        except (ValueError, KeyboardInterrupt) as error:
            self.seen.append(type(error).__name__)
        self.seen.append(api.get_current_span() is api.INVALID_SPAN)

    def inside(self, span: Any, fails: Any) -> None:
        self.spans.append(span)
        self.touch(span)
        self.look(span)
        if self.r.random() < 0.5:
            self.start()
        if fails:
            raise fails("broken")

    def touch(self, span: Any) -> None:
        r = self.r
        choice = r.randint(0, 9)
        if choice <= 2:
            given = value(r)
            span.set_attribute(key(r), given)
            if isinstance(given, list):
                given.append("later")
        elif choice == 3:
            span.set_attributes(attributes(r) or {})
        elif choice == 4:
            span.add_event(r.choice(["e1", "e2", ""]), attributes(r), when(r))
        elif choice == 5:
            span.add_link(span_context(r), attributes(r))
        elif choice == 6:
            span.set_status(*status(r))
        elif choice == 7:
            span.update_name(r.choice(["new", "newer"]))
        elif choice == 8:
            error = r.choice([ValueError("é"), KeyError(), sdk.__dict__["SpanLimits"] and OSError(2, "no")])
            span.record_exception(error, attributes(r), when(r), r.random() < 0.5)
        else:
            span.end(when(r))

    def look(self, span: Any) -> None:
        context = span.get_span_context()
        self.seen.append((type(span) is api.NonRecordingSpan, span.is_recording(), tuple(context), type(context)))
        if isinstance(span, sdk.Span):
            self.seen.append(
                (
                    span.name,
                    span.kind,
                    span.parent and tuple(span.parent),
                    shown(span.attributes),
                    [(e.name, e.timestamp, shown(e.attributes)) for e in span.events],
                    [(tuple(li.context), shown(li.attributes)) for li in span.links],
                    (span.status.status_code, span.status.description),
                    (span.start_time, span.end_time),
                    (span.dropped_attributes, span.dropped_events, span.dropped_links),
                    (span.instrumentation_scope, span.resource),
                )
            )


def shown(mapping: Any) -> str:
    return ascii(list((mapping or {}).items()))


def played(cls: Any, seed: int) -> tuple[list[bytes], list[Any]]:
    CLOCK.now = 1_700_000_000_000_000_000
    r = random.Random(seed)
    sampler = r.choice(SAMPLERS)
    if r.random() < 0.5:
        sampler = sampling.MeasureAll(sampler)
    provider = cls(
        sampler=sampler,
        resource=Resource({"service.name": "same"}),
        shutdown_on_exit=False,
        id_generator=Ids(seed),
        span_limits=limits(r),
    )
    keep = r.random() < 0.3
    if keep and cls is sdk.TracerProvider:
        provider.add_span_processor(request_id.RequestIdSpanProcessor())
    everything, memory = Everything(r.random() < 0.3), InMemorySpanExporter()
    provider.add_span_processor(everything)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    seen = Play(provider, seed, keep).play()
    spans = [*everything.ended, *memory.get_finished_spans()]
    if not keep:  # the SDK's processor adds the request id before or after others see the start
        seen.append(repr(everything.started))
    seen.append([(s.dropped_attributes, s.dropped_events, s.dropped_links) for s in spans])
    return [encode_spans([span]).SerializeToString(deterministic=True) for span in spans], seen


@pytest.mark.parametrize("part", range(4))
def test_random_scenarios_give_the_same_bytes(part: int) -> None:
    exported = 0
    for seed in range(part, SCENARIOS, 4):
        ours, theirs = played(tracing.TracerProvider, seed), played(sdk.TracerProvider, seed)
        assert ours[1] == theirs[1], f"seed {seed}"
        assert ours[0] == theirs[0], f"seed {seed}"
        exported += len(ours[0])
    assert exported > SCENARIOS  # of a quarter of the scenarios: they are not about nothing
