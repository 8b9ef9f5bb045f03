"""Which spans leave the process, and why that changes no measurement.

Instrumentors take their measurements themselves, sampled or not. What the sampler still decides is who may look at
a span: exporters see sampled ones, a processor may want all. So `MeasureAll` turns DROP into RECORD_ONLY and keeps
the attributes given at the start, which the SDK's own samplers throw away with a drop; any provider then ends every
span before its processors, and batch and simple processors pass over the unsampled ones by themselves.

With our provider an unsampled request is cheaper than that: where no processor would see an unsampled span, it is a
`NonRecordingSpan`. The specification's IsRecording says whether anything is being recorded, so that instrumentation
can spare itself the work; with nobody to see it, nothing is, and False is the right answer. The span context, its
trace state and the unsampled flag are the same either way, so children and remote services inherit the decision.
As soon as a processor that wants unsampled spans is registered, the next spans record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from c2c_otel import _sdk_private

__all__ = ["ASK_RATIO", "DROP", "RECORD", "SAMPLE", "MeasureAll", "Rules", "from_environment", "rules"]

DROP, RECORD, SAMPLE, ASK_RATIO = 0, 1, 2, 3
"""What `Rules` say. ASK_RATIO: SAMPLE where the trace id's low 64 bits are below the bound, else `otherwise`."""


class MeasureAll(Sampler):
    """Decides as `root` does, but records what `root` drops."""

    def __init__(self, root: Sampler) -> None:
        self.root: Sampler = root.root if isinstance(root, MeasureAll) else root

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        result = self.root.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if result.decision is not Decision.DROP:
            return result
        kept = {**(attributes or {}), **(result.attributes or {})}
        return SamplingResult(Decision.RECORD_ONLY, kept, result.trace_state)

    def get_description(self) -> str:
        return f"MeasureAll{{{self.root.get_description()}}}"


def from_environment() -> MeasureAll:
    """The sampler that OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG name, as the SDK reads them, measuring all."""
    return MeasureAll(_sdk_private.environment_sampler())


class Rules(NamedTuple):
    """A sampler whose decision needs no call: what it says to a root span, and under each kind of parent."""

    root: int
    remote_off: int
    remote_on: int
    local_off: int
    local_on: int
    bound: int
    otherwise: int


def rules(sampler: Sampler) -> Rules | None:
    """The rules of one of the SDK's stock samplers (or `MeasureAll` of one); None for any other: it must be asked."""
    otherwise = DROP
    if isinstance(sampler, MeasureAll) and _plain(sampler, MeasureAll):
        sampler, otherwise = sampler.root, RECORD
    parts: tuple[Sampler, ...] = (sampler,) * 5
    if _plain(sampler, ParentBased):
        found = _sdk_private.parent_rules(sampler)
        if found is None:
            return None
        parts = found
    answers = [_answer(part) for part in parts]
    bounds = {part.bound for part in parts if _plain(part, TraceIdRatioBased) and isinstance(part, TraceIdRatioBased)}
    if None in answers or len(bounds) > 1:
        return None
    root, remote_off, remote_on, local_off, local_on = (answer or otherwise for answer in answers)  # DROP is 0
    return Rules(root, remote_off, remote_on, local_off, local_on, bounds.pop() if bounds else 0, otherwise)


def _answer(sampler: Sampler) -> int | None:
    if _plain(sampler, TraceIdRatioBased):
        return ASK_RATIO
    decision = _sdk_private.static_decision(sampler) if _plain(sampler, StaticSampler) else None
    return None if decision is None else decision.value


def _plain(sampler: Sampler, stock: type[Sampler]) -> bool:
    """Whether it decides as that class does, rather than in a way of its own."""
    return getattr(sampler.should_sample, "__func__", None) is stock.should_sample
