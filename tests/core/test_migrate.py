"""c2c-otel migrate: each kind of file, and an application made for the predecessor that runs after it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from c2c_otel import __version__
from c2c_otel.commands import migrate
from c2c_otel.migration import dependencies, docker, documents, files, ini, settings
from c2c_otel.migration.change import Rewritten, Unparsable

OLD_WAY = Path(__file__).resolve().parents[1] / "apps" / "old_way"


def again(rewrite: object, done: Rewritten) -> None:
    """A second time, nothing changes, and a person is told the same of what is left."""
    assert rewrite(done.text).text == done.text  # type: ignore[operator]


# -- ini --------------------------------------------------------------------------------------------------------------


def test_ini() -> None:
    old = """\
; c2cwsgiutils.pyramid stays
[pipeline:main]
pipeline = egg:c2cwsgiutils#client_info egg:c2cwsgiutils#sentry app
[app:app]
use=egg:c2cwsgiutils_app
pyramid.includes =
    c2cwsgiutils.pyramid
    pyramid_tm
[loggers]
keys = root, c2cwsgiutils
[logger_c2cwsgiutils]
qualname : c2cwsgiutils
level = %(C2CWSGIUTILS_LOG_LEVEL)s
[handler_json]
class = c2cwsgiutils.pyramid_logging.JsonLogHandler
kwargs = {'stream': 'ext://sys.stdout'}
[handler_db]
class = c2cwsgiutils.sqlalchemylogger.handlers.SQLAlchemyHandler
[handler_other]
class = StreamHandler
kwargs = {'stream': 'ext://sys.stdout'}
"""
    new = """\
; c2cwsgiutils.pyramid stays
[pipeline:main]
pipeline = app
[app:app]
use=egg:c2cwsgiutils_app
pyramid.includes =
    c2c_otel
    pyramid_tm
