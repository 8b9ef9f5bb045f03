"""Requests that are followed: planted time is found, threads do not disturb each other, and each ends cleanly."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyinstrument import Profiler
from pyinstrument.stack_sampler import get_stack_sampler
from pyramid.config import Configurator
from pyramid.response import FileIter, Response

from c2c_otel import profiler, telemetry
from c2c_otel.profiler import everybody, recording, sessions, switch
from c2c_otel.profiler.modules import shares
from c2c_otel.profiler.recording import Recorder
from c2c_otel.profiler.sessions import kept
from c2c_otel.profiler.switch import Mode
from c2c_otel.profiler.tree import Tree
from c2c_otel_exporters import guard
from tests import pyramid_kit as kit
from tests.apps import profiler as app
from tests.apps import profiler_alpha
from tests.shared_kit import Clock, FakeBroadcast, clock, forget, network, process, settings

__all__ = ["clock", "network", "process", "settings"]

MODULES = ("tests.apps.profiler_alpha", "tests.apps.profiler_beta", "tests.apps")


def on(**more: Any) -> Recorder:
    """Switch it on in this process alone."""
    switch.active = Recorder(
        Mode(**{"interval": 0.001, "min_seconds": 0.0, "path": "", "until": time.time() + 60, **more})
    )
    return switch.active


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> Iterator[kit.FakeTelemetry]:
    """Afterwards nothing looks at this thread any more."""
    fake = kit.install(monkeypatch)
    kept.delete(None)
    yield fake
    switch.active = None
    kept.delete(None)
    assert sys.getprofile() is None and not get_stack_sampler().subscribers
    assert getattr(recording._thread, "recording", None) is None
    kit.assert_left_nothing()


def make(**views: Any) -> Any:
    return kit.make({"busy": app.busy, "stream": app.stream, "broken": app.broken, **views})


def busy(request: Any) -> Response:
    app.busy(request)
    return Response("done")


def trees() -> list[tuple[Any, Tree]]:
    """What was kept, the oldest first."""
    found = []
    for head in kept.heads():
        got = kept.get(head["id"])
        assert got is not None
        found.append((got[0], Tree.load(got[1])))
    return found


def names(tree: Tree) -> set[str]:
    return {frame.name for frame in tree.frames}


def percents(tree: Tree) -> dict[str, float]:
    return {share.package: 100 * share.own / tree.total() for share in shares(tree, MODULES)}


def check_planted(tree: Tree) -> None:
    found = percents(tree)
    assert 50 <= found["tests.apps.profiler_alpha"] <= 80  # 60, and most of the last 10
    assert 20 <= found["tests.apps.profiler_beta"] <= 45


# -- what is seen -----------------------------------------------------------------------------------------------------


def test_off_nothing_is_followed(observed: kit.FakeTelemetry) -> None:
    assert switch.active is None and profiler.mode() is None
    assert kit.get(make(busy=busy), "/busy?ms=5").status == 200
    assert kept.heads() == []


def test_planted_time_is_found(observed: kit.FakeTelemetry) -> None:
    on()
    answer = kit.get(make(busy=busy), "/busy?ms=300")
    ((head, tree),) = trees()
    check_planted(tree)
    hot = next(node for node in range(len(tree)) if tree.frame(node).name == "hot")
    assert 45 <= 100 * tree.totals()[hot] / tree.total() <= 75
    assert {"TracedRouter.__call__", "busy", "hot", "spin", "Beta.warm"} <= names(tree)
    assert not {"run", "_start", "_stop", "answer", "_c2c_answer"} & names(tree), "the profiler shows itself"
    assert (head["method"], head["path"], head["route"], head["pattern"]) == ("GET", "/busy", "busy", "/busy")
    assert (head["status"], head["error"]) == (200, None)
    assert head["samples"] == tree.samples > 10
    assert 0 < head["sampled"] <= head["seconds"]
    assert head["request_id"] == answer.header("X-Request-ID")
    assert head["trace_id"] == f"{observed.span('GET /busy').context.trace_id:032x}"


def test_two_threads_at_once(observed: kit.FakeTelemetry) -> None:
    """Each session has its own thread's functions alone."""
    together = threading.Barrier(2, timeout=20)

    def one(request: Any) -> Response:
        together.wait()
        only_here(0.1)
        return Response("one")

    def two(request: Any) -> Response:
        together.wait()
        only_there(0.1)
        return Response("two")

    def only_here(seconds: float) -> None:
        profiler_alpha.spin(seconds, profiler_alpha.work)

    def only_there(seconds: float) -> None:
        profiler_alpha.spin(seconds, profiler_alpha.work)

    on()
    made = make(one=one, two=two)
    threads = [threading.Thread(target=kit.get, args=(made, path)) for path in ("/one", "/two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = {head["route"]: (head, tree) for head, tree in trees()}
    assert found.keys() == {"one", "two"}
    assert found["one"][0]["started"] - found["two"][0]["started"] < 5
    for route, mine, others in (("one", "only_here", "only_there"), ("two", "only_there", "only_here")):
        head, tree = found[route]
        assert mine in names(tree) and others not in names(tree)
        assert head["thread"].startswith("Thread-")
    assert found["one"][0]["thread"] != found["two"][0]["thread"]


def test_a_body_that_works_while_it_is_read(observed: kit.FakeTelemetry) -> None:
    """What the server does between its steps is not the request's."""
    on()
    answer = kit.start(make(), "/stream")
    assert kept.heads() == []
    body = iter(answer.body_object)
    assert next(body) == b"part"
    assert sys.getprofile() is None
    profiler_alpha.spin(0.02, lambda: None)
    assert b"".join(body) == b"partpart"
    answer.close()
    ((head, tree),) = trees()
    assert head["route"] == "stream" and head["status"] == 200
    assert {"body", "hot"} <= names(tree)
    assert "test_a_body_that_works_while_it_is_read" not in names(tree)
    top = [tree.frame(node).name for node, parent in enumerate(tree.parents) if parent == -1]
    assert "body" in top
    assert 0.02 < tree.total() < 0.1


def test_a_body_that_is_left_in_the_middle(observed: kit.FakeTelemetry) -> None:
    on()
    answer = kit.start(make(), "/stream")
    next(iter(answer.body_object))
    answer.close()
    assert [head["route"] for head in kept.heads()] == ["stream"]


def test_a_body_that_raises(observed: kit.FakeTelemetry) -> None:
    def failing(request: Any) -> Response:
        def body() -> Iterator[bytes]:
            yield b"one"
            raise KeyError("planted")

        return Response(app_iter=body())

    on()
    answer = kit.start(make(failing=failing), "/failing")
    body = iter(answer.body_object)
    assert next(body) == b"one"
    with pytest.raises(KeyError):
        next(body)
    assert sys.getprofile() is None
    answer.close()
    assert [(head["route"], head["error"]) for head in kept.heads()] == [("failing", "KeyError")]


def test_a_body_keeps_its_length(observed: kit.FakeTelemetry) -> None:
    class Sized(list[bytes]):
        pass

    def plain(request: Any) -> Response:
        return Response(b"abc")

    def sized(request: Any) -> Response:
        return Response(app_iter=Sized([b"a", b"b"]))

    on()
    made = make(plain=plain, sized=sized)
    answer = kit.start(made, "/plain")
    assert len(answer.body_object) == 1
    assert len(kept.heads()) == 1, "a list is sent by the server alone"
    assert answer.read().body == b"abc"
    answer = kit.start(made, "/sized")
    assert len(answer.body_object) == 2
    assert answer.read().body == b"ab"
    assert len(kept.heads()) == 2


def test_the_servers_file_wrapper_stays_its_own(observed: kit.FakeTelemetry) -> None:
    def file(request: Any) -> Response:
        wrapper = request.environ["wsgi.file_wrapper"]
        return Response(app_iter=wrapper(Path(__file__).open("rb")))

    on()
    answer = kit.start(make(file=file), "/file", **{"wsgi.file_wrapper": FileIter})
    assert isinstance(answer.body_object, FileIter)
    assert len(kept.heads()) == 1
    assert answer.read().body == Path(__file__).read_bytes()


def test_an_exception_ends_the_session(observed: kit.FakeTelemetry) -> None:
    on()
    with pytest.raises(ValueError, match="planted"):
        kit.get(make(), "/broken")
    ((head, tree),) = trees()
    assert (head["route"], head["error"]) == ("broken", "ValueError")
    assert "Beta.warm" in names(tree)


def test_an_application_within_is_a_part_of_the_request(observed: kit.FakeTelemetry) -> None:
    inner = make(busy=busy)

    def outer(request: Any) -> Response:
        return request.copy().__class__.blank("/busy?ms=30").get_response(inner)

    on()
    assert kit.get(make(outer=outer), "/outer").body == b"done"
    ((head, tree),) = trees()
    assert head["path"] == "/outer" and {"outer", "busy", "hot"} <= names(tree)


def test_a_body_that_another_request_reads_is_a_part_of_that(observed: kit.FakeTelemetry) -> None:
    def reading(request: Any) -> Response:
        return Response(b"".join(streaming.body_object))

    on()
    made = make(reading=reading)
    streaming = kit.start(made, "/stream")
    assert kit.get(made, "/reading").body == b"partpartpart"
    streaming.close()
    found = {head["route"]: tree for head, tree in trees()}
    assert {"reading", "body", "hot"} <= names(found["reading"])
    assert "hot" not in names(found["stream"])


def test_what_the_sampler_does_itself_is_not_seen(observed: kit.FakeTelemetry) -> None:
    recorder = on()
    followed = recording.Recording(recorder.mode, kit.environ("/a"))
    followed.run(lambda: None)
    file = recording.__file__
    above = [f"f{number}\x00/a.py\x001" for number in range(followed._depth - 1)]
    run, start = f"run\x00{file}\x001", f"_start\x00{file}\x001"
    followed._sample([*above, run, start, "subscribe\x00/p.py\x001"], 1.0, None)
    followed._sample([*above, run], 1.0, None)
    assert len(followed._tree) == 0
    followed._sample([*above, run, "view\x00/v.py\x001"], 1.0, None)
    assert followed._tree.frames == ["view\x00/v.py\x001"]
    followed._sample(["thread", "elsewhere\x00/g.py\x001"], 1.0, None)  # in a greenlet of the application's
    assert followed._tree.frames[1:] == ["elsewhere\x00/g.py\x001"]


def test_what_another_thread_does_is_not_seen(observed: kit.FakeTelemetry) -> None:
    def delegating(request: Any) -> Response:
        thread = threading.Thread(target=profiler_alpha.hot, args=(0.05,))
        thread.start()
        thread.join()
        return Response("")

    on()
    kit.get(make(delegating=delegating), "/delegating")
    ((_, tree),) = trees()
    assert "hot" not in names(tree) and "Thread.join" in names(tree)


# -- which requests, and how many -------------------------------------------------------------------------------------


def test_which_requests(observed: kit.FakeTelemetry) -> None:
    made = make(busy=busy)
    on(path="/bus")
    kit.get(made, "/stream")
    kit.get(made, "/busy?ms=2")
    assert [head["path"] for head in kept.heads()] == ["/busy"]
    on(min_seconds=0.04)
    kit.get(made, "/busy?ms=2")
    kit.get(made, "/busy?ms=60")
    assert len(kept.heads()) == 2
    assert kept.heads()[1]["seconds"] > 0.04


def test_the_interval(observed: kit.FakeTelemetry) -> None:
    made = make(busy=busy)
    for interval in (0.001, 0.05):
        on(interval=interval)
        kit.get(made, "/busy?ms=100")
    many, few = (head["samples"] for head in kept.heads())
    assert many > 4 * few > 0


def test_the_oldest_make_room(observed: kit.FakeTelemetry) -> None:
    observed.settings = dataclasses.replace(observed.settings, profiler_max_sessions=3)
    on()
    made = make(busy=busy)
    for number in range(5):
        kit.get(made, f"/busy?ms=1&n={number}", HTTP_X_REQUEST_ID=f"number-{number}")
    assert [head["request_id"] for head in kept.heads()] == ["number-2", "number-3", "number-4"]
    assert kept.state()["sessions"] == 3 and kept.state()["dropped"] == 2
    assert kept.delete(None) == 3
    assert kept.state() == {"sessions": 0, "bytes": 0, "dropped": 0}


def test_memory_is_bounded(observed: kit.FakeTelemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_BYTES", 12_000)
    on()
    made = make(busy=busy)
    for _ in range(20):
        kit.get(made, "/busy?ms=1")
    state = kept.state()
    assert 2 <= state["sessions"] < 6 and state["sessions"] + state["dropped"] == 20
    assert state["bytes"] <= 12_000


def test_a_long_request_is_bounded(observed: kit.FakeTelemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("c2c_otel.profiler.recording.Tree", lambda: Tree(12))
    on()
    kit.get(make(busy=busy), "/busy?ms=60")
    ((_, tree),) = trees()
    assert len(tree) == 12 and tree.cut > 0
    assert tree.total() > 0.05


def test_a_session_of_its_own_is_deleted(observed: kit.FakeTelemetry) -> None:
    on()
    made = make(busy=busy)
    for _ in range(2):
        kit.get(made, "/busy?ms=1")
    first, second = (head["id"] for head in kept.heads())
    assert kept.delete("nobody") == 0
    assert kept.delete(first) == 1
    assert [head["id"] for head in kept.heads()] == [second] and kept.get(first) is None


def test_all_together(observed: kit.FakeTelemetry) -> None:
    on()
    made = make(busy=busy)
    for path in ("/busy?ms=40", "/busy?ms=40", "/stream"):
        kit.get(made, path)
    heads, tree = kept.merged()
    assert len(heads) == 3
    assert tree.samples == sum(head["samples"] for head in heads)
    assert tree.total() == pytest.approx(sum(head["sampled"] for head in heads), abs=0.001)
    heads, tree = kept.merged("stream")
    assert [head["route"] for head in heads] == ["stream"] and "Beta.warm" not in names(tree)


# -- others who look --------------------------------------------------------------------------------------------------


def test_another_profiler_is_left_alone(observed: kit.FakeTelemetry) -> None:
    calls = []
    on()
    made = make(busy=busy)
    sys.setprofile(lambda frame, event, arg: calls.append(event))
    try:
        kit.get(made, "/busy?ms=5")
        assert sys.getprofile() is not None
    finally:
        sys.setprofile(None)
    assert calls and kept.heads() == []
    guard.reset()


def test_an_application_may_use_pyinstrument_itself(observed: kit.FakeTelemetry) -> None:
    seen = []

    def own(request: Any) -> Response:
        with Profiler(interval=0.001) as mine:
            profiler_alpha.hot(0.03)
        assert mine.last_session is not None
        seen.append(mine.last_session.sample_count)
        profiler_alpha.hot(0.03)
        return Response("")

    on()
    kit.get(make(own=own), "/own")
    ((_, tree),) = trees()
    assert seen[0] > 3
    hot = next(node for node in range(len(tree)) if tree.frame(node).name == "hot")
    assert tree.totals()[hot] > 0.045, "the second half was not followed"


def test_not_in_greenlets(observed: kit.FakeTelemetry) -> None:
    greenlet = pytest.importorskip("greenlet")
    on()
    answer = greenlet.greenlet(lambda: kit.get(make(busy=busy), "/busy?ms=2")).switch()
    assert answer.status == 200 and kept.heads() == []
    guard.reset()


def test_a_failure_of_ours_is_not_the_requests(observed: kit.FakeTelemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> Any:
        raise RuntimeError("ours")

    guard.strict(False)
    try:
        made = make(busy=busy)
        places: list[tuple[Any, str, str]] = [
            (recording, "_can_sample", "begin"),
            (recording, "get_stack_sampler", "start"),
            (Tree, "add", "sample"),
            (sessions.Sessions, "add", "finish"),
        ]
        for owner, name, place in places:
            with monkeypatch.context() as patch:
                if name == "get_stack_sampler":
                    patch.setattr(recording, "_can_sample", lambda: True)
                patch.setattr(owner, name, fails)
                on()
                assert kit.get(made, "/busy?ms=20").status == 200
                assert guard.tally[f"failed.profiler.{place}"] > 0
    finally:
        guard.strict(None)
        guard.reset()


# -- the switch -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared_process(process: FakeBroadcast, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBroadcast]:
    monkeypatch.setattr(everybody, "broadcast", process)
    kept.delete(None)
    profiler.init()
    yield process
    forget()
    kept.delete(None)
    assert switch.active is None


def test_on_and_off(shared_process: FakeBroadcast, caplog: pytest.LogCaptureFixture) -> None:
    assert profiler.mode() is None
    change = profiler.enable(seconds=100, interval=0.002, min_seconds=0.5, path="/tiles", who="me")
    found = profiler.mode()
    assert found is not None and found == change.after and change.before is None
    assert (found.interval, found.min_seconds, found.path) == (0.002, 0.5, "/tiles")
    assert switch.active is not None
    change = profiler.disable(who="me")
    assert change.before == found and change.after is None
    assert profiler.mode() is None and switch.active is None
    assert [record.getMessage().partition(", for")[0] for record in caplog.records][:1] == [
        "Profiler: off -> on (requests of paths that begin with '/tiles' that take 0.5 s or more, every 2 ms"
    ]
    assert caplog.records[0].getMessage().endswith("by me") and len(caplog.records) == 2


def test_settings_are_the_defaults(shared_process: FakeBroadcast) -> None:
    given = telemetry.get().settings
    assert (given.profiler_seconds, given.profiler_interval_seconds) == (600.0, 0.001)
    profiler.enable()
    found = profiler.mode()
    assert found is not None and found.interval == 0.001 and 590 < found.seconds_left() <= 600


def test_it_ends_by_itself(shared_process: FakeBroadcast, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "time", clock)
    monkeypatch.setattr(recording.time, "time", clock.time)
    profiler.enable(seconds=10)
    first = switch.active
    assert first is not None
    clock.now += 9
    assert profiler.mode() is not None
    clock.now += 2
    assert profiler.mode() is None
    made = make(busy=busy)  # nobody has told: the store may be away
    assert switch.active is first
    assert kit.get(made, "/busy?ms=1").status == 200
    assert switch.active is None and kept.heads() == []


@pytest.mark.parametrize(
    "stored",
    [
        "on",
        {},
        {"interval": 0, "min_seconds": 0, "path": "", "until": 1e12},
        {"interval": 0.1, "min_seconds": 0, "path": 5, "until": 1e12},
        {"interval": "x", "min_seconds": 0, "path": "", "until": 1e12},
    ],
)
def test_what_cannot_be_used_is_off(shared_process: FakeBroadcast, stored: Any) -> None:
    profiler.init().set("profile", stored)
    assert switch.active is None
    guard.reset()


def test_without_pyinstrument(shared_process: FakeBroadcast, monkeypatch: pytest.MonkeyPatch) -> None:
    real = switch.importlib.util.find_spec

    def find(name: str, *more: Any) -> Any:
        return None if name == "pyinstrument" else real(name, *more)

    monkeypatch.setattr(switch.importlib.util, "find_spec", find)
    with pytest.raises(ImportError, match=r'pip install "c2c-otel\[profiler\]"'):
        profiler.enable()
    profiler.init().set("profile", Mode(0.001, 0.0, "", time.time() + 60)._asdict())  # by another host
    assert switch.active is None and profiler.mode() is None
    guard.reset()


def test_a_fork_is_off_until_it_is_told(shared_process: FakeBroadcast) -> None:
    profiler.enable()
    kept.add({"id": "x", "path": "/"}, Tree())
    child = os.fork()
    if not child:
        os._exit(int(switch.active is not None or kept.state()["sessions"] != 0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert switch.active is not None and kept.state()["sessions"] == 1


def test_nothing_of_pyinstrument_is_imported_before_it_is_on() -> None:
    code = (
        "import sys; from pyramid.config import Configurator\n"
        "config = Configurator(settings={'c2c.secret': 'a long secret', 'c2c.profiler_path': '/p'})\n"
        "config.include('c2c_otel'); config.make_wsgi_app()\n"
        "assert 'c2c_otel_views.profiler' in sys.modules and 'pyinstrument' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_our_own_views_are_not_followed(observed: kit.FakeTelemetry) -> None:
    config = Configurator(settings={"c2c.secret": "a long secret", "c2c.debug_view_enabled": "1"})
    config.include("c2c_otel")
    made = config.make_wsgi_app()
    on()
    for path in ("/c2c", "/c2c/debug/time", "/c2c/debug/sleep?time=0.01"):
        kit.get(made, path, HTTP_X_API_KEY="a long secret")
    assert kept.heads() == []
