"""From what the processes of a run say, and from what they do not, to findings."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from c2c_otel import __version__
from c2c_otel.doctor.findings import Finding, note, ok, problem
from c2c_otel.doctor.presence import Presence
from c2c_otel.doctor.running import Seen

__all__ = ["judge"]

_STALE_SECONDS = 15.0
"""Older than so many, and a process's metrics stand still: they are published once a second."""

_BOOTING_SECONDS = 60.0

Report = Mapping[str, Any]


def judge(seen: Seen) -> Iterator[Finding]:
    """All that can be said of a run that is alive."""
    answered = {report["pid"] for report in seen.reports}
    yield from _absent(seen, answered)
    for report in seen.reports:
        yield from _process(report)
    yield from _unreached_statsd(seen.reports)
    yield from _exporters(seen.reports)
    yield from _versions(seen.reports)
    yield from _events(seen)
    if not seen.reports and not seen.missing and not any(one.state for one in seen.present):
        yield note("workers", f"run {seen.run.id} serves nothing", "It may not have come that far, or is no service.")


# -- who does not answer ----------------------------------------------------------------------------------------------


def _absent(seen: Seen, answered: set[int]) -> Iterator[Finding]:
    known = {one.name: one for one in seen.present}
    silent = {name for name in seen.missing if name}
    silent |= {one.name for one in seen.present if one.state and one.pid not in answered and _old_enough(one)}
    for name in sorted(silent):
        yield _silent(name, known.get(name), seen)
    for one in seen.present:
        if one.state == "":
            yield _dead(one)


def _old_enough(one: Presence) -> bool:
    """It announces itself a moment after it has begun to listen; only who listens nowhere is asked by nobody."""
    return time.time() - one.born > 1.0


def _silent(name: str, one: Presence | None, seen: Seen) -> Finding:
    pid = name.rpartition("/")[2]
    who = f"{_role(one)} {pid}"
    state = one.state if one is not None else None
    if state in ("T", "t"):
        return problem("workers", f"{who} is stopped", f"Let it go on: kill -CONT {pid}; or end it: kill -KILL {pid}")
    if state == "Z":
        return problem("workers", f"{who} has ended, but its parent has not noticed", "Restart the service.")
    if state == "":
        return problem("workers", f"{who} died while it was asked", "Look for its end in the log, and in the kernel's.")
    if seen.unasked:
        return note("workers", f"{who} cannot be asked: {seen.unasked}")
    if seen.seconds < 1.0 and not seen.reports:
        return problem(
            "workers",
            f"{who} has refused the question",
            "Give the doctor the service's environment: C2C_SECRET and C2C_BROADCAST_PREFIX must be the same.",
        )
    return problem(
        "workers",
        f"{who} does not answer within {seen.seconds:.0f} s",
        f"See what it does (py-spy dump --pid {pid}), or end it: kill -KILL {pid}. If no process answers: are "
        "C2C_SECRET and C2C_BROADCAST_PREFIX those of the service?",
    )


def _dead(one: Presence) -> Finding:
    born = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.born))
    message = f"{_role(one)} {one.pid}, started {born}, is dead: it was killed, or crashed, without a word"
    if not one.worker:
        return note("workers", message, "No matter if it ends by os._exit. c2c-otel doctor --forget removes the trace.")
    return problem(
        "workers",
        message,
        "Look for WORKER TIMEOUT and signals in gunicorn's log, and for the OOM killer in the kernel's (dmesg); then "
        "c2c-otel doctor --forget.",
    )


def _role(one: Presence | None) -> str:
    return "worker" if one is None or one.worker else "process"


# -- what each says ---------------------------------------------------------------------------------------------------


def _process(report: Report) -> Iterator[Finding]:
    pid = report["pid"]
    telemetry = report.get("telemetry")
    if telemetry == "off":
        yield note("telemetry", f"worker {pid}: telemetry is off", "Unset OTEL_SDK_DISABLED.")
    elif telemetry != "on":
        why = "could not start" if telemetry == "failed" else f"is {telemetry}"
        yield problem("telemetry", f"worker {pid}: telemetry {why}", "Look for 'c2c-otel failed at' in its log.")
    yield from _publisher(pid, report.get("publisher"))
    yield from _statsd(pid, report.get("statsd"))
    for signal in report.get("ended") or ():
        yield problem(
            "exporter", f"worker {pid}: the thread that exports {signal} has ended", f"Restart it: kill {pid}"
        )
    store = report.get("store") or {"shared": True}
    if not store["shared"]:
        yield problem(
            "metrics",
            f"worker {pid}: its metrics are shown by itself alone: {store.get('reason')}",
            "See to C2C_RUNTIME_DIR: there must be room, and it must belong to the service's user.",
        )
    redis = report.get("redis")
    if redis and not redis["reachable"]:
        yield problem(
            "redis",
            f"worker {pid}: Redis at {redis['address']}: {redis['error']}",
            "Start it, or correct C2C_REDIS_URL.",
        )


