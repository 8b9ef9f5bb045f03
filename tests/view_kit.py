"""For tests of our protected views: an application that has them, requests with the secret, and what answers say."""

from __future__ import annotations

import io
import itertools
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from pyramid.config import Configurator

from tests import pyramid_kit as kit
from tests.pyramid_kit import Answer

SECRET = "s3cret-of-the-service"

_clients = itertools.count(1)


def address() -> str:
    """Of another client each time: wrong secrets of one client are counted."""
    number = next(_clients)
    return f"198.19.{number // 250 % 250}.{number % 250}"


def make(flag: str, tmp_path: Path, enabled: Any = 1, secret: str | None = SECRET, **more: str) -> Any:
    """An application with the view that ``c2c.{flag}`` enables, whose shared state is in ``tmp_path``."""
    ini = {f"c2c.{flag}": str(enabled), "c2c.runtime_dir": str(tmp_path / "c2c"), **more}
    config = Configurator(settings={**ini, "c2c.secret": secret} if secret else ini)
    config.include("c2c_otel")
    return config.make_wsgi_app()


def call(app: Any, url: str, method: str = "GET", key: str | None = SECRET, form: Any = None, **environ: Any) -> Answer:
    """With the secret as header, unless ``key`` says otherwise."""
    more: dict[str, Any] = {"REMOTE_ADDR": address()}
    if key is not None:
        more["HTTP_X_API_KEY"] = key
    if form is not None:
        body = urlencode(form).encode()
        more |= {
            "wsgi.input": io.BytesIO(body),
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
        }
    return kit.get(app, url, method, **{**more, **environ})


def login(app: Any) -> tuple[str, str]:
    """The cookie of a login, and the token of its forms."""
    answer = kit.get(app, f"/c2c?secret={SECRET}", REMOTE_ADDR=address())
    cookie = (answer.header("Set-Cookie") or "").partition(";")[0]
    page = kit.get(app, "/c2c", HTTP_COOKIE=cookie, REMOTE_ADDR=address()).body.decode()
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"|value="([^"]+)"[^>]*name="csrf_token"', page)
    assert cookie and found, page
    return cookie, found[1] or found[2]


def body(answer: Answer) -> Any:
    """Of a success, which nobody may keep."""
    assert answer.status == 200, answer.body
    assert "no-store" in (answer.header("Cache-Control") or "")
    assert answer.header("Content-Type") == "application/json"
    return json.loads(answer.body)


def message(answer: Answer, status: int) -> str:
    """Of a refusal."""
    assert answer.status == status, answer.body
    found = json.loads(answer.body)
    assert found.keys() == {"message", "status"} and found["status"] == status
    return str(found["message"])
