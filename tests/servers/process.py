"""Server processes for tests: started in the foreground, ready when they answer, gone when the tests end.

Each server is the leader of a process group of its own, so that Ctrl-C reaches pytest alone, and so that whatever
the server forks can be ended with it. Three nets catch what is still running: `Server.stop` (``finally``), `atexit`,
and `reaper.py`, a child that ends what it was told of once its standard input closes (pytest was killed).
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Self, TypeVar

__all__ = ["NotReady", "Process", "Server", "Unavailable", "free_port", "has_been_used", "used", "wait_until"]

T = TypeVar("T")

used: dict[str, list[str]] = {}
"""What this run has started: the server's name -> its versions."""


class Unavailable(Exception):
    """A server's program is not on this machine and could not be fetched; the message says what to install."""


class NotReady(Exception):
    """A server did not start, or something did not happen in time; the message has the end of the log."""


def has_been_used(name: str, version: str) -> None:
    """Add it to `used`."""
    versions = used.setdefault(name, [])
    if version not in versions:
        versions.append(version)


def free_port() -> int:
    """A port of 127.0.0.1 that is free for TCP and UDP right now; whoever loses a race for it tries again."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                try:
                    udp.bind(("127.0.0.1", port))
                except OSError:
                    continue
            return port


def wait_until(what: str, condition: Callable[[], T | None], timeout: float = 20.0, log: Callable[[], str] = str) -> T:
    """Ask until the answer is true, and return it. An OSError counts as no. Raises NotReady with the log's end."""
    deadline = time.monotonic() + timeout
    pause = 0.005
    error: OSError | None = None
    while True:
        try:
            answer = condition()
        except OSError as caught:
            answer, error = None, caught
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise NotReady(f"waited {timeout:g} s for {what} ({error or 'not yet'})\n{log()[-3000:]}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


_reaper: subprocess.Popen[bytes] | None = None
_running: list[Process] = []


def _tell_reaper(line: str) -> None:
    global _reaper
    if _reaper is None or _reaper.poll() is not None:
        script = str(Path(__file__).with_name("reaper.py"))
        _reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", script], stdin=subprocess.PIPE, start_new_session=True, close_fds=True
        )
    assert _reaper.stdin is not None
    try:
        _reaper.stdin.write(line.encode() + b"\n")
        _reaper.stdin.flush()
    except OSError:
        _reaper = None


@atexit.register
def _stop_all() -> None:
    for process in reversed(_running.copy()):
        process.stop(timeout=3)
    if _reaper is not None and _reaper.stdin is not None:
        _reaper.stdin.close()
        _reaper.wait(5)


class Process:
    """One program in its own process group, its output in files (never in a pipe that fills up)."""

    def __init__(
        self,
        argv: Sequence[object],
        log: Path,
        *,
        errors: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: tuple[int, int] | None = None,
    ) -> None:
        """`errors` separates standard error from `log`; `user` is (uid, gid), for root alone."""
        self.log = log
        self.errors = errors or log
        out: IO[bytes] = log.open("ab")
        err: IO[bytes] = self.errors.open("ab")
        with out, err:
            self._popen: subprocess.Popen[bytes] = subprocess.Popen(
                [str(arg) for arg in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
                user=user[0] if user else None,
                group=user[1] if user else None,
                extra_groups=[] if user else None,
            )
        self.pid = self._popen.pid
        _running.append(self)
        _tell_reaper(f"+{self.pid}")

    def output(self) -> str:
        """All it has written so far."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        if self.errors != self.log and self.errors.exists():
            text += self.errors.read_text(errors="replace")
        return text

    def alive(self) -> bool:
        """Whether the program itself still runs."""
        return self._popen.poll() is None

    def returncode(self) -> int | None:
        """As subprocess has it: None while it runs, the negative signal number when one ended it."""
        return self._popen.poll()

    def wait(self, timeout: float = 20.0) -> int:
        """The exit code, once it has ended. Raises NotReady."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise NotReady(f"pid {self.pid} still runs after {timeout:g} s\n{self.output()[-3000:]}") from None

    def send_signal(self, number: int) -> None:
        """Send a signal to the program itself, if it still runs."""
        if self.alive():
            self._popen.send_signal(number)

    def wait_until(self, what: str, condition: Callable[[], T | None], timeout: float = 20.0) -> T:
        """`wait_until`, given up at once when the program has ended."""

        def asked() -> T | None:
            if not self.alive():
                raise NotReady(f"{what}: exited with {self.returncode()}\n{self.output()[-3000:]}")
            return condition()

        return wait_until(what, asked, timeout, self.output)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 10.0) -> None:
        """End it politely, then not, then whatever it left in its group."""
        if self not in _running:
            return
        try:
            self.send_signal(number)
            try:
                self._popen.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        finally:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            self._popen.wait(5)
            try:
                _running.remove(self)
            except ValueError:  # another thread has stopped it at the same time
                return
            _tell_reaper(f"-{self.pid}")


class Server:
    """What all servers share: ``with Redis() as redis: redis.port``, or `start` and `stop`.

    `directory` is temporary; it outlives `stop`, so that logs can be read, and goes with the ``with`` block or with
    the object. A start that fails for a lost race for a port is tried again with other ports.
    """

    name = "server"
    version = ""
    directory: Path

    def _start(self) -> None:
        """Start, wait until the protocol answers and set `version`. Raises NotReady or Unavailable."""
        raise NotImplementedError

    def _stop(self) -> None:
        """End the processes; called also after a `_start` that failed half-way."""
        raise NotImplementedError

    def start(self) -> Self:
        """Raises Unavailable where the program cannot be had, NotReady where it does not start."""
        for attempt in (1, 2, 3):
            self.directory = Path(tempfile.mkdtemp(prefix=f"c2c-{self.name.lower().split()[0]}-"))
            _tell_reaper(str(self.directory))
            self._remove = weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)
            try:
                self._start()
            except BaseException as error:
                self._stop()
                self._remove()
                if isinstance(error, NotReady) and "in use" in str(error).lower() and attempt < 3:
                    continue
                raise
            break
        has_been_used(self.name, self.version)
        return self

    def stop(self) -> None:
        """End it. May be called twice."""
        self._stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        try:
            self.stop()
        finally:
            self._remove()
