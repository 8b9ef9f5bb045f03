"""``c2c-otel doctor`` beside a real gunicorn: it names the dead exporter, the dead worker and the stopped one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.worker_kit import APP, GTHREAD
from tests.servers import Gunicorn, OtlpReceiver, Redis, UdpSink, wait_until
from tests.servers.process import free_port

PROGRAM = str(Path(sys.executable).with_name("c2c-otel"))
OURS = ("C2C", "OTEL_", "STATSD_", "GUNICORN_", "LOG_", "COVERAGE", "SENTRY_")
QUICK = {
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_METRIC_EXPORT_INTERVAL": "300",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    "OTEL_LOGS_EXPORTER": "none",
}


class Said:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert "Traceback" not in done.stderr, done.stderr
        self.code, self.text = done.returncode, done.stdout
        self.json: dict[str, Any] = json.loads(done.stdout) if done.stdout.startswith("{") else {}

    @property
    def problems(self) -> list[str]:
        return [one["message"] for one in self.json["findings"] if one["level"] == "problem"]

    @property
    def processes(self) -> dict[int, dict[str, Any]]:
        (run,) = self.json["runs"]
        return {process["pid"]: process for process in run["processes"]}


def doctor(gunicorn: Gunicorn, *words: str, **environ: str) -> Said:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(
        [PROGRAM, "doctor", *words],
        env={**clean, "TMPDIR": str(gunicorn.directory), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Said(done)


def healthy(gunicorn: Gunicorn, **environ: str) -> Said:
    """Once all workers have begun to listen."""
    return wait_until(
        "a healthy service",
        lambda: found if (found := doctor(gunicorn, "--json", "--running", **environ)).code == 0 else None,
        log=lambda: doctor(gunicorn, "--running", **environ).text,
    )


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["each", "preload"])
def test_a_dead_exporter_a_dead_worker_and_a_stopped_one_are_named(
    preload: tuple[str, ...], otlp_receiver: OtlpReceiver, udp_sink: UdpSink
) -> None:
    environ = {
        **QUICK,
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_receiver.url,
        "STATSD_ADDRESS": udp_sink.address,
        "C2C_SECRET": "a secret of this test",
    }
    with Gunicorn(APP, "-w", "3", *GTHREAD, "--timeout", "300", *preload, env=environ) as gunicorn:
        workers = gunicorn.wait_for_workers(3)
        for _ in range(30):
            assert gunicorn.get("/job").status == 200
        well = healthy(gunicorn, **environ)
        wait_until("all", lambda: sorted(healthy(gunicorn, **environ).processes) == workers)
        well = healthy(gunicorn, **environ)
        assert {process["parent"] for process in well.processes.values()} == {gunicorn.arbiter_pid}
        assert sum(process["statsd"]["sent"] for process in well.processes.values()) >= 60  # route and render each
        assert sum(one["succeeded"] for process in well.processes.values() for one in process["exporters"]) > 0
        assert well.json["runs"][0]["requests"] >= 30
        assert "a secret of this test" not in well.text

        otlp_receiver.stop()
        killed, stopped, well_one = workers
        gunicorn.kill_worker(killed)
        gunicorn.wait_for_workers(3, without=killed)
        os.kill(stopped, signal.SIGSTOP)
        try:

            def ill() -> Said | None:
                gunicorn.get("/job")
                found = doctor(gunicorn, "--json", "--timeout", "2", **environ)
                return found if any("exports failed" in problem for problem in found.problems) else None

            found = wait_until("a failed export", ill, 60)
            shown = doctor(gunicorn, "--timeout", "2", **environ)
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert found.code == shown.code == 1
        assert stopped not in found.processes and killed not in found.processes and well_one in found.processes
        text = "\n".join(found.problems)
        assert f"worker {stopped} is stopped" in found.problems
        assert re.search(rf"^worker {killed}, started .* is dead", text, re.M)
        assert re.search(
            rf"^(traces|metrics) to {otlp_receiver.url}/v1/\1: the last \d+ exports failed, in worker ", text, re.M
        )
        assert f"the OpenTelemetry collector at {otlp_receiver.url}/v1/traces: Connection refused" in found.problems
        for problem in (f"worker {stopped} is stopped", f"worker {killed}, started"):
            assert f"  PROBLEM  {problem}" in shown.text
        assert f"kill -CONT {stopped}" in shown.text

        later = doctor(gunicorn, "--json", "--forget", **environ)
        assert re.search(rf"^worker {killed}, started", "\n".join(later.problems), re.M), "told once more"
        assert stopped in later.processes
        after = doctor(gunicorn, "--json", **environ)
        assert not [problem for problem in after.problems if problem.startswith("worker ")], after.problems


def test_workers_that_end_as_they_should_leave_no_trace() -> None:
    with Gunicorn(APP, "-w", "2", *GTHREAD) as gunicorn:
        workers = gunicorn.wait_for_workers(2)
        gunicorn.get("/job")
        wait_until("all", lambda: sorted(healthy(gunicorn).processes) == workers)
        gunicorn.hup()
        new = gunicorn.worker_pids()
        wait_until("the new ones", lambda: sorted(healthy(gunicorn).processes) == new)
        (run,) = healthy(gunicorn).json["runs"]
        assert sorted(one["pid"] for one in run["present"]) == new
        stopped = doctor(gunicorn, "--json", "--run", "another")
        assert stopped.code == 1


def test_another_secret_is_told_from_a_worker_that_is_stuck() -> None:
    with Gunicorn(APP, "-w", "2", *GTHREAD, env={"C2C_SECRET": "one"}) as gunicorn:
        workers = gunicorn.wait_for_workers(2)
        wait_until("all", lambda: sorted(healthy(gunicorn, C2C_SECRET="one").processes) == workers)
        found = doctor(gunicorn, "--json", C2C_SECRET="another")
        assert sorted(found.problems) == [f"worker {pid} has refused the question" for pid in workers]
        assert "C2C_SECRET and C2C_BROADCAST_PREFIX must be the same" in found.text


def test_what_was_dropped_is_told_with_a_dead_statsd() -> None:
    environ = {"STATSD_ADDRESS": f"127.0.0.1:{free_port()}"}
    with Gunicorn(APP, "-w", "1", *GTHREAD, env=environ) as gunicorn:
        (worker,) = gunicorn.wait_for_workers(1)
        wait_until("it", lambda: doctor(gunicorn, "--json", **environ).processes)

        def failing() -> Said | None:
            gunicorn.get("/job")
            found = doctor(gunicorn, "--json", **environ)
            return found if any("is not reached" in problem for problem in found.problems) else None

        found = wait_until("the failure", failing)
        assert any(
            problem.startswith(f"worker {worker}: statsd at {environ['STATSD_ADDRESS']}") for problem in found.problems
        )
        assert any(problem.startswith(f"statsd at {environ['STATSD_ADDRESS']}: nobody") for problem in found.problems)


def test_over_redis_too() -> None:
    with Redis() as redis:
        environ = {"C2C_REDIS_URL": f"redis://127.0.0.1:{redis.port}"}
        with Gunicorn(APP, "-w", "2", *GTHREAD, "--timeout", "300", env=environ) as gunicorn:
            workers = gunicorn.wait_for_workers(2)
            wait_until("all", lambda: sorted(healthy(gunicorn, **environ).processes) == workers)
            os.kill(workers[0], signal.SIGSTOP)
            try:
                found = doctor(gunicorn, "--json", "--timeout", "2", **environ)
            finally:
                os.kill(workers[0], signal.SIGCONT)
            assert found.problems == [f"worker {workers[0]} is stopped"]
            assert sorted(found.processes) == [workers[1]]
            redis.stop()
            away = doctor(gunicorn, "--json", "--timeout", "2", **environ)
            assert len(away.problems) == 1 and away.problems[0].startswith("Redis at redis://127.0.0.1:")
            assert "cannot be asked: Redis at" in away.text
