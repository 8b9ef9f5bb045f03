"""For tests of logins: requests as a server makes them, against an application with our views; a state of their own."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from pyramid.config import Configurator

from c2c_otel import sessions, shared, shared_watch, throttle
from c2c_otel.shared_memory import MemoryBackend
from c2c_otel_exporters import masking
from tests.pyramid_kit import Answer, FakeTelemetry, assert_left_nothing, get
from tests.shared_kit import FakeBroadcast

SECRET = "correct horse battery staple"

_addresses = itertools.count(1)


class Scraper:
    """Counts the resets of stats.json."""

    def __init__(self) -> None:
        self.resets = 0

    def reset_stats(self) -> None:
        self.resets += 1


class Telemetry(FakeTelemetry):
    def __init__(self) -> None:
        super().__init__()
        self.parts: Any = type("Parts", (), {"scraper": Scraper(), "captured": False})()

    def families(self) -> tuple[list[Any], list[str]]:
        return [], []

    def render(self, accept: str) -> tuple[str, bytes]:
        return "text/plain; version=0.0.4; charset=utf-8", b"up 1\n"


@pytest.fixture
def fake(monkeypatch: Any) -> Iterator[Telemetry]:
    """A telemetry that remembers; a store in memory, and nobody logged out or refused."""
    fake = Telemetry()
    fake.put_in_place(monkeypatch)
    store = MemoryBackend()
    monkeypatch.setattr(shared, "backend", lambda: store)
    monkeypatch.setattr(shared, "_topics", {})
    for module in (shared, shared_watch):
        monkeypatch.setattr(module, "broadcast", FakeBroadcast())
    forget()
    yield fake
    forget()
    assert_left_nothing()


def forget() -> None:
    for kept in (sessions._revoked_here, throttle._refused_here, throttle._counted_here):
        kept.clear()
    sessions._apply({})
    throttle._apply({})
    masking._forget()


def make(configure: Any = None, include_prefix: str | None = None, **settings: Any) -> Any:
    """An application with our views, and the secret unless it is given as None."""
    settings = {"secret": SECRET, "stats_view": 1, "debug_view_enabled": 1, **settings}
    config = Configurator(settings={f"c2c.{name}": str(value) for name, value in settings.items() if value is not None})
    config.include("c2c_otel", route_prefix=include_prefix)
    if configure is not None:
        configure(config)
    return config.make_wsgi_app()


def post(app: Any, path: str, fields: Any = (), **more: Any) -> Answer:
    """A form as browsers send it: a mapping or pairs."""
    body = fields if isinstance(fields, bytes) else urlencode(fields).encode()
    more.setdefault("CONTENT_TYPE", "application/x-www-form-urlencoded")
    return get(app, path, "POST", CONTENT_LENGTH=str(len(body)), **{"wsgi.input": io.BytesIO(body)}, **more)


def multipart(fields: dict[str, str]) -> tuple[bytes, str]:
    """Body and content type."""
    parts = [f'--xyz\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    return ("".join(parts) + "--xyz--\r\n").encode(), "multipart/form-data; boundary=xyz"


def cookie(answer: Answer) -> str | None:
    """What the answer sets C2C_SECRET to; "" where it takes it away; None where it says nothing of it."""
    found = [value for value in answer.all("Set-Cookie") if value.startswith("C2C_SECRET=")]
    assert len(found) < 2, found
    return re.match(r"C2C_SECRET=([^;]*)", found[0])[1] if found else None  # type: ignore[index] # it matches


def attributes(answer: Answer) -> set[str]:
    """Of the cookie that the answer sets, without its value."""
    (found,) = (value for value in answer.all("Set-Cookie") if value.startswith("C2C_SECRET="))
    return set(found.split("; ")[1:])


def log_in(app: Any, **more: Any) -> str:
    """A Cookie header."""
    value = cookie(get(app, f"/c2c/debug/headers?{urlencode({'secret': SECRET})}", **more))
    assert value
    return f"C2C_SECRET={value}"


def other_address() -> str:
    """A client that nobody has counted yet."""
    return f"198.51.100.{next(_addresses)}"
