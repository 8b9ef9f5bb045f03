"""rsyslog with mmjsonparse: what follows ``@cee:`` is parsed and written as one JSON object a line."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from tests.servers.find import find
from tests.servers.process import Process, Server, free_port

__all__ = ["Rsyslog"]

_CONF = """\
global(workDirectory="{directory}" maxMessageSize="64k")
module(load="imudp")
module(load="mmjsonparse")
template(name="parsed" type="list") {{ property(name="$!all-json") constant(value="\\n") }}
template(name="raw" type="list") {{ property(name="rawmsg") constant(value="\\n") }}
input(type="imudp" address="127.0.0.1" port="{port}")
action(type="mmjsonparse")
if $parsesuccess == "OK" then {{
  action(type="omfile" file="{directory}/parsed" template="parsed")
}} else {{
  action(type="omfile" file="{directory}/unparsed" template="raw")
}}
"""
_PROBE = "c2c-servers-probe"


class Rsyslog(Server):
    """``with Rsyslog() as rsyslog: send_to(rsyslog.host, rsyslog.port); rsyslog.wait_for(1)``"""

    name = "rsyslog"
    host = "127.0.0.1"
    port: int
    address: str

    def __init__(self) -> None:
        self._process: Process | None = None
        self._skip = (0, 0)

    def _start(self) -> None:
        program = find("rsyslogd", packages=["rsyslog"], places=["/usr/sbin/rsyslogd"])
        self.port = free_port()
        self.address = f"{self.host}:{self.port}"
        conf = self.directory / "rsyslog.conf"
        conf.write_text(_CONF.format(directory=self.directory, port=self.port))
        argv = [program.path, "-n", "-iNONE", "-f", conf]
        if program.root is not None:
            argv += ["-M", ":".join(map(str, program.root.glob("usr/lib/*/rsyslog")))]
        self._process = Process(argv, self.directory / "log", env=program.environ())

        def answers() -> bool:
            self.send(f'<14>: @cee: {{"{_PROBE}":1}}'.encode())
            return (self.directory / "parsed").exists()

        self._process.wait_until("a parsed probe", answers)
        banner = Process([program.path, "-v"], self.directory / "version", env=program.environ())
        banner.wait()
        banner.stop()
        self.version = banner.output().split()[1]

    def _stop(self) -> None:
        if self._process:
            self._process.stop()

    def send(self, datagram: bytes) -> None:
        """Send one datagram to it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(datagram, (self.host, self.port))

    def _lines(self, name: str) -> list[str]:
        path = self.directory / name
        text = path.read_text(errors="replace") if path.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()

    def _parsed(self) -> list[dict[str, Any]]:
        return [fields for fields in map(json.loads, self._lines("parsed")) if _PROBE not in fields]

    def parsed(self) -> list[dict[str, Any]]:
        """The fields of each message that mmjsonparse understood, in order of arrival."""
        return self._parsed()[self._skip[0] :]

    def unparsed(self) -> list[str]:
        """The messages that it did not understand, as they came."""
        return self._lines("unparsed")[self._skip[1] :]

    def clear(self) -> None:
        """Forget what has arrived."""
        self._skip = (len(self._parsed()), len(self._lines("unparsed")))

    def wait_for(
        self, what: int | Callable[[list[dict[str, Any]]], object], timeout: float = 10.0
    ) -> list[dict[str, Any]]:
        """The parsed messages, once there are that many, or once they satisfy the function. Raises NotReady."""
        assert self._process is not None

        def enough() -> list[dict[str, Any]] | None:
            parsed = self.parsed()
            return parsed if (what(parsed) if callable(what) else len(parsed) >= what) else None

        return self._process.wait_until(f"{what} messages; not parsed: {self.unparsed()}", enough, timeout)
