"""What three real workers do not serve, and what outlives them: without Redis, with Redis, behind a Sentinel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.one_service_kit import FLAGS, KEY, SECRET, VIEWS, Load, Service, as_error, serving, started
from tests.servers import Redis
from tests.servers.fixtures import running

OPEN = {view.path: 200 for view in VIEWS if not view.protected}


def statuses(service: Service, headers: dict[str, str]) -> dict[str, int]:
    return {view.path: service.get(view.url, headers).status for view in VIEWS}


@pytest.mark.parametrize("way", ["preload", "redis"])
def test_without_its_flag_a_view_does_not_exist(way: str, tmp_path: Path) -> None:
    """Each flag opens its own views alone; here, one of them is on and the others are not, each in another way."""
    off = {"C2C_LOG_VIEW_ENABLED": "1", "C2C_DB_MAINTENANCE_VIEW_ENABLED": "0", "C2C_SQL_PROFILER_ENABLED": "false"}
    with serving(way, tmp_path, C2C_SECRET=SECRET, **off) as service:
        found = {view.path: view.status if view.flag == "C2C_LOG_VIEW_ENABLED" else 404 for view in VIEWS} | OPEN
        assert statuses(service, KEY) == found
        refused = {path: status if path in OPEN or status == 404 else 403 for path, status in found.items()}
        assert statuses(service, {}) == refused
        index = service.get("/c2c").body.decode()
        assert "/c2c/logging/level" in index
        assert not any(word in index for word in ("db/maintenance", "sql_profiler", "debug/stacks", "debug/memory"))


@pytest.mark.parametrize("way", ["preload", "sentinel"])
def test_without_a_secret_no_protected_view_exists(way: str, tmp_path: Path) -> None:
    """Whatever the flags, and whatever comes for a secret; nor can anybody log in."""
    with serving(way, tmp_path, C2C_SECRET="", **FLAGS) as service:
        expected = dict.fromkeys((view.path for view in VIEWS), 404) | OPEN
        for headers in ({}, KEY, {"X-API-Key": ""}, {"Cookie": "C2C_SECRET=x"}, {"X-API-Key": "c2crulez"}):
            assert statuses(service, headers) == expected
        assert service.get("/c2c/debug/stacks?secret=").status == 404
        as_error(service.get("/c2c/stats.json?reset=1"), 403)
        assert b'name="secret"' not in service.get("/c2c").body
        assert service.get("/c2c", {}, method="POST", body=b"secret=").status == 405


@pytest.fixture(params=["sockets", "redis", "sentinel"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_what_is_set_outlives_the_service(way: str, tmp_path: Path) -> None:
    """Another gunicorn begins with the switch, the levels and what is left of their time."""
    env = {**FLAGS, "C2C_SECRET": SECRET}
    with serving(way, tmp_path, **env) as service:
        for query in ("name=one_service&level=ERROR", "name=one_service.brief&level=DEBUG&duration=900"):
            service.json(f"/c2c/logging/level?{query}")
        service.json("/c2c/db/maintenance?readonly=true")
        service.json("/c2c/sql_profiler?enable=1&min_seconds=0.5&duration=900")
        left = service.json("/c2c/sql_profiler")["seconds_left"]
        service.gunicorn.stop()
        with started(way, tmp_path, service.redis, service.sentinel, **env) as again:
            assert again.told("level") == ["ERROR"]
            assert again.told("level", "one_service.brief") == ["DEBUG"]
            assert again.told("readonly") == [True]
            assert again.told("profiler") == [0.5]
            assert 800 < again.json("/c2c/sql_profiler")["seconds_left"] < left
            listed = again.json("/c2c/logging/level")
            assert listed["overrides"] == {"one_service": "ERROR", "one_service.brief": "DEBUG"}
            assert listed["seconds_left"].keys() == {"one_service.brief"}
            assert 800 < listed["seconds_left"]["one_service.brief"] < left
            assert again.json("/c2c/db/maintenance") == {"status": 200, "current_readonly": True}


def test_redis_is_down_at_the_start(tmp_path: Path) -> None:
    """The service serves; what cannot be stored is not changed, nor is it when Redis comes; then it can be."""
    env = {**FLAGS, "C2C_SECRET": SECRET}
    path = "/c2c/logging/level?name=one_service&level=ERROR"
    with running(Redis()) as redis:
        redis.kill()
        with started("redis", tmp_path, redis, None, **env) as service, Load(service.gunicorn) as load:
            as_error(service.get(path), 503)
            as_error(service.get("/c2c/db/maintenance?readonly=true"), 503)
            as_error(service.get("/c2c/sql_profiler?enable=1"), 503)
            assert {view.path for view in VIEWS if service.get(view.url).status != view.status} == {
                "/c2c/logging/level",
                "/c2c/db/maintenance",
            }
            redis.restart()
            service.wait_for_all()
            assert (service.told("level"), service.told("readonly"), service.told("profiler")) == (
                ["INFO"],
                [False],
                [None],
            )
            assert service.json("/c2c/logging/level") == {"status": 200, "overrides": {}}
            assert service.json(path)["level"] == "ERROR"
            assert service.told("level") == ["ERROR"]
        assert set(load.statuses) == {200}, load.statuses
