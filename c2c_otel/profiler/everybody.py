"""The sessions of all workers: each process answers for its own, and who is asked puts them together."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

from c2c_otel import broadcast
from c2c_otel.profiler import switch
from c2c_otel.profiler.sessions import MAX_MERGED_NODES, kept
from c2c_otel.profiler.tree import Tree
from c2c_otel_exporters import guard

__all__ = ["Listing", "Profile", "delete", "find", "listing", "merged", "subscribe"]

_CHANNEL = "c2c_profiler"
_SECONDS = 5.0


class Listing(NamedTuple):
    """``sessions``: heads, each with its ``worker``. ``workers``: ``{"worker", "on", "sessions", "bytes", "dropped"}``.
    ``missing``: the processes that did not answer."""

    sessions: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    missing: tuple[str, ...]


class Profile(NamedTuple):
    """``head``: of the request; None for many together. ``requests``: how many. ``seconds``: that they took."""

    head: Mapping[str, Any] | None
    tree: Tree
    requests: int
    seconds: float
    missing: tuple[str, ...] = ()


def subscribe() -> None:
    """Answer who asks. Idempotent."""
    broadcast.subscribe(_CHANNEL, _told)


def listing() -> Listing:
    """All sessions that there are, in no order."""
    sessions: list[dict[str, Any]] = []
    workers: list[dict[str, Any]] = []
    answers, missing = _ask("list")
    for answer in answers:
        worker = f"{answer['hostname']}/{answer['pid']}"
        workers.append({"worker": worker, "on": answer["on"], **answer["state"]})
        sessions += [{**head, "worker": worker} for head in answer["heads"]]
    return Listing(sessions, sorted(workers, key=lambda one: str(one["worker"])), missing)


def find(identity: str) -> Profile | None:
    """One session, whoever has it; None where nobody has."""
    answers, missing = _ask("get", identity)
    for answer in answers:
        if answer.get("head") is not None:
            head = {**answer["head"], "worker": f"{answer['hostname']}/{answer['pid']}"}
            return Profile(head, Tree.load(answer["tree"]), 1, head["seconds"], missing)
    return None


def merged(route: str | None = None) -> Profile:
    """All sessions together, or those of one route ("": of none)."""
    answers, missing = _ask("merge", route)
    tree = Tree(MAX_MERGED_NODES)
    for answer in answers:
        tree.merge(Tree.load(answer["tree"], MAX_MERGED_NODES))
    count = sum(answer["count"] for answer in answers)
    return Profile(None, tree, count, sum(answer["seconds"] for answer in answers), missing)


def delete(identity: str | None = None) -> tuple[int, tuple[str, ...]]:
    """One session, or all of them: how many there were, and who did not answer."""
    answers, missing = _ask("delete", identity)
    return sum(answer["deleted"] for answer in answers), missing


def _ask(what: str, name: str | None = None) -> tuple[list[Any], tuple[str, ...]]:
    """What processes have answered that could, and who has not."""
    found = broadcast.broadcast(_CHANNEL, {"what": what, "name": name}, expect_answers=True, timeout=_SECONDS)
    answers: list[Any] = [one for one in found or () if isinstance(one, dict) and one.get("status") == 200]
    failed = tuple(
        f"{one.get('hostname')}/{one.get('pid')}"
        for one in found or ()
        if isinstance(one, dict) and one.get("status") != 200
    )
    return answers, (*failed, *(found.missing if found is not None else ()))


def _told(what: str, name: str | None = None) -> dict[str, Any]:
    """Of the broadcast. What is wrong is logged here, and who asks names this process."""
    try:
        return {"status": 200, "hostname": socket.gethostname(), "pid": os.getpid(), **_answer(what, name)}
    except Exception as error:
        guard.failed("profiler.told")
        return {"status": 500, "message": f"{type(error).__name__}: {error}"[:500]}


def _answer(what: str, name: str | None) -> dict[str, Any]:
    if what == "list":
        return {"heads": kept.heads(), "state": kept.state(), "on": switch.mode() is not None}
    if what == "get":
        found = kept.get(name or "")
        return {} if found is None else {"head": found[0], "tree": found[1]}
    if what == "merge":
        heads, tree = kept.merged(name)
        return {"count": len(heads), "seconds": sum(head["seconds"] for head in heads), "tree": tree.dump()}
    if what == "delete":
        return {"deleted": kept.delete(name)}
    raise ValueError(what)
