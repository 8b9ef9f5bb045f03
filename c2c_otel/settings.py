"""Every knob of the distribution: one row each, read once, frozen.

A row gives the environment variable (which wins where it is present and not empty), the ini key, how the
text is decoded, the default and what it does. Nothing else in the project reads the environment; the
reference in ``docs/settings.md`` and ``c2c-otel config`` are made from these rows.

>>> Settings.load({"STATSD_ADDRESS": "127.0.0.1:8125"}, {"c2c.statsd_prefix": "shop"}).statsd_prefix
'shop'
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from c2c_otel import decoders
from c2c_otel.decoders import Address, Network, PartError

__all__ = [
    "Address",
    "ConfigurationError",
    "Network",
    "PartError",
    "Row",
    "Settings",
    "environment",
    "flag",
    "rows",
]


class ConfigurationError(ValueError):
    """A setting that cannot be used. The message has its name, its value, what was expected, and what to do."""

    def __init__(self, name: str, value: object, expected: str, remedy: str = "", part: str = "") -> None:
        """``part`` says what of the setting's text the value is; empty where it is all of it."""
        self.name, self.value, self.expected = name, value, expected
        self.remedy = remedy or "Correct it or remove it."
        super().__init__(f"{name}{part and f', {part}'} is {value!r}; expected {expected}. {self.remedy}")


def environment() -> MutableMapping[str, str]:
    """The process's environment itself, for what must hand it on (the launcher, the ini loader)."""
    return os.environ


def flag(env: str, key: str | None, ini: Mapping[str, Any]) -> bool:
    """A flag of the application's own, found and decoded as ours are; off by default. Raises `ConfigurationError`."""
    for name, text in ((env, os.environ.get(env)), (key, ini.get(key) if key else None)):
        if text:
            try:
                return decoders.flag(str(text))
            except ValueError:
                raise ConfigurationError(str(name), text, decoders.EXPECTED[decoders.flag]) from None
    return False


class Row(NamedTuple):
    """One knob, as the reference shows it."""

    name: str
    env: str
    ini: str | None
    expected: str
    default: Any
    help: str
    secret: bool


_OTHER_INI = {"sentry_url": "c2c.sentry.url"}
"""Ini keys that c2cwsgiutils has read where its documentation named the one in the row: both are understood."""


def _row(  # the one way to declare a knob; Any, because a dataclass field stands for its value
    env: str,
    ini: str | None,
    decode: Callable[[str], Any],
    default: Any,
    help: str,
    *,
    expected: str = "",
    secret: bool = False,
) -> Any:
    metadata = {
        "env": env,
        "ini": ini,
        "decode": decode,
        "help": help,
        "expected": expected or decoders.EXPECTED[decode],
        "secret": secret,
    }
    return dataclasses.field(default=default, metadata=metadata)


