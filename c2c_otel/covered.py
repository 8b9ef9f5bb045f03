"""``COVERAGE=1``: which lines of the application its acceptance tests reach, written by each worker when it ends.

    COVERAGE=1 c2c-otel-run                  # then run the tests, and end the service by SIGTERM
    c2c-otel-coverage-report --data /tmp/coverage/api myapp

Measuring begins before the application is imported. Each process has a file of its own; a worker that is forked from
one that measures (``--preload``) goes on measuring, into its own.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from c2c_otel.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from coverage import Coverage

__all__ = ["check", "start"]

_measuring: Coverage | None = None


def check(settings: Settings) -> None:
    """Raises `ConfigurationError` where it is asked for and the package coverage is not there."""
    if settings.coverage and importlib.util.find_spec("coverage") is None:
        raise ConfigurationError(
            "COVERAGE", "1", "the package coverage to be installed", "Run: pip install 'c2c-otel[coverage]'"
        )


def start(settings: Settings) -> bool:
    """Begin to measure, where the settings say so. Idempotent; whether it measures.

    What is measured is what coverage's own configuration in the current directory says; without one, all that is not
    installed. Raises `ConfigurationError` as `check`, and where the directory cannot be made.
    """
    global _measuring
    if not settings.coverage:
        return False
    if _measuring is not None:
        return True
    check(settings)
    import coverage

    try:
        settings.coverage_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            "C2C_COVERAGE_DIR", str(settings.coverage_dir), "a directory that can be written to", f"{error.strerror}."
        ) from None
    # auto_data: saved by atexit, which gunicorn's workers come to when they end by SIGTERM, SIGHUP or max-requests
    _measuring = coverage.Coverage(
        data_file=str(settings.coverage_dir / "coverage"), data_suffix=True, auto_data=True, branch=True
    )
    _measuring.start()
    return True
