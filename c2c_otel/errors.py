"""What an application raises, as JSON: ``C2C_ENABLE_EXCEPTION_HANDLING``.

``{"message": ..., "status": ..., "request_id": ...}``; a client that accepts ``application/problem+json`` gets the
members of RFC 9457 instead. An HTTP error keeps its status, its message and its headers. What the database refuses
because of the data is a 400, anything else a 500. Who is developing, or has the secret, sees ``stacktrace`` and the
whole message too; nobody else ever sees a statement. An application's own exception views for classes of its own go
before these.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from typing import Any

import orjson
from pyramid.exceptions import URLDecodeError
from pyramid.httpexceptions import HTTPError, HTTPException, default_exceptionresponse_view
from pyramid.response import Response

from c2c_otel import application, auth, telemetry
from c2c_otel.instrumentation import wsgi_attributes
from c2c_otel.settings import Settings
from c2c_otel_exporters import guard, plain

__all__ = ["answer", "includeme", "message"]

_logger = logging.getLogger("c2c_otel.errors")

_MAX_MESSAGE = 2_000
_PROBLEM = "application/problem+json"
_OWN_HEADERS = frozenset({"content-type", "content-length"})
_DETAILS = re.compile(
    r"\[SQL:|(?:\n|\\n)LINE \d+:|\(Background on this error at:|Traceback \(most|File \"[^\"\n]*\", line \d"
)
"""Where texts of SQLAlchemy and of PostgreSQL begin to quote a statement, and others a traceback (the errors of
`transaction`, say); also within a `repr`."""
_MAX_CHAIN = 20

# what happens to an exception of these modules' classes, without importing them: class -> (status, level)
_OF_THE_DATA = frozenset({"sqlalchemy.exc.IntegrityError", "sqlalchemy.exc.DataError"})
_DISCONNECTED = frozenset(
    {"builtins.ConnectionResetError", "builtins.BrokenPipeError", "sqlalchemy.exc.DisconnectionError"}
)
_SQLALCHEMY = "sqlalchemy.exc.SQLAlchemyError"
_DRIVERS = frozenset({"DatabaseError", "InterfaceError"})
"""What every driver calls them (PEP 249); their texts may quote the statement."""
_BOTO = "botocore.exceptions.ClientError"
_BEAKER = "beaker.exceptions.BeakerException"


def _classes(error: BaseException) -> list[str]:
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__]


def answer(error: Any, request: Any) -> Response:
    """The response to an exception; also for exception views of one's own that end like ours. Logs it."""
    if isinstance(error, HTTPException) and not isinstance(error, HTTPError):
        response = default_exceptionresponse_view(error, request)
        _add_cors(response, request)
        return response
    if isinstance(error, HTTPError) and request.method == "OPTIONS":
        response = Response(status=200)
        _add_cors(response, request)
        return response
    status, level = _judge(error)
    _log(error, request, status, level)
    detailed = not isinstance(error, HTTPError) and _may_see_details(request)
    said = message(error, detailed)
    response = _response(request, status, said, _stacktrace(error) if detailed else None)
    if isinstance(error, HTTPException):
        for name, value in error.headerlist:
            if name.lower() not in _OWN_HEADERS:
                response.headers.add(name, value)
    _add_cors(response, request)
    return response


def _judge(error: Any) -> tuple[int, int]:
    """The status, and the level at which it is logged."""
    status, level = 500, logging.ERROR
    classes = _classes(error)
    if isinstance(error, HTTPException):
        status = error.status_int
    elif isinstance(error, URLDecodeError) or not _OF_THE_DATA.isdisjoint(classes):
        status = 400
    elif not _DISCONNECTED.isdisjoint(classes):
        return 500, logging.INFO
    elif _BOTO in classes:
        status = _status_of_boto(error)
    elif _BEAKER in classes and "Invalid signature" in str(error):
        status = 401
    if status < 500 or (status > 500 and isinstance(error, HTTPException)):
        level = logging.DEBUG if status == 401 else logging.WARNING
    return status, level


def _status_of_boto(error: Any) -> int:
    try:
        status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return 500
    return status if 400 <= status <= 599 else 500


def message(error: Any, detailed: bool) -> str:
    """What an exception says; unless ``detailed``, without statements and tracebacks, and shortened. An HTTP error's
    detail is what the application wants to be said: it is not shortened."""
    if isinstance(error, HTTPException):
        text = str(error.detail or error.title)
        return text if detailed else _without_details(error, text) or str(error.title)
    try:
        return str(error) if detailed else _for_everybody(error) or type(error).__name__
    except Exception:  # an exception whose __str__ raises
        return type(error).__name__


