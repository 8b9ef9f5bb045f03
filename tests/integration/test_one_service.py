"""Three real workers are one service: over Unix sockets, also preloaded, over Redis, and behind a Sentinel.

Each view is asked for what the predecessor answered, by who may and who may not; changes are seen in each worker, and
in one that was born since; what is planted is found. At last Redis is killed under it.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from c2c_otel import sessions
from tests.integration.one_service_kit import (
    FLAGS,
    FORM,
    KEY,
    SECRET,
    VERSIONS,
    VIEWS,
    WAYS,
    Load,
    Service,
    View,
    another_client,
    as_error,
    assert_not_kept,
    serving,
)
from tests.integration.worker_kit import json_lines
from tests.servers import Postgres, wait_until

PROTECTED = tuple(view for view in VIEWS if view.protected)
HOST = socket.gethostname()


@pytest.fixture(scope="module", params=WAYS)
def service(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    env = {**FLAGS, "C2C_SECRET": SECRET, "APP_SQL": postgres.dsn(driver="psycopg")}
    with serving(request.param, tmp_path_factory.mktemp(request.param), **env) as found:
        found.wait_for_all()
        yield found
        found.gunicorn.stop()
        for written in (found.gunicorn.stdout.read_text(), found.gunicorn.stderr.read_text()):
            assert "Traceback" not in written
            assert "c2c-otel failed" not in written
            assert "12 sheep" not in written


@pytest.fixture
def changed_back(service: Service) -> Iterator[None]:
    """A test that fails half-way does not make others fail."""
    yield
    for name in service.json("/c2c/logging/level")["overrides"]:
        service.json(f"/c2c/logging/level?name={name}&reset=1")
    service.json("/c2c/db/maintenance?readonly=false")
    service.json("/c2c/sql_profiler?enable=0")


def by_path(view: View) -> str:
    return view.path


# -- who may, and what everybody gets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS, ids=by_path)
def test_an_answer(service: Service, view: View) -> None:
    answer = service.get(view.url, KEY if view.protected else {})
    assert answer.status == view.status, answer
    assert answer.headers.get("content-type", "") == view.content_type
    assert_not_kept(answer)
    assert "set-cookie" not in answer.headers
    head = service.get(view.url, KEY if view.protected else {}, method="HEAD")
    assert (head.status, head.body, head.headers.get("content-type", "")) == (view.status, b"", view.content_type)
    assert_not_kept(head)


@pytest.mark.parametrize("view", PROTECTED, ids=by_path)
def test_who_has_no_secret_is_refused(service: Service, view: View) -> None:
    for headers in ({}, {"X-API-Key": "12 sheep"}, {"Authorization": "Bearer 12 sheep"}):
        assert "secret" in as_error(service.get(view.url, {**headers, **another_client()}), 403)
    wrong = f"{view.url}{'&' if view.query else '?'}secret=12%20sheep"
    assert "secret" in as_error(service.get(wrong, {**KEY, **another_client()}), 403)
    head = service.get(view.url, {}, method="HEAD")
    assert (head.status, head.body) == (403, b"")


def cookies_that_are_wrong(service: Service) -> dict[str, str]:
    good = log_in(service)[len("C2C_SECRET=") :]
    return {
        "the predecessor's": hashlib.sha256(SECRET.encode()).hexdigest(),
        "the secret": quote(SECRET),
        "expired": sessions.issue(SECRET, -5)[1],
        "another service's": sessions.issue(SECRET + "!", 600)[1],
        "changed": ("A" if good[0] != "A" else "B") + good[1:],
        "longer": good + "A",
        "cut": good[:-2],
        "nothing": "",
        "garbage": "%FF%00",
    }


def log_in(service: Service) -> str:
    """As a browser would: ``C2C_SECRET=value``."""
    answer = service.get("/c2c", FORM, method="POST", body=urlencode({"secret": SECRET}).encode())
    assert answer.status == 303, answer
    match = re.match("(C2C_SECRET=[^;]+); .*", answer.headers["set-cookie"])
    assert match
    assert {"HttpOnly", "Path=/c2c", "SameSite=Lax", "Max-Age=604800"} <= set(match[0].split("; "))
    return match[1]


@pytest.mark.parametrize("view", PROTECTED, ids=by_path)
def test_a_wrong_cookie_is_refused(service: Service, view: View) -> None:
    for why, value in cookies_that_are_wrong(service).items():
        answer = service.get(view.url, {"Cookie": f"C2C_SECRET={value}"})
        assert "secret" in as_error(answer, 403), why


@pytest.mark.parametrize("view", PROTECTED, ids=by_path)
def test_a_login_opens_it(service: Service, view: View) -> None:
    assert service.get(view.url, {"Cookie": log_in(service)}).status == view.status


@pytest.mark.parametrize("view", VIEWS, ids=by_path)
def test_a_wrong_method(service: Service, view: View) -> None:
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} - set(view.methods):
        answer = service.get(view.url, method=method)
        assert f"{method} is not allowed for {view.path}" in as_error(answer, 405)
        assert answer.headers["allow"] == ", ".join(sorted(view.methods))


@pytest.mark.parametrize(
    "path", ["/c2c/unknown", "/c2c/debug", "/c2c/debug/", "/c2c/debug/unknown", "/c2c/logging", "/c2c/metrics", "/c2cx"]
)
def test_what_there_is_not(service: Service, path: str) -> None:
    for headers in ({}, KEY):
        assert service.get(path, headers).status == 404


@pytest.mark.parametrize("view", VIEWS, ids=by_path)
def test_a_form_without_end_is_not_read(service: Service, view: View) -> None:
    """Anybody may send one, to views that take none, too. Only its length is sent here: it would be waited for."""
    for header, status in (("Content-Length: 100001", 413), ("Transfer-Encoding: chunked", 411)):
        with socket.create_connection(("127.0.0.1", service.gunicorn.port), timeout=30) as connection:
            head = f"POST {view.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n"
            form = "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
            connection.sendall((head + form).encode())
            assert connection.recv(12) == f"HTTP/1.1 {status}".encode()


BAD = [
    ("logging/level", "name=x&level=BOGUS", "level is 'BOGUS'; expected DEBUG, INFO"),
    ("logging/level", "name=x&level=-1", "level is '-1'; expected"),
    ("logging/level", "level=DEBUG", "name is missing"),
    ("logging/level", f"name={'x' * 300}&level=DEBUG", "name is 'xxx"),
    ("logging/level", "name=a%0Ab", "name is 'a\\nb'"),
    ("logging/level", "name=%FF", "cannot be read"),
    ("logging/level", "name=x&name=y", "name is given 2 times"),
    ("logging/level", "name=x&level=DEBUG&duration=long", "duration is 'long'; expected a number of seconds"),
    ("logging/level", "name=x&level=DEBUG&duration=0", "duration is '0'; expected a number of seconds"),
    ("logging/level", "name=x&level=DEBUG&duration=nan", "duration is 'nan'"),
    ("logging/level", "name=x&duration=5", "duration is 5.0; expected a level"),
    ("logging/level", "name=x&reset=perhaps", "reset is 'perhaps'; expected one of 1, true"),
    ("logging/level", "name=x&level=INFO&reset=1", "level is 'INFO'"),
    ("db/maintenance", "readonly=perhaps", "readonly is 'perhaps'; expected one of 1, true"),
    ("db/maintenance", "readonly=", "readonly is ''; expected one of 1, true"),
    ("sql_profiler", "enable=perhaps", "enable is 'perhaps'; expected one of 1, true"),
    ("sql_profiler", "enable=", "enable is ''"),
    ("sql_profiler", "enable=1&analyze=2", "analyze is '2'; expected one of"),
    ("sql_profiler", "enable=1&min_seconds=-1", "min_seconds is '-1'; expected a number of seconds from 0"),
    ("sql_profiler", "enable=1&duration=0", "duration is '0'; expected a number of seconds from 1 to 86400"),
    ("sql_profiler", "duration=5", "duration is '5'; expected enable=1"),
    ("debug/memory", "limit=0", "limit is '0'; expected an integer from 1 to 1000"),
    ("debug/memory", "limit=many", "limit is 'many'; expected an integer"),
    ("debug/memory", "analyze_type=%01", "analyze_type is '\\x01'; expected the name of a class"),
    ("debug/memory", "python_internals_map=2", "python_internals_map is '2'; expected one of"),
    ("debug/memory_diff", "", "path is missing; expected a path of this application"),
    ("debug/memory_diff", "path=state", "path is 'state'"),
    ("debug/memory_diff", "path=//example.org/", "path is '//example.org/'"),
    ("debug/memory_diff", "path=/c2c/debug/memory_diff", "path is '/c2c/debug/memory_diff'; expected another"),
    ("debug/memory_diff", "path=/state&no_warmup=2", "no_warmup is '2'"),
    ("debug/memory_diff/state", "limit=-3", "limit is '-3'"),
    ("debug/show_refs.dot", "", "one of analyze_type (the name of a class) and analyze_id"),
    ("debug/show_refs.dot", "analyze_type=a&analyze_id=1", "one of analyze_type (the name of a class) and analyze_id"),
    ("debug/show_refs.dot", "analyze_id=abc", "analyze_id is 'abc'; expected an integer"),
    ("debug/show_refs.dot", "analyze_id=7", "analyze_id is 7; expected the id of"),
    ("debug/show_refs.dot", "analyze_type=dict&max_depth=-1", "max_depth is '-1'; expected an integer from 0"),
    ("debug/show_refs.dot", "analyze_type=dict&too_many=0", "too_many is '0'; expected an integer from 1"),
    ("debug/show_refs.dot", "analyze_type=dict&min_size_kb=big", "min_size_kb is 'big'; expected a number of KiB"),
    ("debug/show_refs.dot", "analyze_type=dict&filter=big", "filter is 'big'; expected a number of KiB"),
    ("debug/show_refs.dot", "analyze_type=dict&backrefs=2", "backrefs is '2'"),
    ("debug/show_refs.dot", "analyze_type=dict&no_extra_info=2", "no_extra_info is '2'"),
    ("debug/sleep", "", "time is missing; expected a number of seconds from 0 to 300"),
    ("debug/sleep", "time=-1", "time is '-1'; expected"),
    ("debug/sleep", "time=301", "time is '301'; expected"),
    ("debug/sleep", "time=inf", "time is 'inf'; expected"),
    ("debug/headers", "status=200", "status is '200'; expected the status of an HTTP error"),
    ("debug/error", "", "status is missing; expected the status of an HTTP error"),
    ("debug/error", "status=302", "status is '302'; expected"),
    ("debug/error", "status=teapot", "status is 'teapot'; expected"),
    ("stats.json", "reset=perhaps", "reset is 'perhaps'; expected one of"),
]


def test_bad_parameters(service: Service) -> None:
    """Each is a 400 that says which, what it was and what it should be; nothing is changed."""
    for path, query, message in BAD:
        assert message in as_error(service.get(f"/c2c/{path}?{query}"), 400), (path, query)
    assert service.json("/c2c/logging/level") == {"status": 200, "overrides": {}}
    assert service.json("/c2c/sql_profiler") == {"status": 200, "enabled": False}
    assert service.json("/c2c/db/maintenance")["current_readonly"] in (None, False)
    assert service.told("readonly") == [False]


# -- what each view tells ---------------------------------------------------------------------------------------------


def test_the_index(service: Service) -> None:
    anonymous = service.get("/c2c", {}).body.decode()
    assert 'name="secret"' in anonymous and "/c2c/logging/level" not in anonymous and "/metrics" in anonymous
    known = service.get("/c2c/").body.decode()
    for view in VIEWS:
        if view.path not in ("/c2c", "/c2c/", "/c2c/debug/memory_diff/state"):
            assert f'"{view.path}' in known, view.path
    assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//""", known)
    wrong = service.get("/c2c", {**FORM, **another_client()}, method="POST", body=b"secret=12+sheep")
    assert wrong.status == 403 and 'name="secret"' in wrong.body.decode()


