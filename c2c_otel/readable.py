"""What leaves the process of a span: nothing that an encoder would choke on.

One attribute that protobuf refuses costs a traceback in the log, and one such span name, status text, event name or
link costs the whole batch of spans. Here the attribute is dropped and counted (`guard.dropped("span_attribute")`)
and texts are mended, before any exporter sees them. What can be encoded goes through unchanged, so the bytes are
those the SDK would send; ``dropped_attributes_count`` keeps meaning what went over the limits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanKind, Status

from c2c_otel_exporters import guard

__all__ = [
    "Ended",
    "bounded",
    "encodable",
    "ended_later",
    "exportable_attributes",
    "exportable_events",
    "exportable_kind",
    "exportable_links",
    "exportable_status",
    "exportable_text",
    "exportable_time",
    "pairs",
]

_new = object.__new__

_MAX_DEPTH = 20
"""Levels of sequences and mappings inside an attribute; protobuf's decoders give up at about 30."""

_SAFE = frozenset((bool, float, bytes, type(None)))


def encodable(value: object, depth: int = 0) -> bool:  # noqa: PLR0911 - one line for each type
    """Whether a cleaned attribute value fits OTLP: text is UTF-8, integers have 64 bits, nesting is bounded."""
    kind = type(value)
    if kind is str:
        return value.isascii() or _is_utf8(value)  # type: ignore[attr-defined,arg-type] # `kind` says it is text
    if kind in _SAFE:
        return True
    if isinstance(value, str):
        return _is_utf8(value)
    if isinstance(value, bool | float | bytes):
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if depth >= _MAX_DEPTH:
        return False
    if isinstance(value, Sequence):
        return all(encodable(item, depth + 1) for item in value)
    if isinstance(value, Mapping):
        return all(_is_utf8(str(key)) and encodable(item, depth + 1) for key, item in value.items())
    return False


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def exportable_attributes(attributes: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """A copy that nobody else writes to, without what cannot be encoded. Counts kept: `BoundedAttributes.dropped`."""
    if not attributes:
        # Emptied by its limit, it still tells how many were dropped.
        return attributes if isinstance(attributes, BoundedAttributes) else {}
    kept = dict(attributes)
    refused: list[str] = []
    for key, value in kept.items():
        # The first test is `encodable` for most values, without the call.
        sound = value.isascii() if type(value) is str else type(value) in _SAFE
        if not (sound or encodable(value)) or not (key.isascii() or _is_utf8(key)):
            refused.append(key)
    for key in refused:
        guard.dropped("span_attribute", 1, f"{key!r} ({type(kept.pop(key)).__name__}), which cannot be encoded")
    if isinstance(attributes, BoundedAttributes):
        copy = BoundedAttributes(attributes.maxlen, kept, immutable=True)
        copy.dropped = attributes.dropped
        return copy
    return kept


def exportable_text(text: object) -> str:
    """The text itself, or the nearest that UTF-8 can say."""
    if type(text) is str and text.isascii():
        return text
    text = text if isinstance(text, str) else str(text)
    return text if _is_utf8(text) else text.encode("utf-8", "replace").decode()


def exportable_time(nanoseconds: object) -> int:
    """Nanoseconds since 1970 in an unsigned 64-bit word; now, for what is not a time."""
    if type(nanoseconds) is int and 0 <= nanoseconds < 2**64:
        return nanoseconds
    try:
        number = int(nanoseconds)  # type: ignore[call-overload] # the except is for what has no int
    except (TypeError, ValueError, OverflowError):
        return time.time_ns()
    return number if 0 <= number < 2**64 else time.time_ns()


def exportable_kind(kind: object) -> SpanKind:
    """The kind, or INTERNAL for what is none."""
    return kind if type(kind) is SpanKind else SpanKind.INTERNAL


def exportable_status(status: Status) -> Status:
    """The status with a description that can be encoded."""
    description = status.description
    if description is None or (description.isascii() if type(description) is str else False):
        return status
    return status if _is_utf8(description) else Status(status.status_code, exportable_text(description))


def exportable_events(events: Iterable[Event]) -> list[Event] | None:
    """The events again where something had to be mended, else None."""
    mended = [_exportable_event(event) for event in events]
    return mended if any(new is not old for new, old in zip(mended, events, strict=True)) else None


def _exportable_event(event: Event) -> Event:
    name, stamp = exportable_text(event.name), exportable_time(event.timestamp)
    attributes = event.attributes or {}
    sound = all(_is_utf8(key) and encodable(value) for key, value in attributes.items())
    if sound and name is event.name and stamp is event.timestamp:
        return event
    return Event(name, exportable_attributes(attributes), stamp)


def exportable_links(links: Iterable[Link]) -> list[Link] | None:
    """The links again where something had to be mended or left out, else None."""
    before = list(links)
    after = [new for new in map(_exportable_link, before) if new is not None]
    return after if len(after) != len(before) or any(a is not b for a, b in zip(after, before, strict=True)) else None


def _exportable_link(link: Link) -> Link | None:
    context = link.context
    if not (0 <= context.trace_id < 2**128 and 0 <= context.span_id < 2**64):
        guard.dropped("span_link", 1, "a link whose ids are out of range")
        return None
    attributes = link.attributes or {}
    if all(_is_utf8(key) and encodable(value) for key, value in attributes.items()):
        return link
    return Link(context, exportable_attributes(attributes))


def bounded(attributes: Any, limit: int | None, max_length: int | None) -> BoundedAttributes:
    """The SDK's container with what can be cleaned; the rest (a ``__str__`` that raises, a list inside itself) is
    dropped and counted. Never raises. It can still be written to."""
    result = BoundedAttributes(limit, None, immutable=False, max_value_len=max_length)
    if not attributes:
        return result
    try:
        return BoundedAttributes(limit, attributes, immutable=False, max_value_len=max_length)
    except Exception:
        given = pairs(attributes)
    for key, value in given:
        try:
            result[key] = value
        except Exception:
            guard.dropped("span_attribute", 1, f"{key!r} ({type(value).__name__}), which cannot be cleaned")
    return result


def pairs(attributes: object) -> list[tuple[Any, Any]]:
    """The items of a mapping; none, and one more dropped, of what is no mapping."""
    if isinstance(attributes, Mapping):
        return list(attributes.items())
    guard.dropped("span_attribute", 1, f"attributes that are no mapping ({type(attributes).__name__})")
    return []


class Ended(ReadableSpan):
    """An ended lean span for its processors. What it says is checked when somebody reads more of it than its context:
    on an exporter's thread, not on the request's."""

    def __init__(self, span: Any) -> None:
        self._context = span._context
        self._of = span

    def __getattr__(self, name: str) -> Any:
        """Called for what is not there yet."""
        mine = vars(self)
        span: Any = mine.get("_of")
        if span is not None:
            span._describe(self)
            mine.pop("_of", None)  # two threads may have come here, with one result
        try:
            return mine[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None


def ended_later(span: Any) -> Ended:
    """The same for an exporter, which asks for everything or for nothing: not even the context is asked for yet."""
    ended: Ended = _new(Ended)
    ended._of = span
    return ended