def _for_everybody(error: BaseException) -> str:
    classes = _classes(error)
    if isinstance(error, URLDecodeError):
        return "The path is not UTF-8."
    if not _OF_THE_DATA.isdisjoint(classes):
        return _of_the_driver(error)
    if _SQLALCHEMY in classes or any(cls.__name__ in _DRIVERS for cls in type(error).__mro__):
        return ""
    return _without_details(error, str(error))[:_MAX_MESSAGE]


def _without_details(error: BaseException, text: str) -> str:
    """The text up to a statement or a traceback in it; nothing of one that quotes the statement of an error behind
    this one."""
    behind: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        behind = behind and (behind.__cause__ or behind.__context__)
        statement = getattr(behind, "statement", None)
        if isinstance(statement, str) and statement and statement in text:
            return ""
    return _DETAILS.split(text, maxsplit=1)[0].strip()


def _of_the_driver(error: Any) -> str:
    """What the driver says, without the rows and values that it may show in further lines."""
    original = getattr(error, "orig", None)
    said = getattr(getattr(original, "diag", None), "message_primary", None) or str(original or type(error).__name__)
    return _DETAILS.split(said.strip().partition("\n")[0], maxsplit=1)[0][:_MAX_MESSAGE]


def _stacktrace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _may_see_details(request: Any) -> bool:
    if _settings(request).development:
        return True
    try:
        return auth.is_auth(request)
    except Exception:
        guard.failed("errors.auth")
        return False


def _settings(request: Any) -> Settings:
    return application.of(request.registry).settings or telemetry.get().settings


def _response(request: Any, status: int, message: str, stacktrace: str | None) -> Response:
    more: dict[str, Any] = {"request_id": plain.valid(request.c2c_request_id)}
    if stacktrace is not None:
        more["stacktrace"] = plain.valid(stacktrace)
    response = Response(status=status)
    message = plain.valid(message)
    if _PROBLEM in (request.accept.header_value or "") and request.accept.acceptable_offers([_PROBLEM]):
        response.content_type = _PROBLEM
        title = response.status.partition(" ")[2]
        body = {"type": "about:blank", "title": title, "status": status, "detail": message, **more}
    else:
        response.content_type = "application/json"
        response.charset = "utf-8"
        body = {"message": message, "status": status, **more}
    response.body = orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    response.vary = ("Accept",)
    return response


def _log(error: Any, request: Any, status: int, level: int) -> None:
    unforeseen = status >= 500 and not isinstance(error, HTTPException)
    exception = (type(error), error, error.__traceback__) if unforeseen and level >= logging.ERROR else None
    extra = {"referer": request.headers.get("Referer")}
    what = message(error, True) if exception is None else type(error).__name__
    path, query = _path(request), wsgi_attributes.redacted_query(request.query_string)
    where = f"{path}?{query}" if query else path
    _logger.log(level, "%s %s is %d: %s", request.method, where, status, what, exc_info=exception, extra=extra)


def _path(request: Any) -> str:
    try:
        return str(request.path)
    except UnicodeDecodeError:
        environ = request.environ
        return f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"


def _add_cors(response: Response, request: Any) -> None:
    """As the cornice service that was asked says, else for everybody."""
    try:
        service = _service(request)
        if service is not None and getattr(service, "cors_enabled", False):
            from cornice import cors

            request.info["cors_checked"] = False
            cors.apply_cors_post_request(service, request, response)
            response.vary = sorted({*(response.vary or ()), "Origin"})
            return
    except Exception:
        guard.failed("errors.cors")
        return
    response.headers["Access-Control-Allow-Origin"] = "*"
    asked_for = request.headers.get("Access-Control-Request-Method", request.method)
    methods = [wsgi_attributes.known_method(asked_for), "OPTIONS", "HEAD"]
    response.headers["Access-Control-Allow-Methods"] = ", ".join(dict.fromkeys(methods))
    response.headers["Access-Control-Allow-Headers"] = "session-id"
    response.headers["Access-Control-Max-Age"] = "86400"


def _service(request: Any) -> Any:
    services = getattr(request.registry, "cornice_services", None)
    route = getattr(request, "matched_route", None)
    return services.get(route.pattern) if services and route is not None else None


def _view(error: Any, request: Any) -> Response:
    try:
        return answer(error, request)
    except Exception:
        guard.failed("errors")
        return Response(b'{"message": "Internal error", "status": 500}', 500, content_type="application/json")


def includeme(config: Any) -> None:
    """Where `C2C_ENABLE_EXCEPTION_HANDLING` is on. Both classes are named: Pyramid has views for HTTP exceptions."""
    if _settings(config).enable_exception_handling:
        view: Callable[..., Response] = _view
        for context in (Exception, HTTPException):
            config.add_exception_view(view, context=context, http_cache=0)
