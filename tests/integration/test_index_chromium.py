"""The page of our views as an operator uses it: a browser logs in, changes a level in all workers, and logs out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.collectors_demo import demo
from tests.servers import Chromium, Gunicorn, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

SECRET = "only-for-this-test"
VIEWS = (
    "C2C_LOG_VIEW_ENABLED",
    "C2C_DB_MAINTENANCE_VIEW_ENABLED",
    "C2C_SQL_PROFILER_ENABLED",
    "C2C_DEBUG_VIEW_ENABLED",
)
WORKERS = 3


_ASKED_FOR = re.compile(r"status of [45]\d\d|failed: .*/debug/sleep\?")
"""Errors that a test provokes; and an answer without content, after which the page stays."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    directory = tmp_path_factory.mktemp("index")
    env = {"C2C_SECRET": SECRET, "STATS_VIEW": "1", "OTEL_SERVICE_NAME": "The shop <&>", **dict.fromkeys(VIEWS, "1")}
    log = ("--access-logfile", "-")
    with demo("-w", str(WORKERS), "--threads", "4", *log, sqlite=directory, env=env) as gunicorn:
        yield gunicorn


@pytest.fixture
def browser(service: Gunicorn, chromium: Chromium) -> Iterator[Page]:
    """On the index; afterwards nothing was complained of, and nobody else was asked for anything."""
    with chromium.page(1000, 800) as page:
        page.set_default_timeout(15_000)
        complaints: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{service.url}/c2c")
        yield page
        assert [text for text in complaints if not _ASKED_FOR.search(text)] == []
        assert {url for url in asked if not url.startswith((f"{service.url}/", "data:"))} == set()


def log_in(page: Page) -> None:
    page.fill("input[name=secret]", SECRET)
    page.click("text=Log in >> visible=true >> nth=-1")
    page.wait_for_selector("text=Log out")


def effective(service: Gunicorn, name: str) -> list[str]:
    """What as many answers as reach every worker say of a logger's level."""
    said = []
    for _ in range(8 * WORKERS):
        body = json.loads(service.get(f"/c2c/logging/level?name={name}", headers={"X-API-Key": SECRET}).body)
        said.append(body["effective_level"])
    return said


def set_level(page: Page, name: str, level: str) -> Any:
    """Through the form; the JSON that comes."""
    form = page.locator("form", has=page.get_by_role("button", name="Set level"))
    form.get_by_label("Logger").fill(name)
    form.get_by_label("Level").select_option(level)
    form.get_by_role("button", name="Set level").click()
    return json.loads(page.inner_text("body"))


def test_log_in_change_a_level_in_all_workers_and_log_out(service: Gunicorn, browser: Page) -> None:
    page = browser
    assert page.title() == "The shop <&>"
    assert page.get_by_role("button", name="Set level").count() == 0
    log_in(page)
    assert page.url == f"{service.url}/c2c"
    assert SECRET not in page.content()
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] in ("Lax", "Strict") and cookie["path"] == "/c2c"

    answer = set_level(page, "acceptance_tests", "ERROR")
    assert (answer["status"], answer["name"], answer["level"]) == (200, "acceptance_tests", "ERROR")
    assert set(effective(service, "acceptance_tests")) == {"ERROR"}
    page.go_back()
    assert page.title() == "The shop <&>"
    form = page.locator("form", has=page.get_by_role("button", name="Reset", exact=True)).last
    form.get_by_label("Logger").fill("acceptance_tests")
    form.get_by_role("button").click()
    assert json.loads(page.inner_text("body"))["status"] == 200
    assert set(effective(service, "acceptance_tests")) == {"INFO"}

    page.goto(f"{service.url}/c2c")
    page.click("text=Log out")
    page.wait_for_selector("input[name=secret][type=password]")
    assert page.context.cookies() == []
    answer = page.goto(f"{service.url}/c2c/logging/level")
    assert answer is not None and answer.status == 403


def test_a_page_that_was_left_open_changes_nothing_after_the_logout(service: Gunicorn, browser: Page) -> None:
    log_in(browser)
    (cookie,) = browser.context.cookies()
    headers = {"Cookie": f"{cookie['name']}={cookie['value']}", "Content-Type": "application/x-www-form-urlencoded"}
    assert service.get("/c2c", headers, method="POST", body=b"secret=").status == 303
    assert set_level(browser, "acceptance_tests.left", "CRITICAL")["status"] == 403
    assert set(effective(service, "acceptance_tests.left")) == {"INFO"}


