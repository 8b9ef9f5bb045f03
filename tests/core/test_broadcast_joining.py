"""When a process takes part, by which transport, and that it leaves without a trace."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyramid.config import Configurator

from c2c_otel import broadcast, runtime_dir, telemetry
from c2c_otel.broadcast import joining
from c2c_otel.broadcast.unix import UnixTransport
from c2c_otel.runtime_dir import Run
from c2c_otel.settings import ConfigurationError, Settings
from c2c_otel.testing import capture
from c2c_otel_exporters import guard

Program = Callable[..., subprocess.CompletedProcess[str]]

_BROADCAST = """
from pathlib import Path
from c2c_otel import broadcast
from c2c_otel.broadcast import joining

def names():
    return sorted(thread.name for thread in threading.enumerate() if "broadcast" in thread.name)

def sockets():
    return sorted(path.name.partition("-")[0] for path in Path(os.environ["C2C_RUNTIME_DIR"]).glob("run/*/sockets/*"))

broadcast.subscribe("who", lambda: {})

def who():
    return sorted(answer["pid"] for answer in broadcast.broadcast("who", {}, True, 20))
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(runtime_dir=tmp_path / "run", service_id="service")


@pytest.fixture(autouse=True)
def leave() -> Iterator[None]:
    yield
    joining.leave()


# -- which transport --------------------------------------------------------------------------------------------------


def test_unix_sockets_unless_there_is_redis(settings: Settings) -> None:
    joining.join(settings, None, "service")
    assert isinstance(broadcast.get().transport, UnixTransport)
    joining.join(settings, None, "another")  # it has joined
    assert settings.runtime_dir is not None
    [run] = (settings.runtime_dir / "run").iterdir()
    assert run.name == "service"
    assert len(list((run / "sockets").iterdir())) == 1
    joining.leave()
    joining.leave()
    assert not broadcast.get().joined
    assert list((run / "sockets").iterdir()) == []
    again = Run.join(settings, "another")  # nobody holds the run any more
    assert not run.exists()
    again.leave()


def test_telemetrys_run_is_used_and_left_to_it(settings: Settings) -> None:
    run = Run.join(settings, "service")
    joining.join(settings, run, "never")
    joining.leave()
    Run.join(settings, "another").leave()
    assert run.path.exists()
    run.leave()


