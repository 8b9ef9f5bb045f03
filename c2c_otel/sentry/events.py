"""What an event says beside sentry-sdk's own: request id, trace, route, the request; and what becomes no event.

Everything is looked up when there is an event, from the request that is being served: a request without one costs
nothing here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import sentry_sdk
from sentry_sdk.utils import handle_in_app

from c2c_otel import current_request, pyramid_logging
from c2c_otel.instrumentation import wsgi_attributes
from c2c_otel.instrumentation.exchange import ENVIRON_ID
from c2c_otel.sentry.scrub import Scrubber
from c2c_otel_exporters import guard

__all__ = ["Sending", "before_breadcrumb", "prepare", "serving", "was_reported"]

serving: ContextVar[dict[str, Any] | None] = ContextVar("c2c_otel_sentry_environ", default=None)
"""The WSGI environ of the request that is being served, where it is not traced."""

_REPORTED = "_c2c_otel_reported"
_SAME_SECONDS = 60.0
"""How long an exception that belongs to no request is the same one; some programs raise one object again and again."""

_PII_HEADERS = frozenset(
    {"forwarded", "x-forwarded-for", "x-real-ip", "x-client-ip", "client-ip", "true-client-ip", "cf-connecting-ip"}
)
_BODY_BYTES = {"never": 0, "small": 1_000, "medium": 10_000, "always": 1_000_000}

_PARAMETER = "sentry.message.parameter."

Event = dict[str, Any]
Hint = dict[str, Any]


class Sending:
    """``before_send``, and what looks alike. ``tags``: of every event. ``body``: ``max_request_body_size``."""

    def __init__(self, scrubber: Scrubber, tags: Mapping[str, str], body: str, *, pii: bool = False) -> None:
        self._scrubber = scrubber
        self._tags = dict(tags)
        self._body = _BODY_BYTES.get(body, 0)
        self._pii = pii

    def before_send(self, event: Event, hint: Hint) -> Event:
        """The event with what we know, without secrets. sentry-sdk drops it where this raises."""
        try:
            self._add(event, hint)
        except Exception:
            guard.failed("sentry.event")
        return self._scrubber.event(event)

    def clean(self, event: Any, hint: Hint) -> Any:
        """A transaction, a log, a metric or a span without secrets."""
        attributes = _as_dict(event).get("attributes")
        if isinstance(attributes, dict):  # parameters of a log message have no names; they are in its text
            kept = {name: value for name, value in attributes.items() if not name.startswith(_PARAMETER)}
            event = {**event, "attributes": kept}
        return self._scrubber.event(event)

    def _add(self, event: Event, hint: Hint) -> None:
        fields = _fields(hint)
        tags = event["tags"] = {**self._tags, **_as_dict(event.get("tags"))}
        if request_id := fields.get("request_id"):
            tags.setdefault("request_id", str(request_id))
        if route := fields.get("matched_route"):
            event["transaction"] = str(route)  # what sentry-sdk has may be of something else that ran on this thread
        current = current_request.get()
        if current is not None and current.route_pattern:
            tags.setdefault("http.route", current.route_pattern)
        _add_trace(event, fields)
        _keep_own_breadcrumbs(event, fields.get("request_id"))
        environ = current.environ if current is not None else serving.get()
        if environ is not None:
            event["request"] = {**_request(environ, self._body), **_as_dict(event.get("request"))}
            if self._pii and environ.get("REMOTE_ADDR"):
                event["user"] = {"ip_address": environ["REMOTE_ADDR"], **_as_dict(event.get("user"))}
        elif fields.get("path"):
            event.setdefault("request", {"method": fields.get("method"), "url": fields["path"]})


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _fields(hint: Mapping[str, Any]) -> dict[str, Any]:
    """As log lines have them: of the request that is served, else of the one that the exception comes from."""
    record: Any = hint.get("log_record") or SimpleNamespace(exc_info=hint.get("exc_info"))
    fields = dict(pyramid_logging.log_context(record))
    environ = serving.get()
    if environ is not None and ENVIRON_ID in environ:
        fields.setdefault("request_id", environ[ENVIRON_ID])
    return fields


def _add_trace(event: Event, fields: Mapping[str, Any]) -> None:
    """OpenTelemetry's ids in the place of sentry-sdk's own, which nobody else knows."""
    contexts = event["contexts"] = _as_dict(event.get("contexts"))
    contexts.pop("trace", None)
    if fields.get("trace_id"):
        contexts["trace"] = {"trace_id": fields["trace_id"], "span_id": fields["span_id"]}


# -- the request ------------------------------------------------------------------------------------------------------


def _request(environ: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Sentry's request interface; secrets are still in it."""
    host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
    found: dict[str, Any] = {
        "method": environ.get("REQUEST_METHOD", ""),
        "url": f"{environ.get('wsgi.url_scheme', 'http')}://{host}{wsgi_attributes.url_path(environ)}",
        "headers": _headers(environ),
    }
    if query := environ.get("QUERY_STRING"):
        found["query_string"] = wsgi_attributes.redacted_query(query)
    body = _body(environ, limit)
    if body is not None:
        found["data"] = body
    return found


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            header = name[5:].replace("_", "-").title()
        elif name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            header = name.replace("_", "-").title()
        else:
            continue
        if (
            value and header.lower().removeprefix("original-") not in _PII_HEADERS
        ):  # those of before a proxy was believed
            found[header] = str(value)
    return found


