"""The first command of the README as its user meets it: what ``make run`` starts, prints and leaves behind."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from c2c_otel.acceptance.connection import CacheExpected, Connection
from c2c_otel.acceptance.images import check_image_file
from tests.integration.collectors_demo import counted
from tests.servers import Chromium, Process, wait_until

ROOT = Path(__file__).resolve().parents[1]

ORIGIN = "https://origin.example.com"

ASKED_FOR = "RuntimeError: asked for"
"""The last line of the traceback of /api/error."""


class Demo:
    """``python -m acceptance_tests.run`` and what it has printed."""

    def __init__(self, directory: Path) -> None:
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("C2C_", "OTEL_", "STATSD_"))}
        environ |= {"TMPDIR": str(directory), "HOME": str(directory)}
        self.directory = directory
        argv = [sys.executable, "-m", "acceptance_tests.run"]
        self.process = Process(argv, directory / "printed", env=environ, cwd=ROOT)
        self.process.wait_until("Ctrl-C stops.", lambda: "Ctrl-C stops." in self.process.output(), 60)
        self.url = re.findall(r"http://127\.0\.0\.1:\d+", self.process.output())[0]
        (self.secret,) = re.findall(r"/c2c\?secret=(\S+)", self.process.output())
        self.stranger = self.visitor()

    def visitor(self) -> Connection:
        """One with cookies of its own, whose every request may be another worker's."""
        visitor = Connection(self.url, ORIGIN, timeout=30, cors=False, cache_expected=CacheExpected.DONT_CARE)
        visitor.session.headers["Connection"] = "close"
        return visitor

    def get(self, path: str) -> str:
        """A page that is there for everybody."""
        page = self.stranger.get(path)
        assert page is not None
        return page

    def descendants(self) -> set[int]:
        """The processes that it has started, by their environment: whatever their parent or session is now."""
        found = set()
        mark = f"TMPDIR={self.directory}\0".encode()
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environ.read_bytes():
                    found.add(int(environ.parent.name))
            except OSError:
                pass
        return found - {self.process.pid}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    demo = Demo(tmp_path_factory.mktemp("run"))
    yield demo
    demo.process.stop(signal.SIGINT, timeout=40)


def test_every_url_that_is_printed_answers(demo: Demo) -> None:
    printed = demo.process.output()
    urls = re.findall(r"http://\S+", printed)
    assert len(urls) >= 6
    for url in urls:
        if "Listening" not in url:
            assert demo.visitor().get(url.rstrip(")"))
    assert re.findall(r"^.*(?:Traceback|ERROR|WARN).*$", printed, re.M) == []


def test_the_pages_link_to_what_is_there(demo: Demo) -> None:
    for page in ("/", "/c2c"):
        links = re.findall(r'<a href="([^"]*)"', demo.get(page))
        assert links
        for link in links:
            demo.stranger.get(link, 500 if link == "/api/error" else 200)


def test_the_printed_secret_opens_what_is_closed_without_it(demo: Demo) -> None:
    assert len(demo.secret) >= 16
    operator = demo.visitor()
    page = operator.get(f"/c2c?secret={demo.secret}", cache_expected=CacheExpected.NO)
    assert page is not None
    closed = set(re.findall(r'(?:href|action)="(/c2c/[^"]*)"', page)) - set(
        re.findall(r'(?:href|action)="([^"]*)"', demo.get("/c2c"))
    )
    assert {"/c2c/logging/level", "/c2c/db/maintenance", "/c2c/sql_profiler", "/c2c/debug/headers"} <= closed
    for who in (operator, demo.stranger):  # whom the page has let in, and whom nothing has
        status = 200 if who is operator else 403
        level = who.get_json("/c2c/logging/level", status, cache_expected=CacheExpected.NO)
        assert level["status"] == status
    for path in closed:
        demo.stranger.get(path, 403)
    assert demo.process.output().count(demo.secret) == 1


