"""Services under Docker Compose for the time of a test session, from a pytest fixture.

    @pytest.fixture(scope="session")
    def composition(request):
        return Composition(request, "shop", "docker-compose.yaml")

Drives the command line of Docker Compose v2 (``docker compose``). Of the environment:

| variable | default | effect |
|---|---|---|
| docker_start | 1 | 0: it runs already; nothing is built or started |
| docker_stop | 1 | 0: it is left running, for a look at it |
| DOCKER_TAG | latest | for the composition file |
| DOCKER_IP | found | for the composition file: the Docker host, as containers see it |
| DOCKER_CB_HOST | found | likewise: the host on which published ports are reached from the tests |
| TEST_IP | found | likewise: the tests, as containers see them |
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from c2c_otel import settings
from c2c_otel.acceptance import network

__all__ = ["Composition", "CompositionError", "environment"]

_OUTPUT_SHOWN = 4000  # characters of a command that failed, from its end
_COMMAND_SECONDS = 1800.0  # half an hour: what builds and pulls longer hangs
_LOGS_END_SECONDS = 5.0  # the last lines of services that have been stopped

_log = logging.getLogger(__name__)


class Finalizers(Protocol):
    """What of a pytest ``request`` is used."""

    def addfinalizer(self, finalizer: Callable[[], object], /) -> None: ...


class CompositionError(subprocess.CalledProcessError):
    """A command that failed; its text has the command and the end of what it said."""

    def __str__(self) -> str:
        said = "\n".join(part for part in (self.output, self.stderr) if part).strip()
        return f"{' '.join(map(str, self.cmd))}: exit code {self.returncode}\n{said[-_OUTPUT_SHOWN:]}"


def environment() -> dict[str, str]:
    """This process's environment, with the four variables for composition files where they are missing or empty."""
    given = {name: value for name, value in settings.environment().items() if value}
    inside = network.in_docker()
    found: dict[str, Callable[[], str]] = {
        "DOCKER_TAG": lambda: "latest",
        "DOCKER_IP": network.docker_host,
        "DOCKER_CB_HOST": lambda: network.default_gateway() if inside else "localhost",
        "TEST_IP": network.own_address,
    }
    return {**settings.environment(), **{name: given.get(name) or find() for name, find in found.items()}}


def _wanted(name: str) -> bool:
    """A flag that is on unless it is said otherwise."""
    return not settings.environment().get(name) or settings.flag(name, None, {})


