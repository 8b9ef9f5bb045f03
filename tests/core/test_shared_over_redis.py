"""Topics in a real Redis: chosen by the settings, away and back."""

from __future__ import annotations

from typing import Any

import pytest

from c2c_otel import log_levels, shared
from c2c_otel.settings import Settings
from c2c_otel.shared_redis import RedisBackend
from tests import pyramid_kit, servers
from tests.servers.fixtures import running
from tests.shared_kit import Clock, FakeBroadcast, clock, network, process, settings

__all__ = ["clock", "network", "process", "settings"]


def use(monkeypatch: Any, server: servers.Redis, prefix: str) -> None:
    made = Settings.load({"C2C_REDIS_URL": server.url, "C2C_BROADCAST_PREFIX": prefix})
    pyramid_kit.install(monkeypatch, made)


def test_two_services_on_one_redis_keep_theirs_apart(
    process: FakeBroadcast, redis_server: servers.Redis, monkeypatch: Any
) -> None:
    redis_server.flush()
    use(monkeypatch, redis_server, "one_")
    assert isinstance(shared.backend(), RedisBackend)
    topic = shared.Topic("levels", lambda entries: None)
    assert topic.set("a", {"level": 10}).before is None
    assert topic.set("b", 1, seconds=60).before is None
    assert topic.set("a", 2).before == {"level": 10}
    assert topic.entries() == {"a": 2, "b": 1}
    assert 0 < topic.seconds_left()["b"] <= 60
    use(monkeypatch, redis_server, "two_")
    assert topic.entries() == {}
    assert topic.delete("a").before is None
    use(monkeypatch, redis_server, "one_")
    assert topic.delete("a").before == 2
    assert topic.entries() == {"b": 1}
    assert {params == {} for _, params in process.sent} == {True}


def test_redis_goes_away_and_comes_back(process: FakeBroadcast, clock: Clock, monkeypatch: Any, caplog: Any) -> None:
    with running(servers.Redis()) as server:
        use(monkeypatch, server, "one_")
        clock.now = 4e9  # later than the clock of this Redis, so that it keeps what expires by ours
        log_levels.set("shop.redis", "DEBUG", seconds=100)
        log_levels.set("shop.other", "DEBUG")
        topic = log_levels.init()
        server.kill()
        with pytest.raises(shared.Unavailable):
            log_levels.set("shop.redis", "ERROR")
        clock.now += 99
        topic.tick()
        assert log_levels.get("shop.redis").level == "DEBUG"
        clock.now += 1
        topic.tick()
        assert log_levels.get("shop.redis").level == "NOTSET"
        assert log_levels.get("shop.other").level == "DEBUG"
        server.restart()
        shared.backend().write("log_levels", "shop.redis", {"value": {"level": 40, "name": "ERROR"}, "expires": None})
        clock.now += 30
        topic.tick()
        assert log_levels.get("shop.redis").level == "ERROR"
        assert log_levels.get("shop.other").level == "NOTSET"  # this Redis has forgotten it
