"""``c2c-otel-run [GUNICORN ARGUMENT ...]``: serve the application of an ini file.

This process becomes gunicorn, under the instrumentation of ``c2c-otel-instrument``: signals go to gunicorn itself, its
exit code is the command's, and nothing starts it again.

Exit codes: 2 for what can be seen to be wrong before the start, 127 where gunicorn is not installed, else gunicorn's:
0 after SIGTERM, 3 where the application cannot be loaded.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from c2c_otel import covered, launcher
from c2c_otel.commands import ini_file, shell
from c2c_otel.settings import ConfigurationError, Settings, environment

__all__ = ["APPLICATION", "arguments_of", "check_ini", "gunicorn_script", "main"]

_PROGRAM = "c2c-otel-run"

APPLICATION = "c2c_otel.wsgi_app:application"

_FILE = "C2CWSGIUTILS_CONFIG"
_MAIN = ("app:main", "application:main", "composite:main", "composit:main", "pipeline:main", "filter-app:main")


@shell.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """Returns only where gunicorn could not be started."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in {"-h", "--help"}:
        _parser().print_help()
        return 0
    environ = environment()
    settings = Settings.load(environ)
    gunicorn = [*arguments_of(settings), *words]
    has_loggers = check_ini(settings.config_file, environ)
    covered.check(settings)
    script = gunicorn_script(environ)
    if script is None:
        shell.complain(_PROGRAM, "gunicorn is not installed. Run: pip install 'c2c-otel[gunicorn]'")
        return 127
    logger = ["--logger-class", "c2c_otel.gunicorn_logging.Logger"] if has_loggers else []
    hold = launcher.prepare(settings, environ)  # kept until gunicorn has taken it over
    status = _become([sys.executable, str(script), APPLICATION, *logger, *gunicorn], environ)
    if hold is not None:
        hold.leave()
    return status


def _parser() -> Any:
    parser = shell.parser(
        _PROGRAM,
        "Serve the application of /app/production.ini, or of the file that C2CWSGIUTILS_CONFIG names, with gunicorn. "
        "GUNICORN_PARAMS are its arguments; those given here come after them, and win.",
        "c2c-otel-run\n"
        "C2CWSGIUTILS_CONFIG=development.ini c2c-otel-run --reload\n"
        "GUNICORN_PARAMS='-b :8080 --workers 3' c2c-otel-run --access-logfile -",
        "2: the file or a setting cannot be used; 127: no gunicorn; else gunicorn's own, 0 after SIGTERM",
    )
    parser.add_argument("arguments", metavar="ARGUMENT", nargs="*", help="an argument of gunicorn")
    return parser


def arguments_of(settings: Settings) -> list[str]:
    """``GUNICORN_PARAMS``, split as a shell does it. Raises `ConfigurationError`."""
    try:
        return shlex.split(settings.gunicorn_params)
    except ValueError as error:
        raise ConfigurationError(
            "GUNICORN_PARAMS", settings.gunicorn_params, "words as in a shell", f"{error}."
        ) from None


def check_ini(path: Path, environ: Mapping[str, str]) -> bool:
    """Whether the file has logging. Raises `ConfigurationError` for what can be seen to be wrong without importing the
    application: no file, no ``main`` in it, a variable that is not set, a setting of ours that cannot be used."""
    if not path.is_file():
        raise ConfigurationError(
            _FILE,
            str(path),
            "an ini file that can be read",
            f"Put it there, or name yours: {_FILE}=/path/to/production.ini",
        )
    sections = ini_file.sections(path, _FILE)
    if not set(_MAIN) & set(sections):
        raise ConfigurationError(_FILE, str(path), "an ini file with an application: a section [app:main]")
    if "app:main" in sections:
        Settings.load(environ, ini_file.application_settings(path, name=_FILE))
    if "loggers" in sections:
        ini_file.check_logging(path, _FILE)
    return "loggers" in sections


def gunicorn_script(environ: Mapping[str, str]) -> Path | None:
    """gunicorn's console script in the environment of this Python; None where there is none.

    Not ``-m gunicorn``: an upgrade by USR2 starts ``sys.argv[0]`` again, and with the package's own directory in front
    of sys.path its ``http`` would hide the standard library's.
    """
    if importlib.util.find_spec("gunicorn") is None:
        return None
    for file in importlib.metadata.files("gunicorn") or ():
        if file.name == "gunicorn" and "bin" in file.parts:
            return Path(os.path.abspath(file.locate()))  # noqa: PTH100 - a link stays one: its directory is the environment's
    found = shutil.which("gunicorn", path=environ.get("PATH"))  # as a distribution's own packages have it
    return Path(found) if found else None


def _become(words: list[str], environ: Mapping[str, str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(words[0], words, dict(environ))  # noqa: S606 - running gunicorn is what this is for
    except OSError as error:
        shell.complain(_PROGRAM, f"{words[0]}: {error.strerror}")
        return 126