class Composition:
    """A composition that has been started, and is stopped when the fixture ends.

    Whatever the services write is written to the tests' standard output, where pytest shows it with the test that
    failed. Commands that fail raise `CompositionError`; a hanging one, subprocess.TimeoutExpired after half an hour.
    """

    def __init__(
        self,
        request: Finalizers,
        project_name: str,
        composition: str | Path,
        coverage_paths: Iterable[str] | None = None,
        *,
        reports: str | Path = "/reports",
    ) -> None:
        """``composition`` is the file; it is built and started afresh. ``coverage_paths`` (``service:/path``) are
        copied into the directory ``reports`` once the services have stopped, for it is then that Python services write
        their coverage.

        Raises `CompositionError`, or FileNotFoundError where there is no Docker."""
        file = Path(composition).absolute()
        if not file.is_file():
            raise FileNotFoundError(f"composition {file}: no such file")
        self.project_name, self.cwd = project_name, file.parent
        self.coverage_paths, self.reports = tuple(coverage_paths or ()), Path(reports)
        self.docker_compose = [
            "docker",
            "compose",
            "--ansi=never",
            f"--file={file.name}",
            f"--project-name={project_name}",
        ]
        self._logs: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._check_version()
        request.addfinalizer(self._end)  # before the start: of one that fails half-way, the other half is stopped, too
        if _wanted("docker_start"):
            self._start()
        self._follow_logs()

    def _check_version(self) -> None:
        try:
            said = self._call([*self.docker_compose[:2], "version"], stderr=subprocess.STDOUT)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"docker is not on PATH: install Docker with its Compose plugin ({error})"
            ) from error
        except subprocess.CalledProcessError as error:
            raise CompositionError(
                error.returncode, error.cmd, f"{error.output}\nInstall Docker's Compose plugin."
            ) from None
        _log.info("%s", said.strip())

    def _start(self) -> None:
        for args in (["stop"], ["rm", "--force"]):  # of an earlier run; there may be none
            self.dc_try(args, fail=False, times=1)
        self.dc_try(["build"])
        self.dc_try(["up", "--detach"])

    # -- commands -----------------------------------------------------------------------------------------------------

    def dc(self, args: Iterable[str], **kwargs: Any) -> str:
        """``docker compose ARGS``; all that it has written. ``kwargs`` are those of subprocess.run, ``timeout`` and
        ``input`` among them; with ``stderr=subprocess.PIPE`` standard error is left out."""
        return self._call([*self.docker_compose, *args], **{"stderr": subprocess.STDOUT, **kwargs})

    def dc_try(self, args: Iterable[str], fail: bool = True, times: int = 5, delay: float = 10, **kwargs: Any) -> None:
        """`dc`, called again ``delay`` seconds after it has failed, ``times`` times in all. The last failure is raised,
        unless ``fail`` is False."""
        args = list(args)
        for left in range(times - 1, -1, -1):
            try:
                self.dc(args, **kwargs)
                return
            except (subprocess.SubprocessError, OSError) as error:
                if fail and not left:
                    raise
                _log.warning("%s; %s more tries", error, left)
            if left:
                time.sleep(delay)

    def stop(self, container: str) -> None:
        """Stop one service."""
        self.dc_try(["stop", container])

    def restart(self, container: str) -> None:
        """Restart one service."""
        self.dc_try(["restart", container])

    def run(self, container: str, *command: str, **kwargs: Any) -> str:
        """Run a command in a new container of a service, removed afterwards; its standard output. What it (and Docker)
        writes to standard error is logged. ``kwargs`` as for `dc`."""
        return self._output(["run", "--rm", "-T", container, *command], kwargs)

    def exec(self, container: str, *command: str, **kwargs: Any) -> str:
        """Run a command in the running container of a service; as for `run`."""
        return self._output(["exec", "-T", container, *command], kwargs)

    def stop_all(self) -> None:
        """Stop all services, and fetch their coverage."""
        self.dc_try(["stop"])
        if self.coverage_paths:
            self.reports.mkdir(parents=True, exist_ok=True)
        for path in self.coverage_paths:
            try:
                self.dc(["cp", *self._from_service(path), str(self.reports.absolute())])
            except subprocess.CalledProcessError:
                _log.error("%s", self.dc(["ps", "--all"]))
                raise

    def _from_service(self, path: str) -> list[str]:
        """Arguments for ``cp``. A container's name, as Compose 1 (``project_service_1``) and 2
        (``project-service-1``) make them, stands for its service."""
        container, colon, place = path.partition(":")
        match = re.fullmatch(rf"{re.escape(self.project_name)}[_-](.+)[_-](\d+)", container)
        return [f"--index={match[2]}", f"{match[1]}{colon}{place}"] if match else [path]

    def _output(self, args: list[str], kwargs: dict[str, Any]) -> str:
        return self._call([*self.docker_compose, *args], **{"stderr": subprocess.PIPE, **kwargs})

    def _call(self, command: list[str], **kwargs: Any) -> str:
        if "input" not in kwargs:
            kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs.setdefault("env", environment())
        kwargs.setdefault("timeout", _COMMAND_SECONDS)
        _log.info("%s", " ".join(command))
        kwargs = {"cwd": self.cwd, "stdout": subprocess.PIPE, "text": True, **kwargs}
        done = subprocess.run(command, check=False, **kwargs)  # noqa: S603 # the test's own commands, without a shell
        if done.returncode:
            raise CompositionError(done.returncode, command, done.stdout, done.stderr)
        if done.stderr:
            _log.info("%s", done.stderr.strip())
        return str(done.stdout)

    # -- logs, and the end --------------------------------------------------------------------------------------------

    def _follow_logs(self) -> None:
        self._logs = subprocess.Popen(  # noqa: S603 # as above
            [*self.docker_compose, "logs", "--follow", "--no-color"],
            cwd=self.cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(
            target=_write, args=(self._logs.stdout,), name="c2c_composition_logs", daemon=True
        )
        self._reader.start()

    def _end(self) -> None:
        try:
            if _wanted("docker_stop"):
                self.stop_all()
        finally:
            self._stop_logs()

    def _stop_logs(self) -> None:
        process, reader = self._logs, self._reader
        if process is None or reader is None:
            return
        try:  # once all services have stopped, it ends by itself
            process.wait(_LOGS_END_SECONDS if _wanted("docker_stop") else 0.1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(_LOGS_END_SECONDS)
        if process.stdout is not None and not reader.is_alive():
            process.stdout.close()
        self._logs = self._reader = None


def _write(lines: Iterable[str] | None) -> None:
    """To the standard output of the moment: under pytest, that of the test that runs."""
    for line in lines or ():
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except (OSError, ValueError):  # pytest has closed what it captured into; what comes next may be shown again
            continue
