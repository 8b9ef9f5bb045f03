"""Every way to run it: launcher, include, both; preloaded or not; sync, threads, one process; reloads and upgrades."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.worker_kit import APP, GTHREAD, Sent, Watch, pids_of, send, series, value
from tests.servers import Gunicorn, NotReady, OtlpReceiver, UdpSink, wait_until
from tests.servers.find import ROOT
from tests.servers.process import Process, free_port

JOBS = 20

WAYS = {
    # name: (under the launcher, with the include, gunicorn's arguments)
    "launcher": (True, False, ("-w", "2", *GTHREAD)),
    "launcher-preload-sync": (True, False, ("-w", "2", "--preload")),
    "include": (False, True, ("-w", "2")),
    "include-preload": (False, True, ("-w", "2", *GTHREAD, "--preload")),
    "both": (True, True, ("-w", "2")),
    "both-preload": (True, True, ("-w", "2", *GTHREAD, "--preload")),
}


def environ(sink: UdpSink, receiver: OtlpReceiver, *, include: bool, **more: str) -> dict[str, str]:
    return {
        "STATSD_ADDRESS": sink.address,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "APP_INCLUDE": str(include).lower(),
        **more,
    }


@pytest.mark.parametrize("way", WAYS)
def test_every_job_once_in_spans_metrics_and_statsd(
    way: str, udp_sink: UdpSink, otlp_receiver: OtlpReceiver, tmp_path: Path
) -> None:
    launcher, include, args = WAYS[way]
    env = environ(udp_sink, otlp_receiver, include=include, APP_RECORD_AT_IMPORT="1")
    with Gunicorn(APP, *args, env=env, launcher=launcher) as gunicorn:
        gunicorn.wait_for_workers(2)
        sent = send(gunicorn, range(JOBS), "/job", headers=request_id)
        assert pids_of(sent) <= set(gunicorn.worker_pids())
        check_request_ids(sent)
        check_metrics(gunicorn, JOBS)
        check_import(gunicorn, "--preload" in args)
        check_statsd(udp_sink, JOBS)
        wait_until("the spans", lambda: len(job_spans(otlp_receiver)) >= JOBS)
        gunicorn.stop()  # whatever is sent twice is sent by now
        check_spans(otlp_receiver, JOBS)
        assert "c2c-otel failed" not in gunicorn.stderr.read_text() + gunicorn.stdout.read_text()
        assert "Traceback" not in gunicorn.stderr.read_text()


def request_id(number: int) -> dict[str, str]:
    return {"X-Request-ID": f"job-{number}"}


def check_request_ids(sent: list[Sent]) -> None:
    assert [one.status for one in sent] == [200] * len(sent)
    assert [one.headers["x-request-id"] for one in sent] == [f"job-{one.number}" for one in sent]
    assert all("route;desc=job" in one.headers["server-timing"] for one in sent)


def check_metrics(gunicorn: Gunicorn, jobs: int) -> None:
    """What was measured is there at once; what others count, within the second in which they publish it."""
    assert value(gunicorn, "c2c_otel_events_total", key="job") == jobs
    assert value(gunicorn, "http_server_request_duration_seconds_count", http_route="/job") == jobs
    counted = dict.fromkeys(("jobs_done_total", "jobs_size_count", "jobs_classic_total", "jobs_provided_total"), jobs)
    wait_until("every kind of counter", lambda: {name: value(gunicorn, name) for name in counted} == counted)
    assert value(gunicorn, "jobs_size_sum") == 5 * jobs


def check_import(gunicorn: Gunicorn, preload: bool) -> None:
    """What an arbiter would record at import is not multiplied by its workers; a worker's own import counts."""
    if preload:
        assert value(gunicorn, "c2c_otel_events_total", key="at/import") == 0
    else:
        wait_until("both", lambda: value(gunicorn, "c2c_otel_events_total", key="at/import") == 2000)


