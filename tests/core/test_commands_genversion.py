"""``c2c-otel-genversion``: what is in versions.json, and what is not left behind."""

from __future__ import annotations

import importlib.metadata
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel.commands import genversion


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def distribution(site: Path, name: str, version: str = "", url: object = None) -> None:
    info = site / f"{name}-{version or 0}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Name: {name}", *([f"Version: {version}"] if version else [])]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
    if url is not None:
        (info / "direct_url.json").write_text(url if isinstance(url, str) else json.dumps(url))


def installed(*sites: Path) -> list[importlib.metadata.Distribution]:
    return list(importlib.metadata.distributions(path=[str(site) for site in sites]))


@pytest.mark.parametrize(
    ("words", "main"),
    [
        (["abc"], {"git_hash": "abc"}),
        (["1.2", "abc"], {"git_hash": "abc", "git_tag": "1.2"}),
        (["", "abc"], {"git_hash": "abc"}),
    ],
)
def test_tag_and_hash(here: Path, words: Sequence[str], main: dict[str, str]) -> None:
    assert genversion.main(words) == 0
    content = json.loads((here / "versions.json").read_text())
    assert content["main"] == main
    for name in ("pyramid", "opentelemetry-sdk", "c2c-otel"):
        assert content["packages"][name] == importlib.metadata.version(name)


@pytest.mark.parametrize("words", [[], ["a", "b", "c"], ["1.2", ""], [" "], ["--outpu", "x", "abc"]])
def test_a_usage_error_is_2_and_writes_nothing(here: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        genversion.main(words)
    assert ended.value.code == 2
    assert list(here.iterdir()) == []


def test_no_version_is_lost_and_commits_are_told(tmp_path: Path) -> None:
    site, later = tmp_path / "site", tmp_path / "later"
    distribution(site, "Zope.thing", "1")
    distribution(site, "editable", "2.0", {"url": "file:///src", "dir_info": {"editable": True}})
    distribution(site, "from_file", "3.0", {"url": "file:///x.whl", "archive_info": {}})
    distribution(
        site, "from_git", "4.0", {"url": "https://me:hush@git/x", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}
    )
    distribution(site, "garbled", "5.0", "{")
    distribution(site, "listed", "6.0", [1])
    distribution(later, "zope_thing", "0.9")  # hidden by the one above
    found = genversion.versions(None, "abc", installed(site, later))
    assert found == {
        "main": {"git_hash": "abc"},
        "packages": {
            "editable": "2.0",
            "from_file": "3.0",
            "from_git": "4.0",
            "garbled": "5.0",
            "listed": "6.0",
            "Zope.thing": "1",
        },
        "commits": {"from_git": "c0ffee"},
    }
    assert list(found["packages"]) == ["editable", "from_file", "from_git", "garbled", "listed", "Zope.thing"]
    assert "hush" not in json.dumps(found)


def test_what_is_half_installed_is_said_and_left_out(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    distribution(here / "site", "whole", "1.0")
    distribution(here / "site", "half")
    (here / "site" / "empty-1.dist-info").mkdir()
    found = installed(here / "site")
    assert len(found) == 3
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: found)
    assert genversion.main(["abc"]) == 0
    assert json.loads((here / "versions.json").read_text())["packages"] == {"whole": "1.0"}
    said = capsys.readouterr().err
    assert "half" in said and "empty" in said and said.count("\n") == 2


def test_the_file_is_replaced_as_a_whole_and_can_be_read_by_others(here: Path) -> None:
    target = here / "versions.json"
    target.write_text("x" * 100_000)
    before = target.stat().st_ino
    mask = os.umask(0o022)
    try:
        assert genversion.main(["abc"]) == 0
    finally:
        os.umask(mask)
    assert target.stat().st_ino != before
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert [path.name for path in here.iterdir()] == ["versions.json"]


def test_what_cannot_be_written_is_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert genversion.main(["abc", "--output", "nowhere/versions.json"]) == 1
    assert capsys.readouterr().err == (
        "c2c-otel-genversion: nowhere/versions.json cannot be written: No such file or directory\n"
    )
    (here / "there").mkdir()
    assert genversion.main(["abc", "--output", "there"]) == 1
    assert [path.name for path in here.rglob("*")] == ["there"], "no trace"


def test_the_views_and_the_version_know_it(here: Path) -> None:
    from c2c_otel import version

    genversion.main(["1.2", "abc"])
    assert version.get_version(here / "versions.json") == "abc"


@given(st.text(min_size=1).filter(lambda text: text.strip() and not text.startswith("-")), st.text())
def test_any_text_comes_out_again(commit: str, tag: str) -> None:
    found = json.loads(json.dumps(genversion.versions(tag, commit, [])))
    assert found["main"]["git_hash"] == commit.strip()
    assert found["main"].get("git_tag", "") == tag.strip()