def test_the_health_checks_of_all_levels_succeed(demo: Demo) -> None:
    body = demo.stranger.get_json("/c2c/health_check?max_level=3", cache_expected=CacheExpected.NO)
    assert (body["status"], body["failures"]) == (200, {})
    levels = {name: check["level"] for name, check in body["successes"].items()}
    (alembic,) = [name for name in levels if name.startswith("alembic_")]
    assert alembic.endswith("_acceptance_tests_app_alembic.ini_alembic")
    assert levels == {"db_engine_sqlalchemy": 1, "disk": 2, alembic: 3}
    assert body["successes"][alembic]["result"] == "0b1e5a7c9d24"
    assert body["successes"]["disk"]["result"]["free_mib"] > 0
    for probe in ("live", "ready", "startup"):
        assert demo.stranger.get_json(f"/c2c/health_check/{probe}")["status"] == 200


def test_statsd_lines_are_shown_as_they_arrive(demo: Demo) -> None:
    demo.get("/api/hello/1")
    shown = r"^  statsd  demo\.route\.GET\.hello_one\.200:\d+\|ms$"
    demo.process.wait_until("the line", lambda: re.search(shown, demo.process.output(), re.M))
    lines = re.findall(r"^  statsd  (\S+):[^:]*$", demo.process.output(), re.M)
    assert "demo.order.items" in lines
    assert len(lines) == len(set(lines))


def test_the_printed_commands_show_what_they_say(demo: Demo) -> None:
    commands = re.findall(r"^  curl (\S+) (http\S+) +(.*)$", demo.process.output(), re.M)
    assert [what for _, _, what in commands] == [
        "X-Request-ID and Server-Timing in the answer",
        "an outgoing call, with the same request id",
    ]
    (flags, url, _), (_, call, _) = commands
    answer = demo.stranger.get_raw(url)
    assert answer.headers["X-Request-ID"]
    assert answer.headers["Server-Timing"].startswith("route;desc=hello, ")
    assert flags == "-si"
    answer = demo.stranger.get_raw(call)
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    assert demo.stranger.get_json(call, headers={"X-Request-ID": "from-outside"})["request_id"] == "from-outside"


def test_a_hello_is_added_once(demo: Demo) -> None:
    added = demo.stranger.post_json("/api/hello", json={"value": "you"})
    assert added["value"] == "you"
    assert demo.stranger.get_json(f"/api/hello/{added['id']}") == added
    assert added in demo.stranger.get_json("/api/hello")
    demo.stranger.get("/api/hello/none", 404)
    demo.stranger.post("/api/hello", 400, data="no JSON")
    demo.stranger.delete("/api/hello", (404, 405))


def test_errors_are_json(demo: Demo) -> None:
    for path, status, message in (
        ("/api/error", 500, "asked for"),
        ("/api/hello/none", 404, "no hello none"),
        ("/nowhere", 404, "/nowhere"),
    ):
        answer = demo.stranger.get_raw(path, status, cors=True, cache_expected=CacheExpected.NO)
        found = answer.json()
        assert found == {"message": message, "status": status, "request_id": answer.headers["X-Request-ID"]}
        found = demo.stranger.get_json(path, status, headers={"X-API-Key": demo.secret})
        assert ("stacktrace" in found) == (status == 500)
    problem = demo.stranger.get_raw("/api/error", 500, headers={"Accept": "application/problem+json"})
    assert problem.headers["Content-Type"] == "application/problem+json"
    assert problem.json()["detail"] == "asked for"


def test_a_greeting_that_is_there_already_is_the_clients_fault(demo: Demo) -> None:
    again = demo.stranger.post_json("/api/hello", 400, json={"value": "world"})
    assert again["message"] == "UNIQUE constraint failed: hello.value"


def test_pages_of_other_origins_may_call_the_services(demo: Demo) -> None:
    answer = demo.stranger.get_raw("/api/greetings", cors=True, cache_expected=CacheExpected.NO)
    assert "¡world!" in answer.json()["greetings"]
    assert "¡world!".encode() in answer.content  # as it is, not escaped
    asked = demo.stranger.options(
        "/api/greetings",
        cors=True,
        cache_expected=CacheExpected.YES,
        headers={"Access-Control-Request-Method": "GET"},
    )
    assert "GET" in asked.headers["Access-Control-Allow-Methods"]


