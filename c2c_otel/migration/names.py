"""Every public name of c2cwsgiutils 4, 5 and 6 and what has its place.

``docs/migrating.md`` shows these tables (tests compare), the rewriters use them. A dotted name that is not listed has
the place that its nearest listed parent has: ``c2cwsgiutils.stats.timer`` is ``c2c_otel.stats.timer``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "COMMANDS",
    "DOTTED",
    "EXTRAS",
    "GONE",
    "NEW",
    "OLD",
    "PARTS",
    "RENAMED",
    "Gone",
    "command",
    "gone",
    "may_be_gone",
    "moved",
    "text_moved",
]

OLD = "c2cwsgiutils"
NEW = "c2c_otel"

# Where the module itself, or one name of it, has another place than the same one below `NEW`.
RENAMED = {
    "c2cwsgiutils": "c2c_otel",
    "c2cwsgiutils.acceptance.image": "c2c_otel.acceptance.images",
    "c2cwsgiutils.config_utils.get_base_path": "c2c_otel.admin.base_path",
    "c2cwsgiutils.debug.utils": "c2c_otel.debug",
    "c2cwsgiutils.errors.init": "c2c_otel.errors.includeme",
    "c2cwsgiutils.pretty_json": "c2c_otel.renderers",
    "c2cwsgiutils.pretty_json.init": "c2c_otel.renderers.includeme",
    "c2cwsgiutils.sqlalchemylogger.handlers": "c2c_otel.sqlalchemylogger",
}


class Gone(NamedTuple):
    """A name without a counterpart: what to do instead, and under which heading of docs/migrating.md that is."""

    instead: str
    section: str


_PART = '`config.include("c2c_otel")` has it'
_GITHUB = Gone("there is no login with GitHub: the secret, or a proxy that knows who is who", "Views")
_SESSION = Gone("`db.setup_session`, and `config.add_request_method` for `request.dbsession`", "Database sessions")
_SCRIPT = Gone('`setup_process.init`, or Pyramid\'s own `bootstrap("c2c://production.ini")`', "Sentry and scripts")
_PROMETHEUS = Gone("`/metrics` speaks for all workers; nothing is to be started or cleaned up", "Providers")

GONE = {
    # the root, since version 5
    "c2cwsgiutils.get_config_defaults": Gone("the `c2c://` loader knows the environment", "Commands and jobs"),
    "c2cwsgiutils.get_logconfig_dict": Gone(
        "the `c2c://` loader, or `c2c-otel-run`, sets logging up", "Commands and jobs"
    ),
    "c2cwsgiutils.get_paste_config": Gone("`c2c-otel-run` reads `C2CWSGIUTILS_CONFIG`", "Commands and jobs"),
    "c2cwsgiutils.acceptance.image.normalize_image": Gone("pictures are compared as they are", "Acceptance tests"),
    # authentication
    "c2cwsgiutils.auth.COOKIE_AGE": Gone("`C2C_SESSION_SECONDS`", "Views"),
    "c2cwsgiutils.auth.AuthConfig": _GITHUB,
    "c2cwsgiutils.auth.AuthenticationType": _GITHUB,
    "c2cwsgiutils.auth.UserDetails": _GITHUB,
    "c2cwsgiutils.auth.auth_type": _GITHUB,
    "c2cwsgiutils.auth.check_access": _GITHUB,
    "c2cwsgiutils.auth.check_access_config": _GITHUB,
    "c2cwsgiutils.auth.is_auth_user": _GITHUB,
    # what carries a broadcast
    "c2cwsgiutils.broadcast.cleanup": Gone("a forked worker has a listener of its own", "Broadcast"),
    "c2cwsgiutils.broadcast.interface": Gone("the settings choose what carries a broadcast", "Broadcast"),
    "c2cwsgiutils.broadcast.local": Gone("the settings choose what carries a broadcast", "Broadcast"),
    "c2cwsgiutils.broadcast.redis": Gone("the settings choose what carries a broadcast", "Broadcast"),
    "c2cwsgiutils.broadcast.utils": Gone("answers that are dictionaries have `hostname` and `pid`", "Broadcast"),
    "c2cwsgiutils.client_info.filter_factory": Gone("proxies are understood without a filter", "The include"),
    "c2cwsgiutils.config_utils": Gone("`c2c_otel.settings.flag` for flags; else read `registry.settings`", "Settings"),
    "c2cwsgiutils.coverage_setup": Gone("`COVERAGE=1` with `c2c-otel-run`", "Commands and jobs"),
    # sessions
    "c2cwsgiutils.db.FORCE_READONLY": Gone("`c2c_otel.db_maintenance.is_readonly()`", "Database sessions"),
    "c2cwsgiutils.db.force_readonly": Gone("`c2c_otel.db_maintenance.is_readonly()`", "Database sessions"),
    "c2cwsgiutils.db.SessionFactory": _SESSION,
    "c2cwsgiutils.db.init": _SESSION,
    "c2cwsgiutils.db.get_engine": Gone("`sqlalchemy.engine_from_config`", "Database sessions"),
    "c2cwsgiutils.db.get_session_factory": Gone("`sqlalchemy.orm.sessionmaker`", "Database sessions"),
    "c2cwsgiutils.db.get_tm_session": Gone("`db.create_session(None, name, url)`", "Database sessions"),
    "c2cwsgiutils.db.get_tm_session_pyramid": _SESSION,
    "c2cwsgiutils.db.tweens": Gone("each session has its own tween", "Database sessions"),
    "c2cwsgiutils.db.Tweens": Gone("each session has its own tween", "Database sessions"),
    "c2cwsgiutils.errors.DEVELOPMENT": Gone("`Settings.load().development`", "Errors"),
    # measurements
    "c2cwsgiutils.metrics.init": Gone(_PART, "The include"),
    "c2cwsgiutils.pretty_json.fast_dumps": Gone("`orjson.dumps`", "The include"),
    "c2cwsgiutils.profiler": Gone("the profiler's page: `C2C_PROFILER_PATH`", "Views"),
    "c2cwsgiutils.prometheus.MULTI_PROCESS_COLLECTOR_BROADCAST_CHANNELS": _PROMETHEUS,
    "c2cwsgiutils.prometheus.MemoryMapCollector": Gone("`c2c_otel.metrics.MemoryMapProvider`", "Providers"),
    "c2cwsgiutils.prometheus.MultiProcessCustomCollector": _PROMETHEUS,
    "c2cwsgiutils.prometheus.SerializedMetric": _PROMETHEUS,
    "c2cwsgiutils.prometheus.SerializedSample": _PROMETHEUS,
    "c2cwsgiutils.prometheus.build_metric_name": _PROMETHEUS,
    "c2cwsgiutils.prometheus.cleanup": _PROMETHEUS,
    "c2cwsgiutils.prometheus.includeme": _PROMETHEUS,
    "c2cwsgiutils.prometheus.serialize_collected_data": _PROMETHEUS,
    "c2cwsgiutils.prometheus.start": _PROMETHEUS,
    "c2cwsgiutils.stats.BACKENDS": Gone("settings decide what is measured", "Measurements"),
    "c2cwsgiutils.stats.MemoryBackend": Gone("settings decide what is measured", "Measurements"),
    "c2cwsgiutils.stats.StatsDBackend": Gone("settings decide what is measured", "Measurements"),
    "c2cwsgiutils.stats.USE_TAGS": Gone("`STATSD_USE_TAGS`", "Measurements"),
    "c2cwsgiutils.stats.get_env_tags": Gone("settings decide what is measured", "Measurements"),
    "c2cwsgiutils.stats.init_backends": Gone("the first measurement starts what it needs", "Measurements"),
    "c2cwsgiutils.stats_pyramid": Gone(_PART, "The include"),
    # parts that could be included one by one
    "c2cwsgiutils.db_maintenance_view": Gone(_PART, "The include"),
    "c2cwsgiutils.logging_view": Gone(_PART, "The include"),
    "c2cwsgiutils.pyramid_logging.init": Gone("`setup_process.init`, or the `c2c://` loader", "Logs"),
    "c2cwsgiutils.redis_stats": Gone(_PART, "The include"),
    "c2cwsgiutils.redis_utils": Gone("a Redis client of the application's own", "Names without a counterpart"),
    "c2cwsgiutils.request_tracking": Gone(_PART, "The include"),
    "c2cwsgiutils.scripts": Gone("the commands", "Commands and jobs"),
    "c2cwsgiutils.sentry.filter_factory": Gone("errors are reported without a filter", "Sentry and scripts"),
    "c2cwsgiutils.setup_process.PyramidEnv": _SCRIPT,
    "c2cwsgiutils.setup_process.bootstrap_application": _SCRIPT,
    "c2cwsgiutils.setup_process.bootstrap_application_from_options": _SCRIPT,
    "c2cwsgiutils.setup_process.fill_arguments": _SCRIPT,
    "c2cwsgiutils.setup_process.init_logging": _SCRIPT,
    "c2cwsgiutils.sql_profiler.init": Gone(_PART, "The include"),
    "c2cwsgiutils.version.init": Gone(_PART, "The include"),
}

_GONE_MODULES = {
    f"{OLD}.{name}"
    for name in (
        "broadcast.interface",
        "broadcast.local",
        "broadcast.redis",
        "broadcast.utils",
        "config_utils",
        "coverage_setup",
        "db_maintenance_view",
        "get_config_defaults",
        "get_logconfig_dict",
        "get_paste_config",
        "logging_view",
        "profiler",
        "redis_stats",
        "redis_utils",
        "request_tracking",
        "scripts",
        "stats_pyramid",
    )
}
"""Those of `GONE` in whose place there is nothing, so that their old names stay."""

# What `config.include` could be given one by one since version 5; one include has them all.
PARTS = frozenset(
    f"{OLD}.{name}{suffix}"
    for name in (
        "broadcast",
        "client_info",
        "coverage_setup",
        "db_maintenance_view",
        "debug",
        "index",
        "logging_view",
        "metrics",
        "prometheus",
        "pyramid",
        "redis_stats",
        "request_tracking",
        "sentry",
        "sql_profiler",
        "stats_pyramid",
        "version",
    )
    for suffix in ("", ".includeme")
)

_COMMANDS = ("run", "genversion", "stats-db", "check-es", "coverage-report", "test-print")
COMMANDS = (
    {f"{OLD}-{name}": f"c2c-otel-{name}" for name in _COMMANDS}
    | {f"{OLD}_{name.replace('-', '_')}.py": f"c2c-otel-{name}" for name in _COMMANDS}
    | {f"{OLD}_run": "c2c-otel-run"}
)
"""The predecessor's commands, also under the names of its versions 1 to 3."""

