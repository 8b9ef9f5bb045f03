"""What can be known before a start: settings, files, packages, and whether the collectors are there."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from c2c_otel import covered, otlp, redis_clients
from c2c_otel.commands import ini_file, run
from c2c_otel.doctor import directories, probes, state
from c2c_otel.doctor.findings import Finding, note, ok, problem, unusable
from c2c_otel.settings import Address, ConfigurationError, Settings, rows

__all__ = ["checks", "usable_settings"]

_REDIS_SECONDS = 3.0
_FORMER_SECRET = "c2crulez"  # noqa: S105 - the one that everybody knows


def usable_settings(
    environ: Mapping[str, str], ini: Mapping[str, Any], findings: list[Finding]
) -> tuple[Settings, dict[str, str], dict[str, Any]]:
    """The settings without those that cannot be used, each of which is a finding; and what they were made from."""
    good_environ, good_ini = dict(environ), dict(ini)
    for row in rows():
        for source in (good_environ, good_ini):
            name = row.env if source is good_environ else row.ini
            if name is None or name not in source:
                continue
            try:
                Settings.load(
                    {name: source[name]} if source is good_environ else {},
                    {} if source is good_environ else {name: source[name]},
                )
            except ConfigurationError as error:
                findings.append(unusable("settings", error))
                del source[name]
    if not findings:
        findings.append(ok("settings", "every setting can be used"))
    return Settings.load(good_environ, good_ini), good_environ, good_ini


def checks(settings: Settings, environ: Mapping[str, str], path: Path | None, *, running: bool) -> Iterator[Finding]:
    """All but the settings themselves. ``path``: the ini file, if there is one. ``running``: a service holds its ports
    already."""
    for check in (_packages, _views, _versions, directories.check, _statsd, _logs, _otlp, _redis, _sentry):
        yield from _guarded(check, settings, environ)
    if path is not None:
        yield from _application(path)
    if not running:
        yield from _guarded(_ports, settings, {"ini": str(path)} if path is not None else {})


Check = Callable[[Settings, Mapping[str, str]], Iterator[Finding]]


def _guarded(check: Check, settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """A check that fails is a finding, and not the end of the others."""
    try:
        yield from check(settings, environ)
    except ConfigurationError as error:
        yield unusable("settings", error)
    except Exception as error:
        yield problem("doctor", f"{check.__name__.strip('_')} could not be checked: {error!r}", "Please report it.")


def _packages(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    for required in (otlp.check, covered.check):
        try:
            required(settings)
        except ConfigurationError as error:
            yield unusable("packages", error)
    for wanted, package, extra in (
        (settings.profiler_path, "pyinstrument", "profiler"),
        (settings.sentry_url, "sentry_sdk", ""),
    ):
        if wanted and importlib.util.find_spec(package) is None:
            name = f"c2c-otel[{extra}]" if extra else "sentry-sdk"
            yield problem("packages", f"{package} is not installed", f"Run: pip install '{name}'")


def _views(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Finding]:
    flags = {row.env for row, value, _ in settings.describe() if row.env.endswith("_VIEW_ENABLED") and value}
    if flags and not settings.secret:
        yield note(
            "secret",
            f"{', '.join(sorted(flags))}: on, but there is no C2C_SECRET, so that the views do not exist",
            "Set C2C_SECRET.",
        )
    if settings.secret == _FORMER_SECRET:
        yield problem("secret", "C2C_SECRET is what the image of c2cwsgiutils had for everybody", "Choose another one.")


def _versions(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Finding]:
    path = settings.versions_file
    if not path.exists():
        return
    try:
        content = json.loads(path.read_bytes())
        yield ok("versions", f"{path}: {content['main']['git_hash']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield problem("versions", f"{path} cannot be used: {error!r}", "Make it anew: c2c-otel-genversion HASH")


def _statsd(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Finding]:
    if settings.statsd_address is not None:
        yield _there(
            "statsd", f"statsd at {settings.statsd_address}", probes.udp(settings.statsd_address), "STATSD_ADDRESS"
        )


def _logs(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Finding]:
    if "logstash" in (settings.log_type or ()) or "c2c_cee" in (settings.logs_exporter or ()):
        address = Address(settings.log_host, settings.log_port)
        yield _there("logs", f"syslog at {address}", probes.udp(address), "LOG_HOST and LOG_PORT")


def _there(subject: str, what: str, why: str, setting: str) -> Finding:
    if not why:
        return ok(subject, f"{what}: nothing speaks against it")
    return problem(subject, f"{what}: {why}", f"Start it, or correct {setting}.")


def _otlp(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    seen: set[str] = set()
    for signal in ("traces", "metrics", "logs"):
        try:
            names = otlp.exporter_names(settings, signal)
        except ConfigurationError:  # said with the packages
            continue
        for name in names:
            if not name.startswith("otlp_proto_"):
                continue
            url, variable = _endpoint(settings, signal, grpc=name.endswith("grpc"))
            if url not in seen:
                seen.add(url)
                yield _there(
                    "otlp",
                    f"the OpenTelemetry collector at {_masked(url)}",
                    _ask_collector(url, signal, name, environ),
                    variable,
                )


def _endpoint(settings: Settings, signal: str, *, grpc: bool) -> tuple[str, str]:
    """Where the SDK sends this signal, and which variable says so."""
    own = getattr(settings, f"otlp_{signal}_endpoint")
    if own:
        return str(own), f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    base = settings.otlp_endpoint or f"http://localhost:{4317 if grpc else 4318}"
    return base if grpc else f"{base.removesuffix('/')}/v1/{signal}", "OTEL_EXPORTER_OTLP_ENDPOINT"


def _ask_collector(url: str, signal: str, name: str, environ: Mapping[str, str]) -> str:
    if name.endswith("grpc"):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return probes.tcp(Address(parts.hostname or "", parts.port or 4317))
    from opentelemetry.util.re import parse_env_headers

    def told(what: str) -> str:
        return environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{what}") or environ.get(
            f"OTEL_EXPORTER_OTLP_{what}", ""
        )

    headers = parse_env_headers(told("HEADERS"), liberal=True)
    return probes.otlp_http(url, headers, told("CERTIFICATE") or None)


def _masked(url: str) -> str:
    from c2c_otel.commands.config import shown

    return shown(url)


def _redis(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Finding]:
    if not redis_clients.configured(settings):
        return
    redis_clients.check(settings)
    why = state.ping(settings, _REDIS_SECONDS)
    yield _there("redis", f"Redis at {redis_clients.describe(settings)}", why, "C2C_REDIS_URL or C2C_REDIS_SENTINELS")


def _sentry(settings: Settings, _environ: Mapping[str, str]) -> Iterator[Finding]:
    if not settings.sentry_url:
        return
    from sentry_sdk.utils import BadDsn, Dsn

    try:
        dsn = Dsn(settings.sentry_url)
    except BadDsn as error:
        yield problem("sentry", f"SENTRY_URL is no DSN: {error}", "Copy it from the project's settings in Sentry.")
        return
    yield _there("sentry", f"Sentry at {dsn.host}:{dsn.port}", probes.tcp(Address(dsn.host, dsn.port)), "SENTRY_URL")


def _application(path: Path) -> Iterator[Finding]:
    """The ini file beside its settings, which were read already."""
    try:
        sections = ini_file.sections(path, "the ini file")
        if "loggers" in sections:
            ini_file.check_logging(path, "the ini file")
        use = ini_file.application_settings(path, name="the ini file").get("use", "") if "app:main" in sections else ""
    except ConfigurationError as error:
        yield unusable("ini", error)
        return
    scheme, _, rest = use.partition(":")
    name = rest.partition("#")[0]
    if scheme == "egg" and not _installed(name):
        yield problem(
            "ini", f"{path}: use = {use}, but no distribution {name} is installed", f"Run: pip install {name}"
        )
    else:
        yield ok("ini", f"{path} can be read")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return True


def _ports(settings: Settings, where: Mapping[str, str]) -> Iterator[Finding]:
    if settings.prometheus_port:
        yield _port("OTEL_EXPORTER_PROMETHEUS_PORT", Address(settings.prometheus_host, settings.prometheus_port))
    if "ini" not in where:
        return
    if importlib.util.find_spec("gunicorn") is None:
        yield problem("packages", "gunicorn is not installed", "Run: pip install 'c2c-otel[gunicorn]'")
    for address in _binds(run.arguments_of(settings)):
        yield _port("GUNICORN_PARAMS", address)


def _port(setting: str, address: Address) -> Finding:
    why = probes.bindable(address)
    if not why:
        return ok("ports", f"{setting}: {address} is free")
    return problem("ports", f"{setting}: {address} cannot be served: {why}", "End who has it, or choose another port.")


def _binds(words: list[str]) -> Iterator[Address]:
    """Those of gunicorn's ``--bind`` that are ports."""
    texts = []
    for index, word in enumerate(words):
        if word in ("-b", "--bind") and index + 1 < len(words):
            texts.append(words[index + 1])
        elif word.startswith("--bind="):
            texts.append(word.removeprefix("--bind="))
        elif word.startswith("-b") and not word.startswith("--") and len(word) > 2:
            texts.append(word[2:])
    for text in texts:
        host, _, port = text.rpartition(":")
        if port.isdigit() and not text.startswith(("unix:", "fd:")):
            yield Address(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104 - what gunicorn makes of it
