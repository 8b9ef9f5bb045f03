"""The ini loader behind c2c://: the environment in every section, and a % that is only a %."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import plaster
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2c_otel.ini import Verbatim
from c2c_otel.loader import Loader

INI = """\
[DEFAULT]
from_default = file
[app:main]
use = call:loaded_app:main
sqlalchemy.url = %(DSN)s
twice = %(DSN)s and %(PLAIN)s
get copied = DSN
here_is = %(here)s
literal = 100%%
own = %(from_default)s
[app:second]
use = main
name = second
[server:main]
use = egg:waitress#main
listen = 127.0.0.1:%(PORT)s
[loggers]
keys = root
[handlers]
keys = json
[formatters]
keys =
[logger_root]
level = %(LOG_LEVEL)s
handlers = json
[handler_json]
class = c2c_otel.pyramid_logging.JsonLogHandler
args = ("stdout",)
"""

APP = """\
import json, logging
from pyramid.config import Configurator
def main(global_config, **settings):
    logging.getLogger("loaded").warning("made", extra={
        "settings": settings, "dsn": global_config["DSN"], "plain": global_config["PLAIN"]})
    config = Configurator(settings=settings)
    config.add_route("hello", "/hello")
    config.add_view(lambda request: {}, route_name="hello", renderer="json")
    return config.make_wsgi_app()
"""

DSN = "postgresql://u:p%40ss%%(x)s@h/db"
ENVIRON = {
    "DSN": DSN,
    "PLAIN": "plain",
    "PORT": "0",
    "LOG_LEVEL": "INFO",
    "from_default": "environment",
    "http_proxy": "http://lower%41",
    "HTTP_PROXY": "http://upper%42",
    "LEVEL": "none",
    "ODD": "%",
}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "loaded_app.py").write_text(APP)
    (tmp_path / "production.ini").write_text(INI)
    (tmp_path / "outer.ini").write_text("[app:main]\nuse = config:production.ini\nliteral = 7%%\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.parametrize("scheme", ["c2c", "c2c+ini"])
@pytest.mark.parametrize("form", ["relative", "absolute"])
def test_the_settings_have_the_environment(scheme: str, form: str, directory: Path) -> None:
    path = "production.ini" if form == "relative" else f"{directory}/production.ini"
    loader = plaster.get_loader(f"{scheme}://{path}", protocols=["wsgi"])
    assert type(loader) is Loader
    settings = loader.get_wsgi_app_settings()
    assert settings["sqlalchemy.url"] == settings["copied"] == DSN
    assert settings["twice"] == f"{DSN} and plain"
    assert settings["here_is"] == str(directory)
    assert settings["literal"] == "100%"
    assert settings["own"] == "file"
    assert "from_default" not in settings and "DSN" not in settings
    section = loader.get_settings("app:main")
    assert {name: section[name] for name in settings} == dict(settings)


def test_the_fragment_is_the_name_and_the_query_gives_values() -> None:
    settings = plaster.get_loader("c2c://production.ini?PLAIN=given#second").get_wsgi_app_settings()
    assert settings["name"] == "second"
    assert settings["twice"] == f"{DSN} and given"
    assert plaster.get_settings("c2c://production.ini", "server:main")["listen"] == "127.0.0.1:0"
    given_too = plaster.get_settings("c2c://production.ini", "server:main", {"PORT": "7"})
    assert given_too["listen"] == "127.0.0.1:7"


def test_a_file_that_uses_another_file() -> None:
    settings = plaster.get_loader("c2c://outer.ini").get_wsgi_app_settings()
    assert settings["sqlalchemy.url"] == settings["copied"] == DSN
    assert settings["literal"] == "7%"


def test_an_egg_can_be_named() -> None:
    loader = plaster.get_loader("c2c+egg://waitress#main")
    assert type(loader) is Loader
    assert callable(loader.get_wsgi_server("main"))
    assert loader.get_sections() == []


def test_the_predecessors_failure_is_the_stock_loaders(directory: Path) -> None:
    """What the test above would look like without us: interpolation does not know the variable."""
    with pytest.raises(Exception, match="DSN"):
        plaster.get_loader(f"file+ini://{directory}/production.ini").get_wsgi_app_settings()


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / words[0]
    return subprocess.run(
        [str(program), *words[1:]],
        env=dict(os.environ) | {"PYTHONPATH": str(Path.cwd())} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_proutes_itself() -> None:
    done = run("proutes", "c2c://production.ini#main")
    assert done.returncode == 0, done.stderr
    assert "/hello" in done.stdout
    assert f'"dsn":"{DSN}","plain":"plain"' in done.stdout
    assert f'"sqlalchemy.url":"{DSN}"' in done.stdout


def test_a_setting_of_logging_that_cannot_be_used_is_said() -> None:
    done = run("proutes", "c2c://production.ini", LOG_LEVEL="LOUD")
    assert "LOG_LEVEL is 'LOUD'; expected a logging level" in done.stderr


@given(st.text(st.sampled_from("%(s)ab$&=")))
def test_any_value_is_interpolated_as_it_is(value: str) -> None:
    from paste.deploy.loadwsgi import NicerConfigParser

    parser: Any = NicerConfigParser("x.ini")
    parser._defaults["name"] = Verbatim(value)
    parser.read_string("[s]\nx = <%(name)s>\n")
    assert parser.get("s", "x") == f"<{value}>"
    assert parser.defaults()["name"] == value


@given(st.text(st.sampled_from("%ab")))
def test_verbatim_is_the_text_in_all_but_a_percent_sign(value: str) -> None:
    text = Verbatim(value)
    assert text == value and hash(text) == hash(value) and "".join([text]) == value
    assert ("ab" in text) == ("ab" in value) and text.find("a") == value.find("a")
    assert text.split("%") == value.split("%") and text.encode() == value.encode()
