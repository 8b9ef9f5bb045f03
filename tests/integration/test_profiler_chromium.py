"""The profiler as an operator uses it: by the browser, from the configured path to the picture of a slow request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.core.test_profiler_export import check_speedscope
from tests.integration.test_profiler_workers import ENV, SECRET
from tests.integration.worker_kit import GTHREAD, send
from tests.servers import Chromium, Gunicorn

if TYPE_CHECKING:
    from playwright.sync_api import Page

APP = "tests.apps.profiler:main()"


@pytest.fixture(scope="module")
def service() -> Iterator[Gunicorn]:
    with Gunicorn(APP, "-w", "2", *GTHREAD, env=ENV) as gunicorn:
        gunicorn.wait_for_workers(2)
        yield gunicorn


@pytest.fixture
def page(service: Gunicorn, chromium: Chromium) -> Iterator[Page]:
    """Logged in; afterwards nothing was complained of, and nobody else was asked for anything."""
    with chromium.page(1280, 900) as page:
        page.set_default_timeout(15_000)
        complaints: list[str] = []
        asked: list[str] = []
        page.goto(f"{service.url}/c2c")
        page.fill("input[name=secret]", SECRET)
        page.keyboard.press("Enter")
        page.wait_for_selector("text=Log out")
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        yield page
        assert complaints == []
        assert {url for url in asked if not url.startswith((f"{service.url}/", "data:"))} == set()


def test_from_the_path_to_a_slow_request(service: Gunicorn, page: Page, tmp_path: Path) -> None:
    page.goto(f"{service.url}/__profiler")
    assert page.url == f"{service.url}/c2c/profiler"
    page.get_by_label("For seconds").fill("120")
    page.get_by_label("Only paths that begin with").fill("/b")
    page.get_by_role("button", name="Switch on").click()
    page.wait_for_selector("text=On in 2 of 2 workers.")
    send(service, range(6), "/busy?ms=80", threads=1)
    service.get("/quick")
    page.goto(f"{service.url}/c2c/profiler?sort=started")
    rows = page.locator("tbody tr")
    assert rows.count() == 6
    page.click("text=Duration")
    assert page.url.endswith("?sort=seconds")

    page.click("text=GET /busy >> nth=0")
    assert page.title() == "GET /busy"
    _look(page)
    page.screenshot(path=tmp_path / "request.png", full_page=True)
    assert (tmp_path / "request.png").stat().st_size > 20_000
    with page.expect_download() as download:
        page.click("text=Download for speedscope")
    assert download.value.suggested_filename.endswith(".speedscope.json")
    check_speedscope(json.loads(Path(download.value.path()).read_text()))

    page.click("text=Profiler")
    page.click("text=All 6 together")
    assert page.inner_text("h1") == "All requests"
    page.go_back()
    page.get_by_role("button", name="Delete", exact=True).first.click()
    page.wait_for_selector("text=All 5 together")
    page.get_by_role("button", name="Delete all").click()
    page.wait_for_selector("text=None was followed yet.")
    page.get_by_role("button", name="Switch off").click()
    page.wait_for_selector("text=Switch on")


def _look(page: Page) -> None:
    """What is on the page is where it is seen."""
    pie = page.locator("svg.pie").bounding_box()
    assert pie is not None and 200 < pie["width"] < 300
    assert page.locator("svg.pie path").count() >= 2
    widths = {}
    for box in page.locator("svg.flame g").all():
        name = (box.locator("title").text_content() or "").partition("\n")[0]
        found = box.locator("rect").bounding_box()
        assert found is not None and found["width"] > 0
        widths[name] = max(widths.get(name, 0), found["width"])
    assert widths["hot"] > 300 and widths["Beta.warm"] > 150
    colour = page.locator("svg.pie .k0").first.evaluate("one => getComputedStyle(one).fill")
    assert colour == "rgb(242, 166, 90)"  # the page's own style is the one that its policy lets in
    folded = page.locator(".tree details:not([open]) > summary").first
    inside = page.locator(".tree details:not([open]) .row").first
    assert not inside.is_visible()
    folded.click()
    assert inside.is_visible() or page.locator(".tree details[open]").count() > 1
    assert page.locator(".tree b", has_text="Beta.warm").is_visible()
    page.set_viewport_size({"width": 420, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 420, "the page is wider than the screen"
    page.set_viewport_size({"width": 1280, "height": 900})
