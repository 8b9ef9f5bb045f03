"""``c2c-otel migrate PATH``: rewrites an application that was made for c2cwsgiutils 4, 5 or 6.

Exit codes: 0; 1 with ``--check`` where something would change, and always where a file could not be read, parsed or
written (it is named, and stays as it was); 2 for a usage error, or without the extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from c2c_otel.commands import shell

__all__ = ["main"]

_PROGRAM = "c2c-otel migrate"
_PAGE = "docs/migrating.md"


@shell.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """Look, then write or show."""
    parser = shell.parser(
        _PROGRAM,
        "Rewrite an application that was made for c2cwsgiutils 4, 5 or 6: Python, ini files, Dockerfiles, Compose and"
        " other YAML, requirements, shell scripts. Comments and formatting stay. It can be run again at any time.",
        "c2c-otel migrate --check .      # a diff, and what is left to do by hand\n"
        "c2c-otel migrate .\n"
        "c2c-otel migrate --image registry.example.com/c2c-otel Dockerfile",
        "0; 1: --check, and there is something to change; or a file was left alone because it could not be read,"
        " parsed or written; 2: usage",
    )
    parser.add_argument("path", type=Path, help="a directory, or a file; nothing outside of it is touched")
    parser.add_argument("--check", action="store_true", help="write nothing; print a diff")
    parser.add_argument(
        "--image", default="c2c-otel", help="the name of the image in the place of the old one (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    root: Path = options.path
    if not root.exists():
        parser.error(f"{root} does not exist")
    try:
        import libcst  # noqa: F401 - before anything is looked at
        import yaml  # noqa: F401 - likewise
    except ModuleNotFoundError as error:
        shell.complain(_PROGRAM, f"needs {error.name}. Run: pip install 'c2c-otel[migrate]'")
        return 2
    return _migrate(root, options.image, options.check)


def _migrate(root: Path, image: str, check: bool) -> int:
    from c2c_otel.migration import run

    changed = failed = 0
    left: list[str] = []
    for file in run.look(root, image):
        trouble = file.trouble
        if file.changes:
            try:
                if check:
                    print(run.diff(file, root), end="")
                else:
                    run.write(file)
                    print(f"changed: {file.path}")
                changed += 1
            except OSError as error:
                trouble = f"cannot be written: {error.strerror}"
        if trouble:
            shell.complain(_PROGRAM, f"{file.path}: {trouble}; it is left as it was")
            failed += 1
        place = str(file.path)
        left += [f"{place}{f':{note.line}' if note.line else ''}: {note.text} [{note.section}]" for note in file.notes]
    if left:
        print(f"\nTo be looked at by hand; in brackets the section of {_PAGE}:")
        print("\n".join(f"  {line}" for line in left))
    print(f"\n{_files(changed)} {'would change' if check else 'changed'}, {_files(failed)} left alone.")
    return 1 if failed or (check and changed) else 0


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"
