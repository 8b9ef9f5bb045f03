"""Three real workers are one service to who logs in, logs out or guesses; and the secret is in nothing they write."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.integration.worker_kit import APP, GTHREAD
from tests.servers import Gunicorn, OtlpReceiver, UdpSink, wait_until
from tests.servers.gunicorn import Answer

SECRET = "Tr0ub4dor&3 of the shop"
PATH = "/c2c/debug/headers"
KEY = {"X-API-Key": SECRET}
SETTINGS = {"C2C_SECRET": SECRET, "C2C_DEBUG_VIEW_ENABLED": "1", "STATS_VIEW": "1"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
EVERYTHING = (
    "%(h)s %(r)s %(q)s %(f)s %(a)s %({x-api-key}i)s %({authorization}i)s "
    "%({cookie}i)s %({raw_uri}e)s %({query_string}e)s %({set-cookie}o)s"
)


@contextmanager
def service(*args: str, **env: str) -> Iterator[Gunicorn]:
    with Gunicorn(APP, "-w", "3", *GTHREAD, *args, env={**SETTINGS, **env}) as gunicorn:
        wait_until("three workers", lambda: len(gunicorn.worker_pids()) == 3)
        yield gunicorn


def log_in(gunicorn: Gunicorn) -> str:
    answer = gunicorn.get(f"{PATH}?{urlencode({'secret': SECRET})}")
    assert answer.status == 200
    match = re.match("(C2C_SECRET=[^;]+);", answer.headers["set-cookie"])
    assert match
    return match[1]


def statuses(gunicorn: Gunicorn, count: int, headers: dict[str, str]) -> set[int]:
    """Over fresh connections, which go to any worker."""
    return {gunicorn.get(PATH, headers).status for _ in range(count)}


@pytest.fixture(params=["plain", "preload", "redis"])
def gunicorn(request: pytest.FixtureRequest) -> Iterator[Gunicorn]:
    """Workers that share their state through files or Redis, born with or after the application."""
    env = {}
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        env = {"C2C_REDIS_URL": server.url, "C2C_BROADCAST_PREFIX": f"auth_{request.node.name}_"}
    with service(*(["--preload"] if request.param == "preload" else []), **env) as running:
        yield running


def test_who_guesses_is_refused_by_every_worker(gunicorn: Gunicorn) -> None:
    found = log_in(gunicorn)
    seen = [gunicorn.get(PATH, {"X-API-Key": f"guess {number}"}).status for number in range(12)]
    assert seen == [403] * 10 + [429] * 2
    assert statuses(gunicorn, 25, KEY) == {429}
    assert statuses(gunicorn, 10, {"Cookie": found}) == {200}
    assert gunicorn.get(PATH, KEY).headers["retry-after"].isdecimal()


def test_a_logout_counts_in_every_worker(gunicorn: Gunicorn) -> None:
    found, other = log_in(gunicorn), log_in(gunicorn)
    assert statuses(gunicorn, 15, {"Cookie": found}) == {200}
    answer = gunicorn.get("/c2c", {"Cookie": found, **FORM}, method="POST", body=b"secret=")
    assert answer.headers["set-cookie"].startswith("C2C_SECRET=;")
    assert statuses(gunicorn, 25, {"Cookie": found}) == {403}
    assert statuses(gunicorn, 10, {"Cookie": other}) == {200}


def test_a_login_holds_in_every_worker_and_after_a_restart(tmp_path: Any) -> None:
    runtime = str(tmp_path / "run")
    with service(C2C_RUNTIME_DIR=runtime, OTEL_SERVICE_NAME="shop") as gunicorn:
        found, gone = log_in(gunicorn), log_in(gunicorn)
        gunicorn.get("/c2c", {"Cookie": gone, **FORM}, method="POST", body=b"secret=")
        assert statuses(gunicorn, 15, {"Cookie": found}) == {200}
    with service(C2C_RUNTIME_DIR=runtime, OTEL_SERVICE_NAME="shop") as gunicorn:
        assert statuses(gunicorn, 15, {"Cookie": found}) == {200}
        assert statuses(gunicorn, 15, {"Cookie": gone}) == {403}
    changed = {"C2C_RUNTIME_DIR": runtime, "OTEL_SERVICE_NAME": "shop", "C2C_SECRET": "quite another one"}
    with service(**changed) as gunicorn:
        assert statuses(gunicorn, 15, {"Cookie": found}) == {403}


def test_a_reset_reaches_every_worker() -> None:
    with service() as gunicorn:
        for number in range(20):
            gunicorn.get(f"/number/{number}")
        assert b"work/19" in gunicorn.get("/c2c/stats.json").body
        assert gunicorn.get("/c2c/stats.json?reset=1").status == 403
        assert b"work/19" in gunicorn.get("/c2c/stats.json?reset=1", KEY).body
        assert not re.search(rb"work/\d", gunicorn.get("/c2c/stats.json").body)


# -- where the secret must not be -------------------------------------------------------------------------------------


def in_every_way(gunicorn: Gunicorn) -> list[Answer]:
    """The secret as it is documented to be sent, to our views, the application's, one that fails, and nowhere."""
    query = urlencode({"secret": SECRET})
    multipart = f'--x\r\nContent-Disposition: form-data; name="secret"\r\n\r\n{SECRET}\r\n--x--\r\n'.encode()
    url = f"{gunicorn.url}/c2c?{query}"
    answers = []
    for path in (
        PATH,
        "/c2c/debug/error?status=500",
        "/number/1",
        "/job",
        "/nowhere",
        "/c2c",
        "/metrics",
        "/c2c/stats.json",
    ):
        joined = f"{path}{'&' if '?' in path else '?'}"
        answers += [
            gunicorn.get(f"{joined}{query}"),
            gunicorn.get(f"{joined}a=b&%73ecret={quote(SECRET, safe='')}"),
            gunicorn.get(path, KEY),
            gunicorn.get(path, {"Authorization": f"Bearer {SECRET}"}),
            gunicorn.get(path, {"Referer": url, **KEY}),
            gunicorn.get(path, FORM, method="POST", body=query.encode()),
            gunicorn.get(path, {"Content-Type": "multipart/form-data; boundary=x"}, method="POST", body=multipart),
        ]
    answers.append(gunicorn.get("/c2c/stats.json?reset=1", KEY))
    return answers