def check_statsd(sink: UdpSink, jobs: int) -> None:
    def count(lines: list[str]) -> dict[str, int]:
        seen = Counter(line.split(":")[0] for line in lines)
        done = [int(line.split(":")[1].split("|")[0]) for line in lines if line.startswith("jobs.done:")]
        return {"job": seen["job"], "route": seen["route.GET.job.200"], "render": seen["render.GET.job.200"]} | {
            "done": sum(done)
        }

    wanted = dict.fromkeys(("job", "route", "render", "done"), jobs)
    sink.wait_for(lambda lines: count(lines) == wanted)


def job_spans(receiver: OtlpReceiver) -> list[dict[str, Any]]:
    return [
        span
        for span in receiver.spans.copy()
        if span["kind"] == "SERVER" and span["attributes"].get("http.route") == "/job"
    ]


def check_spans(receiver: OtlpReceiver, jobs: int) -> None:
    assert not receiver.errors
    spans = job_spans(receiver)
    assert len({span["trace_id"] for span in spans}) == len(spans) == jobs
    assert {span["name"] for span in spans} == {"GET /job"}
    renders = [span for span in receiver.spans if span["name"] == "render json"]
    assert sorted(span["parent_span_id"] for span in renders) == sorted(span["span_id"] for span in spans)
    own = {span["resource"].get("process.pid") for span in spans}
    assert len(own) <= 2


# -- one process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", [True, False], ids=["launcher", "include"])
def test_waitress(launcher: bool, udp_sink: UdpSink, otlp_receiver: OtlpReceiver, tmp_path: Path) -> None:
    port = free_port()
    programs = Path(sys.executable).parent
    argv = [programs / "waitress-serve", "--listen", f"127.0.0.1:{port}", "--call", "tests.apps.workers:main"]
    if launcher:
        argv.insert(0, programs / "c2c-otel-instrument")
    env = os.environ | environ(udp_sink, otlp_receiver, include=not launcher, TMPDIR=str(tmp_path))
    process = Process(argv, tmp_path / "log", env={**env, "PYTHONPATH": str(ROOT)}, cwd=ROOT)
    served = Gunicorn(APP)  # for its requests alone
    served.url = f"http://127.0.0.1:{port}"
    try:
        process.wait_until("waitress", lambda: served.get("/metrics").status == 200, 60)
        sent = send(served, range(JOBS), "/job", headers=request_id)
        check_request_ids(sent)
        check_metrics(served, JOBS)
        check_statsd(udp_sink, JOBS)
        wait_until("the spans", lambda: len(job_spans(otlp_receiver)) >= JOBS)
        process.stop()
        check_spans(otlp_receiver, JOBS)
        assert "c2c-otel failed" not in process.output()
        assert "Traceback" not in process.output()
    finally:
        process.stop()


# -- reloads and upgrades ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])
def test_reload_and_upgrade_go_on_counting(
    preload: tuple[str, ...], udp_sink: UdpSink, otlp_receiver: OtlpReceiver
) -> None:
    env = environ(udp_sink, otlp_receiver, include=False)
    jobs = 0
    with Gunicorn(APP, "-w", "2", *GTHREAD, *preload, env=env) as gunicorn, Watch(gunicorn) as watch:
        for step in (lambda: None, gunicorn.hup, gunicorn.usr2, gunicorn.finish_upgrade):
            step()
            jobs += JOBS
            check_request_ids(send(gunicorn, range(JOBS), "/job", headers=request_id))
            check_metrics(gunicorn, jobs)
        check_statsd(udp_sink, jobs)
        wait_until("the spans", lambda: len(job_spans(otlp_receiver)) >= jobs)
        check_spans_of(otlp_receiver, jobs)
        assert not watch.falls
        assert not watch.refused


def check_spans_of(receiver: OtlpReceiver, jobs: int) -> None:
    spans = job_spans(receiver)
    assert len({span["span_id"] for span in spans}) == len(spans) == jobs


def test_sighup_without_the_launcher(udp_sink: UdpSink, otlp_receiver: OtlpReceiver) -> None:
    env = environ(udp_sink, otlp_receiver, include=True)
    with Gunicorn(APP, "-w", "2", "--preload", env=env, launcher=False) as gunicorn, Watch(gunicorn) as watch:
        send(gunicorn, range(JOBS), "/job")
        gunicorn.hup()
        send(gunicorn, range(JOBS), "/job")
        check_metrics(gunicorn, 2 * JOBS)
        check_statsd(udp_sink, 2 * JOBS)
        assert not watch.falls


