"""The servers of `tests/` for the acceptance tests, accounted for alike."""

from __future__ import annotations

from tests.servers.account import account_for
from tests.servers.fixtures import chromium

__all__ = ["chromium", "pytest_configure"]

pytest_configure = account_for
