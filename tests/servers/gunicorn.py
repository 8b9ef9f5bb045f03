"""gunicorn as users run it, under ``c2c-otel-instrument`` or plain, on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.servers.find import ROOT
from tests.servers.process import NotReady, Process, Server, Unavailable, free_port, wait_until

__all__ = ["Answer", "Gunicorn"]

_OURS = ("C2C_", "OTEL_", "STATSD_", "STATS_", "SENTRY_", "GUNICORN_", "LOG_", "REDIS_", "SQL_", "WEB_CONCURRENCY")


class Answer(NamedTuple):
    """An HTTP answer; `headers` have lower-case names (of a repeated one, the last), `body` is bytes."""

    status: int
    headers: dict[str, str]
    body: bytes


class Gunicorn(Server):
    """``with Gunicorn("tests.apps.hello:main()", "-w", "3", env={"STATSD_ADDRESS": sink.address}) as g: g.get("/")``

    It is ready once a worker has refused a malformed request, which no application ever sees. Its environment is
    the test's without the variables that set up telemetry, plus `env`. `stdout` and `stderr` are files and stay
    readable inside the ``with`` block after `stop`.
    """

    name = "gunicorn"
    port: int
    url: str
    stdout: Path
    stderr: Path

    def __init__(
        self,
        app: str,
        *args: str,
        env: Mapping[str, str] | None = None,
        launcher: bool = True,
        cwd: Path | None = None,
        timeout: float = 60.0,
    ) -> None:
        """`args` go to gunicorn as they are; `app` is imported from `cwd`, by default the top of the work tree."""
        self._app = app
        self._args = args
        self._env = dict(env or {})
        self._launcher = launcher
        self._cwd = cwd or ROOT
        self._timeout = timeout
        self._process: Process | None = None

    def _start(self) -> None:
        programs = Path(sys.executable).parent
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.stdout, self.stderr = self.directory / "stdout", self.directory / "stderr"
        self._pidfile = self.directory / "pid"
        argv: list[str | Path] = [programs / "c2c-otel-instrument", "gunicorn"]
        if not self._launcher:
            argv = [programs / "gunicorn"]
        if not (programs / "gunicorn").exists():
            raise Unavailable("install gunicorn (pip install gunicorn)")
        argv += ["-b", f"127.0.0.1:{self.port}", "--pid", self._pidfile, "--no-control-socket", *self._args, self._app]
        environ = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
        environ.pop("PYTEST_CURRENT_TEST", None)
        environ["PATH"] = f"{programs}{os.pathsep}{environ.get('PATH', os.defpath)}"
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environ.get("PYTHONPATH")]))
        environ.update({"PYTHONUNBUFFERED": "1", "TMPDIR": str(self.directory), **self._env})
        process = Process(argv, self.stdout, errors=self.stderr, env=environ, cwd=self._cwd)
        self._process = process
        process.wait_until("a worker", lambda: self._pidfile.exists() and self._a_worker_answers(), self._timeout)
        import gunicorn

        self.version = gunicorn.__version__

    def _a_worker_answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=self._timeout) as connection:
            connection.sendall(b"READY / HTTP/0\r\n\r\n")
            return connection.recv(12).startswith(b"HTTP/1.1 400")

    def _stop(self) -> None:
        if self._process is None:
            return
        new = self._read(self._new_pidfile)
        if new:
            self._kill(new, signal.SIGTERM)
        self._process.send_signal(signal.SIGTERM)
        old = self._read(self._pidfile)
        if not self._process.alive() and old:  # an upgrade has outlived the process that was started
            self._kill(old, signal.SIGTERM)
        try:
            try:
                wait_until("the arbiters' end", lambda: not self.processes(), 5)
            except NotReady:
                # a worker that was just forked has taken SIGTERM for one to the arbiter, whose handler it still had
                for pid in self.processes():
                    self._kill(pid, signal.SIGTERM)
                wait_until("the arbiters' end", lambda: not self.processes(), 15)
        finally:
            self._process.stop(timeout=0.1)

    # -- processes ----------------------------------------------------------------------------------------------

    @property
    def arbiter_pid(self) -> int:
        """The arbiter that owns the pid file: after `usr2` still the old one, until that has ended."""
        pid = self._read(self._pidfile)
        assert pid is not None, "gunicorn has no pid file: not started, stopped, or between two arbiters"
        return pid

    @property
    def _new_pidfile(self) -> Path:
        return self._pidfile.with_name("pid.2")

    @staticmethod
    def _read(pidfile: Path) -> int | None:
        try:
            return int(pidfile.read_text())
        except (OSError, ValueError):
            return None

    @staticmethod
    def _kill(pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    def processes(self) -> dict[int, int]:
        """All its processes, workers and their children included: pid -> parent's pid. Zombies do not count."""
        assert self._process is not None
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self._process.pid and fields[0] not in "ZX":
                found[int(stat.parent.name)] = int(fields[1])
        return found

    def worker_pids(self, arbiter: int | None = None) -> list[int]:
        """The living workers of an arbiter (by default `arbiter_pid`), oldest first."""
        parent = arbiter or self.arbiter_pid
        new = self._read(self._new_pidfile)
        return sorted(pid for pid, ppid in self.processes().items() if ppid == parent and pid != new)

    def wait_for_workers(self, count: int, *, without: int | None = None, timeout: float = 30.0) -> list[int]:
        """The workers' pids, once there are that many, none of them `without`. Raises NotReady."""

        def there() -> list[int] | None:
            pids = self.worker_pids()
            return pids if len(pids) == count and without not in pids else None

        assert self._process is not None
        return wait_until(f"{count} workers", there, timeout, self._process.output)

    def kill_worker(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal (SIGKILL: no goodbye) to a worker and wait until the process has gone."""
        assert pid in self.worker_pids(), f"{pid} is not a worker: {self.worker_pids()}"
        self._kill(pid, number)
        # of a process with threads, the first may be a zombie while others still hold its sockets
        wait_until(f"the end of {pid}", lambda: not Path(f"/proc/{pid}").exists())

    def hup(self) -> None:
        """Reload, and wait until every worker is a new one and one of them answers."""
        arbiter = self.arbiter_pid  # it writes its pid file anew
        old = set(self.worker_pids(arbiter))
        self._kill(arbiter, signal.SIGHUP)

        def replaced() -> bool:
            pids = self.worker_pids(arbiter)
            return len(pids) == len(old) and not old & set(pids) and self._a_worker_answers()

        assert self._process is not None
        self._process.wait_until("new workers", replaced, self._timeout)

    def usr2(self) -> int:
        """Start an upgrade; the new arbiter's pid, once it has workers. Both answer until `finish_upgrade`."""
        self._kill(self.arbiter_pid, signal.SIGUSR2)

        def upgraded() -> int | None:
            new = self._read(self._new_pidfile)
            return new if new and self.worker_pids(new) else None

        assert self._process is not None
        return self._process.wait_until("the new arbiter's workers", upgraded, self._timeout)

    def finish_upgrade(self) -> int:
        """End the old arbiter; the new one, now `arbiter_pid`, once a worker of it answers."""
        old, new = self.arbiter_pid, self._read(self._new_pidfile)
        self._kill(old, signal.SIGTERM)
        assert self._process is not None
        wait_until(
            "the new arbiter to take over",
            lambda: old not in self.processes() and self._read(self._pidfile) == new and self._a_worker_answers(),
            self._timeout,
            self._process.output,
        )
        return self.arbiter_pid

    # -- requests -----------------------------------------------------------------------------------------------

    def get(
        self,
        path: str = "/",
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Answer:
        """One request over a fresh connection; no redirect is followed and no status is an error."""
        request = urllib.request.Request(self.url + path, data=body, headers=dict(headers or {}), method=method)
        try:
            with _opener.open(request, timeout=30) as response:
                return _answer(response.status, response)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def _answer(status: int, response: object) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}  # type: ignore[attr-defined] # either response class has them
    return Answer(status, headers, response.read())  # type: ignore[attr-defined] # as above
