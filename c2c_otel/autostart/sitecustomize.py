"""First on PYTHONPATH under ``c2c-otel-instrument``: starts telemetry, then whatever sitecustomize it hides."""

import importlib.machinery
import importlib.util
import os
import sys

# Set once a Python of this service has come this far. What that one runs itself is not told: a tool of the system's
# own Python has none of ours, and its output may be read by a program.
_TOLD = "_C2C_OTEL_TOLD"

_here = os.path.dirname(os.path.abspath(__file__))


def _run_hidden() -> None:
    """A sitecustomize of the environment (a debugger's, a distribution's) still runs."""
    others = [path for path in sys.path if os.path.abspath(path or ".") != _here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


try:
    from c2c_otel.distro import autostart

    autostart()
except ImportError as error:  # another interpreter than the one c2c-otel is installed in
    if _TOLD not in os.environ:
        print(f"c2c-otel-instrument: no telemetry in {sys.executable}: {error}", file=sys.stderr)
finally:
    os.environ[_TOLD] = "1"
    _run_hidden()