def test_a_form_of_another_site_changes_nothing(service: Gunicorn, browser: Page) -> None:
    log_in(browser)
    browser.goto("about:blank")
    browser.set_content(
        f'<form id="f" method="post" action="{service.url}/c2c/logging/level">'
        '<input name="name" value="acceptance_tests.other"><input name="level" value="CRITICAL"></form>'
    )
    browser.evaluate("document.getElementById('f').submit()")
    browser.wait_for_url(f"{service.url}/c2c/logging/level")
    assert json.loads(browser.inner_text("body"))["status"] == 403
    assert set(effective(service, "acceptance_tests.other")) == {"INFO"}


def test_a_wrong_secret_is_said_and_is_not_kept(service: Gunicorn, browser: Page) -> None:
    browser.fill("input[name=secret]", "wrong-but-typed")
    browser.keyboard.press("Enter")
    browser.wait_for_selector("[role=alert]")
    assert browser.inner_text("[role=alert]") == "That is not the secret."
    assert browser.input_value("input[name=secret]") == ""
    assert browser.context.cookies() == []


def test_every_get_form_is_answered(service: Gunicorn, browser: Page) -> None:
    """As it stands there: what is left blank is not an error, but for what is required."""
    log_in(browser)
    forms = browser.locator("form[method=get]")
    statuses = {}
    for place in range(forms.count()):
        form = forms.nth(place)
        for field in form.locator("input[required]").all():
            if not field.input_value():
                field.fill({"name": "root", "path": "/api/hello"}[field.get_attribute("name") or ""])
        action = form.get_attribute("action") or ""
        if action.endswith("show_refs.dot"):
            continue  # needs a type
        with browser.expect_response(re.compile(re.escape(action))) as answer:
            form.locator("button").click()
        statuses[action] = answer.value.status
        browser.wait_for_load_state()
        browser.goto(f"{service.url}/c2c")
    assert {"/c2c/logging/level": 200, "/c2c/debug/sleep": 204, "/c2c/debug/error": 500}.items() <= statuses.items()
    assert {action: status for action, status in statuses.items() if status not in (200, 204)} == {
        "/c2c/debug/error": 500
    }


def test_the_keyboard_alone_reaches_everything(browser: Page) -> None:
    log_in(browser)
    there = browser.locator("a, button, select, input:not([type=hidden]):not([hidden])").count()
    assert there > 15
    reached = set()
    for _ in range(there):
        browser.keyboard.press("Tab")
        reached.add(
            browser.evaluate(
                "[...document.querySelectorAll('a, button, select, input')].indexOf(document.activeElement)"
            )
        )
        assert browser.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert len(reached) == there and -1 not in reached


@pytest.mark.parametrize(("width", "scheme"), [(1000, "dark"), (360, "light")])
def test_it_fits_and_has_its_colours(browser: Page, tmp_path: Path, width: int, scheme: Any) -> None:
    shots = Path(os.environ.get("C2C_TEST_SCREENSHOTS") or tmp_path)
    browser.emulate_media(color_scheme=scheme)
    browser.set_viewport_size({"width": width, "height": 800})
    for name in ("anonymous", "logged-in"):
        if name == "logged-in":
            log_in(browser)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        back = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", back))) > 380) is (scheme == "light")
        browser.screenshot(path=shots / f"index-{name}-{scheme}-{width}.png", full_page=True)


def test_the_secret_is_in_no_log(service: Gunicorn, browser: Page) -> None:
    browser.goto(f"{service.url}/c2c?secret={SECRET}")
    browser.wait_for_selector("text=Log out")
    browser.click("text=Headers")
    assert json.loads(browser.inner_text("body"))["client_info"]["path"] == "/c2c/debug/headers"
    assert SECRET not in browser.inner_text("body")
    wait_until("the access log", lambda: "/c2c/debug/headers" in service.stdout.read_text())
    assert SECRET not in service.stdout.read_text() + service.stderr.read_text()