[loggers]
keys = root, c2cwsgiutils
[logger_c2cwsgiutils]
qualname : c2c_otel
level = %(C2CWSGIUTILS_LOG_LEVEL)s
[handler_json]
class = c2c_otel.pyramid_logging.JsonLogHandler
kwargs = {'stream': sys.stdout}
[handler_db]
class = c2c_otel.sqlalchemylogger.SQLAlchemyHandler
[handler_other]
class = StreamHandler
kwargs = {'stream': 'ext://sys.stdout'}
"""
    done = ini.rewrite(old)
    assert done.text == new and not done.notes
    again(ini.rewrite, done)


def test_ini_what_is_left() -> None:
    done = ini.rewrite("[filter:proxy]\nuse = egg:c2cwsgiutils#client_info\n[a]\nb = c2cwsgiutils.redis_utils\n")
    assert [(note.line, note.text.split(" is gone")[0]) for note in done.notes] == [
        (2, "egg:c2cwsgiutils#client_info"),
        (4, "c2cwsgiutils.redis_utils"),
    ]


def test_ini_that_is_none() -> None:
    with pytest.raises(Unparsable):
        ini.rewrite("c2cwsgiutils = 1\n")


@pytest.mark.parametrize(
    ("line", "noted"),
    [
        ("STATS_VIEW=0", True),
        ("STATS_VIEW: '1'", False),
        ("c2c.sql_request_id = false", True),
        ("DEVELOPMENT=0", False),
        ("DEVELOPMENT: 'false'", True),
        ("c2c.enable_exception_handling = no", True),
        ("C2C_SECRET=c2crulez", True),
        ("# STATS_VIEW=0", False),
        ("MY_STATS_VIEW=0", False),
        ("C2C_AUTH_GITHUB_REPOSITORY=a/b", True),
    ],
)
def test_settings_that_mean_something_else(line: str, noted: bool) -> None:
    assert bool(settings.notes(line)) is noted


# -- Docker -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FROM camptocamp/c2cwsgiutils:4", "FROM c2c-otel:{v}"),
        ("FROM camptocamp/c2cwsgiutils:release_5-light AS base", "FROM c2c-otel:{v}-light AS base"),
        ("from ghcr.io/camptocamp/c2cwsgiutils:release_5", "from c2c-otel:{v}"),
        ("FROM camptocamp/c2cwsgiutils", "FROM c2c-otel:{v}"),
        ("FROM camptocamp/c2cwsgiutils:${TAG}", "FROM camptocamp/c2cwsgiutils:${{TAG}}"),
        ("FROM camptocamp/c2cwsgiutils_app:1", "FROM camptocamp/c2cwsgiutils_app:1"),
        ("FROM debian\nRUN pip install c2cwsgiutils==4.1", "FROM debian\nRUN pip install c2c-otel=={v}"),
        ('FROM debian\nRUN pip install \\\n  # why\n  "c2cwsgiutils[all]"',
         'FROM debian\nRUN pip install \\\n  # why\n  "c2c-otel[all]"'),
        ("FROM debian\nRUN cd c2cwsgiutils", "FROM debian\nRUN cd c2cwsgiutils"),
        ('FROM debian\nCMD ["/usr/local/bin/c2cwsgiutils-run"]', 'FROM debian\nCMD ["c2c-otel-run"]'),
        ("FROM debian\nCMD gunicorn c2cwsgiutils.wsgi_app:application",
         "FROM debian\nCMD gunicorn c2c_otel.wsgi_app:application"),
        # who installs is root, as it was
        ("FROM camptocamp/c2cwsgiutils:4\nRUN make\nENV A=1\n",
         "FROM c2c-otel:{v}\nUSER root\nRUN make\nENV A=1\nUSER 10001\n"),
        ("FROM camptocamp/c2cwsgiutils:4 AS a\nRUN make\nFROM a\nCMD x",
         "FROM c2c-otel:{v} AS a\nUSER root\nRUN make\nUSER 10001\nFROM a\nCMD x"),
        ("FROM camptocamp/c2cwsgiutils:4\nRUN make\nUSER www\n", "FROM c2c-otel:{v}\nRUN make\nUSER www\n"),
        ("FROM camptocamp/c2cwsgiutils:4\r\nRUN make\r\nCMD [\"c2cwsgiutils-run\"]",
         "FROM c2c-otel:{v}\r\nUSER root\r\nRUN make\r\nUSER 10001\r\nCMD [\"c2c-otel-run\"]"),
        ("FROM debian\nRUN <<EOF\nnothing instructive\nc2cwsgiutils-run\nEOF\n",
         "FROM debian\nRUN <<EOF\nnothing instructive\nc2c-otel-run\nEOF\n"),
    ],
)  # fmt: skip
def test_dockerfile(old: str, new: str) -> None:
    done = docker.rewrite(old)
    assert done.text == new.format(v=__version__)
    again(docker.rewrite, done)


def test_dockerfile_notes() -> None:
    done = docker.rewrite("ARG TAG\nFROM camptocamp/c2cwsgiutils:4\nRUN x\nFROM camptocamp/c2cwsgiutils:$TAG\n", "r/i")
    assert f"FROM r/i:{__version__}\nUSER root\nRUN x\nUSER 10001\n" in done.text
    lines = {note.line: note.text for note in done.notes}
    assert "user 10001" in lines[2] and "which image" in lines[6]


@pytest.mark.parametrize("text", ["FROM a\nc2cwsgiutils-run\n", "<html>c2cwsgiutils</html>"])
def test_dockerfile_that_is_none(text: str) -> None:
    with pytest.raises(Unparsable):
        docker.rewrite(text)


def test_compose() -> None:
    done = documents.rewrite_yaml((OLD_WAY / "docker-compose.yml").read_text())
    assert "image: camptocamp/shop:${DOCKER_TAG}\n" in done.text
    assert f'image: "c2c-otel:{__version__}"\n' in done.text
    assert "GUNICORN_PARAMS: '-b :80 --threads 10 --timeout 60 --reload'   # while we write it\n" in done.text
    assert "- c2c-otel-stats-db\n" in done.text and "c2cwsgiutils" not in done.text
    assert {"Image", "Views"} == {note.section for note in done.notes}
    assert any("port 80" in note.text for note in done.notes)
    again(documents.rewrite_yaml, done)


def test_compose_that_is_none() -> None:
    with pytest.raises(Unparsable):
        documents.rewrite_yaml("{{- if .Values.x }}\ncommand: [c2cwsgiutils-run]\n{{- end }}\n")


def test_yaml_with_tags_of_others_is_only_read() -> None:
    text = "a: !!python/object/apply:os.system [c2cwsgiutils-run]\nb: !vault x\n"
    assert "c2c-otel-run" in documents.rewrite_yaml(text).text


# -- requirements -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("c2cwsgiutils\n", "c2c-otel\n"),
        ("c2cwsgiutils==4.1.1  # why c2cwsgiutils\n", "c2c-otel=={v}  # why c2cwsgiutils\n"),
        ("c2cwsgiutils[broadcast]>=4,<5; python_version > '3'\n", "c2c-otel>={v}; python_version > '3'\n"),
        ("C2CWSGIUtils[standard, tests]\n",
         "c2c-otel[acceptance,alembic,gunicorn,postgresql,requests]\n"),
        ("c2cwsgiutils-app==1\nmy-c2cwsgiutils\n", "c2cwsgiutils-app==1\nmy-c2cwsgiutils\n"),
        ("-e git+https://example.com/c2cwsgiutils.git#egg=c2cwsgiutils\n",
         "-e git+https://example.com/c2cwsgiutils.git#egg=c2cwsgiutils\n"),
        ("# c2cwsgiutils\n", "# c2cwsgiutils\n"),
        ("c2cwsgiutils==4.1.1 \\\n    --hash=sha256:aa\n", "c2cwsgiutils==4.1.1 \\\n    --hash=sha256:aa\n"),
    ],
)  # fmt: skip
def test_requirements(old: str, new: str) -> None:
    done = dependencies.rewrite(old)
    assert done.text == new.format(v=__version__)
    again(dependencies.rewrite, done)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('dependencies = ["c2cwsgiutils[all]==6.1.10", "pyramid"]\n',
         'dependencies = ["c2c-otel[all]=={v}", "pyramid"]\n'),
        ('c2cwsgiutils = "6.1.10" # pin\n', 'c2c-otel = "{v}" # pin\n'),
        ('c2cwsgiutils = "*"\n', 'c2c-otel = "*"\n'),
        ('c2cwsgiutils = "^6.1"\n', 'c2c-otel = ">={v}"\n'),
        ('"c2cwsgiutils" = {{ version = "6.1.10", extras = ["standard", "oauth2"] }}\n',
         '"c2c-otel" = {{ version = "{v}", extras = ["alembic", "gunicorn", "postgresql", "requests"] }}\n'),
        ('name = "c2cwsgiutils_app"\n', 'name = "c2cwsgiutils_app"\n'),
    ],
)  # fmt: skip
def test_toml(old: str, new: str) -> None:
    done = dependencies.rewrite_toml(old.replace("{{", "{").replace("}}", "}"))
    assert done.text == new.format(v=__version__)
    again(dependencies.rewrite_toml, done)


def test_toml_that_is_none() -> None:
    with pytest.raises(Unparsable):
        dependencies.rewrite_toml("c2cwsgiutils = \n")


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD_WAY, tmp_path / "shop"))


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_check_writes_nothing_and_prints_a_diff(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(shop)
    assert migrate.main(["--check", str(shop)]) == 1
    assert snapshot(shop) == before
    out = capsys.readouterr().out
    assert "--- a/shop/views.py\n+++ b/shop/views.py\n" in out
    assert "production.ini:10: c2c.sql_request_id = 0" in out and "[Settings]" in out
    patch = out.partition("\nTo be looked at")[0]
    done = (
        subprocess.run(["patch", "-p1"], input=patch, cwd=shop, text=True, capture_output=True)
        if (shutil.which("patch"))
        else None
    )
    if done is not None:
        assert done.returncode == 0, done.stdout
        assert migrate.main(["--check", str(shop)]) == 0


def test_it_is_idempotent_and_keeps_modes(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "setup.py").chmod(0o755)
    assert migrate.main([str(shop)]) == 0
    once = snapshot(shop)
    assert "8 files changed, 0 files left alone." in capsys.readouterr().out
    assert (shop / "setup.py").stat().st_mode & 0o777 == 0o755
    assert migrate.main([str(shop)]) == 0
    assert snapshot(shop) == once
    assert migrate.main(["--check", str(shop)]) == 0
    assert not [path for path, text in once.items() if b"c2cwsgiutils" in text and path != "production.ini"]
    assert b"    auth,    # who may\n" in once["shop/views.py"], "formatting stays"


def test_only_files_that_people_write_below_the_path(shop: Path) -> None:
    outside = shop.parent / "outside.py"
    outside.write_text("import c2cwsgiutils\n")
    (shop / "link.py").symlink_to(outside)
    (shop / "elsewhere").symlink_to(shop.parent)
    text = "import c2cwsgiutils\n"
    for directory in (".git", "venv", "env", "node_modules"):
        (shop / directory).mkdir()
        (shop / directory / "x.py").write_text(text)
    (shop / "env" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (shop / "binary.py").write_bytes(b"import c2cwsgiutils\n\0")
    (shop / "data.txt").write_text(text)
    left = [shop / name / "x.py" for name in (".git", "venv", "env", "node_modules")] + [outside, shop / "data.txt"]
    assert migrate.main([str(shop)]) == 0
    assert [path.read_text() for path in left] == [text] * len(left)
    assert (shop / "link.py").is_symlink() and (shop / "binary.py").read_bytes() == b"import c2cwsgiutils\n\0"


def test_what_cannot_be_parsed_is_named_and_the_rest_goes_on(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "old.py").write_text("import c2cwsgiutils\nprint 'python 2'\n")
    (shop / "latin.py").write_bytes("import c2cwsgiutils # é\n".encode("latin-1"))
    (shop / "broken.ini").write_text("c2cwsgiutils\n")
    assert migrate.main([str(shop)]) == 1
    said = capsys.readouterr()
    assert "8 files changed, 3 files left alone." in said.out
    assert re.findall(r"(\w+\.\w+): (cannot be parsed|is not UTF-8)", said.err) == [
        ("broken.ini", "cannot be parsed"),
        ("latin.py", "is not UTF-8"),
        ("old.py", "cannot be parsed"),
    ]
    assert (shop / "old.py").read_text() == "import c2cwsgiutils\nprint 'python 2'\n"


def test_one_file(shop: Path) -> None:
    assert migrate.main(["--image", "here/there", str(shop / "Dockerfile")]) == 0
    assert (shop / "Dockerfile").read_text().startswith(f"FROM here/there:{__version__}-light\nUSER root\n")
    assert "c2cwsgiutils" in (shop / "setup.py").read_text()


def test_a_link_that_is_named_stays_one(shop: Path) -> None:
    link = shop.parent / "link.py"
    link.symlink_to(shop / "shop" / "models.py")
    assert migrate.main([str(link)]) == 0
    assert link.is_symlink() and "c2c_otel" in (shop / "shop" / "models.py").read_text()


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        migrate.main([str(tmp_path / "nowhere")])
    assert ended.value.code == 2 and "does not exist" in capsys.readouterr().err


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "libcst", None)
    assert migrate.main([str(tmp_path)]) == 2
    assert "pip install 'c2c-otel[migrate]'" in capsys.readouterr().err


def test_kinds() -> None:
    kinds = ["a.py", "Dockerfile", "Dockerfile.dev", "pyproject.toml", "Pipfile", "requirements-dev.txt", "setup.cfg",
             "production.ini", "docker-compose.override.yaml", "Makefile", "run.sh", ".env", "poetry.lock"]  # fmt: skip
    assert all(files.rewriter(Path(name), "x") for name in kinds)
    assert not [name for name in ("README.md", "a.txt", "a.html") if files.rewriter(Path(name), "x")]


def test_a_lock_is_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "poetry.lock").write_text('name = "c2cwsgiutils"\n')
    assert migrate.main([str(tmp_path)]) == 0
    assert "poetry.lock: make it anew" in capsys.readouterr().out


# -- it runs after it -------------------------------------------------------------------------------------------------

_SERVE = """
import json, plaster
from webob import Request

