"""What the commands share in how they end, and how they ask for their help."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence

from c2c_otel.settings import ConfigurationError

__all__ = ["command", "complain", "parser"]

Main = Callable[[Sequence[str] | None], int]


def complain(program: str, message: object) -> None:
    """One line on stderr."""
    print(f"{program}: {message}", file=sys.stderr)


def command(program: str) -> Callable[[Main], Callable[..., int]]:
    """Make a ``main`` end as a command should: 2 and a message for a setting that cannot be used, 130 for Ctrl-C, and
    not a word where whoever reads its output has seen enough."""

    def decorate(main: Main) -> Callable[..., int]:
        @functools.wraps(main)
        def ended(arguments: Sequence[str] | None = None) -> int:
            try:
                status = main(arguments)
                if sys.stdout is not None:  # as it is where a shell has closed it
                    sys.stdout.flush()
                return status
            except ConfigurationError as error:
                complain(program, error)
                return 2
            except BrokenPipeError:  # the interpreter flushes once more at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 0
            except KeyboardInterrupt:
                return 130

        return ended

    return decorate


def parser(program: str, description: str, examples: str, codes: str) -> argparse.ArgumentParser:
    """With examples and exit codes below the options; no option can be shortened, so that a script means the same
    tomorrow."""
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    return argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=f"examples:\n{lines}\n\nexit codes: {codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
