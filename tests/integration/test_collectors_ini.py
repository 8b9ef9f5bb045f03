"""production.ini through the c2c:// loader, with values that have ``%`` in them; exactly the documented names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.integration.collectors_demo import database, demo
from tests.servers import Postgres, Redis, Rsyslog, UdpSink

PASSWORD = "p@ss%/w:%(LOG_HOST)s 100%"
INI = Path(__file__).parents[2] / "acceptance_tests" / "app" / "production.ini"


@pytest.fixture(scope="module")
def with_password(postgres: Postgres) -> str:
    """A database URL whose password PostgreSQL really asks for, quoted as URLs are."""
    conf = postgres.directory / "primary" / "pg_hba.conf"
    conf.write_text("host all percent 127.0.0.1/32 scram-sha-256\n" + conf.read_text())
    literal = PASSWORD.replace("'", "''")
    postgres.execute(f"CREATE ROLE percent LOGIN SUPERUSER PASSWORD '{literal}'")
    postgres.execute("SELECT pg_reload_conf()")
    url = database(postgres).replace("//postgres@", f"//percent:{quote(PASSWORD, safe='')}@")
    assert "%40" in url
    return url


def test_all_three_handlers_and_a_percent_in_the_password(with_password: str, rsyslog: Rsyslog) -> None:
    rsyslog.clear()
    env = {
        "SQLALCHEMY_URL": with_password,
        "LOG_TYPE": "console, json, logstash",
        "LOG_HOST": rsyslog.host,
        "LOG_PORT": str(rsyslog.port),
        "UNUSED": "100%(no)s %",
    }
    with demo("-w", "1", "--threads", "2", env=env) as server:
        activity = server.get("/api/activity", {"X-Request-ID": "by ini"})
        assert json.loads(activity.body)["application_name"] == "by ini"
        assert server.get("/api/log", {"X-Request-ID": "by ini"}).status == 200
        rsyslog.wait_for(lambda parsed: any(line["msg"] == "logged for by ini" for line in parsed))
        out = server.stdout.read_text().splitlines()
    (text,) = [line for line in out if line.endswith("INFO  [acceptance_tests.app.views] logged for by ini")]
    assert text[:2] == "20"
    (said,) = [fields for line in out if line[:1] == "{" and (fields := json.loads(line))["msg"] == "logged for by ini"]
    (sent,) = [line for line in rsyslog.parsed() if line["msg"] == "logged for by ini"]
    assert said == sent
    assert (said["request_id"], said["answer"]) == ("by ini", 42)


def test_a_wrong_password_is_refused(with_password: str, postgres: Postgres) -> None:
    """What the test above proves: PostgreSQL asks this role for its password."""
    import psycopg

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.dsn().replace("//postgres@", "//percent:wrong@"))


DEFAULTS = {
    "SQLALCHEMY_URL_SLAVE": "",
    "DEMO_INCLUDE": "true",
    "DEMO_REDIS_URL": "",
    "DEMO_CALL_URL": "",
    "LOG_TYPE": "console",
    "LOG_LEVEL": "WARNING",
    "OTHER_LOG_LEVEL": "WARNING",
    "SQL_LOG_LEVEL": "WARNING",
    "GUNICORN_LOG_LEVEL": "WARNING",
    "LOG_HOST": "127.0.0.1",
    "LOG_PORT": "514",
    "PERCENT": "100% %(no)s",
}


def test_proutes(with_password: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("proutes"), f"c2c://{INI}"],
        env={**os.environ, **DEFAULTS, "SQLALCHEMY_URL": with_password, "PYTHONPATH": str(INI.parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    routes = {tuple(line.split()[:2]) for line in done.stdout.splitlines()[2:]}
    assert {("home", "/"), ("hello", "/api/hello"), ("hello_one", "/api/hello/{id}")} <= routes
    assert done.stderr == ""


UNTAGGED = [
    "demo.sql.SELECT_FROM_hello_ORDER_BY_hello_id_LIMIT__",
    "demo.route.GET.hello.200",
    "demo.render.GET.hello.200",
    "demo.sql.INSERT_INTO_hello",
    "demo.sql.commit",
    "demo.route.POST.hello.200",
    "demo.render.POST.hello.200",
    "demo.sql.SELECT_FROM_hello_WHERE_hello_id____",
    "demo.route.GET.hello_one.404",
    "demo.redis.GET.success",
    "demo.redis.GET",
    "demo.redis.SET.success",
    "demo.redis.SET",
    "demo.route.GET.cache.200",
    "demo.render.GET.cache.200",
    "demo.sql.SELECT_FROM_hello_ORDER_BY_hello_id_LIMIT__",
    "demo.route.GET.hello.200",
    "demo.render.GET.hello.200",
    "demo.requests.http.127_0_0_1.{port}.GET.200",
    "demo.route.GET.call.200",
    "demo.render.GET.call.200",
    "demo.route.GET._not_found.404",
    "demo.route.GET.error.500",
    "demo.order.items:3|c",
    "demo.order.check.success",
    "demo.order.total",
    "demo.order.last:3|g",
    "demo.route.GET.order.200",
    "demo.render.GET.order.200",
]
TAGGED = [
    "demo.sql #query:SELECT FROM hello ORDER BY hello.id LIMIT ?",
    "demo.route #group:2,method:GET,route:hello,status:200",
    "demo.render #group:2,method:GET,route:hello,status:200",
    "demo.sql #query:INSERT INTO hello",
    "demo.sql.commit",
    "demo.route #group:2,method:POST,route:hello,status:200",
    "demo.render #group:2,method:POST,route:hello,status:200",
    "demo.sql #query:SELECT FROM hello WHERE hello.id = ?",
    "demo.route #group:4,method:GET,route:hello_one,status:404",
    "demo.redis #cmd:GET,success:1",
    "demo.redis #cmd:SET,success:1",
    "demo.route #group:2,method:GET,route:cache,status:200",
    "demo.render #group:2,method:GET,route:cache,status:200",
    "demo.sql #query:SELECT FROM hello ORDER BY hello.id LIMIT ?",
    "demo.route #group:2,method:GET,route:hello,status:200",
    "demo.render #group:2,method:GET,route:hello,status:200",
    "demo.requests #host:127.0.0.1,method:GET,port:{port},scheme:http,status:200",
    "demo.route #group:2,method:GET,route:call,status:200",
    "demo.render #group:2,method:GET,route:call,status:200",
    "demo.route #group:4,method:GET,route:_not_found,status:404",
    "demo.route #group:5,method:GET,route:error,status:500",
    "demo.order.items:3|c",
    "demo.order.check #success:1",
    "demo.order.total",
    "demo.order.last:3|g",
    "demo.route #group:2,method:GET,route:order,status:200",
    "demo.render #group:2,method:GET,route:order,status:200",
]


def form(line: str) -> str:
    """A timer without its value, which is a clock's; all else as it was sent."""
    name, _, rest = line.partition(":")
    value, _, kind = rest.partition("|")
    if not kind.startswith("ms"):
        return line
    assert int(value) >= 1
    return name + kind.removeprefix("ms").replace("|", " ")


