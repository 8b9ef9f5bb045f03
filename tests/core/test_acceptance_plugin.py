"""The fixtures that pytest finds once c2c-otel is installed."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from tests.acceptance_kit import GOOD, serving

SUITE = """
def test_it(c2c_connection, c2c_origin):
    assert c2c_connection.get_json("") == c2c_origin
"""


def suite(directory: Path, *options: str, code: str = SUITE, ini: str = "") -> str:
    (directory / "test_suite.py").write_text(code)
    (directory / "pytest.ini").write_text(f"[pytest]\n{ini}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-config", *options]
    return subprocess.run(
        command, cwd=directory, env=dict(os.environ), capture_output=True, text=True, timeout=60
    ).stdout


def test_it_is_published() -> None:
    points = importlib.metadata.distribution("c2c-otel").entry_points
    found = {point.name: point.value for point in points if point.group == "pytest11"}
    assert found == {"c2c_otel": "c2c_otel.pytest_plugin", "c2c_otel_acceptance": "c2c_otel.acceptance.pytest_plugin"}


def test_the_service_is_that_of_the_command_line(tmp_path: Path) -> None:
    with serving() as fake:
        statuses = iter([(503, {}, b""), (302, {**GOOD, "Location": "/x"}, b"")])  # starting, then there
        last = (200, GOOD, b'"https://origin.example.com"')
        fake.answers["/"] = lambda asked: next(statuses, last)
        said = suite(tmp_path, "--c2c-base-url", fake.url, ini="c2c_base_url = http://127.0.0.1:9/\n")
        assert "1 passed" in said, said
        assert [asked.path for asked in fake.asked] == ["/", "/", "/x", "/"]


def test_the_service_is_that_of_the_ini(tmp_path: Path) -> None:
    with serving() as fake:
        fake.answers["/"] = (200, GOOD, b'"https://shop.example.com"')
        ini = f"c2c_base_url = {fake.url}\nc2c_origin = https://shop.example.com\n"
        assert "1 passed" in suite(tmp_path, ini=ini)
        fake.answers["/"] = (200, GOOD, b'"https://other.example.com"')
        assert "1 passed" in suite(tmp_path, "--c2c-origin=https://other.example.com", ini=ini)
        assert fake.asked[-1].headers["Origin"] == "https://other.example.com"


def test_the_service_is_one_that_the_tests_start(tmp_path: Path) -> None:
    with serving() as fake:
        fake.answers["/"] = (200, GOOD, b'"https://origin.example.com"')
        own = "import pytest\n\n@pytest.fixture(scope='session')\ndef c2c_base_url():\n    return {!r}\n"
        assert "1 passed" in suite(tmp_path, code=own.format(fake.url) + SUITE)


def test_no_service_is_an_error_and_not_a_skip(tmp_path: Path) -> None:
    said = suite(tmp_path)
    assert "1 error" in said
    assert "which service? pytest --c2c-base-url URL, c2c_base_url in the ini, or a fixture c2c_base_url" in said


def test_the_options_are_explained(tmp_path: Path) -> None:
    said = " ".join(suite(tmp_path, "--help").split())
    for name in ("--c2c-base-url=URL", "--c2c-origin=ORIGIN", "--c2c-generate-images", "--c2c-image-results=DIRECTORY"):
        assert name in said
    assert "c2c_base_url (string)" in said


def test_the_fixtures_are_explained(tmp_path: Path) -> None:
    said = suite(tmp_path, "--fixtures")
    for name in ("c2c_base_url [session scope]", "c2c_connection [session scope]", "c2c_images", "c2c_origin"):
        assert name in said
    assert "no docstring available" not in said