def _family(env: str, help: str, *, secret: bool = False) -> Any:
    """A family of variables ``{env}NAME``; the value is a mapping from the lower-cased name to the text."""
    metadata = {
        "env": f"{env}*",
        "ini": None,
        "decode": decoders.text,
        "help": help,
        "expected": "text",
        "secret": secret,
    }
    return dataclasses.field(default_factory=lambda: MappingProxyType({}), metadata=metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The decoded settings of one process. Make one with `load`; tests may name fields directly."""

    # The service and its views
    base_path: str = _row(
        "C2C_BASE_PATH", "c2c.base_path", decoders.base_path, "/c2c", "Prefix of every view except /metrics."
    )
    secret: str | None = _row(
        "C2C_SECRET", "c2c.secret", decoders.text, None, "Opens the protected views.", secret=True
    )
    session_seconds: float = _row(
        "C2C_SESSION_SECONDS",
        "c2c.session_seconds",
        decoders.seconds,
        604_800.0,
        "How long a login lasts: the cookie that stands in for the secret expires after this many seconds.",
    )
    open_views: bool = _row(
        "C2C_OPEN_VIEWS",
        "c2c.open_views",
        decoders.flag,
        True,
        "Whether the index, health_check, versions.json, stats.json, /metrics, debug/time answer without the secret.",
    )
    auto_include: bool = _row(
        "C2C_AUTO_INCLUDE",
        None,
        decoders.flag,
        True,
        "Under the launcher, /metrics and the open views are added to every Pyramid application.",
    )
    config_file: Path = _row(
        "C2CWSGIUTILS_CONFIG",
        None,
        Path,
        Path("/app/production.ini"),
        "The ini file that c2c-otel-run serves.",
    )
    versions_file: Path = _row(
        "C2C_VERSIONS_FILE",
        "c2c.versions_file",
        Path,
        Path("/app/versions.json"),
        "What {base}/versions.json shows; no file, no route.",
    )
    log_view_enabled: bool = _row(
        "C2C_LOG_VIEW_ENABLED", "c2c.log_view_enabled", decoders.flag, False, "Serve logging/level."
    )
    db_maintenance_view_enabled: bool = _row(
        "C2C_DB_MAINTENANCE_VIEW_ENABLED",
        "c2c.db_maintenance_view_enabled",
        decoders.flag,
        False,
        "Serve db/maintenance.",
    )
    sql_profiler_enabled: bool = _row(
        "C2C_SQL_PROFILER_ENABLED",
        "c2c.sql_profiler_enabled",
        decoders.flag,
        False,
        "Serve sql_profiler.",
    )
    sql_profiler_min_seconds: float = _row(
        "C2C_SQL_PROFILER_MIN_SECONDS",
        "c2c.sql_profiler_min_seconds",
        decoders.duration,
        0.0,
        "The profiler looks at each SELECT that takes at least this many seconds.",
    )
    sql_profiler_seconds: float = _row(
        "C2C_SQL_PROFILER_SECONDS",
        "c2c.sql_profiler_seconds",
        decoders.seconds,
        600.0,
        "The profiler switches itself off after this many seconds.",
    )
    sql_profiler_timeout_seconds: float = _row(
        "C2C_SQL_PROFILER_TIMEOUT_SECONDS",
        "c2c.sql_profiler_timeout_seconds",
        decoders.seconds,
        10.0,
        "How long a SELECT may take when EXPLAIN ANALYZE runs it once more; the server ends it then.",
    )
    debug_view_enabled: bool = _row(
        "C2C_DEBUG_VIEW_ENABLED", "c2c.debug_view_enabled", decoders.flag, False, "Serve debug/*."
    )
    enable_exception_handling: bool = _row(
        "C2C_ENABLE_EXCEPTION_HANDLING",
        "c2c.enable_exception_handling",
        decoders.flag,
        False,
        "Answer errors as JSON.",
    )
    development: bool = _row(
        "DEVELOPMENT", "c2c.development", decoders.flag, False, "Show error details to every client."
    )

    # Requests
    request_id_header: str | None = _row(
        "C2C_REQUEST_ID_HEADER",
        "c2c.request_id_header",
        decoders.header,
        None,
        "One more header that may bring a request id; it is tried first, and sent with outgoing calls.",
    )
    trusted_proxies: tuple[Network, ...] = _row(
        "C2C_TRUSTED_PROXIES",
        "c2c.trusted_proxies",
        decoders.networks,
        decoders.networks("private"),
        "Whose Forwarded and X-Forwarded-* headers are believed; private: loopback and the private ranges.",
    )
    trace_context: str = _row(
        "C2C_TRACE_CONTEXT",
        "c2c.trace_context",
        decoders.one_of("accept", "ignore"),
        "accept",
        "Whether a request joins the trace its headers name. At a public edge: ignore.",
        expected="accept or ignore",
    )
    requests_default_timeout: float | None = _row(
        "C2C_REQUESTS_DEFAULT_TIMEOUT",
        "c2c.requests_default_timeout",
        decoders.seconds,
        None,
        "Timeout of outgoing calls that name none, in seconds; unset, each call site is warned about once.",
    )
    sql_request_id: bool = _row(
        "C2C_SQL_REQUEST_ID",
        "c2c.sql_request_id",
        decoders.flag,
        False,
        "Give PostgreSQL the request id as application_name.",
    )
    track_redis: bool = _row(
        "C2C_TRACK_REDIS", "c2c.track_redis", decoders.flag, True, "Spans and timers for Redis commands."
    )

    # Measurements
    stats_view: bool = _row("STATS_VIEW", "c2c.stats_view", decoders.flag, False, "Serve {base}/stats.json.")
    statsd_address: Address | None = _row(
        "STATSD_ADDRESS", "c2c.statsd_address", decoders.address, None, "The statsd server (UDP)."
    )
    statsd_prefix: str = _row(
        "STATSD_PREFIX", "c2c.statsd_prefix", decoders.text, "", "Put before every statsd name; a '.' is added."
    )
    statsd_use_tags: bool = _row(
        "STATSD_USE_TAGS", "c2c.statsd_use_tags", decoders.flag, False, "Automatic metrics have tags, not long names."
    )
    statsd_tags: Mapping[str, str] = _family("STATSD_TAG_", "A tag on every statsd line.")
    metrics_max_series: int = _row(
        "C2C_METRICS_MAX_SERIES",
        "c2c.metrics_max_series",
        decoders.count,
        2000,
        "Series of one metric; what comes later is counted in one overflow series.",
    )
    prometheus_port: int | None = _row(
        "OTEL_EXPORTER_PROMETHEUS_PORT",
        None,
        decoders.port,
        None,
        "Serve /metrics on this port too, shared by the workers.",
    )
    prometheus_host: str = _row(
        "OTEL_EXPORTER_PROMETHEUS_HOST", None, decoders.text, "127.0.0.1", "The address of that port."
    )
    runtime_dir: Path | None = _row(
        "C2C_RUNTIME_DIR",
        "c2c.runtime_dir",
        Path,
        None,
        "Where the workers of a service share metrics and state; default c2c-otel-{uid} in the temporary directory.",
    )
    service_id: str | None = _row(
        "C2C_SERVICE_ID",
        None,
        decoders.text,
        None,
        "Which run of a service this process belongs to; the launcher sets it, so that an upgrade by USR2 continues.",
    )

    # Logs
    log_type: tuple[str, ...] | None = _row(
        "LOG_TYPE",
        None,
        decoders.names,
        None,
        "json: JSON lines on stdout; console: text on stderr; logstash: @cee JSON by UDP. An ini file may use it too.",
    )
    log_level: str | None = _row("LOG_LEVEL", None, decoders.level, None, "Level of the root logger.")
    other_log_level: str | None = _row(
        "OTHER_LOG_LEVEL", None, decoders.level, None, "Level of the root logger where LOG_LEVEL is not set."
    )
    log_host: str = _row("LOG_HOST", None, decoders.text, "localhost", "Where @cee lines are sent.")
    log_port: int = _row("LOG_PORT", None, decoders.port, 514, "The UDP port there.")
    log_max_bytes: int = _row(
        "LOG_MAX_BYTES",
        None,
        decoders.count,
        65507,
        "Longest @cee datagram; what does not fit is shortened. rsyslog takes 8 KiB unless maxMessageSize says more.",
    )
    sql_log_level: str | None = _row(
        "SQL_LOG_LEVEL", None, decoders.level, None, "Level of the logger sqlalchemy.engine."
    )
    gunicorn_log_level: str | None = _row(
        "GUNICORN_LOG_LEVEL", None, decoders.level, None, "Level of the logger gunicorn.error."
    )

    # Redis and broadcast
    redis_url: str | None = _row(
        "C2C_REDIS_URL",
        "c2c.redis_url",
        decoders.redis_url,
        None,
        "The Redis server: redis://, rediss:// (TLS) or unix://; a bare host:port is redis://.",
        secret=True,
    )
    redis_sentinels: tuple[Address, ...] = _row(
        "C2C_REDIS_SENTINELS",
        "c2c.redis_sentinels",
        decoders.addresses,
        (),
        "Sentinels, host:port,host:port, which know where the master is; they win over the URL.",
    )
    redis_servicename: str = _row(
        "C2C_REDIS_SERVICENAME",
        "c2c.redis_servicename",
        decoders.text,
        "mymaster",
        "The name that the sentinels have for the master.",
    )
    redis_db: int | None = _row(
        "C2C_REDIS_DB",
        "c2c.redis_db",
        decoders.natural,
        None,
        "Database number behind sentinels, and for a URL that names none.",
    )
    redis_options: tuple[tuple[str, Any], ...] = _row(
        "C2C_REDIS_OPTIONS",
        "c2c.redis_options",
        decoders.redis_options,
        (),
        "Arguments of the Redis client, key=value,key=value, values as in YAML; sentinel_... are for the sentinels.",
        secret=True,  # password=... may be one
    )
    broadcast_prefix: str = _row(
        "C2C_BROADCAST_PREFIX",
        "c2c.broadcast_prefix",
        decoders.text,
        "broadcast_api_",
        "In front of each channel and key in Redis: services that share a Redis differ in it.",
    )

    # Database sessions
    db_max_lag: float | None = _row(
        "C2C_DB_MAX_LAG_SECONDS",
        "c2c.db_max_lag_seconds",
        decoders.duration,
        None,
        "A replica that is further behind is not read from; unset, any lag will do.",
    )
    db_replica_interval: float = _row(
        "C2C_DB_REPLICA_INTERVAL_SECONDS",
        "c2c.db_replica_interval_seconds",
        decoders.seconds,
        5.0,
        "Each worker looks at its replica this often: whether it answers, how far it is behind.",
    )
    db_connect_timeout: float = _row(
        "C2C_DB_CONNECT_TIMEOUT_SECONDS",
        "c2c.db_connect_timeout_seconds",
        decoders.seconds,
        3.0,
        "A replica that takes longer to answer is down; no request waits for it longer than that.",
    )

    # Health checks
    health_check_cache: float = _row(
        "C2C_HEALTH_CHECK_CACHE_SECONDS",
        "c2c.health_check_cache_seconds",
        decoders.duration,
        1.0,
        "For how long a worker answers with what a health check has found before it is run again; 0: never.",
    )
    health_check_timeout: float = _row(
        "C2C_HEALTH_CHECK_TIMEOUT_SECONDS",
        "c2c.health_check_timeout_seconds",
        decoders.seconds,
        5.0,
        "A health check that takes longer has failed.",
    )
    health_check_total_timeout: float = _row(
        "C2C_HEALTH_CHECK_TOTAL_SECONDS",
        "c2c.health_check_total_seconds",
        decoders.seconds,
        10.0,
        "How long a request waits for all its health checks.",
    )

    # Sentry
    sentry_url: str | None = _row(
        "SENTRY_URL",
        "c2c.sentry_url",  # or what _OTHER_INI says
        decoders.text,
        None,
        "The project's DSN: errors are reported to that Sentry.",
        secret=True,
    )
    sentry_level: str = _row(
        "SENTRY_LEVEL",
        "c2c.sentry_level",
        decoders.level,
        "ERROR",
        "Log records of this level and above become events.",
    )
    sentry_excludes: tuple[str, ...] = _row(
        "SENTRY_EXCLUDES",
        "c2c.sentry.excludes",
        decoders.loggers,
        ("sentry_sdk",),
        "Loggers whose records become neither events nor breadcrumbs.",
    )
    sentry_client: Mapping[str, str] = _family(
        "SENTRY_CLIENT_", "An option of sentry_sdk.init; IGNORE_EXCEPTIONS is a list of classes, default SystemExit."
    )
    sentry_tags: Mapping[str, str] = _family("SENTRY_TAG_", "A tag of every event.")
    git_hash: str | None = _row(
        "GIT_HASH",
        "c2c.git_hash",
        decoders.text,
        None,
        "The release of events, unless SENTRY_CLIENT_RELEASE names one.",
    )

    # Commands
    gunicorn_params: str = _row(
        "GUNICORN_PARAMS",
        None,
        decoders.text,
        "-b :8080 --worker-class gthread --threads 10 --workers 5 --max-requests 1000 --max-requests-jitter 50",
        "Arguments of gunicorn in c2c-otel-run, words as in a shell.",
    )
    profiler_path: str = _row(
        "C2C_PROFILER_PATH",
        "c2c.profiler_path",
        decoders.page_path,
        "",
        "Serve the profiler's page, which this path leads to.",
    )
    profiler_modules: tuple[str, ...] = _row(
        "C2C_PROFILER_MODULES",
        "c2c.profiler_modules",
        decoders.packages,
        (),
        "Packages or modules that have a part of their own in the profiler's pie chart.",
    )
    profiler_seconds: float = _row(
        "C2C_PROFILER_SECONDS",
        "c2c.profiler_seconds",
        decoders.seconds,
        600.0,
        "The profiler switches itself off after this many seconds.",
    )
    profiler_interval_seconds: float = _row(
        "C2C_PROFILER_INTERVAL_SECONDS",
        "c2c.profiler_interval_seconds",
        decoders.interval,
        0.001,
        "How often the profiler looks where a request is.",
    )
    profiler_max_sessions: int = _row(
        "C2C_PROFILER_MAX_SESSIONS",
        "c2c.profiler_max_sessions",
        decoders.count,
        100,
        "How many profiled requests each worker keeps; the oldest ones make room.",
    )
    coverage: bool = _row(
        "COVERAGE", None, decoders.flag, False, "c2c-otel-run measures which lines of the application run."
    )
    coverage_dir: Path = _row(
        "C2C_COVERAGE_DIR",
        None,
        Path,
        Path("/tmp/coverage/api"),  # noqa: S108 - where it has always been; the service makes it, and only with COVERAGE
        "Where each process then writes its file when it ends.",
    )
    es_url: str | None = _row("ES_URL", None, decoders.text, None, "The Elasticsearch that c2c-otel-check-es asks.")
    es_indexes: str | None = _row("ES_INDEXES", None, decoders.text, None, "The indexes in which it looks: logstash-*.")
    es_auth: str | None = _row(
        "ES_AUTH",
        None,
        decoders.text,
        None,
        "user:password there, or the whole value of an Authorization header: ApiKey ...",
        secret=True,
    )
    es_filters: tuple[tuple[str, str], ...] = _row(
        "ES_FILTERS", None, decoders.filters, (), "Of which entries it looks for the newest: name=value,name=value."
    )
    log_timeout: float | None = _row(
        "LOG_TIMEOUT",
        None,
        decoders.seconds,
        None,
        "How long it waits for a line of its own to arrive; unset, it sends none.",
    )

    # OpenTelemetry's own, where we give them a default or act on them; the SDK reads all others itself
    service_name: str | None = _row(
        "OTEL_SERVICE_NAME",
        None,
        decoders.text,
        None,
        "service.name of the resource, and whose stored state is used.",
    )
    traces_exporter: tuple[str, ...] | None = _row(
        "OTEL_TRACES_EXPORTER", None, decoders.names, None, "Default: otlp where an OTLP endpoint is set, else none."
    )
    metrics_exporter: tuple[str, ...] | None = _row(
        "OTEL_METRICS_EXPORTER", None, decoders.names, None, "Default: otlp where an OTLP endpoint is set, else none."
    )
    logs_exporter: tuple[str, ...] | None = _row(
        "OTEL_LOGS_EXPORTER", None, decoders.names, None, "Default: otlp where an OTLP endpoint is set, else none."
    )
    otlp_endpoint: str | None = _row(
        "OTEL_EXPORTER_OTLP_ENDPOINT", None, decoders.text, None, "The collector, for traces, metrics and logs: a URL."
    )
    otlp_traces_endpoint: str | None = _row(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        None,
        decoders.text,
        None,
        "The collector's URL for traces, taken as it is.",
    )
    otlp_metrics_endpoint: str | None = _row(
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        None,
        decoders.text,
        None,
        "The collector's URL for metrics, taken as it is.",
    )
    otlp_logs_endpoint: str | None = _row(
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", None, decoders.text, None, "The collector's URL for logs, taken as it is."
    )
    otlp_protocol: str = _row(
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        None,
        decoders.one_of("http/protobuf", "grpc"),
        "http/protobuf",
        "How the otlp exporters speak; grpc needs opentelemetry-exporter-otlp-proto-grpc.",
        expected="http/protobuf or grpc",
    )
    otlp_traces_protocol: str | None = _row(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        None,
        decoders.one_of("http/protobuf", "grpc"),
        None,
        "The same, for traces alone.",
        expected="http/protobuf or grpc",
    )
    otlp_metrics_protocol: str | None = _row(
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        None,
        decoders.one_of("http/protobuf", "grpc"),
        None,
        "The same, for metrics alone.",
        expected="http/protobuf or grpc",
    )
    otlp_logs_protocol: str | None = _row(
        "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
        None,
        decoders.one_of("http/protobuf", "grpc"),
        None,
        "The same, for logs alone.",
        expected="http/protobuf or grpc",
    )
    metric_export_interval: float = _row(
        "OTEL_METRIC_EXPORT_INTERVAL",
        None,
        decoders.seconds,
        60_000.0,
        "Milliseconds between two exports of metrics.",
        expected="a number of milliseconds greater than 0",
    )
    metric_export_timeout: float = _row(
        "OTEL_METRIC_EXPORT_TIMEOUT",
        None,
        decoders.seconds,
        30_000.0,
        "Milliseconds that one export of metrics may take.",
        expected="a number of milliseconds greater than 0",
    )
    resource_detectors: tuple[str, ...] = _row(
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS",
        None,
        decoders.names,
        (),
        "OpenTelemetry resource detectors to run; unset, none is looked for.",
    )
    disabled_instrumentations: tuple[str, ...] = _row(
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
        None,
        decoders.names,
        (),
        "Of pyramid, sqlalchemy, requests, redis: what the launcher and the include leave alone; * is all.",
    )
    sdk_disabled: bool = _row("OTEL_SDK_DISABLED", None, decoders.flag, False, "Turn all telemetry off.")

    sources: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )
    """Where each value that is not a default came from: name of the field to ``environment`` or ``ini``."""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, ini: Mapping[str, Any] | None = None) -> Settings:
        """Decode the environment (``os.environ`` where None) and the ini keys of an application.

        Raises `ConfigurationError` for the first value that cannot be decoded.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for field, row in _fields():
            if row.env.endswith("*"):
                found = _family_values(environ, row.env[:-1])
                if found:
                    values[row.name], sources[row.name] = found, "environment"
                continue
            text, source, name = _lookup(row, environ, ini or {})
            if text is not None:
                values[row.name] = _decode(field, row, name, text)
                sources[row.name] = source
        return cls(**values, sources=MappingProxyType(sources))

    def describe(self) -> Iterator[tuple[Row, Any, str]]:
        """Every row with its value (secrets as ``***``) and source, in the order of the reference."""
        for row in rows():
            value = getattr(self, row.name)
            yield row, "***" if row.secret and value else value, self.sources.get(row.name, "default")


def _fields() -> Iterator[tuple[dataclasses.Field[Any], Row]]:
    for field in dataclasses.fields(Settings):
        if not field.metadata:
            continue
        m = field.metadata
        default = None if field.default is dataclasses.MISSING else field.default
        yield (
            field,
            Row(field.name, m["env"], m["ini"], m["expected"], default, m["help"], m["secret"]),
        )


def rows() -> tuple[Row, ...]:
    """All rows, in the order in which the reference shows them."""
    return tuple(row for _, row in _fields())


def _family_values(environ: Mapping[str, str], prefix: str) -> Mapping[str, str]:
    found = {
        name.removeprefix(prefix).lower(): value
        for name, value in environ.items()
        if name.startswith(prefix) and name != prefix and value
    }
    return MappingProxyType(dict(sorted(found.items())))


def _lookup(row: Row, environ: Mapping[str, str], ini: Mapping[str, Any]) -> tuple[str | None, str, str]:
    """The text of a row, its source, and the name under which it was found.

    An empty ini value counts for ``c2c.base_path`` alone, where it means "no prefix".
    """
    if text := environ.get(row.env):
        return text, "environment", row.env
    for key in (row.ini, _OTHER_INI.get(row.name)):
        if key is not None and (value := ini.get(key)) is not None:
            text = str(value)
            if text or row.name == "base_path":
                return text, "ini", key
    return None, "default", row.env


def _decode(field: dataclasses.Field[Any], row: Row, name: str, text: str) -> Any:
    try:
        return field.metadata["decode"](text)
    except (ValueError, OverflowError) as error:
        if isinstance(error, PartError):
            raise ConfigurationError(name, error.value, error.expected, part=error.part) from None
        shown = "***" if row.secret else text
        raise ConfigurationError(name, shown, row.expected) from None
