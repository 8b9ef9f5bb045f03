"""c2c-otel migrate: Python. Imports, dotted uses and texts; what stays as it was; what a person is told."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2c_otel.migration import python
from c2c_otel.migration.change import Unparsable


def py(text: str, *noted: str) -> str:
    done = python.rewrite(text)
    assert python.rewrite(done.text) == done
    assert [note.text.split(" is gone")[0] for note in done.notes] == list(noted), done.notes
    return done.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import c2cwsgiutils.pyramid\n", "import c2c_otel.pyramid\n"),
        ("import os, c2cwsgiutils.db as d  # two\n", "import os, c2c_otel.db as d  # two\n"),
        ("from c2cwsgiutils import stats\n", "from c2c_otel import stats\n"),
        ("from c2cwsgiutils.stats import *\n", "from c2c_otel.stats import *\n"),
        (
            "from c2cwsgiutils.sqlalchemylogger import handlers\nhandlers.SQLAlchemyHandler\n",
            "from c2c_otel import sqlalchemylogger as handlers\nhandlers.SQLAlchemyHandler\n",
        ),
        (
            "from c2cwsgiutils.config_utils import get_base_path\nget_base_path(config)\n",
            "from c2c_otel.admin import base_path as get_base_path\nget_base_path(config)\n",
        ),
        (
            "from c2cwsgiutils.config_utils import get_base_path as base_path\n",
            "from c2c_otel.admin import base_path\n",
        ),
        (
            "from c2cwsgiutils.health_check import (\n    HealthCheck,  # one\n    JsonCheckException\n)\n",
            "from c2c_otel.health_check import (\n    HealthCheck,  # one\n    JsonCheckException\n)\n",
        ),
        (
            "import c2cwsgiutils.stats\n(c2cwsgiutils\n   .stats\n   .timer)(['a'])\n",
            "import c2c_otel.stats\n(c2c_otel\n   .stats\n   .timer)(['a'])\n",
        ),
        (
            "import c2cwsgiutils.debug.utils\nc2cwsgiutils.debug.utils.get_size(1)\n",
            "import c2c_otel.debug\nc2c_otel.debug.get_size(1)\n",
        ),
        ("import c2cwsgiutils\nvars(c2cwsgiutils)\n", "import c2c_otel\nvars(c2c_otel)\n"),
        ("config.include('c2cwsgiutils.pyramid')\n", "config.include('c2c_otel')\n"),
        ('config.include("c2cwsgiutils.broadcast")\n', 'config.include("c2c_otel")\n'),
        (
            "import c2cwsgiutils.pyramid\nconfig.include(c2cwsgiutils.pyramid.includeme)\n",
            "import c2c_otel.pyramid\nconfig.include(c2c_otel.pyramid.includeme)\n",
        ),
        ("getLogger('c2cwsgiutils')\n", "getLogger('c2c_otel')\n"),
        ('x = r"c2cwsgiutils.wsgi_app:application"\n', 'x = r"c2c_otel.wsgi_app:application"\n'),
        ("run(['c2cwsgiutils_run.py', f'c2cwsgiutils-genversion {tag}'])\n",
         "run(['c2c-otel-run', f'c2c-otel-genversion {tag}'])\n"),
        ("def f(c2cwsgiutils):\n    c2cwsgiutils.stats\n", "def f(c2cwsgiutils):\n    c2cwsgiutils.stats\n"),
        ("from c2cwsgiutils_app import models\n", "from c2cwsgiutils_app import models\n"),
        ("from .c2cwsgiutils import stats\n", "from .c2cwsgiutils import stats\n"),
        ("x = b'c2cwsgiutils.stats'\n", "x = b'c2cwsgiutils.stats'\n"),
        ("# from c2cwsgiutils import stats\n", "# from c2cwsgiutils import stats\n"),
        ("c = {'loggers': {'c2cwsgiutils': {'level': 1}}}\n", "c = {'loggers': {'c2c_otel': {'level': 1}}}\n"),
        ("import_module('c2cwsgiutils')\n", "import_module('c2c_otel')\n"),
        ("run(['/usr/local/bin/c2cwsgiutils-run'])\n", "run(['c2c-otel-run'])\n"),
        ("import c2cwsgiutils\nc2cwsgiutils.__file__\n", "import c2c_otel\nc2c_otel.__file__\n"),
    ],
)  # fmt: skip
def test_python(old: str, new: str) -> None:
    assert py(old) == new


def test_python_what_is_gone_stays_and_is_named() -> None:
    old = "from c2cwsgiutils import (stats, redis_utils as r, auth)  # all\nr.get({})\nstats.init_backends()\n"
    new = (
        "from c2c_otel import stats, auth\nfrom c2cwsgiutils import redis_utils as r  # all\n"
        "r.get({})\nstats.init_backends()\n"
    )
    assert py(old, "c2cwsgiutils.redis_utils", "c2cwsgiutils.redis_utils.get", "c2c_otel.stats.init_backends") == new


@pytest.mark.parametrize(
    ("imported", "now", "function"),
    [
        ("import c2cwsgiutils.db", "import c2c_otel.db", "{}.db"),
        ("from c2cwsgiutils import db", "from c2c_otel import db", "db"),
    ],
)
def test_python_the_session_of_later_versions(imported: str, now: str, function: str) -> None:
    old = f"{imported}\ndef main(c):\n    s = {function.format('c2cwsgiutils')}.init(c, 'a',  'b')  # the session\n"
    new = (
        f"{now}\ndef main(c):\n    s = {function.format('c2c_otel')}.setup_session(c, 'a',  'b')[0]  # the session\n"
        '    c.add_request_method(lambda request: s(), "dbsession", reify=True)\n'
    )
    assert py(old) == new


def test_python_a_session_that_is_made_otherwise_is_named() -> None:
    old = "import c2cwsgiutils.db\nreturned(c2cwsgiutils.db.init(config, 'a'))\n"
    assert py(old, "c2c_otel.db.init").endswith("(c2c_otel.db.init(config, 'a'))\n")


def test_python_one_of_several_statements_of_a_line() -> None:
    old = "if a:\n    x = 1; from c2cwsgiutils import stats, redis_utils; y = 2\n"
    new = "if a:\n    x = 1; from c2c_otel import stats; from c2cwsgiutils import redis_utils; y = 2\n"
    assert py(old, "c2cwsgiutils.redis_utils") == new


def test_python_other_texts_are_named() -> None:
    (note,) = python.rewrite("x = 'thanks to c2cwsgiutils!'\n").notes
    assert note.line == 1 and "thanks to" in note.text


@pytest.mark.parametrize(
    "text",
    [
        "Composition(request, 'c2cwsgiutils', 'docker-compose.yml', ['c2cwsgiutils_app_1:/tmp'])\n",
        "timer(['c2cwsgiutils'])\n",
        "x = {'c2cwsgiutils': 1}\n",
        "x = f'c2cwsgiutils.{module}'\n",
    ],
)
def test_python_a_word_that_may_be_anything_stays_and_is_named(text: str) -> None:
    done = python.rewrite(text)
    assert done.text == text
    assert [(note.line, note.section) for note in done.notes] == [(1, "Names")]


def test_python_names_that_are_not_known_stay_and_are_named() -> None:
    old = "from c2cwsgiutils import _utils, stats\nconfig.add_route('c2cwsgiutils.foo', '/')\n"
    done = python.rewrite(old)
    assert done.text == (
        "from c2cwsgiutils import _utils\nfrom c2c_otel import stats\nconfig.add_route('c2cwsgiutils.foo', '/')\n"
    )
    assert [note.line for note in done.notes] == [1, 3]
    assert "c2cwsgiutils._utils is gone: it was no public name" in done.notes[0].text


@pytest.mark.parametrize("module", ["", ".stats"])
def test_python_what_is_gone_is_named_where_its_import_has_moved(module: str) -> None:
    done = python.rewrite(f"import c2cwsgiutils{module}\nc2cwsgiutils.redis_utils.get({{}})\n")
    assert done.text == f"import c2c_otel{module}\nc2cwsgiutils.redis_utils.get({{}})\n"
    assert {(note.line, note.text.split(" is gone")[0]) for note in done.notes} >= {(2, "c2cwsgiutils.redis_utils.get")}


def test_python_line_ends_stay() -> None:
    assert py("import c2cwsgiutils.db\r\nx = 1\r\n") == "import c2c_otel.db\r\nx = 1\r\n"


def test_python_that_cannot_be_parsed() -> None:
    with pytest.raises(Unparsable, match="line 2"):
        python.rewrite("import c2cwsgiutils\nprint 'python 2'\n")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([
    "import c2cwsgiutils.stats", "import c2cwsgiutils.redis_utils", "from c2cwsgiutils import stats, sentry, scripts",
    "c2cwsgiutils.stats.timer(['c2cwsgiutils'])", "x = 'c2cwsgiutils.errors'", "config.include(c2cwsgiutils.broadcast)",
    "from c2cwsgiutils.db import init, setup_session as s", "pass  # c2cwsgiutils", "c2cwsgiutils.redis_utils.get()",
]), max_size=6))  # fmt: skip
def test_python_is_idempotent(lines: list[str]) -> None:
    done = python.rewrite("\n".join(lines))
    assert python.rewrite(done.text) == done
    compile(done.text, "x", "exec")
