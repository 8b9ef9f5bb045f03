"""Commands and pipelines against a real Redis, synchronous and asynchronous."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest
import redis
import redis.asyncio
from opentelemetry import trace
from opentelemetry.instrumentation.redis import RedisInstrumentor as Contrib
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from c2c_otel.instrumentation import redis as ours
from c2c_otel.instrumentation.redis import RedisInstrumentor
from c2c_otel.settings import Settings
from c2c_otel.testing import Captured, capture
from c2c_otel_exporters import guard
from tests.servers import Redis


@pytest.fixture
def captured(c2c_telemetry: Captured) -> Iterator[Captured]:
    RedisInstrumentor().instrument()
    yield c2c_telemetry
    RedisInstrumentor().uninstrument()


@pytest.fixture
def client(redis_server: Redis) -> Iterator[redis.Redis]:
    redis_server.flush()
    client = redis.Redis(port=redis_server.port, db=3)
    yield client
    client.close()


def names(captured: Captured) -> list[str]:
    return [span.name for span in captured.spans]


def test_instrumented_again_with_another_provider(client: redis.Redis, c2c_telemetry: Captured) -> None:
    """What is remembered of a command, with its pool, is no reason to go on with the first one."""
    for _ in range(2):
        exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        RedisInstrumentor().instrument(tracer_provider=provider)
        client.get("key")
        RedisInstrumentor().uninstrument()
        assert [span.name for span in exporter.get_finished_spans()] == ["GET"]


def test_command(client: redis.Redis, redis_server: Redis, captured: Captured) -> None:
    assert client.set("key", "value") is True
    assert client.get("key") == b"value"
    span = captured.span("SET")
    assert span.kind is SpanKind.CLIENT
    assert dict(span.attributes or {}) == {
        "db.system.name": "redis",
        "db.namespace": "3",
        "server.address": "localhost",
        "server.port": redis_server.port,
        "db.operation.name": "SET",
        "db.query.text": "SET ? ?",
    }
    assert captured.statsd_names() == [
        "redis.SET.success",
        "redis.SET",
        "redis.GET.success",
        "redis.GET",
    ] or captured.statsd_names() == ["redis.SET", "redis.SET.success", "redis.GET", "redis.GET.success"]
    assert (
        captured.value("db_client_operation_duration_seconds_count", db_operation_name="SET", db_system_name="redis")
        == 1
    )


def test_a_command_of_two_words_and_small_letters(client: redis.Redis, captured: Captured) -> None:
    client.config_get("maxmemory")
    client.execute_command("get", "key")
    client.execute_command(b"GET", "key")
    assert names(captured) == ["CONFIG GET", "GET", "GET"]


def test_what_is_no_command_makes_no_name(client: redis.Redis, captured: Captured) -> None:
    with pytest.raises(redis.ResponseError):
        client.execute_command("{user data}\n")
    assert names(captured) == ["_OTHER"]


def test_error(client: redis.Redis, captured: Captured) -> None:
    client.set("key", "text")
    with pytest.raises(redis.ResponseError):
        client.lpush("key", "value")
    span = captured.span("LPUSH")
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "ResponseError"
    assert [event.name for event in span.events] == ["exception"]
    assert "redis.LPUSH.failure" in captured.statsd_names()
    assert "redis.LPUSH.success" not in captured.statsd_names()


def test_server_that_is_not_there(captured: Captured) -> None:
    with pytest.raises(redis.ConnectionError):
        redis.Redis(port=1, retry=None).get("key")
    assert (captured.span("GET").attributes or {})["error.type"] == "ConnectionError"
    assert "redis.GET.failure" in captured.statsd_names()


def test_transaction(client: redis.Redis, captured: Captured) -> None:
    with client.pipeline() as pipeline:
        pipeline.set("secret", 1).set("b", 2)
        assert pipeline.execute() == [True, True]
    (span,) = captured.spans
    assert span.name == "MULTI SET"
    attributes = dict(span.attributes or {})
    assert attributes["db.operation.batch.size"] == 2
    assert attributes["db.operation.name"] == "MULTI SET"
    assert attributes["db.query.text"] == "SET ? ?\nSET ? ?"
    assert sorted(captured.statsd_names()) == ["redis.MULTI", "redis.MULTI.success"]


def test_pipeline(client: redis.Redis, captured: Captured) -> None:
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set("a", 1).get("a").execute()
    assert names(captured) == ["PIPELINE"]
    assert sorted(captured.statsd_names()) == ["redis.PIPELINE", "redis.PIPELINE.success"]


def test_an_empty_pipeline_sends_nothing(client: redis.Redis, captured: Captured) -> None:
    assert client.pipeline().execute() == []
    assert captured.spans == []


def test_a_long_pipeline_has_a_short_text(client: redis.Redis, captured: Captured) -> None:
    with client.pipeline() as pipeline:
        for n in range(5000):
            pipeline.set(str(n), n)
        pipeline.execute()
    (span,) = captured.spans
    assert len(str((span.attributes or {})["db.query.text"])) <= 1000
    assert (span.attributes or {})["db.operation.batch.size"] == 5000


def test_a_command_with_many_arguments_has_a_short_text(client: redis.Redis, captured: Captured) -> None:
    client.mset({str(n): n for n in range(2000)})
    assert len(str((captured.spans[0].attributes or {})["db.query.text"])) <= 1000


def test_watch(client: redis.Redis, captured: Captured) -> None:
    with client.pipeline() as pipeline:
        pipeline.watch("key")
        client.set("key", "other")
        pipeline.multi()
        pipeline.set("key", "mine")
        with pytest.raises(redis.WatchError):
            pipeline.execute()
    assert names(captured)[:3] == ["WATCH", "SET", "MULTI SET"]
    span = captured.spans[2]
    assert span.status.status_code is StatusCode.UNSET, "who watches expects it"
    assert (span.attributes or {})["error.type"] == "WatchError"
    assert "redis.MULTI.failure" in captured.statsd_names()


def test_an_error_inside_a_pipeline(client: redis.Redis, captured: Captured) -> None:
    client.set("key", "text")
    captured.clear()
    with client.pipeline() as pipeline, pytest.raises(redis.ResponseError):
        pipeline.lpush("key", 1).execute()
    assert captured.spans[0].status.status_code is StatusCode.ERROR


def test_pubsub_loop_makes_no_spans(client: redis.Redis, captured: Captured) -> None:
    pubsub = client.pubsub()
    pubsub.subscribe("channel")
    for _ in range(20):
        pubsub.get_message(timeout=0.001)
    pubsub.close()
    assert captured.spans == []


def test_parent_and_suppression(client: redis.Redis, captured: Captured) -> None:
    with trace.get_tracer("test").start_as_current_span("outer"):
        client.get("a")
        with suppress_instrumentation():
            client.get("b")
            client.pipeline().get("c").execute()
    assert captured.tree() == [("outer", [("GET", [])])]
    assert len(captured.statsd) == 2


def test_turned_off_by_the_setting(client: redis.Redis) -> None:
    with capture(Settings(track_redis=False)) as captured:
        RedisInstrumentor().instrument()
        try:
            assert client.set("key", 1) is True
            client.pipeline().get("key").execute()
        finally:
            RedisInstrumentor().uninstrument()
        assert captured.spans == []
        assert captured.statsd == []


def test_hooks(client: redis.Redis, c2c_telemetry: Captured, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[object, ...]] = []

    def request_hook(span: trace.Span, instance: object, args: object, kwargs: object) -> None:
        seen.append(("request", args))
        raise ValueError("of the hook")

    def response_hook(span: trace.Span, instance: object, response: object) -> None:
        span.set_attribute("hook", str(response))
        seen.append(("response", response))

    RedisInstrumentor().instrument(request_hook=request_hook, response_hook=response_hook)
    try:
        with caplog.at_level(logging.WARNING):
            client.set("key", 1)
    finally:
        RedisInstrumentor().uninstrument()
    assert seen == [("request", ("SET", "key", 1)), ("response", True)]
    assert (c2c_telemetry.span("SET").attributes or {})["hook"] == "True"
    assert "raised an exception" in caplog.text


def test_one_client_alone(client: redis.Redis, redis_server: Redis, c2c_telemetry: Captured) -> None:
    other = redis.Redis(port=redis_server.port)
    RedisInstrumentor.instrument_client(client)
    client.get("a")
    client.pipeline().get("b").get("c").execute()
    other.get("d")
    assert names(c2c_telemetry) == ["GET", "MULTI GET"]
    RedisInstrumentor.uninstrument_client(client)
    client.get("a")
    assert len(c2c_telemetry.spans) == 2
    other.close()


def test_asyncio(redis_server: Redis, captured: Captured) -> None:
    async def main() -> None:
        client = redis.asyncio.Redis(port=redis_server.port)
        with trace.get_tracer("test").start_as_current_span("outer"):
            await client.set("key", 1)
            async with client.pipeline() as pipeline:
                pipeline.get("key").get("key")
                assert await pipeline.execute() == [b"1", b"1"]
            with pytest.raises(redis.ResponseError):
                await client.lpush("key", 1)
        await client.aclose()

    asyncio.run(main())
    assert captured.tree() == [("outer", [("SET", []), ("MULTI GET", []), ("LPUSH", [])])]
    assert captured.span("LPUSH").status.status_code is StatusCode.ERROR


def test_asyncio_cancelled(redis_server: Redis, captured: Captured) -> None:
    async def main() -> None:
        client = redis.asyncio.Redis(port=redis_server.port)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.blpop("nothing", timeout=5), 0.05)
        await client.aclose()

    asyncio.run(main())
    assert (captured.span("BLPOP").attributes or {})["error.type"] == "CancelledError"


def test_threads(client: redis.Redis, captured: Captured) -> None:
    def work() -> None:
        for _ in range(10):
            client.get("key")

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(captured) == ["GET"] * 320
    assert captured.statsd_names().count("redis.GET.success") == 320


def test_sentinel_is_named_by_its_service(sentinel: object, captured: Captured) -> None:
    from redis.sentinel import Sentinel

    master = Sentinel(sentinel.sentinels).master_for("mymaster")  # type: ignore[attr-defined]  # the kit's Sentinel
    master.set("key", 1)
    attributes = captured.span("SET").attributes or {}
    assert attributes["server.address"] == "mymaster"
    assert "server.port" not in attributes
    master.close()


def test_a_failure_of_ours_does_not_break_the_command(
    client: redis.Redis, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise LookupError

    monkeypatch.setattr(ours, "_target", broken)
    guard.strict(False)
    try:
        assert client.set("key", 1) is True
        assert client.pipeline().get("key").execute() == [b"1"]
    finally:
        guard.strict(None)
        guard.reset()


def test_uninstrument_puts_everything_back(c2c_telemetry: Captured) -> None:
    before = [vars(owner)[name] for owner, name in (*ours._COMMANDS, *ours._ASYNC_COMMANDS)]
    RedisInstrumentor().instrument()
    RedisInstrumentor().uninstrument()
    assert [vars(owner)[name] for owner, name in (*ours._COMMANDS, *ours._ASYNC_COMMANDS)] == before
    assert type(Contrib()) is Contrib
