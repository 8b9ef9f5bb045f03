"""The directory of a run: who is in it, and when it goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from c2c_otel import runtime_dir
from c2c_otel.runtime_dir import Run
from c2c_otel.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(runtime_dir=tmp_path / "runtime")


def test_directories_are_closed_to_others(settings: Settings) -> None:
    run = Run.join(settings, "a")
    for path in (settings.runtime_dir, run.path, run.metrics):
        assert path is not None
        assert path.stat().st_mode & 0o777 == 0o700
    run.leave()


def test_an_ended_run_is_removed_by_the_next_start(settings: Settings) -> None:
    first = Run.join(settings, "first")
    (first.metrics / "file").write_bytes(b"x")
    second = Run.join(settings, "second")
    assert first.path.exists()  # still held
    first.leave()
    third = Run.join(settings, "third")
    assert sorted(path.name for path in first.path.parent.iterdir()) == ["second", "third"]
    second.leave()
    third.leave()


def test_a_run_is_held_by_a_process_that_was_executed(settings: Settings) -> None:
    """As the launcher does it: the descriptor passes through exec."""
    runtime_dir.base_directory(settings)
    run = Run.join(settings, "launched", inheritable=True)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    run.leave()
    other = Run.join(settings, "other")
    assert run.path.exists()
    child.communicate(b"\n")
    other.leave()
    last = Run.join(settings, "last")
    assert not run.path.exists()
    last.leave()


def test_roots_launcher_leaves_a_named_directory_to_who_serves(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.runtime_dir is not None
    with monkeypatch.context() as root:
        root.setattr(os, "getuid", lambda: 0)
        with pytest.raises(FileNotFoundError, match="made by whoever serves"):
            Run.join(settings, "launched", inheritable=True)
    assert not settings.runtime_dir.exists()
    Run.join(settings, "worker").leave()
    Run.join(settings, "launched", inheritable=True).leave()


def test_a_run_may_be_joined_again_after_it_was_removed(settings: Settings) -> None:
    Run.join(settings, "a").leave()
    Run.join(settings, "b").leave()
    again = Run.join(settings, "a")
    assert (again.path / "alive").exists()
    again.leave()


def test_an_identity_cannot_leave_the_directory(settings: Settings) -> None:
    run = Run.join(settings, "../../etc/x y")
    assert run.path.parent == settings.runtime_dir / "run"  # type: ignore[operator]
    run.leave()


def test_a_directory_others_can_write_to_is_refused(settings: Settings) -> None:
    assert settings.runtime_dir is not None
    settings.runtime_dir.mkdir()
    settings.runtime_dir.chmod(0o777)
    with pytest.raises(PermissionError, match=r"C2C_RUNTIME_DIR is .* expected a directory that belongs to uid"):
        Run.join(settings, "a")


def test_a_link_instead_of_the_directory_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    assert settings.runtime_dir is not None
    settings.runtime_dir.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        Run.join(settings, "a")


def test_identity_of_a_process_outside_gunicorn_is_its_own() -> None:
    identity = runtime_dir.run_id(Settings())
    pid, _, started = identity.partition("-")
    assert int(pid) == os.getpid()
    assert int(started) > 0
    assert runtime_dir.run_id(Settings(service_id="given")) == "given"


def test_services_without_a_name_are_told_apart_by_where_they_are_started(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one service's read-only switch would be the other's."""
    found = []
    for name in ("shop", "stock", "shop", "sh op"):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        found.append(runtime_dir.state_directory(settings))
    assert found[0] == found[2]
    assert len(set(found)) == 3
    assert found[0].name.startswith("in_shop_") and found[3].name.startswith("in_sh_op_")


def test_state_outlives_runs(settings: Settings) -> None:
    state = runtime_dir.state_directory(Settings(runtime_dir=settings.runtime_dir, service_name="shop/eu"))
    assert state.relative_to(settings.runtime_dir / "state") == Path("shop_eu")  # type: ignore[operator]
    (state / "flag").write_text("1")
    Run.join(settings, "a").leave()
    Run.join(settings, "b").leave()
    assert (state / "flag").read_text() == "1"
