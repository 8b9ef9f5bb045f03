"""``c2c-otel-test-print`` with a server that behaves as MapFish Print does, and with others."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from c2c_otel.commands import test_print as command
from tests.servers.process import free_port


class Mapfish:
    """``answers``: what is different from a server that works, by path; bytes as they are, else (status, JSON)."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.waits = 2

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        self.requests.append((method, path, headers, body))
        if path in self.answers:
            status, content = self.answers[path]
            return status, "application/json", content if isinstance(content, bytes) else json.dumps(content).encode()
        if path.startswith("/print/status/"):
            self.waits -= 1
            return self._json({"done": self.waits < 0, "status": "running" if self.waits >= 0 else "finished"})
        if path.startswith("/print/report/"):
            return 200, "application/pdf", b"%PDF-1.4 " + path.encode()
        found: dict[str, Any] = {
            "/print/apps.json": ["default", "city map", "parcels"],
            "/print/city%20map/capabilities.json": {"layouts": []},
            "/print/city%20map/exampleRequest.json": {"a4": json.dumps({"layout": "A4"}), "a3": '{"layout": "A3"}'},
            "/print/parcels/capabilities.json": {"layouts": []},
            "/print/parcels/exampleRequest.json": {"one": json.dumps({"parcel": 1})},
            "/print/city%20map/report.pdf": {"ref": "r/1"},
            "/print/parcels/report.pdf": {"ref": "r2"},
        }
        return self._json(found[path]) if path in found else (404, "text/plain", b"no such thing")

    @staticmethod
    def _json(value: Any) -> tuple[int, str, bytes]:
        return 200, "application/json", json.dumps(value).encode()


@pytest.fixture
def mapfish() -> Iterator[tuple[Mapfish, str]]:
    fake = Mapfish()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, kind, content = fake.answer(self.command, self.path, headers, self.rfile.read(length))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield fake, f"http://127.0.0.1:{server.server_port}/print"
    server.shutdown()
    thread.join(5)
    server.server_close()


def call(url: str, *words: str) -> int:
    return command.main(["--url", url, "--timeout", "1", *words])


def test_each_example_of_each_application_is_printed(
    mapfish: tuple[Mapfish, str], capsys: pytest.CaptureFixture[str]
) -> None:
    fake, url = mapfish
    assert call(url, "--referer", "https://maps.example.com") == 0
    said = capsys.readouterr()
    first = len(b"%PDF-1.4 /print/report/r%2F1")
    second = len(b"%PDF-1.4 /print/report/r2")
    assert said.out.splitlines() == [
        f"city map: a4: {first} bytes",
        f"city map: a3: {first} bytes",
        f"parcels: one: {second} bytes",
    ]
    assert said.err == ""
    posted = [(path, json.loads(body)) for method, path, _, body in fake.requests if method == "POST"]
    assert posted == [
        ("/print/city%20map/report.pdf", {"layout": "A4"}),
        ("/print/city%20map/report.pdf", {"layout": "A3"}),
        ("/print/parcels/report.pdf", {"parcel": 1}),
    ]
    assert {headers["referer"] for _, _, headers, _ in fake.requests} == {"https://maps.example.com"}
    assert sum(path == "/print/status/r%2F1.json" for _, path, _, _ in fake.requests) == 3 + 1, "until it is done"


def test_one_application_and_verbose(mapfish: tuple[Mapfish, str], capsys: pytest.CaptureFixture[str]) -> None:
    fake, url = mapfish
    assert call(f"{url}/", "--app", "parcels", "--verbose") == 0
    said = capsys.readouterr()
    assert said.out.count("bytes") == 1
    assert '"layouts": []' in said.err and '"parcel": 1' in said.err
    assert all("city" not in path and "apps" not in path for _, path, _, _ in fake.requests)
    assert {headers["referer"] for _, _, headers, _ in fake.requests} == {f"{url}/"}


@pytest.mark.parametrize(
    ("path", "answer", "message"),
    [
        ("/print/apps.json", (500, {"a": 1}), '/print/apps.json answered 500: {"a": 1}'),
        ("/print/apps.json", (200, b"<html>"), "/print/apps.json answered no JSON: '<html>'"),
        ("/print/apps.json", (200, []), "has no application"),
        ("/print/parcels/capabilities.json", (503, "x"), "parcels: http://{host}/print/parcels/capabilities.json answ"),
        ("/print/parcels/exampleRequest.json", (200, {}), "parcels: there is no example"),
        ("/print/parcels/exampleRequest.json", (200, ["x"]), "parcels: exampleRequest.json is not what MapFish Print"),
        ("/print/parcels/exampleRequest.json", (200, {"a": "{"}), "parcels: exampleRequest.json is not what MapFish"),
        ("/print/parcels/report.pdf", (200, {"error": "x"}), "parcels: one: report.pdf answered without a ref"),
        ("/print/status/r2.json", (200, {"done": True, "status": "error", "error": "no map"}), "as error: no map"),
        ("/print/status/r2.json", (200, {"done": False}), "parcels: one: not ready after 1 s"),
        ("/print/report/r2", (200, {"no": "pdf"}), "parcels: one: the report is no PDF: application/json, 13 bytes"),
    ],
)
def test_what_fails_is_named_and_the_others_are_printed(
    mapfish: tuple[Mapfish, str], capsys: pytest.CaptureFixture[str], path: str, answer: Any, message: str
) -> None:
    fake, url = mapfish
    fake.answers[path] = answer
    assert call(url) == 1
    said = capsys.readouterr()
    assert message.replace("{host}", url.split("/")[2]) in said.err, said.err
    assert said.out.count("city map: ") == (0 if path.endswith("apps.json") else 2)


def test_a_server_that_is_away_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert call(f"http://127.0.0.1:{port}/print") == 1
    assert f"http://127.0.0.1:{port}/print/apps.json cannot be reached: " in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--url", "ftp://x"], ["--url", "file:///etc/passwd"]])
def test_a_usage_error_is_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