def test_a_changed_module_reloads(udp_sink: UdpSink, otlp_receiver: OtlpReceiver, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests/apps/workers.py", tmp_path / "reloaded.py")
    env = environ(udp_sink, otlp_receiver, include=False)
    args = ("-w", "2", *GTHREAD, "--reload", "--reload-engine", "poll")
    with ExitStack() as stack:
        gunicorn = stack.enter_context(Gunicorn("reloaded:main()", *args, env=env, cwd=tmp_path))
        watch = stack.enter_context(Watch(gunicorn))
        gunicorn.wait_for_workers(2)
        send(gunicorn, range(JOBS), "/job", headers=request_id)
        check_metrics(gunicorn, JOBS)
        _change(gunicorn, tmp_path / "reloaded.py")
        check_request_ids(send(gunicorn, range(JOBS), "/job", headers=request_id))
        check_metrics(gunicorn, 2 * JOBS)
        check_statsd(udp_sink, 2 * JOBS)
        assert not watch.falls


def _change(gunicorn: Gunicorn, module: Path) -> None:
    """Until all workers are new ones: a worker notices only what changes after it has first looked."""
    for _ in range(8):
        old = set(gunicorn.worker_pids())
        with module.open("a") as file:
            file.write("\n# changed\n")
        try:
            wait_until("new workers", lambda: len(set(gunicorn.worker_pids()) - old) == 2, 5)  # noqa: B023 - called here
        except NotReady:
            continue
        return
    raise AssertionError("the workers do not reload")


def test_two_services_do_not_share(udp_sink: UdpSink, otlp_receiver: OtlpReceiver, tmp_path: Path) -> None:
    """Of one user on one machine, with one runtime directory: each tells of its own workers alone."""
    env = environ(udp_sink, otlp_receiver, include=True, C2C_RUNTIME_DIR=str(tmp_path / "shared"))
    args = ("-w", "2", "--preload")
    with Gunicorn(APP, *args, env=env, launcher=False) as one, Gunicorn(APP, *args, env=env) as other:
        send(one, range(3), "/job")
        send(other, range(5), "/job")
        assert value(one, "c2c_otel_events_total", key="job") == 3
        assert value(other, "c2c_otel_events_total", key="job") == 5
        assert len(list((tmp_path / "shared" / "run").iterdir())) == 2
        assert {dict(labels)["pid"] for labels in series(one, "pod_process_smap_pss_kb")}.isdisjoint(
            map(str, other.processes())
        )


# -- memory -----------------------------------------------------------------------------------------------------------

COLLECTIONS = """
import gc, os
gc.collect()  # all that is imported from here on is new
gc.set_threshold(700, 10, 1000)  # before the fork by no chance
from tests.apps import workers

born = {}

def begin():
    born["full"] = gc.get_stats()[2]["collections"]
    gc.set_threshold(700, 1, 1)  # as soon as there is enough that is new

os.register_at_fork(after_in_child=begin)

def main():
    application = workers.main()
    def either(environ, start_response):
        if environ["PATH_INFO"] != "/collections":
            return application(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(gc.get_stats()[2]["collections"] - born["full"]).encode()]
    return either
"""


def test_preloaded_workers_share_their_memory(udp_sink: UdpSink, otlp_receiver: OtlpReceiver, tmp_path: Path) -> None:
    """A full collection writes to every object, and so gives each worker a copy of all that it shared: 20 MiB."""
    (tmp_path / "collections_app.py").write_text(COLLECTIONS)
    env = environ(udp_sink, otlp_receiver, include=False)
    with Gunicorn("collections_app:main()", "-w", "2", "--preload", env=env, cwd=tmp_path) as gunicorn:
        send(gunicorn, range(JOBS), "/job")
        assert {gunicorn.get("/collections").body for _ in range(10)} == {b"0"}
