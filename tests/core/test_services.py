from __future__ import annotations

import json
from typing import Any

import pytest
from pyramid.config import Configurator

from c2c_otel import services
from tests import pyramid_kit as kit

plain = services.create("plain", "/plain")
secure = services.create("secure", "/secure", cors_credentials=True)
picky = services.create(
    "picky", "/picky", cors_origins=("https://shop.example",), cors_max_age=60, renderer="json", http_cache=30
)


@plain.get()
@secure.get()
@picky.get()
def get(request: Any) -> dict[str, Any]:
    return {"é": 1}


@secure.put()
@secure.post()
def change(request: Any) -> None:
    return None


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Any:
    kit.install(monkeypatch)
    config = Configurator()
    config.include("c2c_otel")
    config.scan(__name__)
    return config.make_wsgi_app()


def cors(answer: kit.Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers if name.startswith("Access-Control")}


def test_any_origin_may_read(app: Any) -> None:
    answer = kit.get(app, "/plain", HTTP_ORIGIN="https://a.example")
    assert (answer.status, json.loads(answer.body)) == (200, {"é": 1})
    assert answer.body == '{\n  "é": 1\n}'.encode()
    assert cors(answer)["Access-Control-Allow-Origin"] == "*"
    assert answer.header("Vary") == "Origin"
    assert "no-cache" in (answer.header("Cache-Control") or "")


def test_who_has_credentials_is_named(app: Any) -> None:
    found = cors(kit.get(app, "/secure", HTTP_ORIGIN="https://a.example"))
    assert found["Access-Control-Allow-Origin"] == "https://a.example"
    assert found["Access-Control-Allow-Credentials"] == "true"


def test_a_pre_flight_is_kept_for_a_day(app: Any) -> None:
    asked = {"HTTP_ORIGIN": "https://a.example", "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "PUT"}
    answer = kit.get(app, "/secure", "OPTIONS", HTTP_ACCESS_CONTROL_REQUEST_HEADERS="X-Mine, X-Other", **asked)
    found = cors(answer)
    assert answer.status == 200
    assert found["Access-Control-Allow-Origin"] == "https://a.example"
    assert set(found["Access-Control-Allow-Methods"].split(",")) == {"GET", "HEAD", "PUT", "POST", "OPTIONS"}
    assert set(found["Access-Control-Allow-Headers"].split(",")) == {"X-Mine", "X-Other"}
    assert found["Access-Control-Max-Age"] == "86400"
    assert answer.header("Cache-Control") == "max-age=86400"
    assert answer.header("Pragma") is None and answer.header("Expires") is None
    assert answer.header("Vary") == "Origin"


def test_arguments_replace_the_defaults(app: Any) -> None:
    asked = {"HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET"}
    answer = kit.get(app, "/picky", "OPTIONS", HTTP_ORIGIN="https://shop.example", **asked)
    assert (answer.status, answer.header("Cache-Control")) == (200, "max-age=60")
    refused = kit.get(app, "/picky", "OPTIONS", HTTP_ORIGIN="https://evil.example", **asked)
    assert (refused.status, json.loads(refused.body)["status"]) == (400, "error")
    assert "Access-Control-Allow-Origin" not in cors(refused)
    answer = kit.get(app, "/picky", HTTP_ORIGIN="https://shop.example")
    assert answer.body == b'{\n  "\\u00e9": 1\n}'
    assert answer.header("Cache-Control") == "max-age=30"


def test_a_filter_of_ones_own_goes_on_working(monkeypatch: pytest.MonkeyPatch) -> None:
    kit.install(monkeypatch)
    seen: list[Any] = []

    def note(response: Any, request: Any) -> Any:
        seen.append(request.method)
        return response

    service = services.create("noted", "/noted", filters=note)
    service.add_view("GET", lambda request: {})
    config = Configurator()
    config.include("c2c_otel")
    config.add_cornice_service(service)
    answer = kit.get(config.make_wsgi_app(), "/noted")
    assert (seen, answer.header("Vary")) == (["GET"], "Origin")
