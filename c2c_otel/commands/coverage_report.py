"""``c2c-otel-coverage-report SOURCE...``: what COVERAGE=1 has collected, as HTML and XML.

Exit codes: 0; 1 where nothing was collected, or nothing of these sources; 2 for a usage error, or without coverage.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from c2c_otel.commands import shell

__all__ = ["main", "patterns"]

_PROGRAM = "c2c-otel-coverage-report"
_DIRECTORY = Path("/reports/coverage/api")


@shell.command(_PROGRAM)
def main(arguments: Sequence[str] | None = None) -> int:
    """The console script."""
    parser = shell.parser(
        _PROGRAM,
        "Combine what a service under COVERAGE=1 has written, and report on it as HTML (index.html) and XML "
        "(coverage.xml). The collected files stay.",
        "c2c-otel-coverage-report myapp\n"
        "c2c-otel-coverage-report --data /tmp/coverage/api --output reports myapp myapp_admin",
        "0; 1: nothing was collected of these sources; 2: usage, or coverage is not installed",
    )
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="a package or a directory to report on")
    parser.add_argument("--data", type=Path, default=_DIRECTORY, help=f"where the files are (default: {_DIRECTORY})")
    parser.add_argument("--output", type=Path, help="where the reports go (default: to the data)")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("coverage") is None:
        shell.complain(_PROGRAM, "coverage is not installed. Run: pip install 'c2c-otel[coverage]'")
        return 2
    files = sorted(
        path
        for pattern in ("coverage.*", ".coverage*")
        for path in options.data.glob(pattern)
        if path.is_file() and path.suffix != ".xml"
    )
    if not files:
        shell.complain(
            _PROGRAM,
            f"{options.data} has no files of coverage. Run the service with COVERAGE=1, end it by SIGTERM, and name "
            "what C2C_COVERAGE_DIR was with --data.",
        )
        return 1
    return _report(files, options.output or options.data, options.sources)


def _report(files: Iterable[Path], output: Path, sources: Iterable[str]) -> int:
    import coverage

    with tempfile.TemporaryDirectory(prefix="c2c-otel-coverage-") as directory:
        combined = coverage.Coverage(data_file=str(Path(directory) / "coverage"))
        try:
            combined.combine([str(path) for path in files], strict=True, keep=True)
            output.mkdir(parents=True, exist_ok=True)
            chosen = patterns(sources)
            # ignore_errors: sources of another place or of generated code are not there, which is no reason for none
            total = combined.html_report(directory=str(output), include=chosen, ignore_errors=True)
            combined.xml_report(outfile=str(output / "coverage.xml"), include=chosen, ignore_errors=True)
        except (coverage.CoverageException, OSError) as error:
            shell.complain(_PROGRAM, str(error))
            return 1
    print(f"{total:.1f} % of the lines and branches: {output / 'index.html'}, {output / 'coverage.xml'}")
    return 0


def patterns(sources: Iterable[str]) -> list[str]:
    """What coverage's ``include`` takes for packages, modules, directories and files."""
    found = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found.append(f"{path.resolve()}/*")
        elif path.is_file():
            found.append(str(path.resolve()))
        else:
            parts = source.replace(".", "/")
            found += [f"*/{parts}/*", f"*/{parts}.py"]
    return found