def forms() -> list[str]:
    return [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        SECRET.replace(" ", "+"),
        urlencode({"": SECRET})[1:],
        "Tr0ub4dor",
    ]


def test_the_secret_is_in_nothing_that_is_written(
    otlp_receiver: OtlpReceiver, udp_sink: UdpSink, tmp_path: Any
) -> None:
    otlp_receiver.clear()
    udp_sink.clear()
    access = tmp_path / "access.log"
    env = {
        "LOG_TYPE": "json",
        "LOG_LEVEL": "DEBUG",
        "STATSD_ADDRESS": udp_sink.address,
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_receiver.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": ".*",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE": ".*",
    }
    with service("--access-logfile", str(access), "--access-logformat", EVERYTHING, **env) as gunicorn:
        answers = in_every_way(gunicorn)
        assert {answer.status for answer in answers} >= {200, 404, 500}
        metrics, stats = gunicorn.get("/metrics").body.decode(), gunicorn.get("/c2c/stats.json").body.decode()
        wait_until("the access log", lambda: len(access.read_text().splitlines()) >= len(answers) + 2)
        otlp_receiver.wait_for(lambda: len(otlp_receiver.spans) >= len(answers))
        gunicorn.stop()
        written = {
            "access log": access.read_text(),
            "stdout": gunicorn.stdout.read_text(),
            "stderr": gunicorn.stderr.read_text(),
            "metrics": metrics,
            "stats.json": stats,
            "statsd": "\n".join(udp_sink.lines()),
            "spans": repr(otlp_receiver.spans),
            "logs": repr(otlp_receiver.logs),
            "answers": "".join(answer.body.decode() + str(answer.headers) for answer in answers),
        }
    for where, text in written.items():
        assert len(text) > 50 or where == "stderr", f"nothing in {where}"
        for form in forms():
            place = text.find(form)
            assert place < 0, f"in {where}: ...{text[max(place - 200, 0) : place + 50]}..."
    assert "secret=***" in written["access log"]
    assert "secret=REDACTED" in written["spans"]


@pytest.mark.parametrize("path", ["/fails", PATH])
def test_gunicorns_own_lines_of_a_failed_request(tmp_path: Any, path: str) -> None:
    """Plain text on stderr: what gunicorn writes where nobody has set up logging."""
    access = tmp_path / "access.log"
    with Gunicorn("tests.apps.auth:main()", "-w", "1", "--access-logfile", str(access), env=SETTINGS) as gunicorn:
        answer = gunicorn.get(f"{path}?{urlencode({'secret': SECRET})}&a=b", KEY)
        assert answer.status == (500 if path == "/fails" else 200)
        line = wait_until("the access log", lambda: access.read_text())
        gunicorn.stop()
        said = gunicorn.stderr.read_text() + gunicorn.stdout.read_text()
    assert f"GET {path}?secret=***&a=b" in line
    if path == "/fails":
        assert "Error handling request GET /fails?secret=***&a=b" in said
        assert "ValueError: the application saw ***" in said
    assert "Tr0ub4dor" not in line + said
