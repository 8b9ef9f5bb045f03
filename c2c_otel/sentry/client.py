"""The client of sentry-sdk in this process: made with the settings, anew after a fork, ended with the process.

Its events are sent by a thread, which the first event starts. In gunicorn's arbiter there is none: with ``--preload``
each worker makes its client when it is forked.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.excepthook import ExcepthookIntegration
from sentry_sdk.integrations.logging import LoggingIntegration, ignore_logger
from sentry_sdk.scope import add_global_event_processor
from sentry_sdk.transport import HttpTransport
from sentry_sdk.utils import event_from_exception

from c2c_otel import runtime_dir, telemetry
from c2c_otel.sentry import events, options
from c2c_otel.sentry.scrub import Scrubber, secrets_of
from c2c_otel.settings import Settings, environment
from c2c_otel_exporters import guard

__all__ = ["close", "configure", "report", "start", "started"]

_BREADCRUMB_LEVEL = logging.INFO
_THREAD = "sentry-sdk.BackgroundWorker"

_arguments: dict[str, Any] | None = None
_started_pid = 0
_hooked = False


class Transport(HttpTransport):
    """What is not sent is counted, and said once."""

    _ends = False

    def capture_envelope(self, envelope: Any) -> None:
        """Hand it to the sending thread; the first one sees to it that what waits is sent at the end."""
        if not self._ends:
            self._ends = True
            _end_with_multiprocessing()
        super().capture_envelope(envelope)

    def on_dropped_event(self, _reason: str) -> None:
        """Called with each one; on the sending thread, or with a queue that is full."""
        guard.dropped(f"sentry.{_reason}", 1, "Sentry cannot be reached, or takes no more for now")


class _RetriesUnsaid(logging.Filter):
    """urllib3 warns of each attempt; of those to Sentry enough is said elsewhere."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != _THREAD


_retries_unsaid = _RetriesUnsaid()


def configure(settings: Settings, ini: Mapping[str, Any], packages: Iterable[str] = ()) -> None:
    """Decide what this process and those that it forks report, and begin, unless this is gunicorn's arbiter.

    The first settings count; a further application only adds its ``packages``, whose frames are the application's.
    Raises `ConfigurationError`.
    """
    global _arguments
    if _arguments is None:
        _arguments = _complete(options.arguments(settings), settings, ini)
    own = _arguments["in_app_include"]
    own += [package for package in packages if package not in own]
    if not _is_arbiter():
        start()


def _complete(made: dict[str, Any], settings: Settings, ini: Mapping[str, Any]) -> dict[str, Any]:
    known = [settings.secret, settings.sentry_url, *secrets_of(environment()), *secrets_of(ini)]
    known += [value for name, value in settings.redis_options if "password" in name and isinstance(value, str)]
    if settings.sentry_url:
        dsn = sentry_sdk.utils.Dsn(settings.sentry_url)
        known += [dsn.public_key, dsn.secret_key]
    known += secrets_of({"url": settings.redis_url, **settings.sentry_client})
    sending = events.Sending(
        Scrubber(filter(None, known)),
        settings.sentry_tags,
        made.get("max_request_body_size", "medium"),
        pii=bool(made.get("send_default_pii")),
    )
    made["before_send"] = sending.before_send
    for name in ("before_send_transaction", "before_send_log", "before_send_metric", "before_send_span"):
        if name in sentry_sdk.consts.DEFAULT_OPTIONS and (name != "before_send_span" or "trace_lifecycle" in made):
            made[name] = sending.clean
    made["before_breadcrumb"] = events.before_breadcrumb
    made["transport"] = Transport
    made["in_app_include"] = list(made.get("in_app_include", ()))
    made["in_app_exclude"] = [*made.get("in_app_exclude", ()), "c2c_otel", "c2c_otel_exporters", "c2c_otel_views"]
    chosen = {integration.identifier for integration in made["integrations"]}
    level = logging.getLevelNamesMapping()[settings.sentry_level]
    for integration in (LoggingIntegration(_BREADCRUMB_LEVEL, level), ExcepthookIntegration()):
        if integration.identifier not in chosen:
            made["integrations"].append(integration)
    made["disabled_integrations"].append(_pyramid())
    for name in settings.sentry_excludes:
        ignore_logger(name)
    return made


def _pyramid() -> Any:
    """sentry-sdk's own patches Pyramid's Router, and so reports what we report, for 60 us a request."""
    from sentry_sdk.integrations.pyramid import PyramidIntegration

    return PyramidIntegration


def _is_arbiter() -> bool:
    role = runtime_dir.gunicorn_role()
    return telemetry.get().held or (role is not None and role[0] == "arbiter")


def started() -> bool:
    """Whether this very process has a client."""
    return _started_pid == os.getpid()


def start() -> None:
    """Make this process's client, where `configure` was called. Idempotent; starts no thread."""
    global _started_pid
    if _arguments is None or started():
        return
    _started_pid = os.getpid()
    _hook()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of options that somebody has chosen
        sentry_sdk.init(**_arguments)
    _arguments.setdefault("release", sentry_sdk.get_client().options.get("release"))  # found by running git


def _end_with_multiprocessing() -> None:
    """A process of `multiprocessing` ends without atexit, and forgets at its beginning what its parent registered."""
    util = sys.modules.get("multiprocessing.util")
    if util is not None and sys.modules["multiprocessing.process"].parent_process() is not None:
        util.Finalize(None, close, exitpriority=1)


def _hook() -> None:
    global _hooked
    if _hooked:
        return
    _hooked = True
    os.register_at_fork(after_in_child=_after_fork)
    atexit.register(close)
    add_global_event_processor(events.prepare)  # type: ignore[arg-type]  # its Event is a dictionary
    logging.getLogger("urllib3.connectionpool").addFilter(_retries_unsaid)
    threading.excepthook = _reporting(threading.excepthook)


def _reporting(before: Any) -> Any:
    def excepthook(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            report(args.exc_value, "threading", handled=False)
        before(args)

    return excepthook


def _after_fork() -> None:
    """In a forked child: the parent's queue, and what its thread held, stay the parent's."""
    if _arguments is None:
        return
    try:
        start()
    except Exception:
        guard.failed("sentry.fork")


def report(error: BaseException, mechanism: str, *, handled: bool) -> None:
    """Make an event of an exception, unless there is one. Never raises."""
    try:
        start()  # in a process that was taken for an arbiter, and serves nevertheless
        client = sentry_sdk.get_client()
        if not client.is_active() or events.was_reported(error):
            return
        event, hint = event_from_exception(
            error, client_options=client.options, mechanism={"type": mechanism, "handled": handled}
        )
        sentry_sdk.capture_event(event, hint=hint)
    except Exception:
        guard.failed("sentry.report")


def close() -> None:
    """Send what waits, within two seconds (``SENTRY_CLIENT_SHUTDOWN_TIMEOUT``), and end."""
    global _started_pid
    if not started():
        return
    _started_pid = 0
    try:
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)
    except Exception:
        guard.failed("sentry.close")


def forget() -> None:
    """For tests: as if nobody had called `configure`."""
    global _arguments
    close()
    _arguments = None
