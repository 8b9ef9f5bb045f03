"""Redis clients: what the settings mean, what is refused at the start, and how long a dead server can hold anybody."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel import redis_clients, redis_options
from c2c_otel.settings import ConfigurationError, Settings
from tests import servers


def load(**environ: str) -> Settings:
    return Settings.load({f"C2C_REDIS_{name.upper()}": value for name, value in environ.items()})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("Yes", True),
        ("ON", True),
        ("false", False),
        ("no", False),
        ("tRue", "tRue"),
        ("3", 3),
        ("-3", -3),
        ("1_000", 1000),
        ("0x1f", 31),
        ("0.5", 0.5),
        (".5", 0.5),
        ("2.", 2.0),
        ("1e3", 1000.0),
        ("007", "007"),
        ("_", "_"),
        (".", "."),
        ("1.2.3", "1.2.3"),
        (".inf", float("inf")),
        ("'it''s'", "it's"),
        ('"a\\"b,\\u00e9"', 'a"b,é'),
        ("text with spaces", "text with spaces"),
    ],
)
def test_yaml_scalars(text: str, value: Any) -> None:
    found = redis_options.scalar(text)
    assert (found, type(found)) == (value, type(value))


@given(st.text())
def test_any_text_is_a_scalar_or_a_value_error(text: str) -> None:
    try:
        found = redis_options.scalar(text)
    except ValueError:
        assert text[0] in "'\""
    else:
        assert found is None or isinstance(found, bool | int | float | str)


@given(st.text())
def test_a_quoted_password_is_read_back(password: str) -> None:
    quoted = "'" + password.replace("'", "''") + "'"
    text = f"client_name=a,password={quoted} , socket_timeout=1"
    assert redis_options.parse(text) == (("client_name", "a"), ("password", password), ("socket_timeout", 1.0))


@given(st.text())
def test_any_options_and_urls_are_understood_or_refused_by_a_message_of_one_kind(text: str) -> None:
    for name in ("C2C_REDIS_OPTIONS", "C2C_REDIS_URL", "C2C_REDIS_SENTINELS"):
        try:
            Settings.load({name: text})
        except ConfigurationError as error:
            assert error.name.startswith(name)


@pytest.mark.parametrize(
    ("url", "described"),
    [
        ("cache.example.org:6380", "redis://cache.example.org:6380/0"),
        ("cache", "redis://cache:6379/0"),
        ("redis://user:p%40ss@cache:1/3", "redis://cache:1/3"),
        ("redis://:pass@[::1]:1", "redis://[::1]:1/0"),
        ("rediss://:pass@cache:1/3?ssl_cert_reqs=none", "rediss://cache:1/3"),
        ("unix://user:pass@/run/redis.sock?db=2", "unix:///run/redis.sock"),
    ],
)
def test_a_url_is_described_without_credentials(url: str, described: str) -> None:
    settings = load(url=url)
    assert redis_clients.configured(settings)
    assert redis_clients.describe(settings) == described
    redis_clients.check(settings)


def test_sentinels_win_over_the_url() -> None:
    settings = load(url="redis://other", sentinels="a:1, [::1]:2", db="3", options="password=pa,sentinel_password=s2")
    assert redis_clients.describe(settings) == "sentinel://a:1,[::1]:2/mymaster/3"
    client = redis_clients.master(settings)
    pool = client.connection_pool
    assert isinstance(pool, redis.sentinel.SentinelConnectionPool)
    assert pool.connection_kwargs["db"] == 3
    assert pool.connection_kwargs["password"] == "pa"
    sentinels = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"], one["password"]) for one in sentinels] == [("a", 1, "s2"), ("::1", 2, "s2")]
    replica = redis_clients.replica(settings).connection_pool
    assert (pool.is_master, replica.is_master) == (True, False)


def test_nothing_is_configured_by_default() -> None:
    assert not redis_clients.configured(Settings.load({}))
    assert redis_clients.describe(Settings.load({})) == ""
    redis_clients.check(Settings.load({}))
    with pytest.raises(ConfigurationError, match="C2C_REDIS_URL"):
        redis_clients.master(Settings.load({}))


def test_options_reach_the_client_and_the_url_wins_over_them() -> None:
    settings = load(
        url="redis://cache?socket_timeout=7", db="4", options="socket_timeout=3,max_connections=5,password=1"
    )
    pool = redis_clients.master(settings).connection_pool
    found = pool.connection_kwargs
    assert (found["socket_timeout"], found["db"], found["password"], pool.max_connections) == (7, 4, "1", 5)
    assert found["socket_connect_timeout"] == redis_clients.TIMEOUT_SECONDS
    assert redis_clients.master(settings) is redis_clients.master(settings)
    assert redis_clients.master(load(url="redis://cache")) is not redis_clients.master(settings)


@pytest.mark.parametrize("environ", [{"url": "rediss://cache"}, {"url": "redis://cache", "options": "ssl=true"}])
def test_tls(environ: dict[str, str]) -> None:
    connection = redis_clients.connection(load(**environ))
    assert isinstance(connection, redis.SSLConnection)
    assert connection.cert_reqs == ssl.CERT_REQUIRED
    assert connection.check_hostname


def test_tls_behind_sentinels() -> None:
    settings = load(sentinels="a:1", options="ssl=true,ssl_cert_reqs=none,sentinel_ssl=true")
    connection = redis_clients.connection(settings)
    assert isinstance(connection, redis.sentinel.SentinelManagedSSLConnection)
    assert not connection.check_hostname
    manager = redis_clients.own(settings).connection_pool.sentinel_manager
    of_sentinel = manager.sentinels[0].connection_pool
    assert of_sentinel.connection_class is redis.SSLConnection
    assert of_sentinel.connection_kwargs["ssl_check_hostname"] is True


def test_tls_without_a_check_of_the_certificate() -> None:
    connection = redis_clients.connection(load(url="rediss://cache?ssl_cert_reqs=none"))
    assert (connection.cert_reqs, connection.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize(
    ("name", "value", "part", "expected"),
    [
        ("url", "http://u:pass@cache", "its scheme", "rediss://"),
        ("url", "redis://u:pass@cache:99999", "its host and port", "1 to 65535"),
        ("url", "redis://u:pass@:1", "its host and port", "host:port"),
        ("url", "redis://u:pass@cache/zero", "its path", "number of a database"),
        ("url", "redis://u:pass@cache?socket_timout=1", "socket_timout", "socket_timeout"),
        ("url", "redis://u:pass@cache?socket_timeout=soon", "socket_timeout is 'soon'", "seconds"),
        ("url", "unix://u:pass@", "its path", "unix:///"),
        ("sentinels", "cache", "'cache'", "host:port"),
        ("db", "-1", "'-1'", "integer"),
        ("options", "password=pass,socket_timout=1", "socket_timout", "socket_timeout"),
        ("options", "password=pass,socket_timeout=soon", "socket_timeout is 'soon'", "seconds"),
        ("options", "password=pass,ssl=perhaps", "ssl is 'perhaps'", "true or false"),
        ("options", "password=pass,word", "what stands after password", "quotes"),
        ("options", "password='pass", "what stands", "quotes"),
        ("options", "retry=1", "retry", "no object"),
        ("options", "protocol=4", "protocol is '4'", "2 or 3"),
    ],
)
def test_what_cannot_be_used_ends_the_start_and_is_named(name: str, value: str, part: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"C2C_REDIS_{name.upper()}")
    assert part in message
    assert expected in message.partition("expected ")[2]
    assert "pass@" not in message
    assert "'pass" not in message.replace("after password", "")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"url": "unix:///s", "options": "ssl_cert_reqs=none"}, "ssl_cert_reqs"),
        ({"url": "rediss://u:pass@cache", "options": "ssl_ca_certs=/nowhere"}, "/nowhere"),
    ],
)
def test_what_only_this_client_does_not_take_is_found_by_the_check(environ: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected) as caught:
        redis_clients.check(load(**environ))
    assert "pass@" not in str(caught.value)


def test_commands_and_passwords(redis_server: servers.Redis) -> None:
    settings = load(url=redis_server.url.replace("//", "//:secret%40pass@"))
    with pytest.raises(redis.RedisError) as caught:
        redis_clients.master(settings).ping()
    assert "pass" not in redis_clients.reason(settings, caught.value).replace("password", "").replace("username-", "")
    assert redis_clients.reason(settings, ValueError("at secret%40pass or secret@pass")) == "at *** or ***"
    client = redis_clients.master(load(url=redis_server.url))
    assert client.set("clients", "here")
    assert redis_clients.replica(load(url=redis_server.url)).get("clients") == b"here"


def test_behind_sentinels(sentinel: servers.Sentinel) -> None:
    settings = load(sentinels=f"127.0.0.1:{sentinel.port}")
    assert redis_clients.master(settings).info("replication")["role"] == "master"
    assert redis_clients.replica(settings).info("replication")["role"] == "slave"
    unknown = load(sentinels=f"127.0.0.1:{sentinel.port}", servicename="other", options="sentinel_client_name=me")
    with pytest.raises(redis.ConnectionError) as caught:
        redis_clients.master(unknown).ping()
    assert redis_clients.reason(unknown, caught.value) == "no sentinel that answers knows the master other"


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("kind", ["url", "sentinels"])
def test_a_silent_server_is_given_up_after_its_timeout_and_asked_once(silent: int, kind: str) -> None:
    address = f"127.0.0.1:{silent}"
    settings = load(**{kind: address}, options="socket_timeout=0.2,sentinel_socket_timeout=0.2")
    started = time.monotonic()
    with pytest.raises((redis.TimeoutError, redis.ConnectionError)):
        redis_clients.master(settings).ping()
    assert time.monotonic() - started < 5  # redis-py itself would try ten times more


def test_a_forked_child_has_clients_of_its_own(redis_server: servers.Redis) -> None:
    settings = load(url=redis_server.url)
    client = redis_clients.master(settings)
    mine = client.client_id()
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        theirs = redis_clients.master(settings)
        os.write(write, f"{theirs is client} {theirs.client_id()}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    same, identity = os.read(read, 100).decode().split()
    os.close(read), os.close(write)
    assert same == "False"
    assert int(identity) != mine
    assert client.client_id() == mine


def test_no_thread_and_no_connection_before_the_first_command(redis_server: servers.Redis) -> None:
    before = set(threading.enumerate())
    settings = load(url=redis_server.url, options="client_name=nobody")
    redis_clients.master(settings)
    redis_clients.replica(settings)
    redis_clients.connection(settings)
    redis_clients.check(settings)
    assert set(threading.enumerate()) <= before
    assert "name=nobody" not in str(redis_server.command("CLIENT", "LIST"))


def test_what_is_quiet_makes_no_span(redis_server: servers.Redis, c2c_telemetry: Any) -> None:
    from c2c_otel.instrumentation.redis import RedisInstrumentor

    instrumentor = RedisInstrumentor()
    instrumentor.instrument()
    try:
        client = redis_clients.master(load(url=redis_server.url))
        with redis_clients.quiet():
            client.get("quiet")
        client.get("loud")
    finally:
        instrumentor.uninstrument()
    assert [span.name for span in c2c_telemetry.spans] == ["GET"]
