"""{base}/db/maintenance: what it answers, to whom, and what it leaves alone."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from c2c_otel import db_maintenance, shared
from c2c_otel.shared_files import FileBackend
from tests import pyramid_kit as kit
from tests import view_kit
from tests.pyramid_kit import Answer
from tests.shared_kit import FakeBroadcast, forget, network, process, settings
from tests.view_kit import SECRET, body

__all__ = ["network", "process", "settings"]

PATH = "/c2c/db/maintenance"


@pytest.fixture
def app(process: FakeBroadcast, tmp_path: Path) -> Iterator[Any]:
    yield make(tmp_path)
    forget()
    assert not db_maintenance.is_readonly()
    kit.assert_left_nothing()


@pytest.fixture
def login(app: Any) -> tuple[str, str]:
    return view_kit.login(app)


def make(tmp_path: Path, enabled: Any = 1, secret: str | None = SECRET) -> Any:
    return view_kit.make("db_maintenance_view_enabled", tmp_path, enabled, secret)


def call(app: Any, query: str = "", method: str = "GET", key: str | None = SECRET, **more: Any) -> Answer:
    return view_kit.call(app, f"{PATH}{query}", method, key, **more)


def test_what_the_contract_says(app: Any, process: FakeBroadcast) -> None:
    assert body(call(app)) == {"status": 200, "current_readonly": None}
    assert body(call(app, "?readonly=true")) == {"status": 200, "readonly": True}
    assert db_maintenance.is_readonly()
    assert body(call(app)) == {"status": 200, "current_readonly": True}
    assert body(call(app, "?readonly=False")) == {"status": 200, "readonly": False}
    assert not db_maintenance.is_readonly()
    assert body(call(app)) == {"status": 200, "current_readonly": False}
    assert len(process.sent) == 2


def test_with_the_secret_as_a_parameter(app: Any) -> None:
    assert body(call(app, f"?readonly=1&secret={SECRET}", key=None)) == {"status": 200, "readonly": True}


def test_by_post(app: Any) -> None:
    form = {"wsgi.input": io.BytesIO(b"readonly=on"), "CONTENT_LENGTH": "11"}
    answer = call(app, "", "POST", CONTENT_TYPE="application/x-www-form-urlencoded", **form)
    assert body(answer) == {"status": 200, "readonly": True}
    assert db_maintenance.is_readonly()


def test_another_application_in_the_same_process_shows_the_same(app: Any, tmp_path: Path) -> None:
    call(app, "?readonly=true")
    assert body(call(make(tmp_path))) == {"status": 200, "current_readonly": True}


@pytest.mark.parametrize("value", ["", "maybe", "truee", "2", "null", "%00", "true&readonly=false", "x" * 9000])
def test_what_is_no_boolean_is_a_400_and_nothing_is_stored(app: Any, process: FakeBroadcast, value: str) -> None:
    answer = call(app, f"?readonly={value}")
    assert answer.status == 400
    said = json.loads(answer.body)["message"]
    assert said.startswith("readonly is ") and "expected one of 1, true, yes, on, 0, false, no, off" in said
    assert body(call(app)) == {"status": 200, "current_readonly": None}
    assert process.sent == []


@pytest.mark.parametrize("key", [None, "wrong"])
@pytest.mark.parametrize("query", ["", "?readonly=true", "?readonly=maybe"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_nothing_without_the_secret(app: Any, process: FakeBroadcast, key: Any, query: str, method: str) -> None:
    assert call(app, query, method, key).status == 403
    assert process.sent == []


def test_the_cookie_alone_looks_but_changes_nothing(app: Any, process: FakeBroadcast, login: tuple[str, str]) -> None:
    cookie, token = login

    def post(form: bytes) -> Answer:
        kind = "application/x-www-form-urlencoded"
        length = str(len(form))
        sent = {"wsgi.input": io.BytesIO(form), "CONTENT_LENGTH": length, "CONTENT_TYPE": kind}
        return call(app, "", "POST", None, HTTP_COOKIE=cookie, **sent)

    assert body(call(app, "", key=None, HTTP_COOKIE=cookie)) == {"status": 200, "current_readonly": None}
    assert call(app, f"?readonly=true&csrf_token={token}", key=None, HTTP_COOKIE=cookie).status == 403
    assert post(b"readonly=true").status == 403
    assert (process.sent, db_maintenance.is_readonly()) == ([], False)
    assert body(post(f"readonly=true&csrf_token={token}".encode())) == {"status": 200, "readonly": True}


@pytest.mark.parametrize(("enabled", "secret"), [(0, SECRET), (1, None)])
def test_only_where_it_is_on_and_there_is_a_secret(
    process: FakeBroadcast, tmp_path: Path, enabled: int, secret: str | None
) -> None:
    assert call(make(tmp_path, enabled, secret), "?readonly=true").status == 404
    assert shared.find("db_maintenance") is None


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_other_methods(app: Any, method: str) -> None:
    answer = call(app, "?readonly=true", method)
    assert (answer.status, answer.header("Allow")) == (405, "GET, HEAD, POST")
    assert not db_maintenance.is_readonly()


def test_a_change_is_logged_as_critical(app: Any, caplog: Any) -> None:
    call(app, "?readonly=true", REMOTE_ADDR="198.19.2.3")
    said = [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"]
    assert said == ["Databases read-only: None -> True, by 198.19.2.3 (X-API-Key)"]
    assert SECRET not in caplog.text


def test_who_did_not_answer_is_named(app: Any, process: FakeBroadcast) -> None:
    process.missing = ("here/7",)
    assert body(call(app, "?readonly=true")) == {"status": 200, "readonly": True, "missing": ["here/7"]}


def test_a_store_that_is_away(app: Any, process: FakeBroadcast, monkeypatch: Any) -> None:
    def away(*args: Any) -> Any:
        raise shared.Unavailable("The store is away.")

    for name in ("read", "write"):
        monkeypatch.setattr(FileBackend, name, away)
    for query in ("", "?readonly=true"):
        answer = call(app, query)
        assert (answer.status, json.loads(answer.body)) == (503, {"message": "The store is away.", "status": 503})
    assert process.sent == []
    assert not db_maintenance.is_readonly()
