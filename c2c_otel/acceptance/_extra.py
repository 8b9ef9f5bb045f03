"""Libraries that come with the extra ``acceptance``."""

from __future__ import annotations

__all__ = ["missing"]


def missing(user: str, error: ImportError, remedy: str = "pip install 'c2c-otel[acceptance]'") -> ImportError:
    """What to raise where a library is not there: it says who needs what, and the command that installs it."""
    return ImportError(f"{user} needs {error.name}. Run: {remedy}", name=error.name)
