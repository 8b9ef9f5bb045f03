"""``c2c-otel doctor``: what is configured, and what is wrong, before a start and with the services that run.

Exit codes: 0 where nothing is wrong; 1 where something is, each thing with its remedy; 2 for a usage error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from c2c_otel import __version__
from c2c_otel.commands import ini_file, shell
from c2c_otel.doctor import before, directories, judge, presence, running, state
from c2c_otel.doctor.findings import NOTE, OK, PROBLEM, Finding, note, problem, unusable
from c2c_otel.settings import ConfigurationError, Settings, environment

__all__ = ["main"]

_PROGRAM = "c2c-otel doctor"
_WORDS = {OK: "ok", NOTE: "note", PROBLEM: "PROBLEM"}


@shell.command("c2c-otel")
def main(arguments: Sequence[str] | None = None) -> int:
    """Look, print, and say by the exit code whether something is wrong."""
    options = _parser().parse_args(arguments)
    findings: list[Finding] = []
    path, ini = _ini(options, findings)
    settings, environ, _ = before.usable_settings(environment(), ini, findings)
    runs = _runs(settings, findings)
    alive = [run for run in runs if run.alive and options.run in (None, run.id)]
    findings += before.checks(settings, environ, path, running=bool(alive))
    seen, elsewhere, unnamed = running.look(alive, settings, options.timeout)
    findings += [_unanswered(name) for name in unnamed]
    if options.forget:
        for run in alive:
            presence.forget(run.path)
    for one in seen:
        findings += judge.judge(one)
    if not alive:
        findings.append(_nothing_runs(settings, options))
    show = _as_json if options.json else _as_text
    show(settings, findings, seen, elsewhere)
    return 1 if any(finding.level == PROBLEM for finding in findings) else 0


def _parser() -> argparse.ArgumentParser:
    parser = shell.parser(
        _PROGRAM,
        "Say what is configured and what is wrong: settings, files, packages and collectors, and what each process of "
        "a running service has exported, dropped or failed to do. Run it as its user, in its environment.",
        "c2c-otel doctor\n"
        "c2c-otel doctor --ini production.ini --json\n"
        "docker compose exec api c2c-otel doctor --running",
        "0: nothing is wrong; 1: something is; 2: usage",
    )
    parser.add_argument(
        "--ini", type=Path, help="the application's ini file (default: C2CWSGIUTILS_CONFIG, if it exists)"
    )
    parser.add_argument("--section", default="main", help="the section app:NAME there (default: main)")
    parser.add_argument(
        "--run", metavar="ID", help="look at this run alone, where several services share the directory"
    )
    parser.add_argument("--running", action="store_true", help="that no service runs is wrong, too")
    parser.add_argument(
        "--timeout", type=float, default=5.0, help="seconds for the answers of the processes (default: 5)"
    )
    parser.add_argument("--forget", action="store_true", help="remove the traces of processes that were killed")
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")
    return parser


def _ini(options: argparse.Namespace, findings: list[Finding]) -> tuple[Path | None, dict[str, Any]]:
    """The file and what it says, as far as it can be used."""
    named = options.ini is not None
    path = options.ini
    if path is None:
        text = environment().get("C2CWSGIUTILS_CONFIG")
        path = Path(text) if text else Settings(sdk_disabled=True).config_file
        named = bool(text)
    if not path.is_file():
        if named:
            findings.append(problem("ini", f"{path} is no file that can be read", "Put it there, or name another one."))
        return None, {}
    try:
        name = "--ini" if options.ini is not None else "C2CWSGIUTILS_CONFIG"
        return path, ini_file.application_settings(path, options.section, name)
    except ConfigurationError as error:
        findings.append(unusable("ini", error))
        return None, {}


def _runs(settings: Settings, findings: list[Finding]) -> list[directories.Run]:
    try:
        return directories.runs(settings)
    except PermissionError as error:
        findings.append(
            problem(
                "runtime_dir", f"{error.filename} cannot be looked at", "Run the doctor as the user of the service."
            )
        )
        return []


def _nothing_runs(settings: Settings, options: argparse.Namespace) -> Finding:
    where = directories.base(settings)
    what = f"run {options.run}" if options.run else "no service"
    message = f"{what} is alive in {where}" if options.run is None else f"{what} is not alive in {where}"
    remedy = "If one runs: use its user, its C2C_RUNTIME_DIR and its TMPDIR."
    return problem("workers", message, remedy) if options.running or options.run else note("workers", message, remedy)


def _unanswered(name: str) -> Finding:
    return problem("workers", f"{name or 'a process'} does not answer over Redis", "Look at it on its host.")


# -- for people -------------------------------------------------------------------------------------------------------


def _as_text(
    settings: Settings, findings: list[Finding], seen: list[running.Seen], elsewhere: list[dict[str, Any]]
) -> None:
    print(f"c2c-otel {__version__}\n\nSettings that are not defaults")
    lines = state.configured(settings)
    width = max((len(name) for name, _, _ in lines), default=0)
    for name, value, source in lines:
        print(f"  {name:<{width}}  {value}  ({source})")
    if not lines:
        print("  none")
    for one in seen:
        print(f"\nRun {one.run.id}: {one.totals.requests} requests measured")
        for report in sorted(one.reports, key=lambda report: int(report["pid"])):
            print(f"  {_process(report)}")
    if elsewhere:
        print("\nElsewhere, over Redis")
        for report in elsewhere:
            print(f"  {report['hostname']}: {_process(report)}")
    print("\nFindings")
    for finding in sorted(findings, key=lambda finding: list(_WORDS).index(finding.level)):
        print(f"  {_WORDS[finding.level]:<8} {finding.message}")
        if finding.remedy and finding.level != OK:
            print(f"           -> {finding.remedy}")
    problems = sum(finding.level == PROBLEM for finding in findings)
    print(f"\n{problems or 'no'} problem{'' if problems == 1 else 's'}")


def _process(report: dict[str, Any]) -> str:
    """What one process says, on a line."""
    return ", ".join([f"pid {report['pid']} of {report.get('parent')}", *_parts(report)])


def _parts(report: dict[str, Any]) -> Iterator[str]:
    yield f"telemetry {report.get('telemetry')}"
    publisher, statsd = report.get("publisher"), report.get("statsd")
    if publisher and publisher["age"] is not None:
        yield f"published {publisher['age']:.1f} s ago"
    if statsd:
        yield f"statsd {statsd['sent']} lines sent, {statsd['queued']} waiting"
    for one in report.get("exporters") or ():
        yield f"{one['signal']} {one['succeeded']} exports, {one['failed']} failed"
    yield f"Sentry {'on' if report.get('sentry') else 'off'}"
    if report.get("redis"):
        yield f"Redis {'reached' if report['redis']['reachable'] else 'away'}"


# -- for programs -----------------------------------------------------------------------------------------------------


def _as_json(
    settings: Settings, findings: list[Finding], seen: list[running.Seen], elsewhere: list[dict[str, Any]]
) -> None:
    print(
        json.dumps(
            {
                "version": __version__,
                "ok": not any(finding.level == PROBLEM for finding in findings),
                "findings": [finding._asdict() for finding in findings],
                "settings": [
                    dict(zip(("name", "value", "source"), line, strict=True)) for line in state.configured(settings)
                ],
                "runs": [
                    {
                        "id": one.run.id,
                        "path": str(one.run.path),
                        "requests": one.totals.requests,
                        "events": one.totals.events,
                        "processes": one.reports,
                        "present": [member._asdict() for member in one.present],
                        "missing": list(one.missing),
                    }
                    for one in seen
                ],
                "elsewhere": elsewhere,
            },
            indent=2,
        )
    )