def test_versions(service: Service) -> None:
    assert service.json("/c2c/versions.json") == VERSIONS


def test_statistics(service: Service) -> None:
    """Of all workers; forgotten in all of them by who has the secret."""
    for _ in range(30):
        service.get("/state")
    found = service.json("/c2c/stats.json")
    assert found.keys() == {"timers", "gauges", "counters"}
    timer = found["timers"]["route/GET/state/200"]
    assert timer.keys() == {"nb", "avg_ms", "min_ms", "max_ms"}
    assert timer["nb"] >= 30 and timer["min_ms"] <= timer["avg_ms"] <= timer["max_ms"]
    as_error(service.get("/c2c/stats.json?reset=1", {}), 403)
    assert service.json("/c2c/stats.json?reset=1")["timers"]["route/GET/state/200"]["nb"] == timer["nb"]
    assert "route/GET/state/200" not in service.json("/c2c/stats.json")["timers"]


def test_metrics(service: Service) -> None:
    service.get("/state")
    text = service.get("/metrics", {}).body.decode()
    assert re.search(r'http_server_request_duration_seconds_count\{.*http_route="/state".*\} \d+', text)


def test_time(service: Service) -> None:
    found = service.json("/c2c/debug/time")
    assert found.keys() == {"local_time", "gmt_time", "epoch", "timezone"}
    assert abs(found["epoch"] - time.time()) < 30