def _body(environ: Mapping[str, Any], limit: int) -> Any:
    """The fields of a small body that the application has read: what it has not, nobody waits for here."""
    if not environ.get("webob.is_body_seekable"):
        return None
    stream = environ.get("wsgi.input")
    length = environ.get("CONTENT_LENGTH") or "0"
    if stream is None or not length.isdecimal() or not 0 < int(length) <= limit:
        return None
    kind = (environ.get("CONTENT_TYPE") or "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "application/x-www-form-urlencoded") and not kind.endswith("+json"):
        return None
    place = stream.tell()
    try:
        stream.seek(0)
        text = stream.read(int(length)).decode("utf-8", "replace")
    finally:
        stream.seek(place)
    if kind == "application/x-www-form-urlencoded":
        return dict(parse_qsl(text, keep_blank_values=True))
    try:
        return json.loads(text)
    except ValueError:
        return None  # without names nobody knows what is a secret in it


# -- breadcrumbs ------------------------------------------------------------------------------------------------------


def before_breadcrumb(crumb: dict[str, Any], hint: Hint) -> dict[str, Any]:
    """Note which request a breadcrumb belongs to: sentry-sdk keeps them by thread."""
    current = current_request.get()
    environ = serving.get() if current is None else None
    identity = current.request_id if current is not None else (environ or {}).get(ENVIRON_ID)
    if identity is not None:
        crumb["data"] = {**_as_dict(crumb.get("data")), "request_id": identity}
    return crumb


def _keep_own_breadcrumbs(event: Event, request_id: Any) -> None:
    crumbs = event.get("breadcrumbs")
    values = crumbs.get("values") if isinstance(crumbs, dict) else None
    if isinstance(values, list):
        crumbs["values"] = [crumb for crumb in values if _request_of(crumb) == request_id]  # type: ignore[index]  # it is the dictionary that values came from


def _request_of(crumb: Any) -> Any:
    return _as_dict(_as_dict(crumb).get("data")).get("request_id")


# -- once -------------------------------------------------------------------------------------------------------------


def was_reported(error: BaseException | None) -> bool:
    """Whether there is an event of this exception already: it is logged by a view, then by the server, and raised."""
    noted = getattr(error, _REPORTED, None)
    if not isinstance(noted, tuple):
        return False
    request_id, when = noted
    now = _identity(error)
    return bool(request_id == now and (now is not None or time.monotonic() - when < _SAME_SECONDS))


def prepare(event: Event, hint: Hint) -> Event | None:
    """sentry-sdk's event processor, before it makes the event plain: an exception becomes one event, without the
    variables of libraries, most of which would be work for nothing."""
    error = (hint.get("exc_info") or (None, None))[1]
    if error is not None:
        if was_reported(error):
            return None
        try:
            setattr(error, _REPORTED, (_identity(error), time.monotonic()))
        except (AttributeError, TypeError):  # one that takes no attributes
            pass
    try:
        _forget_foreign_variables(event)
    except Exception:
        guard.failed("sentry.frames")
    return event


def _forget_foreign_variables(event: Event) -> None:
    options = sentry_sdk.get_client().options
    handle_in_app(event, options["in_app_exclude"], options["in_app_include"], options["project_root"])  # type: ignore[arg-type]  # its Event is a dictionary
    for part in ("exception", "threads"):
        for value in _as_dict(event.get(part)).get("values") or ():
            for frame in _as_dict(_as_dict(value).get("stacktrace")).get("frames") or ():
                if frame.get("in_app") is not True:
                    frame.pop("vars", None)


def _identity(error: BaseException | None) -> Any:
    return _fields({"exc_info": (type(error), error, None)}).get("request_id")