loader = plaster.get_loader("c2c://production.ini", protocols=["wsgi"])
loader.setup_logging()
application = loader.get_wsgi_app("main")


def ask(path, **more):
    answer = Request.blank(path, **more).get_response(application)
    return answer.status_int, answer.text


print(json.dumps([
    ask("/api/hello", headers={"X-Request-ID": "from-the-test"}),
    ask("/api/c2c/health_check"),
    ask("/api/mood", method="PUT", POST={"happy": "false"}),
    ask("/api/mood?secret=s3", method="PUT", POST={"happy": "false"}),
    ask("/api/c2c/health_check?max_level=2"),
    ask("/api/c2c/stats.json"),
    ask("/api/nowhere"),
]))
"""


def test_the_application_runs_after_it(shop: Path) -> None:
    assert migrate.main([str(shop)]) == 0
    more = {"SQLALCHEMY_URL": f"sqlite:///{shop}/x.sqlite", "LOG_TYPE": "json", "LOG_LEVEL": "INFO"}
    more |= {"OTHER_LOG_LEVEL": "WARN", "C2C_SECRET": "s3", "C2C_RUNTIME_DIR": str(shop / "run")}
    (shop / "run").mkdir(mode=0o700)
    ours = ("C2C", "OTEL_", "STATS", "LOG_")
    plain = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    done = subprocess.run(
        [sys.executable, "-c", _SERVE], cwd=shop, env=plain | more, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    hello, healthy, refused, changed, sad, stats, nowhere = json.loads(last)
    assert hello[0] == 200
    assert json.loads(hello[1]) == {"value": "world", "id": "from-the-test", "version": None}
    assert healthy[0] == 200 and "db_engine_sqlalchemy" in json.loads(healthy[1])["successes"]
    assert refused[0] == 403 and json.loads(refused[1])["status"] == 403
    assert changed[0] == 200 and json.loads(changed[1])[0]["happy"] is False
    assert sad[0] == 500 and json.loads(sad[1])["failures"]["mood"]["result"] == {"why": "it rains"}
    assert json.loads(stats[1])["timers"]["shop/hello"]["nb"] == 1
    assert json.loads(stats[1])["counters"]["start"] == 1
    assert nowhere[0] == 404 and json.loads(nowhere[1])["status"] == 404
    (said,) = [line for line in map(json.loads, lines) if line["msg"] == "hello world"]
    assert (said["request_id"], said["shop"], said["logger_name"]) == ("from-the-test", 1, "shop.views")