def test_headers(service: Service) -> None:
    headers = {**KEY, "X-Mine": "1", "Cookie": "session=abc", "Authorization": "Basic YTpi"}
    found = json.loads(service.get("/c2c/debug/headers", headers).body)
    assert found.keys() == {"headers", "client_info"}
    assert found["headers"]["X-Mine"] == "1"
    assert {found["headers"][name] for name in ("X-Api-Key", "Cookie", "Authorization")} == {"***"}
    assert found["client_info"].keys() == {
        "client_addr",
        "host",
        "host_port",
        "http_version",
        "path",
        "path_info",
        "remote_addr",
        "remote_host",
        "scheme",
        "server_name",
        "server_port",
    }
    message = as_error(service.get("/c2c/debug/headers?status=502", headers), 502)
    assert json.loads(message)["headers"]["X-Mine"] == "1"


def test_errors(service: Service) -> None:
    for status in (401, 404, 418 - 1, 500, 503):
        answer = service.get(f"/c2c/debug/error?status={status}")
        assert (answer.status, json.loads(answer.body)) == (status, {"message": "Test", "status": status})


def test_sleeping(service: Service) -> None:
    begun = time.monotonic()
    assert service.get("/c2c/debug/sleep?time=0.2")[::2] == (204, b"")
    assert time.monotonic() - begun >= 0.2


