"""Chromium, driven by playwright. ``playwright install`` downloads a browser; Debian's needs no download of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers.find import Program, cache, find
from tests.servers.process import has_been_used

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["Chromium", "chromium"]

_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


class Chromium:
    """``with Chromium().page() as page: page.goto(url)``; the browser lives as long as the page."""

    name = "Chromium"

    def __init__(self) -> None:
        """Raises Unavailable."""
        program = find(
            "chromium",
            packages=["chromium", "fonts-liberation"],
            places=["usr/lib/chromium/chromium", "/usr/bin/google-chrome"],
        )
        self._program = _unpacked(program) if program.root else program
        self.executable = self._program.path
        done = subprocess.run(
            [self.executable, "--version"],
            capture_output=True,
            text=True,
            check=True,
            env=self._program.environ(),
            timeout=60,
        )
        self.version = done.stdout.split("hromium ", 1)[-1].split()[0]
        has_been_used(self.name, self.version)

    @contextmanager
    def page(self, width: int = 1280, height: int = 900) -> Iterator[Page]:
        """A page in a browser of its own; about a second."""
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(self.executable), args=list(_ARGS), env=dict(self._program.environ())
            )
            try:
                yield browser.new_page(viewport={"width": width, "height": height})
            finally:
                browser.close()

    def screenshot(self, url: str, path: Path | str, width: int = 1280, height: int = 900) -> None:
        """The whole page as a PNG."""
        with self.page(width, height) as page:
            page.goto(url)
            page.screenshot(path=str(path), full_page=True)


def _unpacked(program: Program) -> Program:
    """Unpacked packages: the program itself instead of its start script, and fontconfig that knows their fonts."""
    root = program.root
    assert root is not None
    conf = cache() / "fonts.conf"
    conf.write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">\n<fontconfig>'
        f"<dir>{root}/usr/share/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{cache()}/fonts</cachedir>"
        "</fontconfig>\n"
    )
    return Program(root / "usr/lib/chromium/chromium", root, {**program.env, "FONTCONFIG_FILE": str(conf)})


def chromium() -> Path:
    """The browser's executable. Raises Unavailable."""
    return Chromium().executable
