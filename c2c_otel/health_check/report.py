"""What a request is told of the checks: the documented JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from c2c_otel.health_check.runner import Check, Result

__all__ = ["body"]


def body(outcomes: Iterable[tuple[Check, Result]], status: int, *, detailed: bool = False) -> dict[str, Any]:
    """``{"status": ..., "successes": {name: ...}, "failures": {name: ...}}``.

    ``detailed``: for who has the secret, and in development: whole messages, ``stacktrace``, and the results that are
    not for everybody.
    """
    successes: dict[str, Any] = {}
    failures: dict[str, Any] = {}
    for check, result in outcomes:
        shown: dict[str, Any] = {"timing": round(result.seconds, 6), "level": check.level}
        if result.value is not None and (detailed or not check.private):
            shown["result"] = result.value
        if result.ok:
            successes[check.name] = shown
            continue
        failures[check.name] = shown
        shown["message"] = result.detailed if detailed else result.message
        if detailed and result.stacktrace:
            shown["stacktrace"] = result.stacktrace
    return {"status": status, "successes": successes, "failures": failures}
