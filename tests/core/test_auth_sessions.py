"""The cookie of a login: signed, expiring, revocable; what is not exactly ours is nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from c2c_otel import sessions, shared, throttle
from c2c_otel_exporters import guard
from tests.auth_kit import SECRET, Telemetry, fake
from tests.shared_kit import Clock

__all__ = ["fake"]

SESSION, VALUE = sessions.issue(SECRET, 10**9)


def test_a_login_is_read_back(fake: Telemetry) -> None:
    session, value = sessions.issue(SECRET, 60)
    assert sessions.read(SECRET, value) == session
    assert 58 <= session.expires - time.time() <= 60
    assert len(session.id) == 32


def test_each_login_is_another_one(fake: Telemetry) -> None:
    assert len({sessions.issue(SECRET, 60)[1] for _ in range(20)}) == 20


def test_another_secret_does_not_read_it() -> None:
    assert sessions.read(SECRET + "x", VALUE) is None


def test_it_expires(monkeypatch: Any) -> None:
    clock = Clock()
    monkeypatch.setattr(sessions, "time", clock)
    session, value = sessions.issue(SECRET, 100)
    clock.now += 99
    assert sessions.read(SECRET, value) == session
    clock.now += 1
    assert sessions.read(SECRET, value) is None


@given(st.integers(0, len(VALUE) * 8 - 1))
def test_no_bit_may_be_another(bit: int) -> None:
    found = bytearray(VALUE.encode())
    found[bit // 8] ^= 1 << bit % 8
    assert sessions.read(SECRET, found.decode("latin-1")) is None


@given(st.integers(0, len(VALUE) - 1))
def test_nor_may_it_be_cut(length: int) -> None:
    assert sessions.read(SECRET, VALUE[:length]) is None
    assert sessions.read(SECRET, VALUE[length + 1 :] + VALUE[:length]) is None


@given(st.text(max_size=600))
@example(VALUE + "=")
@example(VALUE + "\n")
@example(" " + VALUE)
@example(VALUE[:20] + "!" + VALUE[20:])
@example("é" * 100)
@example("\x00")
@example("x" * 100_000)
def test_nothing_else_is_a_login(text: str) -> None:
    assert sessions.read(SECRET, text) is None


@pytest.mark.parametrize("key", [SECRET.encode(), hashlib.sha256(SECRET.encode()).digest(), b"", b"c2c-otel login"])
def test_what_is_signed_with_something_guessed_is_no_login(key: bytes) -> None:
    """The signature as it is made, with keys that somebody could think of."""
    content = json.dumps([int(time.time()) + 1000, "0" * 32]).encode()
    for salt in (b"", b"session", b"c2c-otel login"):
        signature = hmac.new(salt + key, content, hashlib.sha256).digest()
        value = base64.urlsafe_b64encode(signature + content).rstrip(b"=").decode()
        assert sessions.read(SECRET, value) is None


def test_the_test_before_makes_cookies_as_they_are() -> None:
    assert base64.urlsafe_b64decode(VALUE + "=" * (-len(VALUE) % 4))[32:] == json.dumps(SESSION).encode()


def test_revoked_everywhere(fake: Telemetry) -> None:
    session, value = sessions.issue(SECRET, 60)
    other, other_value = sessions.issue(SECRET, 60)
    sessions.revoke(session)
    assert sessions.read(SECRET, value) is None
    assert sessions.read(SECRET, other_value) == other
    assert sessions.init().entries() == {session.id: session.expires}
    assert 58 <= sessions.init().seconds_left()[session.id] <= 60


def test_revoked_here_while_the_store_is_away(fake: Telemetry, monkeypatch: Any, caplog: Any) -> None:
    def away() -> Any:
        raise shared.Unavailable("redis://cache is away")

    session, value = sessions.issue(SECRET, 60)
    monkeypatch.setattr(shared, "backend", away)
    sessions.revoke(session)
    assert sessions.read(SECRET, value) is None
    assert caplog.messages == ["A logout is known to this worker alone: redis://cache is away"]
    sessions.revoke(sessions.Session(1, "old"))
    sessions.revoke(sessions.issue(SECRET, 60)[0])
    assert "old" not in sessions._revoked_here and session.id in sessions._revoked_here


def test_without_scrypt(fake: Telemetry, monkeypatch: Any) -> None:
    def unsupported(*args: Any, **kwargs: Any) -> bytes:
        raise ValueError("unsupported")

    sessions._keys.cache_clear()
    monkeypatch.setattr(hashlib, "scrypt", unsupported)
    session, value = sessions.issue(SECRET, 60)
    assert sessions.read(SECRET, value) == session
    assert sessions.read(SECRET, VALUE) is None
    sessions._keys.cache_clear()


def test_a_failure_of_ours_is_not_the_request_s(fake: Telemetry, monkeypatch: Any) -> None:
    monkeypatch.setattr(shared, "find", lambda name: 1 / 0)
    monkeypatch.setattr(throttle, "_count", lambda name: 1 / 0)
    guard.strict(False)
    try:
        sessions.revoke(sessions.issue(SECRET, 60)[0])
        throttle.failed(throttle.Client("x", "x"))
        assert (guard.tally["failed.auth.revoke"], guard.tally["failed.auth.throttle"]) == (1, 1)
    finally:
        guard.strict(None)


def test_the_token_of_a_form(fake: Telemetry) -> None:
    one, other = sessions.issue(SECRET, 60)[0], sessions.issue(SECRET, 60)[0]
    found = {sessions.csrf_token(*args) for args in [(SECRET, one), (SECRET, other), ("another one", one)]}
    assert len(found) == 3 and {len(token) for token in found} == {64}
    assert sessions.csrf_token(SECRET, one) in found
