"""Prometheus' Pushgateway."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from tests.servers.find import Program, find
from tests.servers.process import Process, Server, free_port

__all__ = ["Pushgateway"]


def _program() -> Program:
    return find("prometheus-pushgateway", packages=["prometheus-pushgateway"])


class Pushgateway(Server):
    """``with Pushgateway() as gateway: push_to(gateway.url); gateway.groups()``"""

    name = "Pushgateway"
    port: int
    url: str

    def __init__(self) -> None:
        self._process: Process | None = None

    def _start(self) -> None:
        program = _program()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        argv = [program.path, f"--web.listen-address=127.0.0.1:{self.port}", "--web.enable-admin-api"]
        self._process = Process(argv, self.directory / "log", env=program.environ(), cwd=self.directory)
        self._process.wait_until("ready", lambda: self._ask("GET", "/-/ready"))
        info = json.loads(self._ask("GET", "/api/v1/status"))["data"]["build_information"]
        self.version = str(info["version"])

    def _stop(self) -> None:
        if self._process:
            self._process.stop()

    def _ask(self, method: str, path: str) -> bytes:
        request = urllib.request.Request(self.url + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise ConnectionError(f"{path}: {error.code} {error.read().decode()}") from None

    def clear(self) -> None:
        """Forget all groups."""
        self._ask("PUT", "/api/v1/admin/wipe")

    def scrape(self) -> str:
        """What Prometheus would read, without the gateway's own metrics and help lines of pushed ones."""
        own = ("go_", "process_", "pushgateway_", "push_", "promhttp_", "scrape_")
        lines = self._ask("GET", "/metrics").decode().splitlines()
        return "".join(
            f"{line}\n"
            for line in lines
            if not line.startswith("# HELP ") and not line.removeprefix("# TYPE ").startswith(own)
        )

    def groups(self) -> list[dict[str, Any]]:
        """Each group as its API tells it: ``labels`` is the grouping key, then a metric a name."""
        groups: list[dict[str, Any]] = json.loads(self._ask("GET", "/api/v1/metrics"))["data"]
        return groups