def test_who_asks_behind_a_proxy(demo: Demo) -> None:
    assert demo.stranger.get_json("/api/who")["client"] == "127.0.0.1"
    headers = {"Forwarded": "for=192.0.2.7;host=shop.example;proto=https"}
    found = demo.stranger.get_json("/api/who", headers=headers)
    assert (found["client"], found["url"]) == ("192.0.2.7", "https://shop.example/api/who")


def test_what_is_added_is_in_the_audit_table(demo: Demo) -> None:
    ids = [demo.stranger.post_json("/api/hello", json={"value": f"audited {number}"})["id"] for number in range(3)]
    expected = {("INFO", f"hello {id_} was added") for id_ in ids}

    def written() -> bool:
        return expected <= {(row["level"], row["msg"]) for row in demo.stranger.get_json("/api/audit")}

    wait_until("the rows", written)


def test_while_the_database_is_read_only(demo: Demo) -> None:
    def switch(readonly: str) -> None:
        demo.stranger.post_json("/c2c/db/maintenance", headers={"X-API-Key": demo.secret}, data={"readonly": readonly})

    switch("true")
    try:
        refused = requests.post(f"{demo.url}/api/hello", json={"value": "later"}, timeout=30)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "30")
        assert "read-only" in refused.json()["message"]
        assert demo.stranger.get_json("/api/hello")
    finally:
        switch("false")
    assert demo.stranger.post_json("/api/hello", json={"value": "later"})


def test_ten_scrapes_in_a_row_show_no_counter_that_fell(demo: Demo) -> None:
    before: dict[str, float] = {}
    for _ in range(10):
        demo.get("/api/hello")
        text = demo.get("/metrics")
        now = counted(text)
        assert len(now) > 50
        assert {name: (value, now.get(name)) for name, value in before.items() if now.get(name, -1.0) < value} == {}
        before = now


def test_the_memory_of_all_processes_is_shown(demo: Demo) -> None:
    def shown() -> set[int] | None:
        pids = set(map(int, re.findall(r'pod_process_smap_pss_kb\{[^}]*pid="(\d+)"', demo.get("/metrics"))))
        return pids if len(pids) == 5 else None  # four workers and their arbiter; published once a second

    assert wait_until("five processes", shown) <= demo.descendants()


def test_pages_in_a_browser(demo: Demo, chromium: Chromium, tmp_path: Path) -> None:
    shots = Path(os.environ.get("C2C_TEST_SCREENSHOTS") or tmp_path)
    with chromium.page(1000, 700) as page:
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        for name, path in {
            "home": "/",
            "c2c": "/c2c",
            "c2c-slash": "/c2c/",
            "all": f"/c2c?secret={demo.secret}",
        }.items():
            answer = page.goto(demo.url + path)
            assert answer is not None
            assert answer.status == 200
            assert page.title()
            assert page.inner_text("h1")
            page.screenshot(path=shots / f"{name}.png", full_page=True)
            assert (shots / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        check_image_file(tmp_path / "differs", shots / "c2c-slash.png", shots / "c2c.png")
        assert complaints == []
        page.click("text=Metrics")  # plain text, for which a browser asks in vain for an icon
        assert "http_server_request_duration_seconds_count" in page.inner_text("body")


def test_it_takes_the_next_free_port_beside_another(demo: Demo, tmp_path: Path) -> None:
    other = Demo(tmp_path)
    try:
        assert other.url != demo.url
        assert other.secret != demo.secret
        assert int(other.url.rpartition(":")[2]) > int(demo.url.rpartition(":")[2])
    finally:
        other.process.stop(signal.SIGTERM, timeout=40)
    wait_until("the end", lambda: not other.descendants())
    assert demo.get("/api/hello")


def test_ctrl_c_leaves_nothing(demo: Demo) -> None:
    started = demo.descendants()
    assert len(started) >= 5
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(40) == 0
    wait_until("the end of all it has started", lambda: not demo.descendants())
    with pytest.raises(OSError):
        demo.get("/")
    assert sorted(path.name for path in demo.directory.iterdir() if path.name != "printed") == []
    printed = demo.process.output()
    assert "stopping" in printed
    assert set(re.findall(r"^\w+(?:\.\w+)*(?:Error|Exception|Warning)\b.*$", printed, re.M)) <= {ASKED_FOR}
    assert printed.count("Traceback") == printed.count(ASKED_FOR)