EXTRAS = {
    "": (),
    "all": ("all",),
    "alembic": ("alembic",),
    "broadcast": (),
    "debug": ("debug",),
    "dev": (),
    "oauth2": (),
    "profiler": ("profiler",),
    "sentry": (),
    "standard": ("alembic", "gunicorn", "postgresql", "requests"),
    "test-images": ("acceptance",),
    "test_images": ("acceptance",),
    "tests": ("acceptance",),
    "webserver": ("gunicorn", "postgresql", "requests"),
}
"""Which extras of ours bring what an extra of the predecessor brought."""

DOTTED = re.compile(rf"(?<![\w.@/#-]){OLD}(?:\.[A-Za-z_]\w*+)*+(?![\w#-])")
"""A dotted name of the predecessor within a text; no command, no distribution's entry point, no other package."""

_COMMAND = re.compile(
    rf"(?<![\w.-])(?:/usr(?:/local)?/bin/)?({'|'.join(map(re.escape, sorted(COMMANDS, key=len)[::-1]))})(?![\w-])"
)
"""Without the directory, too: in our image it is another one, and all are on PATH."""

_UNKNOWN = Gone("it was no public name, or is not known here", "Names without a counterpart")


def gone(name: str) -> Gone | None:
    """What to do instead of an old name, or of a new one that would have the place of an old one that is gone."""
    table = _GONE_NOW if name.startswith(f"{NEW}.") else GONE
    for parent in _parents(name):
        if parent in RENAMED:
            break
        if parent in table:
            return table[parent]
    return _UNKNOWN if name.startswith(f"{OLD}.") and moved(name) is None else None


