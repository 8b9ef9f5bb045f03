"""`PrintConnection` against a small MapFish Print server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from c2c_otel.acceptance.print import PrintConnection
from tests.acceptance_kit import GOOD, JSON, NO_CACHE, OPEN, Answer, Asked, Fake, serving

KEPT = {**OPEN, **JSON, "Cache-Control": "max-age=3600"}
PDF = b"%PDF-1.7\n..."
A4 = {"layout": "A4", "attributes": {"title": "Tour"}}


class PrintServer:
    """The applications default and tours; a report is done at the third look."""

    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.ordered: list[Any] = []
        self.states: list[dict[str, Any]] = [
            {"done": False, "status": "waiting"},
            {"done": False, "status": "running"},
            {"done": True, "status": "finished", "downloadURL": "/print/report/r1@0"},
        ]
        self.report: Answer = (200, {**NO_CACHE, **OPEN, "Content-Type": "application/pdf"}, PDF)
        example = {"A4 portrait": json.dumps(A4), "A3": A4}
        fake.answers = {
            "/print/apps.json": self.json(["default", "tours"], KEPT),
            "/print/tours/capabilities.json": self.json({"app": "tours", "layouts": [{"name": "A4"}]}, KEPT),
            "/print/tours/exampleRequest.json": self.json(example, KEPT),
            "/print/tours/report.pdf": self.order,
            "/print/status/r1@0.json": self.state,
            "/print/report/r1@0": lambda asked: self.report,
        }

    @staticmethod
    def json(value: Any, headers: dict[str, str] = GOOD) -> Answer:
        return 200, headers, json.dumps(value).encode()

    def order(self, asked: Asked) -> Answer:
        assert asked.method == "POST"
        self.ordered.append(json.loads(asked.body))
        return self.json({"ref": "r1@0", "statusURL": "/print/status/r1@0.json"})

    def state(self, asked: Asked) -> Answer:
        return self.json(self.states.pop(0) if len(self.states) > 1 else self.states[0])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PrintServer]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with serving() as fake:
        yield PrintServer(fake)


@pytest.fixture
def printer(server: PrintServer) -> Iterator[PrintConnection]:
    with PrintConnection(f"{server.fake.url}print", "https://tours.example.com") as printer:
        yield printer


def test_what_there_is_to_print(printer: PrintConnection, server: PrintServer) -> None:
    assert printer.get_apps() == ["default", "tours"]
    assert printer.get_capabilities("tours")["layouts"] == [{"name": "A4"}]
    assert printer.get_example_requests("tours") == {"A4 portrait": A4, "A3": A4}
    sent = server.fake.asked[0].headers
    assert (sent["Origin"], sent["Referer"]) == ("https://tours.example.com",) * 2


def test_a_report_is_waited_for(printer: PrintConnection, server: PrintServer) -> None:
    assert printer.get_pdf("tours", A4).content == PDF
    assert server.ordered == [A4]
    paths = [asked.path.removeprefix("/print/") for asked in server.fake.asked]
    assert paths == ["tours/report.pdf", *["status/r1@0.json"] * 3, "report/r1@0"]


def test_a_report_that_fails_is_not_waited_for(printer: PrintConnection, server: PrintServer) -> None:
    server.states = [{"done": True, "status": "error", "error": "no such layer"}]
    with pytest.raises(AssertionError, match=r"^tours: report r1@0 is error: no such layer$"):
        printer.get_pdf("tours", A4)
    assert len(server.fake.asked) == 2


def test_a_report_that_is_never_done(printer: PrintConnection, server: PrintServer) -> None:
    del server.states[1:]
    with pytest.raises(AssertionError, match=r"^Timeout: report r1@0 is waiting$"):
        printer.get_pdf("tours", A4, timeout=0)


@pytest.mark.parametrize(
    ("kind", "body"), [("text/html", PDF), ("application/pdf", b"<html>"), ("application/pdf", b"")]
)
def test_a_report_that_is_no_pdf(printer: PrintConnection, server: PrintServer, kind: str, body: bytes) -> None:
    server.report = (200, {**NO_CACHE, **OPEN, "Content-Type": kind}, body)
    with pytest.raises(AssertionError, match=f"^tours: report r1@0 is no PDF but '{kind}'"):
        printer.get_pdf("tours", A4)


def test_an_order_that_is_refused(printer: PrintConnection) -> None:
    with pytest.raises(AssertionError, match=r"POST .*/print/other/report.pdf: 404"):
        printer.get_pdf("other", A4)


def test_wait_until_it_is_ready(printer: PrintConnection, server: PrintServer) -> None:
    ready = server.fake.answers["/print/tours/capabilities.json"]
    answers: Iterator[Any] = iter([(503, GOOD, b"starting"), (404, GOOD, b"starting"), ready])
    server.fake.answers["/print/tours/capabilities.json"] = lambda asked: next(answers)
    printer.wait_ready(app="tours")
    assert next(answers, None) is None
    with pytest.raises(AssertionError, match=r"^Timeout: GET .*/print/default/capabilities.json: 404"):
        printer.wait_ready(timeout=0)
