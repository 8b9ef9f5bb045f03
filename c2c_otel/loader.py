"""The plaster loader behind ``c2c://``, ``c2c+ini://`` and ``c2c+egg://``: PasteDeploy's, and the environment.

    pserve c2c:///app/production.ini        plaster.get_loader("c2c://production.ini#shop", protocols=["wsgi"])

Every variable of the environment can be referred to as ``%(NAME)s``, in the sections of applications and servers and
in those of `logging`. What a file says in its own ``[DEFAULT]`` section comes before the environment.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plaster_pastedeploy
from paste.deploy.loadwsgi import ConfigLoader  # type: ignore[import-untyped]  # shipped without types

from c2c_otel.ini import verbatim
from c2c_otel.settings import environment

__all__ = ["Loader"]


class Loader(plaster_pastedeploy.Loader):  # type: ignore[misc]  # shipped without types
    """Values given with the call or in the URI's query come before the environment, too."""

    def setup_logging(self, defaults: Mapping[str, str] | None = None) -> None:
        """Configure logging from the file, or with `logging.basicConfig` where it has no ``[loggers]``."""
        if "loggers" not in self.get_sections():
            logging.basicConfig()
            return
        from c2c_otel.logging_setup import setup_from_ini
        from c2c_otel.settings import Settings

        given = dict(self.uri.options) | dict(defaults or {})
        setup_from_ini(Path(self.filepath), Settings.load(), given)

    def _get_defaults(self, defaults: Mapping[str, str] | None = None) -> dict[str, Any]:
        values: dict[str, Any] = super()._get_defaults(defaults)
        return verbatim(environment()) | values

    def _get_parser(self, defaults: Mapping[str, str] | None = None) -> Any:
        loader = ConfigLoader(self.uri.path)
        loader.update_defaults(self._get_defaults(defaults), overwrite=False)
        loader.update_defaults(super()._get_defaults(defaults))
        return loader.parser