@pytest.mark.parametrize(("tags", "expected"), [("0", UNTAGGED), ("1", TAGGED)], ids=["untagged", "tagged"])
def test_exactly_the_documented_names(
    postgres: Postgres, redis_server: Redis, udp_sink: UdpSink, tags: str, expected: list[str]
) -> None:
    """With psycopg2, which the names were documented with: its placeholders have no casts."""
    env = {
        "STATSD_ADDRESS": udp_sink.address,
        "STATSD_PREFIX": "demo",
        "STATSD_USE_TAGS": tags,
        "SQLALCHEMY_URL": database(postgres).replace("+psycopg:", "+psycopg2:"),
        "DEMO_REDIS_URL": redis_server.url,
    }
    with demo("-w", "1", "--threads", "2", env=env) as server:
        server.get("/")
        udp_sink.wait_for(lambda lines: any("home" in line for line in lines))
        before = len(udp_sink.lines())
        server.get("/api/hello")
        server.get("/api/hello", method="POST", body=b'{"value": "named"}')
        for path in ("/api/hello/999", "/api/cache/names", "/api/call", "/nowhere", "/api/error", "/api/order"):
            server.get(path)
        sent = udp_sink.wait_for(lambda lines: any("demo.demo.orders:1|c" in line for line in lines))[before:]
        port = str(server.port)
    orders = [line for line in sent if line.startswith("demo.demo.")]
    assert orders == ["demo.demo.orders:1|c|#kind:demo"]
    forms = [form(line) for line in sent if line not in orders]
    # counters and gauges that change often are sent with the next packet, so their place is not kept
    assert sorted(forms) == sorted(text.format(port=port) for text in expected)