# -- what is planted --------------------------------------------------------------------------------------------------


def test_a_blocked_thread_is_found(service: Service) -> None:
    pid = json.loads(service.get("/block").body)["pid"]

    def blocked() -> list[Any]:
        return [one for one in service.json("/c2c/debug/stacks") if "one_service_blocked" in str(one["threads"])]

    (stack,) = wait_until("the thread at its gate", lambda: found if len(found := blocked()) == 1 else None)
    assert stack.keys() == {"frames", "threads"}
    assert all({"file", "line", "function"} <= frame.keys() for frame in stack["frames"])
    assert {"_gate.wait()"} == {one["code"] for one in stack["frames"] if one["function"] == "_wait_for_ever"}
    assert [name.rpartition("(")[0] for name in stack["threads"]] == [f"{HOST}/{pid}/one_service_blocked"]


def test_all_workers_tell_their_stacks(service: Service) -> None:
    assert service.stacks_of() == set(service.gunicorn.worker_pids())


def test_all_workers_tell_their_memory(service: Service) -> None:
    planted = "tests.apps.one_service.Planted"
    found = service.json(f"/c2c/debug/memory?limit=4&analyze_type={planted}")
    assert sorted(one["pid"] for one in found) == service.gunicorn.worker_pids()
    for one in found:
        assert one["hostname"] == HOST
        assert len(one["nb_collected"]) == 3
        assert len(one["most_common_types"]) == 4
        assert all(len(pair) == 2 for pair in one["most_common_types"] + one["leaking_objects"])
        (biggest,) = one[planted]["biggest_objects"]
        assert biggest["size_kb"] > 195 and "Planted" in biggest["repr"]
    functions = service.json("/c2c/debug/memory?analyze_type=builtins.function&limit=200")
    for one in functions:
        modules = {module["module"]: module["nb_func"] for module in one["builtins.function"]["modules"]}
        assert modules["pyramid"] > 100


