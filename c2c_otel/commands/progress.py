"""A progress bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import shutil
import time
from types import TracebackType
from typing import Self, TextIO

__all__ = ["Progress"]

_EVERY = 0.1  # seconds between two pictures
_WIDTH = 30


class Progress:
    """``with Progress(sys.stderr) as bar: bar.begin(len(jobs))``, and before each job ``bar.step("its name")``."""

    def __init__(self, stream: TextIO | None) -> None:
        """None where a shell has closed it."""
        self._stream = stream if stream is not None and stream.isatty() else None
        self.begin(0)

    def begin(self, total: int) -> None:
        """That many jobs follow."""
        self._total = total
        self._begun = -1
        self._drawn = 0.0

    def step(self, what: str) -> None:
        """The next job begins."""
        self._begun += 1
        now = time.monotonic()
        if self._stream is not None and now - self._drawn >= _EVERY:
            self._drawn = now
            self._draw(self._stream, what)

    def clear(self) -> None:
        """Take the picture away, before something else is written to the terminal; the next step draws it anew."""
        if self._stream is not None and self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = 0.0

    def _draw(self, stream: TextIO, what: str) -> None:
        full = _WIDTH * self._begun // max(1, self._total)
        bar = "#" * full + "." * (_WIDTH - full)
        line = f"[{bar}] {self._begun}/{self._total} {''.join(c if c.isprintable() else '?' for c in what)}"
        stream.write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])
        stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.clear()
