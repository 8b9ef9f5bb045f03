"""Where a server's program comes from: the environment, PATH, Debian's places, a wheel, or a fetched package.

What is fetched goes to a cache (``.cache/servers`` of the work tree, or ``C2C_TEST_CACHE``): Debian packages are
downloaded with what they need beyond the installed ones and unpacked with ``dpkg -x``, which needs no root, changes
nothing on the machine, and works beside another apt; npm packages are installed there.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.process import Unavailable

__all__ = ["ROOT", "Program", "cache", "debian", "find", "npm"]

ROOT = Path(__file__).resolve().parents[2]
"""The top of the work tree."""


@dataclass(frozen=True)
class Program:
    """A program and the environment it needs. `root` is where its packages were unpacked, None if installed."""

    path: Path
    root: Path | None = None
    env: dict[str, str] = field(default_factory=dict)

    def environ(self, **more: str) -> dict[str, str]:
        """The environment to start it with."""
        return {**os.environ, **self.env, **more}


def find(
    name: str,
    *,
    packages: Sequence[str],
    places: Sequence[str] = (),
    wheel: tuple[str, Sequence[str]] | None = None,
) -> Program:
    """The first of: ``C2C_TEST_<NAME>``, PATH, `places` (globs), `wheel` (module, globs in it), Debian `packages`.

    The glob matches that sort last win, so the newest version does. Raises Unavailable.
    """
    variable = "C2C_TEST_" + name.upper().replace("-", "_")
    if override := os.environ.get(variable):
        if not os.access(override, os.X_OK):
            raise Unavailable(f"{variable}={override} is not a program that can be run")
        return Program(Path(override).resolve())
    if on_path := shutil.which(name):
        return Program(Path(on_path).resolve())
    if found := _executable(Path("/"), places):
        return Program(found)
    if wheel is not None:
        spec = importlib.util.find_spec(wheel[0])
        for location in (spec.submodule_search_locations or ()) if spec else ():
            if found := _executable(Path(location), wheel[1]):
                return Program(found)
    root = debian(*packages)
    if found := _executable(root, [f"usr/bin/{name}", f"usr/sbin/{name}", *places]):
        return Program(found, root, _library_path(root))
    raise Unavailable(f"{name}: not in Debian's {packages[0]}; install {' '.join(packages)} or set {variable}")


def _executable(base: Path, patterns: Sequence[str]) -> Path | None:
    for pattern in patterns:
        matches = sorted(base.glob(pattern.lstrip("/")), key=_version_order)
        for path in reversed(matches):
            if path.is_file() and os.access(path, os.X_OK):
                return path
    return None


def _version_order(path: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else 0, part) for part in path.parts]


def cache() -> Path:
    """Where fetched programs are kept between runs."""
    directory = Path(os.environ.get("C2C_TEST_CACHE") or ROOT / ".cache" / "servers")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{directory} cannot be made ({error}); set C2C_TEST_CACHE to a writable place") from error
    return directory


@contextmanager
def _locked(name: str) -> Iterator[None]:
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(argv: Sequence[str], what: str, cwd: Path | None = None) -> str:
    """The standard output; raises Unavailable with the end of what it said on standard error."""
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{what} ({argv[0]}: {error})") from error
    if done.returncode:
        raise Unavailable(f"{what} ({argv[0]} {argv[-1]} exited with {done.returncode}: {done.stderr[-600:].strip()})")
    return done.stdout


def debian(*packages: str) -> Path:
    """The directory where `packages` and their dependencies are unpacked. Raises Unavailable."""
    root = cache() / "debian" / packages[0]
    complete = root / ".complete"
    with _locked("debian"):
        if complete.exists():
            return root
        hint = f"install Debian's {' and '.join(packages)} (apt-get install {' '.join(packages)})"
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            raise Unavailable(f"{hint}: there is no apt-get here to fetch it with")
        shutil.rmtree(root, ignore_errors=True)
        downloads = root / ".downloads"
        downloads.mkdir(parents=True)
        try:
            _download(packages, downloads, hint, fresh=False)
        except Unavailable:
            _download(packages, downloads, hint, fresh=True)
        for archive in downloads.glob("*.deb"):
            _run(["dpkg", "-x", str(archive), str(root)], hint)
        shutil.rmtree(downloads)
        complete.touch()
        return root


def _download(packages: Sequence[str], downloads: Path, hint: str, *, fresh: bool) -> None:
    state = cache() / "apt"
    for directory in ("lists/partial", "cache/archives/partial"):
        (state / directory).mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "-qq", "-o", f"Dir::State::lists={state / 'lists'}", "-o", f"Dir::Cache={state / 'cache'}"]
    apt += ["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]
    stamp = state / "updated"
    if fresh or not stamp.exists() or time.time() - stamp.stat().st_mtime > 86400:
        _run([*apt, "update"], hint)
        stamp.touch()
    plan = _run([*apt, "-s", "--no-install-recommends", "install", *packages], hint)
    # an unpacked C library beside the machine's own dynamic loader would not start
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    names = [name for name in names if name not in ("libc6", "libc-bin")]
    missing = [name for name in packages if name not in names]
    _run([*apt, "download", *names, *missing], hint, cwd=downloads)


def _library_path(root: Path) -> dict[str, str]:
    directories = [path for pattern in ("lib/*-linux-gnu*", "usr/lib/*-linux-gnu*") for path in root.glob(pattern)]
    for directory in directories.copy():
        directories += [below for below in directory.iterdir() if below.is_dir() and any(below.glob("lib*.so*"))]
    before = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": ":".join([*map(str, directories), *([before] if before else [])])}


def npm(package: str, version: str) -> Path:
    """The directory of an npm package in the cache. Raises Unavailable."""
    prefix = cache() / "npm"
    installed = prefix / "node_modules" / package
    with _locked("npm"):
        if not (installed / "package.json").exists():
            hint = f"install node and npm, which fetch {package} {version}"
            if shutil.which("npm") is None or shutil.which("node") is None:
                raise Unavailable(hint)
            prefix.mkdir(exist_ok=True)
            options = ["--omit=optional", "--no-audit", "--no-fund", "--no-update-notifier", "--prefix", str(prefix)]
            _run(["npm", "install", *options, f"{package}@{version}"], hint, cwd=prefix)
    return installed
