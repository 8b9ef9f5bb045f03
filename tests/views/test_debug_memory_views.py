"""The views of stacks, memory and references, through an application: what they answer, refuse, and hand on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyramid.config import Configurator
from pyramid.response import Response

from c2c_otel import admin, broadcast, debug
from c2c_otel.broadcast import Answers
from c2c_otel.debug import subrequest
from tests.pyramid_kit import Answer, get

SECRET = "a secret that is long enough"
CLIENT = {"REMOTE_ADDR": "198.51.100.77"}  # of these tests alone: wrong secrets are counted by client
KEY = {"HTTP_X_API_KEY": SECRET, **CLIENT}
PATHS = (
    "stacks",
    "memory",
    "memory_diff?path=/clean",
    "memory_diff/clean",
    "memory_maps",
    "show_refs.dot?analyze_id=1",
)

_leaked: list[Any] = []
_seen: list[dict[str, Any]] = []


class Planted:
    """What the leak leaves behind."""


def leak(request: Any) -> Response:
    _leaked.extend(Planted() for _ in range(5))
    return Response("leaked")


def clean(request: Any) -> Response:
    [Planted() for _ in range(5)].reverse()
    return Response("clean")


def show(request: Any) -> Response:
    _seen.append(dict(request.environ))
    return Response(app_iter=[b"a", b"b"])


def fail(request: Any) -> Response:
    _leaked.append(Planted())
    raise ZeroDivisionError


def make(**settings: str) -> Any:
    given = {"debug_view_enabled": "1", "secret": SECRET, **settings}
    config = Configurator(settings={f"c2c.{name}": value for name, value in given.items() if value})
    config.include("c2c_otel")
    for view in (leak, clean, show, fail):
        config.add_route(view.__name__, f"/{view.__name__}")
        config.add_view(view, route_name=view.__name__)
    return config.make_wsgi_app()


@pytest.fixture
def app() -> Iterator[Any]:
    yield make()
    _leaked.clear()
    _seen.clear()


def ask(app: Any, path: str, **more: Any) -> Answer:
    return get(app, f"/c2c/debug/{path}", **{**KEY, **more})


def refused(app: Any, path: str) -> str:
    answer = ask(app, path)
    body = json.loads(answer.body)
    assert (answer.status, body["status"]) == (400, 400), body
    message = body["message"]
    assert isinstance(message, str)
    return message


# -- who may, and where they are --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_they_exist_where_they_are_on_and_there_is_a_secret(path: str) -> None:
    for settings in ({"debug_view_enabled": "0"}, {"secret": ""}):
        assert get(make(**settings), f"/c2c/debug/{path}", **KEY).status == 404
    app = make()
    assert get(app, f"/c2c/debug/{path}", **CLIENT).status == 403
    assert ask(app, path).status == (400 if "refs" in path else 200)
    assert get(app, f"/c2c/debug/{path}", "PUT", **KEY).status == 405


@pytest.mark.parametrize("path", ["stacks", "memory_maps", "memory_diff?path=/clean"])
def test_nobody_keeps_the_answer(app: Any, path: str) -> None:
    assert "no-store" in (ask(app, path).header("Cache-Control") or "")


def test_paths_below_a_prefix_are_looked_for_only_where_there_are_some(app: Any) -> None:
    assert type(app._c2c_admin.paths) is not frozenset
    assert "/c2c/debug/memory_diff/any/thing" in app._c2c_admin.paths
    assert "/c2c/debug/memory_diff" in app._c2c_admin.paths
    assert "/c2c/debug/memory_difference" not in app._c2c_admin.paths
    assert None not in app._c2c_admin.paths
    assert type(make(debug_view_enabled="0")._c2c_admin.paths) is frozenset


def test_no_path_below_a_prefix_is_remembered(app: Any) -> None:
    known = len(app._c2c_admin._claims)
    for number in range(50):
        assert get(app, f"/c2c/debug/memory_diff/{number}").status == 403
    assert len(app._c2c_admin._claims) == known


def test_a_route_of_the_application_below_the_prefix_is_its_own() -> None:
    config = Configurator(settings={"c2c.debug_view_enabled": "1", "c2c.secret": SECRET})
    config.include("c2c_otel")
    config.add_route("mine", "/c2c/debug/memory_diff/mine")
    config.add_view(lambda request: Response("mine"), route_name="mine")
    app = config.make_wsgi_app()
    assert get(app, "/c2c/debug/memory_diff/mine").body == b"mine"
    assert get(app, "/c2c/debug/memory_diff/other").status == 403


# -- stacks -----------------------------------------------------------------------------------------------------------


def test_stacks_find_a_blocked_thread(app: Any) -> None:
    gate = threading.Event()

    def wait_at_the_gate() -> None:
        gate.wait(30)

    thread = threading.Thread(target=wait_at_the_gate, name="stuck at the gate", daemon=True)
    thread.start()
    try:
        answer = ask(app, "stacks")
    finally:
        gate.set()
        thread.join(10)
    (stack,) = [
        stack
        for stack in json.loads(answer.body)
        if any(frame["function"] == "wait_at_the_gate" for frame in stack["frames"])
    ]
    (name,) = stack["threads"]
    host, pid, who = name.split("/")
    assert host and pid.isdigit() and who == f"stuck at the gate({thread.ident})"
    assert all(frame.keys() - {"code"} == {"file", "line", "function"} for frame in stack["frames"])


@pytest.mark.parametrize("path", ["stacks", "memory?limit=1"])
def test_who_did_not_answer_is_named(app: Any, path: str, monkeypatch: Any, caplog: Any) -> None:
    def some(channel: str, params: Any, expect_answers: bool, timeout: float) -> Answers:
        assert expect_answers and 0 < timeout <= 15
        found = Answers([{"stacks": [], "pid": 1, "hostname": "a"}, None])
        found.missing = ("höst/12", "b/3")
        return found

    monkeypatch.setattr(broadcast, "broadcast", some)
    answer = ask(app, path)
    assert answer.header("X-C2C-Missing") == "h?st/12, b/3"
    assert "höst/12, b/3" in caplog.text
    body = json.loads(answer.body)
    assert body == ([] if path == "stacks" else [{"stacks": [], "pid": 1, "hostname": "a"}, None])


# -- memory -----------------------------------------------------------------------------------------------------------


def memory(app: Any, query: str) -> dict[str, Any]:
    answer = ask(app, f"memory?{query}")
    assert answer.status == 200, answer.body
    (one,) = json.loads(answer.body)
    assert isinstance(one, dict)
    return one


def test_memory(app: Any) -> None:
    found = memory(app, "limit=3")
    assert found.keys() == {"nb_collected", "most_common_types", "leaking_objects", "hostname", "pid"}
    assert len(found["nb_collected"]) == 3
    assert len(found["most_common_types"]) == len(found["leaking_objects"]) == 3
    assert all(isinstance(name, str) and count > 0 for name, count in found["most_common_types"])


def test_memory_of_one_class(app: Any) -> None:
    _leaked.append(Planted())
    vars(_leaked[0])["content"] = ["x" * 50_000]
    found = memory(app, f"limit=2&analyze_type={__name__}.Planted")[f"{__name__}.Planted"]
    (biggest,) = found["biggest_objects"]
    assert biggest["size_kb"] > 48
    assert biggest["repr"].startswith(f"<{__name__}.Planted object at 0x")
    assert memory(app, "analyze_type=no.such_class")["no.such_class"] == {"biggest_objects": []}


def test_functions_are_counted_by_package(app: Any) -> None:
    modules = memory(app, "limit=5&analyze_type=builtins.function")["builtins.function"]["modules"]
    assert len(modules) == 5
    assert all(one.keys() == {"module", "nb_func"} and "." not in one["module"] for one in modules)
    assert [one["nb_func"] for one in modules] == sorted((one["nb_func"] for one in modules), reverse=True)


def test_files_that_linecache_keeps(app: Any) -> None:
    import linecache

    linecache.getlines(json.__file__)
    biggest = memory(app, "limit=1000&analyze_type=linecache")["linecache"]["biggest_objects"]
    (mine,) = [one for one in biggest if one["filename"] == json.__file__]
    assert mine["size_kb"] > 10 and mine["repr"] == json.__file__
    assert [one["size_kb"] for one in biggest] == sorted((one["size_kb"] for one in biggest), reverse=True)


def test_dictionaries_of_the_interpreter(app: Any) -> None:
    found = memory(app, "limit=1&python_internals_map=on")
    assert len(found["builtins.dict"]["biggest_objects"]) == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("memory?limit=x", "limit is 'x'; expected an integer from 1 to 1000."),
        ("memory?limit=0", "limit is '0'; expected an integer from 1 to 1000."),
        ("memory?limit=1&limit=2", "limit is given 2 times; expected an integer from 1 to 1000, once."),
        ("memory?python_internals_map=maybe", "python_internals_map is 'maybe'; expected one of 1, true"),
        ("memory?analyze_type=a%00b", "analyze_type is 'a\\x00b'; expected the name of a class"),
        (f"memory?analyze_type={'x' * 300}", "analyze_type is 'xxx"),
        ("memory_diff", "path is missing; expected a path of this application"),
        ("memory_diff?path=", "path is ''; expected a path"),
        ("memory_diff?path=clean", "path is 'clean'; expected a path"),
        ("memory_diff?path=//host/clean", "path is '//host/clean'; expected a path"),
        ("memory_diff?path=http://host/clean", "path is 'http://host/clean'; expected a path"),
        ("memory_diff?path=/a%0d%0ab", "path is '/a\\r\\nb'; expected a path"),
        ("memory_diff?path=/clean&limit=-1", "limit is '-1'"),
        ("memory_diff?path=/clean&no_warmup=perhaps", "no_warmup is 'perhaps'"),
        ("memory_diff?path=/c2c/debug/memory_diff", "path is '/c2c/debug/memory_diff'; expected another path"),
        ("memory_diff?path=/c2c/debug/memory_diff/leak", "path is '/c2c/debug/memory_diff/leak'; expected another"),
        ("memory_diff/c2c/debug/memory_diff/leak", "path is '/c2c/debug/memory_diff/leak'; expected another path"),
        ("show_refs.dot", "Expected one of analyze_type"),
        ("show_refs.dot?analyze_type=a&analyze_id=1", "Expected one of analyze_type"),
        ("show_refs.dot?analyze_id=x", "analyze_id is 'x'; expected an integer"),
        ("show_refs.dot?analyze_id=8", "analyze_id is 8; expected the id of a container or instance in process"),
        ("show_refs.dot?analyze_type=a&max_depth=-1", "max_depth is '-1'; expected an integer from 0 to 20."),
        ("show_refs.dot?analyze_type=a&too_many=0", "too_many is '0'; expected an integer from 1 to 1000."),
        ("show_refs.dot?analyze_type=a&min_size_kb=nan", "min_size_kb is 'nan'; expected a number of KiB"),
        ("show_refs.dot?analyze_type=a&filter=x", "filter is 'x'; expected a number of KiB"),
        ("show_refs.dot?analyze_type=a&filter=1&min_size_kb=1", "min_size_kb and filter are two names"),
    ],
)
def test_what_cannot_be_is_said(app: Any, path: str, said: str) -> None:
    assert refused(app, path).startswith(said)


# -- growth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["memory_diff?path=/leak?a=b", "memory_diff/leak"])
def test_a_planted_leak_is_found(app: Any, path: str) -> None:
    answer = ask(app, path)
    assert answer.header("X-C2C-Subrequest-Status") == "200"
    grown = json.loads(answer.body)
    assert [f"{__name__}.Planted", 10, 5] in grown
    assert all(isinstance(name, str) and total >= more > 0 for name, total, more in grown)
    assert [more for _, _, more in grown] == sorted((more for _, _, more in grown), reverse=True)


def test_not_more_growth_than_asked_for(app: Any) -> None:
    assert len(json.loads(ask(app, "memory_diff?path=/leak&limit=1").body)) == 1


def test_without_warming_up_it_is_called_once(app: Any) -> None:
    ask(app, "memory_diff?path=/leak&no_warmup")
    assert len(_leaked) == 5
    ask(app, "memory_diff?path=/leak&no_warmup=1")
    assert len(_leaked) == 10
    ask(app, "memory_diff?path=/leak&no_warmup=0")
    assert len(_leaked) == 20


@pytest.mark.parametrize(("path", "status"), [("/clean", "200"), ("/nowhere", "404"), ("/c2c/debug/time", "200")])
def test_what_is_let_go_does_not_grow(app: Any, path: str, status: str) -> None:
    answer = ask(app, f"memory_diff?path={path}")
    assert answer.header("X-C2C-Subrequest-Status") == status
    assert not [name for name, _, _ in json.loads(answer.body) if "Planted" in name or "Request" in name]


def test_an_application_that_raises_is_measured(app: Any) -> None:
    answer = ask(app, "memory_diff?path=/fail")
    assert answer.header("X-C2C-Subrequest-Status") == "exception"
    assert [f"{__name__}.Planted", 2, 1] in json.loads(answer.body)


@pytest.mark.parametrize(
    ("path", "info", "query"),
    [
        ("memory_diff?path=/show", "/show", ""),
        ("memory_diff?path=/show?a=b%26c=d%2520e", "/show", "a=b&c=d%20e"),
        ("memory_diff?path=/show?a=%C3%A9%20f", "/show", "a=%C3%A9%20f"),
        (f"memory_diff/show?secret={SECRET.replace(' ', '+')}&a=b&limit=3&no_warmup", "/show", "a=b"),
    ],
)
def test_what_is_sent(app: Any, path: str, info: str, query: str) -> None:
    ask(app, path)
    sent = _seen[-1]
    assert (sent["REQUEST_METHOD"], sent["PATH_INFO"], sent["QUERY_STRING"]) == ("GET", info, query)
    assert sent["wsgi.input"].read() == b"" and "CONTENT_TYPE" not in sent


def test_the_application_s_client_goes_on_and_our_secret_does_not(app: Any) -> None:
    ask(
        app,
        "memory_diff?path=/show",
        SCRIPT_NAME="/mounted",
        HTTP_COOKIE="a=1; C2C_SECRET=login; b=2",
        HTTP_AUTHORIZATION="Bearer the-application-s",
        HTTP_X_TENANT="one",
        HTTP_REFERER=f"http://localhost/?secret={SECRET}",
        HTTP_X_MINE=f"has {SECRET} inside",
        HTTP_IF_NONE_MATCH="x",
        HTTP_RANGE="bytes=0-1",
        CONTENT_LENGTH="0",
    )
    sent = _seen[-1]
    assert sent["HTTP_AUTHORIZATION"] == "Bearer the-application-s"
    assert sent["HTTP_X_TENANT"] == "one"
    assert sent["SCRIPT_NAME"] == "/mounted" and sent["HTTP_HOST"] == "localhost:80"
    assert [part.strip() for part in sent["HTTP_COOKIE"].split(";")] == ["a=1", "b=2"]
    assert not {"HTTP_X_API_KEY", "HTTP_REFERER", "HTTP_X_MINE", "HTTP_IF_NONE_MATCH", "HTTP_RANGE"} & sent.keys()
    assert SECRET not in repr({key: value for key, value in sent.items() if key.isupper()})


def test_our_own_views_are_not_opened_from_inside(app: Any) -> None:
    assert ask(app, "memory_diff?path=/c2c/debug/stacks").header("X-C2C-Subrequest-Status") == "403"


def test_a_measurement_is_not_measured(app: Any) -> None:
    answer = ask(app, "memory_diff?path=/clean", **{subrequest.MARKER: True})
    assert answer.status == 400


def test_one_measurement_at_a_time(app: Any) -> None:
    from c2c_otel.debug import memory_diff

    assert memory_diff._one.acquire(timeout=10)
    try:
        assert ask(app, "memory_diff?path=/clean").status == 409
    finally:
        memory_diff._one.release()


@pytest.mark.parametrize(
    "header", ["C2C_SECRET=x", "a=1 C2C_SECRET=x", " C2C_SECRET =x;C2C_SECRET=y", "a=1,C2C_SECRET=x"]
)
def test_a_login_is_found_in_any_cookie_header(header: str) -> None:
    assert "C2C_SECRET" not in subrequest._without_login(header)


# -- maps and references ----------------------------------------------------------------------------------------------


def test_memory_maps(app: Any) -> None:
    found = json.loads(ask(app, "memory_maps").body)
    assert found == sorted(found, key=lambda one: (-one["pss_kb"], one["name"]))
    assert found[0].keys() == {"name", "pss_kb", "rss_kb", "size_kb"}


@pytest.mark.parametrize("more", ["", "&backrefs", "&no_extra_info=1&max_depth=1", "&filter=0.01", "&min_size_kb=0.01"])
def test_references_by_class(app: Any, dot: Callable[[bytes], str], more: str) -> None:
    _leaked.extend([Planted(), Planted()])
    answer = ask(app, f"show_refs.dot?analyze_type={__name__}.Planted&too_many=3{more}")
    assert (answer.status, answer.header("Content-Type")) == (200, "text/vnd.graphviz; charset=utf-8")
    text = answer.body.decode()
    assert text.count("fontcolor=red") == 2
    assert (" kb\\n" in text) is ("no_extra_info" not in more)
    assert ("'_leaked'" in text) is (more == "&backrefs")
    assert 'class="node"' in dot(answer.body)


def test_references_by_id(app: Any) -> None:
    _leaked.append(Planted())
    text = ask(app, f"show_refs.dot?analyze_id={id(_leaked[0])}&max_depth=0").body.decode()
    assert f"o{id(_leaked[0])} [" in text and "->" not in text


def test_the_views_listen_for_the_others(app: Any) -> None:
    assert admin.VIEWS.index("c2c_otel_views.debug_stacks") >= 0
    answers = broadcast.broadcast(debug.STACKS, {}, expect_answers=True, timeout=10)
    assert answers and answers[0]["stacks"]
