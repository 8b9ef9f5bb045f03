"""The original statsd daemon, from npm, with a backend that writes packets and flushes as JSON lines."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.find import npm
from tests.servers.process import Process, Server, Unavailable, free_port

__all__ = ["Statsd", "Totals"]

_BACKEND = """\
const fs = require("fs");
exports.init = function (startupTime, config, events) {
  const write = (line) => fs.appendFileSync(config.jsonLines, JSON.stringify(line) + "\\n");
  events.on("packet", (packet) => write({ packet: packet.toString() }));
  events.on("flush", (time, m) => write({ time, counters: m.counters, timers: m.timers, gauges: m.gauges }));
  return true;
};
"""


@dataclass
class Totals:
    """What the daemon has made of all packets: summed counters, all timer values (ms), the last gauges.

    A tagged name is ``name;key=value;key=value`` here, as the daemon writes it.
    """

    counters: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    timers: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    gauges: dict[str, float] = field(default_factory=dict)


class Statsd(Server):
    """``with Statsd() as statsd: send_to(statsd.address); statsd.wait_for(lambda totals: totals.counters["x"])``"""

    name = "statsd"
    host = "127.0.0.1"
    port: int
    address: str

    def __init__(self, flush_milliseconds: int = 100) -> None:
        self._flush = flush_milliseconds
        self._process: Process | None = None

    def _start(self) -> None:
        script = _script()
        node = shutil.which("node")
        if node is None:
            raise Unavailable("install node, which runs statsd")
        self.port, management = free_port(), free_port()
        self.address = f"{self.host}:{self.port}"
        self._output = self.directory / "flushes"
        self._output.touch()
        backend = self.directory / "backend.js"
        backend.write_text(_BACKEND)
        config = {
            "address": self.host,
            "port": self.port,
            "mgmt_address": self.host,
            "mgmt_port": management,
            "flushInterval": self._flush,
            "deleteIdleStats": True,
            "automaticConfigReload": False,
            "backends": [str(backend)],
            "jsonLines": str(self._output),
        }
        (self.directory / "config.js").write_text(json.dumps(config))
        argv = [node, script, self.directory / "config.js"]
        self._process = Process(argv, self.directory / "log", cwd=self.directory)

        def healthy() -> bool:
            with socket.create_connection((self.host, management), timeout=5) as connection:
                connection.sendall(b"health\n")
                return b"up" in connection.recv(100)

        self._process.wait_until("health: up", healthy)
        self.version = json.loads(script.with_name("package.json").read_text())["version"]
        self._skip = 0

    def _stop(self) -> None:
        if self._process:
            self._process.stop()

    def clear(self) -> None:
        """Forget what has been flushed so far; wait for your own lines before, the daemon may hold some."""
        self._skip = len(self._lines_read())

    def _lines_read(self) -> list[str]:
        text = self._output.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    def _written(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._lines_read()[self._skip :]]

    @property
    def packets(self) -> list[str]:
        """The datagrams as they came."""
        return [line["packet"] for line in self._written() if "packet" in line]

    @property
    def flushes(self) -> list[dict[str, Any]]:
        """Each flush: time (s), counters, timers, gauges; the daemon's own ``statsd.`` names included."""
        return [line for line in self._written() if "time" in line]

    def totals(self) -> Totals:
        """All flushes together, without the daemon's own names."""
        totals = Totals()
        for flush in self.flushes:
            for name, value in flush["counters"].items():
                if not name.startswith("statsd."):
                    totals.counters[name] += value
            for name, values in flush["timers"].items():
                totals.timers[name] += values
            gauges = flush["gauges"].items()
            totals.gauges.update({name: value for name, value in gauges if not name.startswith("statsd.")})
        return totals

    def bad_lines(self) -> float:
        """How many lines the daemon refused."""
        return sum(float(flush["counters"].get("statsd.bad_lines_seen", 0)) for flush in self.flushes)

    def wait_for(self, condition: Callable[[Totals], object], timeout: float = 10.0) -> Totals:
        """The totals, once they satisfy the function. Raises NotReady."""
        assert self._process is not None

        def satisfied() -> Totals | None:
            totals = self.totals()
            return totals if condition(totals) else None

        return self._process.wait_until("flushes", satisfied, timeout)


def _script() -> Path:
    if override := os.environ.get("C2C_TEST_STATSD"):
        return Path(override).resolve()
    if on_path := shutil.which("statsd"):
        script = Path(on_path).resolve().parent.parent / "stats.js"
        if script.exists():
            return script
    return npm("statsd", "0.9") / "stats.js"