def _publisher(pid: int, state: Report | None) -> Iterator[Finding]:
    if state is None:
        return
    if state["thread"] is False:
        yield problem(
            "metrics", f"worker {pid}: the thread that publishes metrics has ended", f"Restart it: kill {pid}"
        )
    elif state["age"] is not None and state["age"] > _STALE_SECONDS:
        stuck = ", ".join(state["busy"]) or "one of the sources"
        yield problem(
            "metrics",
            f"worker {pid}: metrics were published {state['age']:.0f} s ago: {stuck} does not come to an end",
            "Look at the application's callbacks of that name: they must not wait for anything.",
        )


def _statsd(pid: int, state: Report | None) -> Iterator[Finding]:
    if state is None:
        return
    if state["thread"] is False:
        where = f"worker {pid}: statsd at {state['address']}"
        yield problem(
            "statsd",
            f"{where}: the thread that sends has ended, {state['queued']} lines wait",
            f"Restart it: kill {pid}",
        )


def _unreached_statsd(reports: Iterable[Report]) -> Iterator[Finding]:
    """One finding for each server, of all workers together."""
    waiting: dict[str, dict[int, int]] = {}
    for report in reports:
        state = report.get("statsd")
        if state and state["failing"] and state["thread"] is not False:
            waiting.setdefault(state["address"], {})[report["pid"]] = state["queued"]
    for address, lines in sorted(waiting.items()):
        pids = ", ".join(map(str, sorted(lines)))
        yield problem(
            "statsd",
            f"worker {pids}: statsd at {address} is not reached, {sum(lines.values())} lines wait",
            "Start it, or correct STATSD_ADDRESS.",
        )


def _exporters(reports: Iterable[Report]) -> Iterator[Finding]:
    """One finding for each exporter, of all workers together."""
    found: dict[tuple[str, str, str], list[tuple[int, Report]]] = {}
    for report in reports:
        for one in report.get("exporters") or ():
            found.setdefault((one["signal"], one["exporter"], one["endpoint"]), []).append((report["pid"], one))
    for (signal, exporter, endpoint), states in sorted(found.items()):
        yield _exporter(f"{signal} to {endpoint or exporter}", states)


def _exporter(what: str, states: list[tuple[int, Report]]) -> Finding:
    failing = [(pid, one) for pid, one in states if one["failed_since_success"]]
    sent, failed = (sum(one[name] for _, one in states) for name in ("succeeded", "failed"))
    if failing:
        pids = ", ".join(str(pid) for pid, _ in sorted(failing, key=lambda one: one[0]))
        count = sum(one["failed_since_success"] for _, one in failing)
        last = max(one["last_success"] for _, one in failing)
        before = f"the last success was {time.time() - last:.0f} s ago" if last else "none has succeeded"
        return problem(
            "exporter",
            f"{what}: the last {count} exports failed, in worker {pids}; {before}",
            "Start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS or _CERTIFICATE.",
        )
    slow = [(pid, one) for pid, one in states if one["began"] and time.time() - one["began"] > 5]
    if slow:
        pids = ", ".join(str(pid) for pid, _ in slow)
        return problem(
            "exporter",
            f"{what}: an export has not come to its end for more than 5 s, in worker {pids}",
            "Look at the collector, and at the way to it.",
        )
    message = f"{what}: {sent} exports went through" + (f", {failed} have failed before" if failed else "")
    return note("exporter", message) if failed else ok("exporter", message)


def _versions(reports: list[dict[str, Any]]) -> Iterator[Finding]:
    versions = {report.get("version") for report in reports}
    if versions - {__version__}:
        found = ", ".join(sorted(map(str, versions)))
        yield note("version", f"the service runs c2c-otel {found}, the doctor {__version__}", "Restart the service.")
    settings = {tuple(map(tuple, report.get("settings") or ())) for report in reports}
    if len(settings) > 1:
        names = sorted({name for one in settings for name, *_ in set.union(*map(set, settings)) - set(one)})
        yield note("settings", f"workers run with different settings: {', '.join(names)}", "Restart the service.")


# -- what was counted -------------------------------------------------------------------------------------------------

_SAID = ("failed.otlp.export", "failed.publish.slow")
"""What other findings say better."""


def _events(seen: Seen) -> Iterator[Finding]:
    totals = seen.totals
    if totals.error:
        yield problem(
            "metrics", f"the metrics of run {seen.run.id} cannot be read: {totals.error}", "See C2C_RUNTIME_DIR."
        )
    events = dict(totals.events)
    for report in seen.reports:  # what was counted since the last publication
        for place, count in (report.get("events") or {}).items():
            events.setdefault(place, count)
    for place, count in sorted(events.items()):
        kind, _, what = place.partition(".")
        if kind == "dropped":
            yield problem("dropped", f"{what}: {count} dropped since the service started", _remedy(what))
        elif kind == "failed" and place not in _SAID:
            yield problem(
                "failed", f"{what}: failed {count} times", f"Look for 'c2c-otel failed at {what}' in the log."
            )
        elif kind == "broadcast":
            yield note("broadcast", f"{what}: {count} times", "")


def _remedy(what: str) -> str:
    if what.startswith("statsd"):
        return "See whether STATSD_ADDRESS is reached; the log names the reason of the first."
    if what.startswith("otlp"):
        return "The collector takes less than there is: give it more, or sample (OTEL_TRACES_SAMPLER)."
    return "The log names the reason of the first."
