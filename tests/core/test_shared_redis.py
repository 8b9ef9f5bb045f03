"""Shared state in a real Redis: atomic, bounded in time, and deaf to what somebody else has put there."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from c2c_otel import bounded, redis_clients
from c2c_otel.settings import Settings
from c2c_otel.shared import Unavailable
from c2c_otel.shared_redis import RedisBackend
from tests import servers
from tests.servers.fixtures import running

PREFIX = "test_shared_"


def of(server: servers.Redis, prefix: str = PREFIX, **environ: str) -> RedisBackend:
    return RedisBackend(Settings.load({"C2C_REDIS_URL": server.url, "C2C_BROADCAST_PREFIX": prefix, **environ}))


@pytest.fixture
def backend(redis_server: servers.Redis) -> RedisBackend:
    redis_server.flush()
    return of(redis_server)


@pytest.fixture
def own_redis() -> Iterator[servers.Redis]:
    with running(servers.Redis()) as server:
        yield server


def entry(value: Any, expires: float | None = None) -> dict[str, Any]:
    return {"value": value, "expires": expires}


def test_what_is_written_is_read_and_returned_by_the_next_write(backend: RedisBackend) -> None:
    assert backend.read("levels") == {}
    assert backend.write("levels", "a.b", entry("DEBUG")) is None
    assert backend.write("levels", "c", entry({"deep": [1, None]}, 5e9)) is None
    assert backend.write("levels", "a.b", entry("INFO")) == entry("DEBUG")
    assert backend.read("levels") == {"a.b": entry("INFO"), "c": entry({"deep": [1, None]}, 5e9)}
    assert backend.write("levels", "a.b", None) == entry("INFO")
    assert backend.write("levels", "a.b", None) is None
    assert backend.read("levels") == {"c": entry({"deep": [1, None]}, 5e9)}
    assert backend.read("other") == {}


JSON = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=5)


@how(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.text(min_size=1), JSON)
def test_any_name_and_value_comes_back(backend: RedisBackend, name: str, value: Any) -> None:
    name = name.encode(errors="replace").decode()
    backend.write("any", name, entry(value))
    assert backend.read("any")[name] == entry(value)
    assert backend.write("any", name, None) == entry(value)


def test_services_with_other_prefixes_do_not_see_each_other(redis_server: servers.Redis) -> None:
    one, two = of(redis_server, "one_"), of(redis_server, "two_")
    one.write("levels", "a", entry("DEBUG"))
    one.count("tries", "a", 60)
    assert two.read("levels") == {}
    assert two.count("tries", "a", 60) == 1
    assert redis_server.command("HGET", "one_state:levels", "a") == json.dumps(entry("DEBUG"))


def test_writers_at_the_same_time_each_see_another_before(backend: RedisBackend) -> None:
    with ThreadPoolExecutor(4) as pool:
        before = list(pool.map(lambda number: backend.write("race", "x", entry(number)), range(60)))
    last = backend.read("race")["x"]
    seen = [one["value"] for one in (*before, last) if one is not None]
    assert sorted(seen) == list(range(60))


def test_counters_are_exact_and_forgotten_after_their_first_count(
    backend: RedisBackend, redis_server: servers.Redis
) -> None:
    assert backend.count("tries", "me", 60, 0) == 0
    with ThreadPoolExecutor(4) as pool:
        totals = list(pool.map(lambda _: backend.count("tries", "me", 60), range(40)))
    assert sorted(totals) == list(range(1, 41))
    assert backend.count("tries", "me", 9999, 0) == 40
    assert 0 < int(str(redis_server.command("TTL", f"{PREFIX}count:tries:me"))) <= 60
    assert backend.count("tries", "brief", 0.02) == 1
    servers.wait_until("the end", lambda: backend.count("tries", "brief", 0.02, 0) == 0)
    assert backend.count("tries", "brief", 60, 5) == 5
    assert backend.count("tries", "brief", 60, -2) == 3


def test_what_somebody_else_has_put_there_is_ignored_and_said(
    backend: RedisBackend, redis_server: servers.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    backend.write("levels", "good", entry(1))
    foreign = {
        "a": "{",
        "b": "5",
        "c": '{"x":1}',
        "d": '{"value":1,"expires":"soon"}',
        "e": "[" * 9999,
        b"\xff": b"\xff",
    }
    with redis.Redis.from_url(redis_server.url) as client:
        client.hset(f"{PREFIX}state:levels", mapping=foreign)
    assert backend.read("levels") == {"good": entry(1)}
    assert backend.write("levels", "a", entry(2)) is None
    assert backend.read("levels") == {"good": entry(1), "a": entry(2)}
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"In {redis_server.url}, {PREFIX}state:levels has what c2c-otel has not written: ignored."
    ]


def test_a_key_of_another_type(backend: RedisBackend, redis_server: servers.Redis) -> None:
    redis_server.command("SET", f"{PREFIX}state:levels", "x")
    redis_server.command("LPUSH", f"{PREFIX}count:tries:me", "x")
    redis_server.command("SET", f"{PREFIX}count:tries:you", "many")
    assert backend.read("levels") == {}
    with pytest.raises(Unavailable, match="test_shared_state:levels is no hash"):
        backend.write("levels", "a", entry(1))
    assert redis_server.command("GET", f"{PREFIX}state:levels") == "x"
    assert backend.count("tries", "me", 60) == 1
    assert backend.count("tries", "you", 60, 0) == 0


def test_entries_that_expired_long_ago_are_removed_by_the_next_write(
    backend: RedisBackend, redis_server: servers.Redis
) -> None:
    now = time.time()
    backend.write("levels", "old", entry(1, now - 100_000))
    backend.write("levels", "recent", entry(2, now - 1))
    backend.write("levels", "living", entry(3, now + 100))
    redis_server.command("HSET", f"{PREFIX}state:levels", "foreign", "{")
    backend.write("levels", "new", entry(4))
    fields = redis_server.command("HKEYS", f"{PREFIX}state:levels")
    assert isinstance(fields, list)
    assert sorted(fields) == ["foreign", "living", "new", "recent"]


def test_options_that_decode_answers_do_no_harm(redis_server: servers.Redis) -> None:
    backend = of(redis_server, C2C_REDIS_OPTIONS="decode_responses=true,protocol=3")
    backend.write("decoded", "a", entry("é"))
    assert backend.read("decoded")["a"] == entry("é")
    assert backend.write("decoded", "a", None) == entry("é")


def test_no_redis_is_unavailable_and_it_heals(own_redis: servers.Redis) -> None:
    backend = of(own_redis)
    backend.write("levels", "a", entry(1))
    own_redis.kill()
    for call in (
        lambda: backend.read("levels"),
        lambda: backend.write("levels", "a", None),
        lambda: backend.count("t", "n", 1),
    ):
        with pytest.raises(Unavailable, match=own_redis.url):
            call()
    own_redis.restart()
    assert backend.read("levels") == {}
    assert backend.count("t", "n", 1) == 1


def test_a_wrong_password_is_unavailable_and_not_told(redis_server: servers.Redis) -> None:
    url = redis_server.url.replace("//", "//:hush@")
    with pytest.raises(Unavailable) as caught:
        RedisBackend(Settings.load({"C2C_REDIS_URL": url})).read("levels")
    assert "hush" not in str(caught.value)


def test_a_stopped_redis_is_unavailable_and_does_not_carry_it_out_later(own_redis: servers.Redis) -> None:
    backend = of(own_redis)
    backend.write("levels", "a", entry("before"))
    backend.read("levels")
    own_redis.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            backend.write("levels", "a", entry("after"))
        with pytest.raises(Unavailable):
            backend.read("levels")
        assert time.monotonic() - begun < 10  # of seconds nothing else is said: the machine may be busy
    finally:
        own_redis.signal(signal.SIGCONT)
    servers.wait_until("Redis", lambda: backend.read("levels"))
    assert backend.read("levels") == {"a": entry("before")}


def test_a_change_that_reaches_redis_late_is_refused(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Any) -> tuple[int, int]:
        return 1_000_000_000, 0  # what Redis said long ago

    monkeypatch.setattr(redis.Redis, "time", slow)
    with pytest.raises(Unavailable, match="LATE"):
        backend.write("levels", "a", entry(1))
    with pytest.raises(Unavailable, match="LATE"):
        backend.count("tries", "me", 60)
    assert backend.read("levels") == {}


def test_a_replica_is_unavailable_for_writing(sentinel: servers.Sentinel) -> None:
    url = f"redis://127.0.0.1:{sentinel.replica_port}"
    backend = RedisBackend(Settings.load({"C2C_REDIS_URL": url, "C2C_BROADCAST_PREFIX": PREFIX}))
    assert backend.read("levels") == {}
    with pytest.raises(Unavailable, match="read only replica"):
        backend.write("levels", "a", entry(1))
    with pytest.raises(Unavailable, match="read only replica"):
        backend.count("tries", "a", 60)


def test_state_survives_a_failover() -> None:
    with running(servers.Sentinel()) as sentinel:
        where = {"C2C_REDIS_SENTINELS": f"127.0.0.1:{sentinel.port}", "C2C_BROADCAST_PREFIX": PREFIX}
        backend = RedisBackend(Settings.load(where))
        backend.write("levels", "a", entry(1))
        servers.wait_until(
            "the replica to have it",
            lambda: redis_clients.replica(Settings.load(where)).hexists(f"{PREFIX}state:levels", "a"),
        )
        sentinel.kill_master()
        sentinel.wait_for_failover()

        def again() -> Any:
            try:
                return backend.write("levels", "a", entry(2))
            except Unavailable:
                return None

        assert servers.wait_until("the new master", again) == entry(1)


def test_a_forked_child_talks_to_redis_by_itself(backend: RedisBackend) -> None:
    backend.write("levels", "a", entry(1))
    pid = os.fork()
    if not pid:
        ok = backend.read("levels") == {"a": entry(1)} and backend.write("levels", "a", entry(2)) == entry(1)
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert backend.read("levels") == {"a": entry(2)}


def test_no_spans(backend: RedisBackend, c2c_telemetry: Any) -> None:
    from c2c_otel.instrumentation.redis import RedisInstrumentor

    instrumentor = RedisInstrumentor()
    instrumentor.instrument()
    try:
        backend.write("levels", "a", entry(1))
        backend.read("levels")
        backend.count("tries", "a", 1)
    finally:
        instrumentor.uninstrument()
    assert c2c_telemetry.spans == []


# -- calls that are bounded -------------------------------------------------------------------------------------------


def test_a_bounded_call_returns_raises_or_is_left_behind() -> None:
    assert bounded.call(lambda: 7, 5) == 7
    with pytest.raises(KeyError):
        bounded.call(lambda: {}["x"], 5)
    go_on = threading.Event()
    try:
        for _ in range(8):
            with pytest.raises(TimeoutError, match="within"):
                bounded.call(go_on.wait, 0.001)
        with pytest.raises(TimeoutError, match="8 earlier calls"):
            bounded.call(lambda: 7, 5)
    finally:
        go_on.set()
    assert servers.wait_until("the threads", lambda: not any(one.is_alive() for one in bounded._left))
    assert bounded.call(lambda: 7, 5) == 7
