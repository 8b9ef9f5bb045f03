"""``python -m tests.provision.servers``: fetch what the tests will need, before pytest's timeouts count.

Prints where each program is. What cannot be had is said here and decided by the tests: they fail on CI and are
skipped by name elsewhere, so the exit code is 0.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.provision import contrib
from tests.servers import postgres, pushgateway, redis_server, statsd
from tests.servers.find import find
from tests.servers.process import Unavailable


def main() -> None:
    """Look for each program once."""
    programs: dict[str, Callable[[], object]] = {
        "postgres": lambda: postgres._program().path,
        "redis-server": lambda: redis_server._program().path,
        "statsd": statsd._script,
        "rsyslogd": lambda: find("rsyslogd", packages=["rsyslog"], places=["/usr/sbin/rsyslogd"]).path,
        "promtool": lambda: find("promtool", packages=["prometheus"]).path,
        "prometheus-pushgateway": lambda: pushgateway._program().path,
        "dot": lambda: find("dot", packages=["graphviz"]).path,
        "contrib's tests": lambda: contrib.get().suites,
        "chromium": lambda: find("chromium", packages=["chromium", "fonts-liberation"]).path,
    }
    for name, look in programs.items():
        try:
            print(f"{name}: {look()}", flush=True)
        except Unavailable as why:
            print(f"{name}: NOT HERE: {why}", flush=True)


if __name__ == "__main__":
    main()