def test_a_leak_is_found(service: Service) -> None:
    for path in ("memory_diff?path=/leak", "memory_diff/leak", "memory_diff?path=/leak&no_warmup"):
        answer = service.get(f"/c2c/debug/{path}")
        assert answer.headers["x-c2c-subrequest-status"] == "200"
        (grown,) = [row for row in json.loads(answer.body) if row[0] == "tests.apps.one_service.Leaked"]
        assert grown[1] >= 7 and grown[2] == 7
    clean = service.json("/c2c/debug/memory_diff?path=/state")
    assert "tests.apps.one_service.Leaked" not in [row[0] for row in clean]


def test_maps_and_references(service: Service) -> None:
    maps = service.json("/c2c/debug/memory_maps")
    assert all(one.keys() == {"name", "pss_kb", "rss_kb", "size_kb"} and one["pss_kb"] > 0 for one in maps)
    assert [one["pss_kb"] for one in maps] == sorted((one["pss_kb"] for one in maps), reverse=True)
    graph = service.get("/c2c/debug/show_refs.dot?analyze_type=tests.apps.one_service.Planted&backrefs&max_depth=2")
    assert graph.body.startswith(b"digraph") and b"Planted" in graph.body and b"planted" in graph.body


def plans(service: Service, pids: set[int]) -> list[str]:
    """What the profiler of these workers has logged."""
    lines = json_lines(service.gunicorn.stdout)
    return [line["msg"] for line in lines if line["logger_name"] == "c2c_otel.sql_profiler" and line["pid"] in pids]


@pytest.mark.usefixtures("changed_back")
def test_a_slow_query_is_found_in_each_worker(service: Service) -> None:
    """And a quick one is not."""
    assert service.json("/c2c/sql_profiler") == {"status": 200, "enabled": False}
    found = service.json("/c2c/sql_profiler?enable=1&min_seconds=0.01&duration=600")
    assert found.pop("seconds_left") > 590
    assert found == {"status": 200, "enabled": True, "analyze": False, "min_seconds": 0.01}
    assert service.told("profiler") == [0.01]
    new = service.replace_worker()
    assert service.workers()[new]["profiler"] == 0.01

    def each() -> bool:
        service.get("/query")
        return all(plans(service, {pid}) for pid in service.gunicorn.worker_pids())

    wait_until("each worker's plan", each, 40)
    said = plans(service, set(service.gunicorn.worker_pids()))
    assert all("generate_series" in one and "Nested Loop" in one and "'rows': 700" in one for one in said)
    assert not any("quick" in one for one in said)
    assert service.json("/c2c/sql_profiler?enable=0") == {"status": 200, "enabled": False}
    assert service.told("profiler") == [None]


