"""debug/sleep, headers, error, time, versions.json and the index of a real gunicorn with three workers."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from c2c_otel_views.debug_sleep import AT_ONCE
from tests.integration.worker_kit import APP, GTHREAD
from tests.servers import Gunicorn

KEY = {"X-API-Key": "only-for-this-test"}
ENV = {"C2C_SECRET": KEY["X-API-Key"], "C2C_DEBUG_VIEW_ENABLED": "1"}


@pytest.fixture(scope="module", params=["", "--preload"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    versions = tmp_path_factory.mktemp("versions") / "versions.json"
    versions.write_text('{"main": {"git_hash": "abc"}, "packages": {"c2c-otel": "1"}}')
    options = [request.param] if request.param else []
    env = {**ENV, "C2C_VERSIONS_FILE": os.fspath(versions)}
    with Gunicorn(APP, "-w", "3", *GTHREAD, *options, env=env) as gunicorn:
        yield gunicorn


def test_each_worker_answers_alike(service: Gunicorn) -> None:
    for _ in range(12):
        assert service.get("/c2c/debug/sleep?time=0", KEY)[::2] == (204, b"")
        error = service.get("/c2c/debug/error?status=503", KEY)
        assert (error.status, json.loads(error.body)) == (503, {"message": "Test", "status": 503})
        seen = json.loads(service.get("/c2c/debug/headers", {**KEY, "X-Mine": "1"}).body)
        assert (seen["headers"]["X-Mine"], seen["headers"]["X-Api-Key"]) == ("1", "***")
        assert seen["client_info"]["remote_addr"] == "127.0.0.1"
        assert seen["client_info"]["host_port"] == str(service.port)
        assert json.loads(service.get("/c2c/versions.json").body)["main"] == {"git_hash": "abc"}
        assert "epoch" in json.loads(service.get("/c2c/debug/time").body)
        assert b"Log out" in service.get("/c2c", KEY).body
        assert b"Log out" not in service.get("/c2c").body


def test_what_there_is_not(service: Gunicorn) -> None:
    assert service.get("/c2c/debug/sleep?time=0").status == 403
    assert service.get("/c2c/debug/sleep?time=-1", KEY).status == 400
    assert service.get("/c2c/debug/sleep", KEY).status == 400
    assert service.get("/c2c/unknown", KEY).status == 404
    answer = service.get("/c2c/debug/sleep?time=0", KEY, method="POST", body=b"")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_sleepers_leave_threads_to_others() -> None:
    """One process with a thread more than may sleep: whoever comes then is told so, or served."""
    with Gunicorn(APP, "-w", "1", "-k", "gthread", "--threads", str(AT_ONCE + 1), env=ENV) as gunicorn:
        with ThreadPoolExecutor(AT_ONCE + 2) as pool:
            sleepers = [
                pool.submit(lambda: gunicorn.get("/c2c/debug/sleep?time=3", KEY).status) for _ in range(AT_ONCE + 2)
            ]
            assert gunicorn.get("/c2c/debug/time").status == 200
            statuses = Counter(sleeper.result(60) for sleeper in sleepers)
        assert set(statuses) == {204, 503} and statuses[204] >= AT_ONCE
        assert gunicorn.get("/c2c/debug/sleep?time=0", KEY).status == 204
