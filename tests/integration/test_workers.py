"""The main promise: whichever worker answers, is killed or recycled, every number comes out right."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.worker_kit import (
    APP,
    GTHREAD,
    Callee,
    Sent,
    Watch,
    access_log,
    answering,
    json_lines,
    parse,
    pids_of,
    send,
)
from tests.servers import Gunicorn, Postgres, UdpSink, wait_until

THREADS = 2
"""Of a worker: so many requests it can have answered without having closed their bodies."""
SENDERS = 4
"""So many requests can be in flight."""
BEFORE, REQUESTS = 100, 300


def trace_id(number: int) -> str:
    return f"{number + 1:032x}"


def headers(number: int) -> dict[str, str]:
    """The request id and the trace of a request, both its own."""
    return {"X-Request-ID": f"req {number}=;", "traceparent": f"00-{trace_id(number)}-00000000000000aa-01"}


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])
def test_300_requests_with_a_kill_and_recycling(
    preload: tuple[str, ...], postgres: Postgres, udp_sink: UdpSink, tmp_path: Path
) -> None:
    callee = Callee()
    log = tmp_path / "access.log"
    args = ("-w", "3", *GTHREAD, *preload, "--max-requests", "50", *access_log(log))
    with callee.running() as url:
        env = {
            "APP_SQL": postgres.dsn(driver="psycopg"),
            "APP_CALL": url,
            "C2C_SQL_REQUEST_ID": "1",
            "STATSD_ADDRESS": udp_sink.address,
            "LOG_TYPE": "json",
            "LOG_LEVEL": "INFO",
        }
        with Gunicorn(APP, *args, env=env) as gunicorn:
            gunicorn.wait_for_workers(3)
            first = answering(gunicorn, log)
            assert len(first) == 3
            with Watch(gunicorn) as watch:
                sent, killed = _send_and_kill(gunicorn, udp_sink)
                answered = [one for one in sent if one.answer is not None]
                gunicorn.wait_for_workers(3, without=killed)
                final = watch.look()
                _check_metrics(final, sent, killed)
            assert not watch.falls
            assert watch.scrapes >= 10
            _check_answers(answered, callee)
            lost = _check_statsd(udp_sink, answered, killed)
            _check_logs(gunicorn, answered)
            _check_all_workers_agree(gunicorn, log)
            recycled = len(pids_of(answered))
            assert recycled >= 5  # 300 requests, 50 for each and what is in flight then
            assert not [line for line in _texts(gunicorn) if "c2c-otel failed" in line or "Traceback" in line]
    print(f"{len(answered)} answered, {watch.scrapes} scrapes, {recycled} workers, {lost} lines lost with the killed")


def _send_and_kill(gunicorn: Gunicorn, sink: UdpSink) -> tuple[list[Sent], int]:
    """All requests, and which worker was killed on the way, with requests in flight."""
    sent = send(gunicorn, range(BEFORE), "/number/{}", headers=headers, threads=SENDERS)
    assert all(one.answer is not None for one in sent)  # recycling alone breaks no connection
    sink.wait_for(lambda lines: len(_worked(lines)) == BEFORE)
    sink.wait_for(lambda lines: _routes(lines) == BEFORE)
    victim: list[int] = []
    ready = threading.Event()
    done: Counter[int] = Counter()

    def seen(one: Sent) -> None:
        if one.answer is not None and not victim:
            pid = one.answer["pid"]
            done[pid] += 1
            if done[pid] == 5 and pid in gunicorn.worker_pids():
                victim.append(pid)
                ready.set()

    def kill() -> None:
        assert ready.wait(60)
        gunicorn.kill_worker(victim[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    sent += send(gunicorn, range(BEFORE, REQUESTS), "/number/{}", headers=headers, threads=SENDERS, seen=seen)
    killer.join(30)
    assert victim and victim[0] not in gunicorn.worker_pids()
    return sent, victim[0]


def _worked(lines: list[str]) -> set[int]:
    return {int(line.split(":")[0].removeprefix("work.")) for line in lines if line.startswith("work.")}


def _routes(lines: list[str]) -> int:
    return sum(line.startswith("route.GET.work.200:") for line in lines)


def _check_answers(answered: list[Sent], callee: Callee) -> None:
    """The request id in the answer, in PostgreSQL and in the outgoing call; the trace in the application and there."""
    assert REQUESTS - len(answered) <= SENDERS  # those that the killed worker was serving
    for one in answered:
        own = f"req {one.number}=;"
        assert one.status == 200
        assert one.headers["x-request-id"] == own
        assert one.answer["request_id"] == own
        assert one.answer["trace_id"] == trace_id(one.number)
        assert one.answer["application_name"] == own
        assert one.answer["called"] == 200
        [call] = callee.calls[f"/{one.number}"]
        assert call["x-request-id"] == own
        assert call["traceparent"].split("-")[1] == trace_id(one.number)
        assert call["traceparent"].split("-")[2] != "00000000000000aa"  # the call's own span


def _check_metrics(final: dict[tuple[str, str], float], sent: list[Sent], killed: int) -> None:
    """Nothing that was answered is missing, but for what a worker does after the answer; nothing counts twice."""
    answered = {one.number for one in sent if one.answer is not None}
    counted = {
        int(labels.removeprefix('key="work/').rstrip('"')): number
        for (name, labels), number in final.items()
        if name == "c2c_otel_events_total" and labels.startswith('key="work/')
    }
    assert set(counted.values()) == {1.0}
    assert answered <= counted.keys()
    assert len(counted.keys() - answered) <= SENDERS  # in flight when it was killed
    for name, most in (
        ("http_server_request_duration_seconds_count", len(counted)),
        ("http_client_request_duration_seconds_count", len(counted)),
        ("db_client_operation_duration_seconds_count", 4 * len(counted)),
    ):
        total = sum(number for (found, labels), number in final.items() if found == name and _of_work(name, labels))
        assert len(answered) - THREADS <= total <= most, name


def _of_work(name: str, labels: str) -> bool:
    return "http_server" not in name or 'http_route="/number/{number}"' in labels


def _check_statsd(sink: UdpSink, answered: list[Sent], killed: int) -> int:
    """Each line once, but for the last ones of the killed worker: how many those were."""
    others = {one.number for one in answered if one.answer["pid"] != killed}
    sink.wait_for(lambda lines: _worked(lines) >= others)
    lines = Counter(line for line in sink.lines() if line.startswith("work."))
    assert set(lines.values()) == {1}
    assert all(line.endswith(":1|c") for line in lines)
    there = _worked(list(lines))
    its = sorted((one.answer["order"], one.number) for one in answered if one.answer["pid"] == killed)
    missing = [order for order, number in its if number not in there]
    arrived = [order for order, number in its if number in there]
    assert not [number for _, number in its if number < BEFORE and number not in there]
    if missing:  # the end of what it did, in order
        assert max(arrived) <= min(missing) + THREADS
    assert len(missing) < len(its)
    late = sum(number >= BEFORE for _, number in its)  # a route's line comes after the others of its request
    wait_until("the routes", lambda: _routes(sink.lines()) >= len(answered) - late)
    assert _routes(sink.lines()) <= len(answered) + SENDERS
    return len(missing)


def _check_logs(gunicorn: Gunicorn, answered: list[Sent]) -> None:
    """Each line of the application's has the ids of its own request, as the view saw them."""
    lines = {}
    for line in json_lines(gunicorn.stdout):
        if line["logger_name"] == "tests.apps.workers":
            number = int(line["msg"].removeprefix("work "))
            assert number not in lines
            lines[number] = line
            assert line["request_id"] == line["seen_request_id"] == f"req {number}=;"
            assert line["trace_id"] == line["seen_trace_id"] == trace_id(number)
            assert line["matched_route"] == "work"
    assert {one.number for one in answered} <= lines.keys()


def _check_all_workers_agree(gunicorn: Gunicorn, log: Path) -> None:
    """At rest, each tells the same of the requests, old or just started."""
    totals = []
    for texts in answering(gunicorn, log, count=3).values():
        growing, _ = parse(texts[-1])
        totals.append(
            {
                (name, labels): number
                for (name, labels), number in growing.items()
                if "/number/" in labels or "work/" in labels or name.startswith(("http_client", "db_client"))
            }
        )
    assert len(totals[0]) > REQUESTS
    assert all(total == totals[0] for total in totals)


def _texts(gunicorn: Gunicorn) -> list[str]:
    return [line["msg"] + line.get("full_message", "") for line in json_lines(gunicorn.stdout)] + [
        gunicorn.stderr.read_text()
    ]
