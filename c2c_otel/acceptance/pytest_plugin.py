"""pytest fixtures of the acceptance kit; loaded by pytest itself once c2c-otel is installed.

| fixture | scope | what it is |
|---|---|---|
| ``c2c_base_url`` | session | the service: ``--c2c-base-url``, ``c2c_base_url`` in the ini; override it to start one |
| ``c2c_origin`` | session | the origin of the requests: ``--c2c-origin``, ``c2c_origin`` in the ini |
| ``c2c_connection`` | session | a `Connection` to it, once the service answers |
| ``c2c_images`` | function | compares pictures with those in ``expected`` beside the test's file |

A test that asks for one whose libraries are not there fails with the command that installs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from c2c_otel.acceptance.connection import Connection

__all__ = ["Images", "c2c_base_url", "c2c_connection", "c2c_images", "c2c_origin", "pytest_addoption"]

_ORIGIN = "https://origin.example.com"
_NOT_YET = frozenset({502, 503, 504})  # what proxies answer while the service behind them starts


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("c2c-otel acceptance tests")
    group.addoption("--c2c-base-url", metavar="URL", help="the service under test: fixture c2c_connection")
    group.addoption("--c2c-origin", metavar="ORIGIN", help=f"the Origin of its requests (default: {_ORIGIN})")
    group.addoption(
        "--c2c-generate-images", action="store_true", help="fixture c2c_images writes the expected pictures"
    )
    group.addoption(
        "--c2c-image-results",
        metavar="DIRECTORY",
        help="where c2c_images leaves pictures that differ (default: tmp_path)",
    )
    parser.addini("c2c_base_url", "the service under test, where --c2c-base-url does not say", default="")
    parser.addini("c2c_origin", "the Origin of requests, where --c2c-origin does not say", default=_ORIGIN)


@pytest.fixture(scope="session")
def c2c_base_url(pytestconfig: pytest.Config) -> str:
    """The service under test."""
    url = pytestconfig.getoption("--c2c-base-url") or pytestconfig.getini("c2c_base_url")
    if not url:
        pytest.fail(
            "which service? pytest --c2c-base-url URL, c2c_base_url in the ini, or a fixture c2c_base_url of yours",
            pytrace=False,
        )
    return str(url)


@pytest.fixture(scope="session")
def c2c_origin(pytestconfig: pytest.Config) -> str:
    """The origin of the page that asks."""
    return str(pytestconfig.getoption("--c2c-origin") or pytestconfig.getini("c2c_origin"))


@pytest.fixture(scope="session")
def c2c_connection(c2c_base_url: str, c2c_origin: str) -> Iterator[Connection]:
    """A connection to the service, which has a minute to answer anything but 502, 503 or 504."""
    from c2c_otel.acceptance.connection import CacheExpected, Connection
    from c2c_otel.acceptance.utils import retry_timeout

    there = [status for status in range(100, 600) if status not in _NOT_YET]
    with Connection(c2c_base_url, c2c_origin) as connection:

        def answered() -> bool:
            connection.get_raw("", there, cors=False, cache_expected=CacheExpected.DONT_CARE, timeout=15)
            return True

        retry_timeout(answered)
        yield connection


class Images:
    """``expected`` is the directory of the expected pictures, ``results`` that for those that differ."""

    def __init__(self, expected: Path, results: Path, generate: bool = False) -> None:
        self.expected, self.results, self.generate = expected, results, generate

    def check(self, image: Any, name: str, level: float = 1.0, *, tolerance: int = 0, use_mask: bool = True) -> None:
        """`images.check_image` of a PIL image or of a file's bytes with ``expected/NAME``."""
        from c2c_otel.acceptance.images import check_image

        check_image(self.results, image, self.expected / name, level, self.generate, use_mask, tolerance=tolerance)

    def check_page(
        self,
        page: Any,
        name: str,
        level: float = 1.0,
        *,
        tolerance: int = 0,
        use_mask: bool = True,
        full_page: bool = False,
    ) -> None:
        """`images.check_page` of a playwright page with ``expected/NAME``."""
        from c2c_otel.acceptance.images import check_page

        more: dict[str, Any] = {"tolerance": tolerance, "full_page": full_page}
        check_page(page, self.results, self.expected / name, level, self.generate, use_mask, **more)


@pytest.fixture
def c2c_images(request: pytest.FixtureRequest, pytestconfig: pytest.Config, tmp_path: Path) -> Images:
    """Pictures of the directory ``expected`` beside this test's file."""
    results = pytestconfig.getoption("--c2c-image-results")
    generate = bool(pytestconfig.getoption("--c2c-generate-images"))
    return Images(request.path.parent / "expected", Path(results) if results else tmp_path, generate)
