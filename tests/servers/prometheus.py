"""Prometheus and its promtool."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.servers.find import find
from tests.servers.process import Process, Server, free_port, has_been_used, used

__all__ = ["Prometheus", "promtool"]


def promtool(text: str | bytes) -> tuple[int, str]:
    """``promtool check metrics`` on a scrape in the text format: (0 clean, 3 lint, 1 parse error), what it says."""
    program = find("promtool", packages=["prometheus"])
    data = text.encode() if isinstance(text, str) else text
    done = subprocess.run(
        [program.path, "check", "metrics"],
        input=data,
        capture_output=True,
        env=program.environ(),
        check=False,
        timeout=60,
    )
    if "promtool" not in used:
        has_been_used("promtool", _version([str(program.path)], program.environ()))
    return done.returncode, (done.stdout + done.stderr).decode()


def _version(argv: list[str], env: dict[str, str]) -> str:
    done = subprocess.run([*argv, "--version"], capture_output=True, text=True, env=env, check=True, timeout=60)
    return (done.stdout + done.stderr).split("version ", 1)[1].split()[0].rstrip(",")


class Prometheus(Server):
    """``with Prometheus() as prom: prom.scrape("127.0.0.1:8080"); prom.wait_for('up == 1')``

    It scrapes once a second, as OpenMetrics where that is offered, and keeps exemplars.
    """

    name = "Prometheus"
    port: int
    url: str

    def __init__(self) -> None:
        self._process: Process | None = None
        self._targets: list[dict[str, Any]] = []

    def _start(self) -> None:
        program = find("prometheus", packages=["prometheus"])
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [
                {
                    "job_name": "tests",
                    "file_sd_configs": [{"files": [str(self.directory / "targets.json")], "refresh_interval": "1s"}],
                }
            ],
        }
        self._targets = []
        (self.directory / "targets.json").write_text("[]")
        conf = self.directory / "prometheus.yml"
        conf.write_text(json.dumps(config))  # YAML contains JSON
        argv = [program.path, f"--config.file={conf}", f"--storage.tsdb.path={self.directory / 'data'}"]
        argv += [f"--web.listen-address=127.0.0.1:{self.port}", "--enable-feature=exemplar-storage"]
        self._process = Process(argv, self.directory / "log", env=program.environ(), cwd=self.directory)
        self._process.wait_until("ready", lambda: self._get("/-/ready"))
        self.version = _version([str(program.path)], program.environ())

    def _stop(self) -> None:
        if self._process:
            self._process.stop()

    def _get(self, path: str) -> bytes:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise ConnectionError(f"{path}: {error.code} {error.read().decode()}") from None

    def scrape(self, address: str, path: str = "/metrics", **labels: str) -> None:
        """Scrape this ``host:port`` too, from within a second on."""
        self._targets.append({"targets": [address], "labels": {"__metrics_path__": path, **labels}})
        new = self.directory / "targets.new"
        new.write_text(json.dumps(self._targets))
        new.replace(self.directory / "targets.json")

    def forget(self) -> None:
        """Scrape nothing any more."""
        self._targets.clear()
        (self.directory / "targets.json").write_text("[]")

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """An instant query: labels and value of each sample."""
        answer = json.loads(self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
        return [(sample["metric"], float(sample["value"][1])) for sample in answer["data"]["result"]]

    def targets(self) -> list[dict[str, Any]]:
        """What it says of the active targets: health, lastError and more."""
        active: list[dict[str, Any]] = json.loads(self._get("/api/v1/targets?state=active"))["data"]["activeTargets"]
        return active

    def exemplars(self, expression: str) -> list[dict[str, Any]]:
        """The exemplars kept for the series that the expression names, of the last hour."""
        parameters = {"query": expression, "start": _ago(3600), "end": _ago(-60)}
        answer = json.loads(self._get("/api/v1/query_exemplars?" + urllib.parse.urlencode(parameters)))
        return [exemplar for series in answer["data"] for exemplar in series["exemplars"]]

    def wait_for(
        self,
        expression: str,
        condition: Callable[[list[tuple[dict[str, str], float]]], object] = bool,
        timeout: float = 20.0,
    ) -> list[tuple[dict[str, str], float]]:
        """The samples, once they satisfy the function (there are any). Raises NotReady."""
        assert self._process is not None

        def satisfied() -> list[tuple[dict[str, str], float]] | None:
            samples = self.query(expression)
            return samples if condition(samples) else None

        return self._process.wait_until(expression, satisfied, timeout)


def _ago(seconds: float) -> str:
    return str(time.time() - seconds)
