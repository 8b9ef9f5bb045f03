"""``python3 tests/provision/venv.py run|test``: .venv with what `make run` or `make test` needs.

Quick when it is there already.
A stamp in .venv names what it was made from (pyproject.toml, constraints.txt, the Python, the place). With another
stamp it is brought up to date; where its Python does not run, is another one or was moved, it is made anew.
``python3 tests/provision/venv.py constraints`` resolves everything afresh in a temporary environment and writes
constraints.txt. pip alone is used, as the machine has it configured.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "constraints.txt"
WANTED = {
    "run": ["--editable", ".[all]", "gunicorn"],
    "test": ["--editable", ".[all]", "--group", "dev"],
}
GROUPS_SINCE = "pip>=25.1"  # understands --group


def main(purpose: str) -> None:
    """Make the environment for this purpose, unless it is there; ``constraints`` writes constraints.txt."""
    if purpose == "constraints":
        write_constraints()
        return
    stamp = VENV / f".made-for-{purpose}"
    key = what_it_is_made_from(purpose)
    if runs(VENV):
        if stamp.exists() and stamp.read_text() == key:
            return
    else:
        create(VENV)
    stamp.unlink(missing_ok=True)
    pinned = ["--constraint", str(CONSTRAINTS)]
    pip(VENV, "install", GROUPS_SINCE, *pinned)
    pip(VENV, "install", *WANTED[purpose], *pinned)
    stamp.write_text(key)


def what_it_is_made_from(purpose: str) -> str:
    """Changes with whatever makes another environment necessary."""
    parts = [(ROOT / "pyproject.toml").read_bytes(), CONSTRAINTS.read_bytes(), repr(WANTED[purpose]).encode()]
    return hashlib.sha256(b"\0".join([*parts, sys.version.encode(), str(ROOT).encode()])).hexdigest()


def runs(venv: Path) -> bool:
    """Whether it has a pip, the Python that runs this, and lies where it was made (its scripts name the place)."""
    ask = "import pip, sys; print(sys.version, sys.prefix, sep='\\n', end='')"
    try:
        answer = subprocess.run([python(venv), "-c", ask], capture_output=True, text=True, check=False).stdout
    except OSError:
        return False
    if answer != f"{sys.version}\n{venv}":
        return False
    scripts = (path.read_bytes()[:300] for path in (venv / "bin").glob("pip*"))
    return all(str(venv).encode() in script for script in scripts)


def python(venv: Path) -> str:
    return str(venv / "bin" / "python")


def create(venv: Path) -> None:
    """An empty environment with a pip in it."""
    shutil.rmtree(venv, ignore_errors=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        return
    # Debian has the pip for environments in a package of its own; the machine's pip, where there is one, will do
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    lent = [sys.executable, "-m", "pip", "--python", python(venv), "install", "--quiet", GROUPS_SINCE]
    if subprocess.run(lent, check=False).returncode:
        shutil.rmtree(venv, ignore_errors=True)
        sys.exit(f"{made.stdout}{made.stderr}\npython3 -m venv does not work here: install Debian's python3-venv")


def pip(venv: Path, *arguments: str) -> None:
    command = [python(venv), "-m", "pip", "--disable-pip-version-check", *arguments, "--quiet", "--retries", "10"]
    print("+ pip", *arguments, flush=True)
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(f"pip failed with {code}; the lines above say why")


def write_constraints() -> None:
    """Every package of the development environment with its version, as it resolves today."""
    with tempfile.TemporaryDirectory() as directory:
        venv = Path(directory).resolve() / "venv"
        create(venv)
        pip(venv, "install", "--upgrade", "pip")
        pip(venv, "install", "--upgrade", *WANTED["test"])
        freeze = [python(venv), "-m", "pip", "freeze", "--all", "--exclude-editable"]
        frozen = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout
    lines = sorted(line.lower() for line in frozen.splitlines() if re.fullmatch(r"[\w.-]+==[\w.+!-]+", line))
    CONSTRAINTS.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} lines in {CONSTRAINTS.name}")


if __name__ == "__main__":
    if sys.argv[1:] not in (["run"], ["test"], ["constraints"]):
        sys.exit(__doc__)
    main(sys.argv[1])
