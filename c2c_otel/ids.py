"""Random ids of traces and spans.

From a generator of its own: an application that seeds `random` does not repeat its traces, and a forked child starts
from fresh entropy.
"""

from __future__ import annotations

import os
import random

from opentelemetry.sdk.trace.id_generator import IdGenerator

__all__ = ["FastIdGenerator", "getrandbits", "new_span_id"]

_random = random.Random()  # noqa: S311 - ids, not secrets
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)
getrandbits = _random.getrandbits


def new_span_id() -> int:
    """64 random bits, not all 0."""
    return getrandbits(64) or new_span_id()


class FastIdGenerator(IdGenerator):
    """The same as the SDK asks for them."""

    def generate_span_id(self) -> int:
        return new_span_id()

    def generate_trace_id(self) -> int:
        return getrandbits(128) or self.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        return True
