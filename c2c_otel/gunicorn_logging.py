"""gunicorn's arbiter logs as the ini file says, from its first line on: ``--logger-class`` of ``c2c-otel-run``.

Without it the file's logging begins where the application is made, which is in the workers. gunicorn's own loggers
follow the file where that names them; else they write as the root logger does, if that writes JSON or CEE.
"""

from __future__ import annotations

from typing import Any

from gunicorn import glogging

from c2c_otel import logging_setup
from c2c_otel.settings import Settings

__all__ = ["Logger"]


class Logger(glogging.Logger):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's, set up by ``C2CWSGIUTILS_CONFIG``."""

    def setup(self, cfg: Any) -> None:
        """Called at the start, and with each SIGHUP. Raises RuntimeError: at the start gunicorn then says why and
        ends, with a SIGHUP it goes on as before."""
        super().setup(cfg)
        settings = Settings.load()
        try:
            logging_setup.setup_from_ini(settings.config_file, settings)
        except Exception as error:  # what handlers raise, too
            raise RuntimeError(
                f"C2CWSGIUTILS_CONFIG is {str(settings.config_file)!r}; its logging cannot be set up: "
                f"{type(error).__name__}: {error}"
            ) from error
        logging_setup.adopt_gunicorn(settings)