def _parents(name: str) -> Iterator[str]:
    """The name itself, then the shorter ones."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        yield ".".join(parts[:length])


def moved(name: str) -> str | None:
    """Where an old dotted name is now; None where its module is gone or not known, or it is no name of the
    predecessor's.

    A name that is gone from a module that is not has the place where it would be: who uses it is told at the start.
    """
    if f"{name}.".partition(".")[0] != OLD:
        return None
    for parent in _parents(name):
        if parent in RENAMED:
            new = RENAMED[parent] + name[len(parent) :]
            return new if parent != OLD or _is_there(new) else None
        if parent in _GONE_MODULES:
            return None
    return None


def _is_there(name: str) -> bool:
    """Whether a dotted name of ours begins with a module, or a name, that there is; nothing is imported."""
    first = name.split(".")[1:2]
    return not first or first[0] in _OURS or first[0].startswith("__")


_PACKAGE = Path(__file__).resolve().parents[1]
_OURS = {path.stem for path in _PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
_OURS |= {"includeme"}

_GONE_NOW = {str(moved(name)): instead for name, instead in GONE.items() if name not in _GONE_MODULES}


def may_be_gone(text: str) -> bool:
    """Whether new names that are gone may be in a text: quick, so that what has none need not be parsed."""
    words = set(re.findall(r"\w+", text))
    return any(words.issuperset(name.split(".")) for name in _GONE_NOW)


def text_moved(name: str) -> str | None:
    """Like `moved`, for a name that stands as text, where Pyramid or `logging` resolves it."""
    if name in (f"{OLD}.pyramid", f"{OLD}.pyramid.includeme"):
        return NEW
    return moved(name)


def command(text: str) -> str:
    """The text with the predecessor's commands under their new names."""
    return _COMMAND.sub(lambda match: COMMANDS[match[1]], text)
