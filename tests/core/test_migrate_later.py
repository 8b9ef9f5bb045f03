"""c2c-otel migrate: an application as it was written for c2cwsgiutils 5 and 6, which runs after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from c2c_otel.commands import migrate

APPLICATION = """\
import c2cwsgiutils.db
import c2cwsgiutils.services
import prometheus_client
import sqlalchemy as sa
from c2cwsgiutils.config_utils import get_base_path
from c2cwsgiutils.health_check import HealthCheck
from pyramid.config import Configurator

COUNT = prometheus_client.Counter("shop_hello", "Greetings.", ["to"])
hello = c2cwsgiutils.services.create("hello", "/hello")


@hello.get()
def hello_get(request):
    COUNT.labels(to="all").inc()
    return {"one": request.dbsession.execute(sa.text("SELECT 1")).scalar(), "base": BASE}


def main(_, **settings):
    global BASE
    config = Configurator(settings=settings)
    BASE = get_base_path(config)
    config.include("c2cwsgiutils.pyramid")
    session = c2cwsgiutils.db.init(config, "sqlalchemy", "sqlalchemy_slave")
    config.scan("shop")
    HealthCheck(config).add_db_session_check(session)
    assert get_base_path(config) == BASE
    return config.make_wsgi_app()
"""
INI = """\
[app:main]
use = call:shop:main
c2c.base_path = /mine
sqlalchemy.url = %(SQLALCHEMY_URL)s
sqlalchemy_slave.url = %(SQLALCHEMY_URL)s

[loggers]
keys = root, c2cwsgiutils
[handlers]
keys = json, console
[formatters]
keys =
[logger_root]
level = WARN
handlers = %(LOG_TYPE)s
[logger_c2cwsgiutils]
level = INFO
handlers =
qualname = c2cwsgiutils
[handler_console]
class = logging.StreamHandler
kwargs = {'stream': 'ext://sys.stdout'}
[handler_json]
class = c2cwsgiutils.pyramid_logging.JsonLogHandler
kwargs = {'stream': 'ext://sys.stdout'}
"""
SERVE = """
import json, logging, plaster
from webob import Request

loader = plaster.get_loader("c2c://production.ini", protocols=["wsgi"])
loader.setup_logging()
application = loader.get_wsgi_app("main")
logging.getLogger("c2c_otel.mine").info("a line")
paths = ("/hello", "/mine/health_check", "/metrics")
print(json.dumps([Request.blank(path).get_response(application).text for path in paths]))
"""


def test_an_application_of_later_versions_runs_after_it(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "production.ini").write_text(INI)
    assert migrate.main([str(tmp_path)]) == 0
    assert migrate.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "run").mkdir(mode=0o700)
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("C2C", "OTEL_", "STATS", "LOG_"))}
    more = {"SQLALCHEMY_URL": f"sqlite:///{tmp_path}/x", "LOG_TYPE": "json", "C2C_RUNTIME_DIR": str(tmp_path / "run")}
    done = subprocess.run(
        [sys.executable, "-c", SERVE], cwd=tmp_path, env=plain | more, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    hello, health, metrics = json.loads(last)
    assert json.loads(hello) == {"one": 1, "base": "/mine"}
    assert json.loads(health)["status"] == 200 and "db_engine_sqlalchemy" in json.loads(health)["successes"]
    assert 'shop_hello_total{to="all"} 1.0' in metrics
    assert ("c2c_otel.mine", "a line") in [(line["logger_name"], line["msg"]) for line in map(json.loads, lines)]
