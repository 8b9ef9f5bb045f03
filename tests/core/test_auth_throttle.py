"""Who tries wrong secrets too often is refused, whatever is tried next; others are not."""

from __future__ import annotations

from typing import Any

import pytest

from c2c_otel import shared, throttle
from c2c_otel.shared_memory import MemoryBackend
from tests.auth_kit import SECRET, Telemetry, fake, log_in, make, post
from tests.pyramid_kit import get
from tests.shared_kit import Clock

__all__ = ["fake"]

PATH = "/c2c/debug/headers"


@pytest.fixture
def clock(monkeypatch: Any) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throttle, "time", clock)
    monkeypatch.setattr("c2c_otel.shared.time", clock)
    monkeypatch.setattr("c2c_otel.shared_memory.time", clock)
    return clock


def tries(app: Any, count: int, **more: Any) -> list[int]:
    return [get(app, PATH, HTTP_X_API_KEY=f"wrong {number}", **more).status for number in range(count)]


def test_the_tenth_is_the_last_one(fake: Telemetry, clock: Clock, caplog: Any) -> None:
    app = make()
    assert tries(app, 12) == [403] * 10 + [429] * 2
    answer = get(app, PATH, HTTP_X_API_KEY="wrong")
    assert answer.header("Retry-After") == "60"
    assert b'"status": 429' in answer.body and b"try again in 60 seconds" in answer.body
    assert answer.header("Referrer-Policy") == "no-referrer"
    lines = [record.getMessage() for record in caplog.records if record.name == "c2c_otel.auth"]
    assert lines[:10] == [f"A wrong secret (X-API-Key) from 192.0.2.1: GET {PATH}"] * 10
    assert lines[10:] == ["Too many wrong secrets from 192.0.2.1: no secret is taken from there for 60 seconds"]


def test_then_no_secret_is_taken_but_a_login_stays(fake: Telemetry, clock: Clock) -> None:
    app = make()
    found = log_in(app)
    tries(app, 10)
    assert get(app, PATH, HTTP_X_API_KEY=SECRET).status == 429
    assert get(app, f"{PATH}?secret={SECRET.replace(' ', '+')}").status == 429
    assert get(app, PATH, HTTP_AUTHORIZATION=f"Bearer {SECRET}").status == 429
    assert post(app, "/c2c/stats.json", {"secret": SECRET, "reset": "1"}).status == 429
    assert get(app, PATH).status == 403
    assert get(app, PATH, HTTP_COOKIE=found).status == 200
    assert get(app, "/c2c/stats.json").status == 200


def test_others_are_not_refused(fake: Telemetry, clock: Clock) -> None:
    app = make()
    tries(app, 10, REMOTE_ADDR="203.0.113.5")
    assert get(app, PATH, HTTP_X_API_KEY=SECRET, REMOTE_ADDR="203.0.113.5").status == 429
    assert get(app, PATH, HTTP_X_API_KEY=SECRET, REMOTE_ADDR="203.0.113.6").status == 200


def test_after_a_while_it_may_try_again(fake: Telemetry, clock: Clock) -> None:
    app = make()
    tries(app, 10)
    clock.now += 59
    answer = get(app, PATH, HTTP_X_API_KEY=SECRET)
    assert (answer.status, answer.header("Retry-After")) == (429, "1")
    clock.now += 2
    assert get(app, PATH, HTTP_X_API_KEY=SECRET).status == 200
    assert tries(app, 11) == [403] * 10 + [429]


def test_few_tries_are_forgotten(fake: Telemetry, clock: Clock) -> None:
    app = make()
    for _ in range(5):
        assert tries(app, 9) == [403] * 9
        clock.now += 61


def test_each_way_counts_and_each_request_once(fake: Telemetry, clock: Clock) -> None:
    app = make()
    for _ in range(3):
        assert get(app, f"{PATH}?secret=wrong&secret=wrong+too").status == 403
        assert get(app, PATH, HTTP_AUTHORIZATION="Bearer wrong").status == 403
        assert post(app, "/c2c/stats.json", {"secret": "wrong", "reset": "1"}).status == 403
    assert tries(app, 2) == [403, 429]


def test_what_is_no_try_does_not_count(fake: Telemetry, clock: Clock) -> None:
    app = make()
    for _ in range(15):
        assert get(app, PATH).status == 403
        assert get(app, PATH, HTTP_COOKIE="C2C_SECRET=forged").status == 403
        assert get(app, f"{PATH}?secret=").status == 403
        assert get(app, PATH, HTTP_X_API_KEY=SECRET).status == 200


def test_inventing_addresses_does_not_help(fake: Telemetry, clock: Clock) -> None:
    """203.0.113.9 is no proxy that is trusted."""
    app = make()
    for number in range(10):
        tries(app, 1, REMOTE_ADDR="203.0.113.9", HTTP_X_FORWARDED_FOR=f"198.51.100.{number}")
    assert tries(app, 1, REMOTE_ADDR="203.0.113.9", HTTP_X_FORWARDED_FOR="198.51.100.99") == [429]


def test_behind_a_trusted_proxy_clients_are_told_apart(fake: Telemetry, clock: Clock) -> None:
    app = make()
    tries(app, 10, REMOTE_ADDR="127.0.0.1", HTTP_X_FORWARDED_FOR="203.0.113.5")
    proxied = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_API_KEY": SECRET}
    assert get(app, PATH, HTTP_X_FORWARDED_FOR="203.0.113.5", **proxied).status == 429
    assert get(app, PATH, HTTP_X_FORWARDED_FOR="203.0.113.6", **proxied).status == 200


@pytest.mark.parametrize(
    ("address", "shown", "name"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::1", "fe80::/64"),
        ("", "a local socket", "local"),
        ("\nwww", "a local socket", "local"),
    ],
)
def test_names_of_clients(address: str, shown: str, name: str) -> None:
    assert throttle.client({"REMOTE_ADDR": address}) == (shown, name)


def test_while_the_store_is_away_each_worker_counts(fake: Telemetry, clock: Clock, monkeypatch: Any) -> None:
    class Away(MemoryBackend):
        def count(self, *args: Any) -> int:
            raise shared.Unavailable("away")

        def read(self, *args: Any) -> Any:
            raise shared.Unavailable("away")

        def write(self, *args: Any) -> Any:
            raise shared.Unavailable("away")

    monkeypatch.setattr(shared, "backend", Away)
    app = make()
    assert tries(app, 11) == [403] * 10 + [429]
    assert get(app, PATH, HTTP_X_API_KEY=SECRET, REMOTE_ADDR="203.0.113.6").status == 200
    clock.now += 61
    assert tries(app, 11) == [403] * 10 + [429]


def test_what_a_worker_counts_by_itself_is_bounded(fake: Telemetry, monkeypatch: Any) -> None:
    def away() -> Any:
        raise shared.Unavailable("away")

    monkeypatch.setattr(shared, "backend", away)
    monkeypatch.setattr(throttle, "_MOST", 20)
    for number in range(100):
        throttle.failed(throttle.Client("x", f"client {number}"))
    assert list(throttle._counted_here) == [f"client {number}" for number in range(80, 100)]


def test_another_worker_has_seen_the_tries(fake: Telemetry, clock: Clock) -> None:
    app = make()
    throttle.init().set("192.0.2.1", clock.now + 30, 30)
    answer = get(app, PATH, HTTP_X_API_KEY=SECRET)
    assert (answer.status, answer.header("Retry-After")) == (429, "30")
    throttle.init().set("192.0.2.1", "nonsense")
    assert get(app, PATH, HTTP_X_API_KEY=SECRET).status == 200