# -- changes ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("changed_back")
def test_a_level_reaches_every_worker_and_those_born_later(service: Service) -> None:
    name = "one_service.orders"
    path = f"/c2c/logging/level?name={name}"
    state = {"status": 200, "name": name, "level": "NOTSET", "effective_level": "INFO"}
    assert service.json(path) == state
    changed = {"status": 200, "name": name, "level": "DEBUG", "effective_level": "DEBUG"}
    assert service.json(f"{path}&level=debug") == changed
    assert levels(service, name) == ["DEBUG"]
    assert service.json("/c2c/logging/level") == {"status": 200, "overrides": {name: "DEBUG"}}
    new = service.replace_worker()
    assert service.workers(name)[new]["level"] == "DEBUG"
    assert levels(service, name) == ["DEBUG"]
    assert service.json(f"{path}&level=ERROR")["level"] == "ERROR"
    assert levels(service, name) == ["ERROR"]
    assert service.json(f"{path}&reset=1") == state
    assert levels(service, name) == ["INFO"]
    assert service.json("/c2c/logging/level") == {"status": 200, "overrides": {}}
    said = [line["msg"] for line in json_lines(service.gunicorn.stdout) if name in line["msg"]]
    assert [re.findall(r"(\S+) -> (\S+),.* by (\S+) \(X-API-Key\)", line) for line in said] == [
        [("NOTSET", "DEBUG", "127.0.0.1")],
        [("DEBUG", "ERROR", "127.0.0.1")],
        [("ERROR", "NOTSET", "127.0.0.1")],
    ] or said


def levels(service: Service, name: str) -> list[str]:
    """Of the living workers: one where they agree."""
    return service.told("level", name)


@pytest.mark.usefixtures("changed_back")
def test_a_level_ends_by_itself(service: Service) -> None:
    path = "/c2c/logging/level?name=one_service.brief"
    assert service.json(f"{path}&level=ERROR&duration=2")["level"] == "ERROR"
    assert 0 < service.json("/c2c/logging/level")["seconds_left"]["one_service.brief"] <= 2
    wait_until("the end", lambda: levels(service, "one_service.brief") == ["INFO"])
    assert service.json("/c2c/logging/level") == {"status": 200, "overrides": {}}


@pytest.mark.usefixtures("changed_back")
def test_read_only_reaches_every_worker_and_those_born_later(service: Service) -> None:
    path = "/c2c/db/maintenance"
    assert service.json(f"{path}?readonly=true") == {"status": 200, "readonly": True}
    assert service.told("readonly") == [True]
    new = service.replace_worker()
    assert service.workers()[new]["readonly"] is True
    assert service.json(path) == {"status": 200, "current_readonly": True}
    assert service.json(f"{path}?readonly=False") == {"status": 200, "readonly": False}
    assert service.told("readonly") == [False]
    assert service.json(path) == {"status": 200, "current_readonly": False}


CHANGES = [
    ("logging/level", {"name": "one_service.form", "level": "ERROR"}, {"name": "one_service.form", "reset": "1"}),
    ("db/maintenance", {"readonly": "true"}, {"readonly": "false"}),
    ("sql_profiler", {"enable": "1"}, {"enable": "0"}),
    ("stats.json", {"reset": "1"}, {"reset": "1"}),
]


@pytest.mark.usefixtures("changed_back")
@pytest.mark.parametrize(("path", "change", "back"), CHANGES, ids=[path for path, _, _ in CHANGES])
def test_who_may_change(service: Service, path: str, change: dict[str, str], back: dict[str, str]) -> None:
    """A cookie by POST with its token; the secret in any way; nobody else."""
    login, other = {"Cookie": log_in(service)}, {"Cookie": log_in(service)}
    token = _token(service, login)
    url, query = f"/c2c/{path}", urlencode(change)
    before = service.told("readonly"), service.told("profiler"), service.json("/c2c/logging/level")
    as_error(service.get(f"{url}?{query}", login), 403)
    assert service.get(f"{url}?{query}", login, method="HEAD").status == 403
    for form in (change, {**change, "csrf_token": _token(service, other)}, {**change, "csrf_token": ""}):
        answer = service.get(url, {**login, **FORM}, method="POST", body=urlencode(form).encode())
        assert "csrf_token" in as_error(answer, 403)
    form = {**change, "csrf_token": token}
    foreign = {**login, **FORM, "Origin": "https://example.org", "Sec-Fetch-Site": "cross-site"}
    assert "another site" in as_error(service.get(url, foreign, method="POST", body=urlencode(form).encode()), 403)
    as_error(service.get(url, {**FORM, **another_client()}, method="POST", body=urlencode(form).encode()), 403)
    assert before == (service.told("readonly"), service.told("profiler"), service.json("/c2c/logging/level"))
    for headers, asked in [
        ({**login, **FORM}, form),
        ({**KEY, **FORM}, back),
        (FORM, {**change, "secret": SECRET}),
        (FORM, {**back, "secret": SECRET}),
    ]:
        answer = service.get(url, headers, method="POST", body=urlencode(asked).encode())
        assert answer.status == 200, answer
    assert service.get(f"{url}?{urlencode({**back, 'secret': SECRET})}", {}).status == 200
    assert service.told("readonly") == [False]
    assert service.told("profiler") == [None]
    assert service.json("/c2c/logging/level")["overrides"] == {}


