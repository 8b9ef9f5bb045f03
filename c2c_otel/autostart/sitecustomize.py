"""First on PYTHONPATH under ``c2c-otel-instrument``: starts telemetry, then whatever sitecustomize it hides."""

import importlib.util
import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))


def _run_hidden() -> None:
    """A sitecustomize of the environment (a debugger's, a distribution's) still runs."""
    for path in sys.path:
        hidden = os.path.join(path, "sitecustomize.py")
        if os.path.abspath(path or ".") != _here and os.path.isfile(hidden):
            spec = importlib.util.spec_from_file_location("sitecustomize_hidden", hidden)
            if spec is not None and spec.loader is not None:
                spec.loader.exec_module(importlib.util.module_from_spec(spec))
            return


try:
    from c2c_otel.distro import autostart

    autostart()
except ImportError as error:  # another interpreter than the one c2c-otel is installed in
    print(f"c2c-otel-instrument: no telemetry in {sys.executable}: {error}", file=sys.stderr)
finally:
    _run_hidden()
