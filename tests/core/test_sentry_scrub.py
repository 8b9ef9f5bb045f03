"""No secret gets through, whatever it stands in; what is none stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel.sentry import scrub
from c2c_otel.sentry.scrub import Scrubber
from c2c_otel_exporters import guard

PLAIN = Scrubber()
KNOWN = Scrubber(["hunter2/pässword", "sesam", "xy"])


@pytest.mark.parametrize(
    "text",
    [
        "password=S3CR3T",
        "password='S3 CR3T'",
        "db_password: S3CR3T, host: x",
        '{"password": "S3CR3T"}',
        '{"passwd":"S3\\"CR3T"}',
        r"{\"password\": \"S3CR3T\"}",
        "{'api_key': 'S3CR3T', 'limit': 3}",
        "{b'token': b'S3CR3T'}",
        "('X-API-Key', 'S3CR3T')",
        "[b'Authorization', b'Bearer S3CR3T']",
        "Settings(base='/c2c', secret='S3CR3T')",
        "secret=SecretStr('S3CR3T')",
        "token=['S3CR3T']",
        "session={'id': 'S3CR3T'}",
        "Cookie: a=S3CR3T; b=S3CR3T",
        "Set-Cookie: sid=S3CR3T; Path=/",
        "Authorization: Basic S3CR3T==",
        "sent 'Bearer S3CR3T' to",
        "got Basic S3CR3TabcDEF==",
        "postgresql+psycopg://me:S3CR3T@db:5432/x",
        "amqp://:S3CR3T@queue",
        "redis://:a/S3CR3T@queue",
        "GET /c2c?secret=S3CR3T&limit=3",
        "GET /c2c?s%65cret=S3CR3T",
        "/login?access_token=S3CR3T#top",
        "https://maps.example.com/api?key=S3CR3T",
        "to=%2Fx%3Ftoken%3DS3CR3T",
        "psql --password S3CR3T",
        "x [SQL: INSERT INTO t VALUES (:a)]\n[parameters: {'a': 'S3CR3T\\nS3CR3T'}]\n(Background on this error at: u)",
        "x\n[parameters: ('S3CR3T',)]",
        "duplicate key\nDETAIL:  Key (email)=(S3CR3T) already exists.",
        "null value\nDETAIL:  Failing row contains (1, S3CR3T).",
        "Command # 1 (SET a S3CR3T) of pipeline caused error",
    ],
)
def test_what_stands_beside_a_name(text: str) -> None:
    clean = PLAIN.text(text)
    assert "S3CR3T" not in clean
    assert "***" in clean
    assert PLAIN.text(clean) == PLAIN.text(PLAIN.text(clean))


@pytest.mark.parametrize(
    "text",
    [
        "no such hello",
        "token is expired",
        "GET /api/hello?limit=3&order=name",
        "https://example.com:8080/a/b?c=d@e#f",
        "key 'name' not found",
        "12 of 13 done: see http://example.com/",
        "(psycopg.OperationalError) connection refused [SQL: SELECT a FROM b]",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert PLAIN.text(text) == text


def test_what_is_around_a_secret_stays() -> None:
    assert PLAIN.text("GET /c2c?secret=x&limit=3") == "GET /c2c?secret=***&limit=3"
    assert PLAIN.text("{'password': 'x', 'user': 'me'}") == "{'password': '***', 'user': 'me'}"
    assert PLAIN.text("redis://me:pw@host/0 is away") == "redis://me:***@host/0 is away"
    assert PLAIN.text("Cookie: a=b\nHost: x") == "Cookie: ***\nHost: x"


def test_known_values() -> None:
    for spelled in (
        "hunter2/pässword",
        "hunter2%2Fp%C3%A4ssword",
        "b'hunter2/p\\xc3\\xa4ssword'",
        "'hunter2/pässword'",
    ):
        clean = KNOWN.text(f"<{spelled}>")
        assert "hunter2" not in clean and "ssword" not in clean
    assert KNOWN.text("a sesam b") == "a *** b"
    assert KNOWN.text("sesamstreet") == "sesamstreet"  # of a short one words alone
    assert KNOWN.text("'xy'") == KNOWN.text("xy") == "***"
    assert KNOWN.text("xyz xy") == "xyz xy"


def test_values_by_their_names() -> None:
    value = {
        "password": 12345678,
        "X-Api-Key": "a",
        "cookies": {"a": "b"},
        "key": "k",
        "code": 3,
        "secret": None,
        "is_token": True,
        "nested": [{"jwt": "a.b.c"}, ["Authorization", "x y"], ("'token'", "'t'"), ["--api-key", "k", "-v"]],
        "user": "me",
    }
    assert PLAIN.value(value) == {
        "password": "***",
        "X-Api-Key": "***",
        "cookies": "***",
        "key": "***",
        "code": 3,
        "secret": None,
        "is_token": True,
        "nested": [{"jwt": "***"}, ["Authorization", "***"], ["'token'", "***"], ["--api-key", "***", "-v"]],
        "user": "me",
    }


def frame(in_app: bool | None) -> dict[str, Any]:
    return {"module": "m", "in_app": in_app, "vars": {"password": "'a'", "other": "'b'"}}


def test_only_the_applications_frames_keep_their_variables() -> None:
    frames = [frame(True), frame(False), frame(None)]
    event = {"exception": {"values": [{"type": "E", "value": "v", "stacktrace": {"frames": frames}}]}}
    clean = PLAIN.event(event)["exception"]["values"][0]["stacktrace"]["frames"]
    assert clean[0]["vars"] == {"password": "***", "other": "'b'"}
    assert [set(found) for found in clean[1:]] == [{"module", "in_app"}] * 2
    assert frames[1]["vars"]  # what was given is as it was


def test_parameters_of_a_message_are_left_out() -> None:
    logentry = {"message": "password %s", "formatted": "password: abc", "params": ["abc"]}
    assert PLAIN.event({"logentry": logentry})["logentry"] == {"message": "password %s", "formatted": "password: ***"}


def test_a_part_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    guard.reset()

    def fails(self: Any, text: str) -> str:
        if "boom" in text:
            raise RecursionError
        return text

    monkeypatch.setattr(Scrubber, "text", fails)
    event = {"extra": {"a": {"b": "boom secret"}}, "level": "error", "_meta": {"extra": {}}}
    assert PLAIN.event(event) == {"level": "error"}
    assert PLAIN.event(event) == {"level": "error"}
    assert guard.tally["failed.sentry.scrub"] == 2
    assert [record.getMessage() for record in caplog.records] == [
        "A part of an event cannot be looked through and is left out: extra"
    ]


def test_secrets_are_found_among_settings() -> None:
    values = {
        "DB": "postgresql://me:p%40ssw0rd@db/x",
        "session.secret": "long enough",
        "AWS_SECRET_ACCESS_KEY": "aws-key",
        "API_KEY": "key",  # too short to be told from a flag
        "TOKEN_FILE": "/run/token",
        "HOME": "/home/secret",
        "secret.number": 3,
    }
    assert set(scrub.secrets_of(values)) == {"p%40ssw0rd", "p@ssw0rd", "long enough", "aws-key"}


SECRET = st.text(st.characters(min_codepoint=33, exclude_characters="&;,)]}'\"\\%#"), min_size=8, max_size=20)
AROUND = st.text(max_size=30)


@given(SECRET, AROUND, AROUND)
def test_a_known_value_never_survives(secret: str, before: str, after: str) -> None:
    scrubber = Scrubber([secret])
    event = {
        "extra": {before: [before + secret + after, {"a": (secret, repr(secret))}]},
        "message": json.dumps({after: secret}),
        secret: 1,
    }
    # a key goes like a text
    assert secret not in json.dumps(scrubber.event(event)["extra"], ensure_ascii=False)
    assert secret not in scrubber.event(event)["message"]


@given(st.sampled_from(["password", "API-Key", "x_token", "Cookie", "authorization"]), SECRET, AROUND, AROUND)
def test_a_pair_in_json_never_survives(name: str, secret: str, before: str, after: str) -> None:
    text = f"{before} {json.dumps({name: secret + 'ZZ', 'a': 1})} {after}"
    assert secret + "ZZ" not in PLAIN.text(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_anything_can_be_looked_through(value: Any) -> None:
    json.dumps(PLAIN.event({"extra": value})["extra"])


def test_a_long_text_takes_no_long_time() -> None:
    for text in ("a" * 200_000, "secret" * 30_000, "'token', " * 20_000, "http://" * 30_000, "[parameters: " * 5_000):
        PLAIN.text(text)  # quadratic, it would take minutes
