"""``c2c-otel-instrument COMMAND [ARG ...]``: run a Python program with telemetry, its code unchanged.

The command replaces this process. A folder with a ``sitecustomize`` goes first on PYTHONPATH, as OpenTelemetry's own
launcher does it; the environment then carries which run of the service this is, and the hold on its directory passes
through exec, so that an upgrade by USR2 continues the same run.

Exit codes: 2 for a setting that cannot be used, 127 for a command that is not found, 126 for one that cannot be run,
otherwise the command's own.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from c2c_otel import __version__
from c2c_otel.runtime_dir import Run
from c2c_otel.settings import ConfigurationError, Settings, environment

__all__ = ["main"]

_USAGE = """\
usage: c2c-otel-instrument COMMAND [ARG ...]

Run COMMAND with spans, statsd, /metrics and request ids for Pyramid, SQLAlchemy, Redis and requests.
Settings are environment variables: c2c-otel config shows them all.

examples:
  c2c-otel-instrument gunicorn -w 4 --threads 8 'myapp:main()'
  STATSD_ADDRESS=127.0.0.1:8125 c2c-otel-instrument gunicorn --paste production.ini
  c2c-otel-instrument waitress-serve --call myapp:main
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; returns only where the command could not be started."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in {"-h", "--help"}:
        print(_USAGE, end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        print(f"c2c-otel {__version__}")
        return 0
    environ = environment()
    try:
        settings = Settings.load(environ)
    except ConfigurationError as error:
        print(f"c2c-otel-instrument: {error}", file=sys.stderr)
        return 2
    executable = words[0] if os.sep in words[0] else shutil.which(words[0], path=environ.get("PATH"))
    if executable is None:
        print(f"c2c-otel-instrument: {words[0]}: command not found", file=sys.stderr)
        return 127
    prepare(settings, environ)
    return _exec(executable, words, environ)


def prepare(settings: Settings, environ: MutableMapping[str, str]) -> Run | None:
    """Give ``environ`` what the launched program needs. Returns the hold on the run's directory, if there is one."""
    here = str(Path(__file__).parent / "autostart")
    paths = [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path != here]
    environ["PYTHONPATH"] = os.pathsep.join([here, *paths]) if paths != [""] else here
    environ["C2C_SERVICE_ID"] = identity = settings.service_id or uuid.uuid4().hex
    try:
        return Run.join(settings, identity, inheritable=True)
    except OSError:  # the worker says so: there it matters
        return None


def _exec(executable: str, words: list[str], environ: MutableMapping[str, str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(executable, words, dict(environ))  # noqa: S606 - running a command is what this is for
    except OSError as error:
        print(f"c2c-otel-instrument: {words[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


if __name__ == "__main__":
    sys.exit(main())