def _token(service: Service, login: dict[str, str]) -> str:
    match = re.search(r'name="csrf_token"[^>]*value="([0-9a-f]{64})"', service.get("/c2c", login).body.decode())
    assert match
    return match[1]


@pytest.mark.usefixtures("changed_back")
def test_a_delete_resets_a_level(service: Service) -> None:
    path = "/c2c/logging/level?name=one_service.deleted"
    assert service.json(f"{path}&level=ERROR")["level"] == "ERROR"
    answer = service.get(path, method="DELETE")
    assert (answer.status, json.loads(answer.body)["level"]) == (200, "NOTSET")
    assert levels(service, "one_service.deleted") == ["INFO"]


# -- Redis goes; nothing may come after this --------------------------------------------------------------------------


def ask_everything(service: Service) -> dict[str, int]:
    """Each view's status."""
    return {view.path: service.get(view.url, KEY if view.protected else {}).status for view in VIEWS}


def test_redis_is_killed_under_everything(service: Service) -> None:
    """No request of the application is lost; views that need no Redis answer as before, others with a 503; then all is
    as it was, in the same workers. Without Redis there is nothing to kill: all is asked under load."""
    as_always = {view.path: view.status for view in VIEWS}
    workers = service.gunicorn.worker_pids()
    name = "one_service.kept"
    assert service.json(f"/c2c/logging/level?name={name}&level=ERROR")["level"] == "ERROR"
    with Load(service.gunicorn) as load:
        assert ask_everything(service) == as_always
        if service.redis:
            service.redis.kill()
            assert ask_everything(service) == as_always | {"/c2c/logging/level": 503, "/c2c/db/maintenance": 503}
            for path in (f"logging/level?name={name}&level=DEBUG", f"logging/level?name={name}&reset=1"):
                as_error(service.get(f"/c2c/{path}"), 503)
            for path in ("db/maintenance?readonly=true", "sql_profiler?enable=1"):
                as_error(service.get(f"/c2c/{path}"), 503)
            assert service.told("readonly") == [False]
            assert service.told("profiler") == [None]
            assert levels(service, name) == ["ERROR"]
            service.redis.restart()
        elif service.sentinel:
            service.sentinel.kill_master()
            during = ask_everything(service)
            assert all(status in (as_always[path], 503) for path, status in during.items()), during
            service.sentinel.wait_for_failover()
        if service.redis or service.sentinel:
            service.wait_for_all()
            assert ask_everything(service) == as_always
        if not service.redis:  # that one has forgotten everything
            assert service.json("/c2c/logging/level")["overrides"] == {name: "ERROR"}
            assert levels(service, name) == ["ERROR"]
        wait_until("a level in all workers", lambda: _set_in_all(service, name), 40)
    assert load.statuses[200] > 20
    assert set(load.statuses) == {200}, load.statuses
    assert service.gunicorn.worker_pids() == workers


def _set_in_all(service: Service, name: str) -> bool:
    answer = json.loads(service.get(f"/c2c/logging/level?name={name}&level=WARNING").body)
    return not {"missing", "failed", "message"} & answer.keys() and levels(service, name) == ["WARNING"]
