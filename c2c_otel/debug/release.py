"""Giving memory back to the system after a look at a whole process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["given_back"]


@contextmanager
def given_back() -> Iterator[None]:
    """What was allocated and freed inside the block leaves the process. The C library keeps up to 64 MiB of it else:
    glibc raises its own limits with the first big list that is freed. Other libraries are left as they are."""
    try:
        yield
    finally:
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
