"""``make run``: the demo application under ``c2c-otel-instrument gunicorn`` with 4 workers, and its statsd lines.

Nothing outside is needed: SQLite in a temporary directory, no Redis, a UDP socket of this script for statsd. Runs
until Ctrl-C.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import sqlalchemy

from acceptance_tests.app import models

_TRY = """
c2c-otel demo is up: 4 gunicorn workers, one service. Try:

  {url}/                     the demo's pages
  {url}/metrics              Prometheus, the same whichever worker answers
  {url}/c2c                  the open views
  {url}/c2c/health_check     whether the service can do its work
  {url}/c2c?secret={secret}  all views; the secret is a new one with each start
  {url}/c2c/stats.json       timers of all workers
  curl -si {url}/api/hello   X-Request-ID and Server-Timing in the answer
  curl -s {url}/api/call     an outgoing call, with the same request id

statsd lines as they arrive (each name once, then a count every 10 s). Ctrl-C stops.
"""


def free_port(first: int = 8080) -> int:
    """8080 or the next port nobody listens on."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise SystemExit(f"no free port between {first} and {first + 99}")


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Until the service answers; ends with its exit code if it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(process.returncode)
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    process.terminate()
    raise SystemExit(f"{url} did not answer within {seconds:.0f} s")


def show_statsd(sink: socket.socket) -> None:
    """Print each metric name the first time it comes, then how many lines came."""
    seen: set[str] = set()
    count, due = 0, time.monotonic() + 10
    while True:
        try:
            packet = sink.recv(65536)
        except TimeoutError:
            packet = b""
        except OSError:
            return
        for line in packet.decode().splitlines():
            count += 1
            name = line.partition(":")[0]
            if name not in seen:
                seen.add(name)
                print(f"  statsd  {line}", flush=True)
        if time.monotonic() >= due:
            if count:
                print(f"  statsd  {count} lines so far, {len(seen)} names", flush=True)
            due = time.monotonic() + 10


def main() -> int:
    """Start, show, stop."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    secret = secrets.token_urlsafe(12)
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind(("127.0.0.1", 0))
    sink.settimeout(1)
    with tempfile.TemporaryDirectory(prefix="c2c-otel-demo-") as directory:
        database = f"sqlite:///{directory}/demo.sqlite"
        models.create(sqlalchemy.create_engine(database))  # so that the lines below are those of requests
        environ = {
            **os.environ,
            "SQLALCHEMY_URL": database,
            "OTEL_SERVICE_NAME": os.environ.get("OTEL_SERVICE_NAME") or "c2c-otel demo",
            "STATSD_ADDRESS": f"127.0.0.1:{sink.getsockname()[1]}",
            "STATSD_PREFIX": "demo",
            "STATS_VIEW": "1",
            "C2C_RUNTIME_DIR": f"{directory}/runtime",
            "C2C_SECRET": secret,
            "C2C_LOG_VIEW_ENABLED": "1",
            "C2C_DB_MAINTENANCE_VIEW_ENABLED": "1",
            "C2C_SQL_PROFILER_ENABLED": "1",
            "C2C_DEBUG_VIEW_ENABLED": "1",
            "C2C_ENABLE_EXCEPTION_HANDLING": "1",
        }
        program = str(Path(sys.executable).with_name("c2c-otel-instrument"))
        arguments = ["gunicorn", "-w", "4", "--threads", "8", "-b", f"127.0.0.1:{port}", "--no-control-socket"]
        arguments.append("acceptance_tests.app.wsgi")
        environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        process = subprocess.Popen([program, *arguments], env=environ, start_new_session=True)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            wait_for(f"{url}/", process)
            print(_TRY.format(url=url, secret=secret), flush=True)
            threading.Thread(target=show_statsd, args=(sink,), daemon=True).start()
            for path in ("/api/hello", "/api/order", "/api/call"):
                urllib.request.urlopen(url + path, timeout=10).close()
            return process.wait()
        except KeyboardInterrupt:
            print("\nstopping", flush=True)
            return 0
        finally:
            process.terminate()
            try:
                process.wait(35)
            except subprocess.TimeoutExpired:
                process.kill()
            sink.close()


if __name__ == "__main__":
    sys.exit(main())
