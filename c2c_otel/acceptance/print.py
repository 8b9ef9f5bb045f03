"""A MapFish Print 3 server, by its REST API: https://mapfish.github.io/mapfish-print-doc/api.html"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from c2c_otel.acceptance import utils
from c2c_otel.acceptance.connection import CacheExpected, Connection

if TYPE_CHECKING:
    import requests

__all__ = ["PrintConnection"]

_log = logging.getLogger(__name__)


class PrintConnection(Connection):
    """The base URL ends with the server's path: ``http://print:8080/print/``."""

    def __init__(self, base_url: str, origin: str, *, timeout: float = 60.0, cors: bool = True) -> None:
        """``origin`` is the requests' ``Referer``, too: print servers hand it on to map servers that ask for one."""
        super().__init__(base_url, origin, timeout=timeout, cors=cors)
        self.session.headers["Referer"] = origin

    def wait_ready(self, timeout: float = utils.DEFAULT_TIMEOUT, app: str = "default") -> None:
        """Until this application's capabilities are there. Raises AssertionError "Timeout: ..."."""
        utils.retry_timeout(functools.partial(self.get_capabilities, app), timeout=timeout)

    def get_apps(self) -> Any:
        """The names of the applications: a list."""
        return self.get_json("apps.json", cache_expected=CacheExpected.YES)

    def get_capabilities(self, app: str) -> Any:
        """Layouts, attributes and formats of an application: a dictionary."""
        return self.get_json(f"{app}/capabilities.json", cache_expected=CacheExpected.YES)

    def get_example_requests(self, app: str) -> dict[str, Any]:
        """What can be given to `get_pdf`, by the example's name."""
        examples = self.get_json(f"{app}/exampleRequest.json", cache_expected=CacheExpected.YES)
        return {name: json.loads(value) if isinstance(value, str) else value for name, value in examples.items()}

    def get_pdf(
        self, app: str, request: Mapping[str, Any], timeout: float = utils.DEFAULT_TIMEOUT
    ) -> requests.Response:
        """Order a report, wait for it and fetch it; the PDF is the answer's ``content``.

        Raises AssertionError: "Timeout: ..." after ``timeout`` seconds, or at once where the server says it failed."""
        reference = self.post_json(f"{app}/report.pdf", json=dict(request))["ref"]
        status = utils.retry_timeout(functools.partial(self._done, reference), timeout=timeout)
        _log.debug("%s: report %s: %s", app, reference, status)
        if status.get("status") != "finished":
            raise AssertionError(f"{app}: report {reference} is {status.get('status')}: {status.get('error')}")
        report = self.get_raw(f"report/{reference}")
        kind = report.headers.get("Content-Type", "")
        start = report.content[:5]
        if kind.partition(";")[0] != "application/pdf" or start != b"%PDF-":
            raise AssertionError(f"{app}: report {reference} is no PDF but {kind!r}, {start!r}...")
        return report

    def _done(self, reference: str) -> dict[str, Any]:
        status: dict[str, Any] = self.get_json(f"status/{reference}.json")
        if not status.get("done"):
            raise AssertionError(f"report {reference} is {status.get('status')}")
        return status