@pytest.mark.parametrize(
    "changes", [{"redis_url": "redis://localhost:1"}, {"redis_sentinels": "localhost:1"}], ids=["url", "sentinels"]
)
@pytest.mark.parametrize("can", [True, False])
def test_redis_where_it_is_set(
    tmp_path: Path, changes: dict[str, Any], can: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = UnixTransport(tmp_path / "as if it was redis")
    fake = types.ModuleType("c2c_otel.broadcast.redis")
    fake.make = lambda settings: made if can else None  # type: ignore[attr-defined]  # a module of one function
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(broadcast, "redis", fake, raising=False)
    joining.join(Settings(runtime_dir=tmp_path / "run", **changes), None, "service")
    assert isinstance(broadcast.get().transport, UnixTransport)
    assert (broadcast.get().transport is made) is can
    assert (tmp_path / "run").exists() is not can


def test_without_a_directory_the_process_is_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    for _ in range(2):
        joining.join(Settings(runtime_dir=tmp_path / "file" / "run"), None, "service")
        assert broadcast.get().joined
        assert broadcast.get().transport is None
        joining.leave()
    [record] = caplog.records
    assert "Broadcasts reach this process alone, not all workers: " in record.getMessage()


def test_a_directory_in_which_no_socket_can_be_made(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Path, "rename", _refuse)
    run = Run.join(settings, "service")
    joining.join(settings, run, "service")
    assert broadcast.get().joined
    assert broadcast.get().transport is None
    assert "Read-only" in caplog.text
    run.leave()


def _refuse(*args: Any) -> None:
    raise OSError(30, "Read-only file system")


# -- who takes part ---------------------------------------------------------------------------------------------------


def test_inside_of_a_capture_it_stays_in_the_process(run: Program) -> None:
    done = run(
        _BROADCAST
        + """
from c2c_otel.settings import Settings
from c2c_otel.testing import capture
broadcast.init()
assert broadcast.get().transport is not None
joined = []
broadcast.on_join(lambda: joined.append(broadcast.get().transport))
with capture(Settings()):
    assert not broadcast.get().joined
    from pyramid.config import Configurator
    config = Configurator()
    config.include("c2c_otel")
    config.make_wsgi_app()
    assert broadcast.get().joined and broadcast.get().transport is None
    assert who() == [os.getpid()]
assert broadcast.get().transport is joined[0] and joined[1:] == [None], joined
print(names(), len(sockets()))
"""
    )
    assert done.stdout == "['c2c_broadcast_listener'] 1\n"


def test_in_a_capture_no_thread_is_started() -> None:
    broadcast.subscribe("test_capture", lambda: 1)
    try:
        with capture(Settings()):
            Configurator().make_wsgi_app()
            telemetry.get().application_ready()
            assert broadcast.get().joined
            assert broadcast.broadcast("test_capture", {}, expect_answers=True) == [1]
        assert not broadcast.get().joined
    finally:
        broadcast.unsubscribe("test_capture")


@pytest.mark.parametrize("disabled", ["", "true"], ids=["on", "off"])
def test_a_daemon_takes_part_by_init(run: Program, disabled: str) -> None:
    done = run(
        _BROADCAST
        + """
assert who() == [os.getpid()] and names() == [] and sockets() == [], "nothing happens by itself"
stats.increment_counter(["nothing"])
assert names() == [], "telemetry alone takes no part"
broadcast.init()
broadcast.init()
assert sockets() == [str(os.getpid())]
print(names(), who() == [os.getpid()], names())
process.shutdown()
print(sockets(), broadcast.get().joined)
""",
        OTEL_SDK_DISABLED=disabled,
    )
    assert done.stdout == (
        "['c2c_broadcast_listener'] True ['c2c_broadcast_listener', 'c2c_broadcast_who']\n[] False\n"
    )


@pytest.mark.parametrize("disabled", ["", "true"], ids=["on", "off"])
def test_a_process_that_ends_leaves_no_socket(run: Program, disabled: str, tmp_path: Path) -> None:
    done = run(_BROADCAST + "broadcast.init(); print(sockets() == [str(os.getpid())])", OTEL_SDK_DISABLED=disabled)
    assert done.stdout == "True\n"
    assert list((tmp_path / "run").glob("run/*/sockets/*")) == []


def test_init_with_a_configurator(run: Program, tmp_path: Path) -> None:
    done = run(
        _BROADCAST
        + """
from pyramid.config import Configurator
broadcast.init(Configurator(settings={"c2c.secret": "from the ini", "c2c.broadcast_prefix": "ours_"}))
from c2c_otel.broadcast import messages
print(broadcast.get()._key == messages.key_of("from the ini", "ours_"))
"""
    )
    assert done.stdout == "True\n"


def test_init_with_an_ini_value_that_cannot_be_used() -> None:
    config = Configurator(settings={"c2c.requests_default_timeout": "soon"})
    with pytest.raises(ConfigurationError, match=r"c2c\.requests_default_timeout is 'soon'"):
        broadcast.init(config)
    assert not broadcast.get().joined


@pytest.mark.parametrize("disabled", ["", "true"], ids=["on", "off"])
def test_forked_children_join_for_themselves(run: Program, disabled: str) -> None:
    done = run(
        _BROADCAST
        + """
os.environ["C2C_SERVICE_ID"] = "service"
broadcast.init()
parent, parents = os.getpid(), broadcast.get()._token
def child():
    assert not broadcast.get().joined and names() == []
    assert who() == [os.getpid()], "alone"
    assert sockets() == [str(parent)]
    broadcast.init()
    assert who() == sorted([parent, os.getpid()])
    assert broadcast.get()._token != parents
    joining.leave()  # a process of multiprocessing does not run what is registered with atexit
fork(child)
assert who() == [parent]
print(len(sockets()))
""",
        OTEL_SDK_DISABLED=disabled,
        C2C_SERVICE_ID="service",
    )
    assert done.stdout == "1\n"


def test_a_child_that_measures_takes_part_where_an_application_was_made(run: Program) -> None:
    """As under a server that forks what it has loaded, without telling anybody."""
    done = run(
        _BROADCAST
        + """
from pyramid.config import Configurator
config = Configurator()
config.include("c2c_otel")
config.make_wsgi_app()
parent = os.getpid()
def child():
    assert not broadcast.get().joined
    stats.increment_counter(["something"])
    assert who() == sorted([parent, os.getpid()])
fork(child)
print(who() == [parent], len(sockets()))
""",
        C2C_SERVICE_ID="service",
    )
    assert done.stdout == "True 1\n"


def test_an_arbiter_does_not(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    process = telemetry.Telemetry()
    process.configure(settings)
    monkeypatch.setattr(runtime_dir, "gunicorn_role", lambda: ("arbiter", 1))
    process.take_part()
    assert process.held
    process.worker_started()
    assert not broadcast.get().joined
    monkeypatch.setattr(runtime_dir, "gunicorn_role", lambda: None)
    process.release()  # it serves a request all the same
    try:
        assert broadcast.get().joined
    finally:
        process.shutdown()
    assert not broadcast.get().joined


def test_what_goes_wrong_is_not_the_applications_problem(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise ValueError("unexpected")

    process = telemetry.Telemetry()
    process.configure(settings)
    monkeypatch.setattr(joining, "join", fail)
    guard.strict(False)
    try:
        process.application_ready()
    finally:
        guard.strict(None)
        process.shutdown()
    assert guard.tally["failed.broadcast.join"] >= 1
    assert "c2c-otel failed at broadcast.join" in caplog.text
