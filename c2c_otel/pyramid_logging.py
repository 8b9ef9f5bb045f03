"""Logging handlers for an ini file, a dictConfig or `logging_setup`: JSON lines, and CEE datagrams for syslog.

    [handler_json]
    class = c2c_otel.pyramid_logging.JsonLogHandler
    args = (sys.stdout,)

    [handler_logstash]
    class = c2c_otel.pyramid_logging.PyramidCeeSysLogHandler
    args = (('%(LOG_HOST)s', %(LOG_PORT)s),)
    kwargs = {'application': 'shop'}

Both ignore their formatter: the fields are those of `c2c_otel_exporters.log_lines`, with the request that is being
served and the current span. Neither raises, nor waits for a network; a name that cannot be resolved is said on stderr.
"""

from __future__ import annotations

import logging
import logging.handlers
import socket
import sys
import threading
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from opentelemetry import context as otel_context
from opentelemetry import trace

from c2c_otel import current_request
from c2c_otel_exporters import guard, log_lines
from c2c_otel_exporters.syslog import Sender

__all__ = ["MAX_NESTING", "JsonLogHandler", "PyramidCeeSysLogHandler", "log_context", "nesting", "note_request"]

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[IO[str]]
else:
    _StreamHandler = logging.StreamHandler

_DEBUGGING = ("file", "line", "function", "pid", "thread_name", "process_name")
_NOTED = "_c2c_otel_log_context"
_FACILITIES = logging.handlers.SysLogHandler.facility_names


def log_context(record: logging.LogRecord | None = None) -> dict[str, object]:
    """The fields of the request that is being served (``client_addr``, ``method``, ``matched_route``, ``path``,
    ``request_id``) and of the current span (``trace_id``, ``span_id``), as far as there are any.

    A server logs what an application raised when that request is over: then they come with the record's exception.
    """
    fields = _current_context()
    if not fields and record is not None and isinstance(record.exc_info, tuple):
        fields.update(getattr(record.exc_info[1], _NOTED, ()))
    return fields


def note_request(error: BaseException) -> None:
    """Let the exception, on its way to the server, carry the current `log_context`: text alone, which holds nothing."""
    try:
        setattr(error, _NOTED, _current_context())
    except (AttributeError, TypeError):  # one that takes no attributes
        pass


def _current_context() -> dict[str, object]:
    context = otel_context.get_current()
    current: current_request.CurrentRequest | None = context.get(current_request.KEY)  # type: ignore[assignment]  # a context holds objects
    fields: dict[str, object] = {}
    try:
        if current is not None:
            _add_served(fields, current)
        else:
            _add_pyramid(fields)
    except Exception:  # a request of another kind, or one whose attributes raise: the line matters more
        guard.count("failed.logs.request")
    if not context:  # neither a request nor a span: most lines of start-up and of threads
        return fields
    span = trace.get_current_span(context).get_span_context()
    trace_id = span.trace_id
    if not trace_id and current is not None:
        span = current.span.get_span_context()
        trace_id = span.trace_id
    if trace_id:
        fields["trace_id"] = f"{trace_id:032x}"
        fields["span_id"] = f"{span.span_id:016x}"
    return fields


def _add_served(fields: dict[str, object], current: current_request.CurrentRequest) -> None:
    environ = current.environ
    forwarded = environ.get("HTTP_X_FORWARDED_FOR")  # the first hop, as Pyramid's request.client_addr
    client = environ.get("REMOTE_ADDR") if forwarded is None else forwarded.partition(",")[0].strip()
    if client:
        fields["client_addr"] = client
    fields["method"] = environ.get("REQUEST_METHOD", "GET")
    route = current.route_name
    if route is None and current.request is not None:
        route = getattr(getattr(current.request, "matched_route", None), "name", None)
    if route is not None:
        fields["matched_route"] = route
    fields["path"] = _path(environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", ""))
    fields["request_id"] = current.request_id


@lru_cache(maxsize=256)
def _path(script_name: str, path_info: str) -> str:
    """The quoted path, as Pyramid's request.path, of WSGI's latin-1 texts."""
    return quote(f"{script_name}{path_info}".encode("latin-1", "replace"), safe="/~!$&'()*+,;=:@")


def _add_pyramid(fields: dict[str, object]) -> None:
    """Where nothing is instrumented: Pyramid's own thread-local request, if Pyramid is there at all."""
    module = sys.modules.get("pyramid.threadlocal")
    request = module.get_current_request() if module is not None else None
    if request is None:
        return
    values = {
        "client_addr": getattr(request, "client_addr", None),
        "method": getattr(request, "method", None),
        "matched_route": getattr(getattr(request, "matched_route", None), "name", None),
        "path": getattr(request, "path", None),
        "request_id": getattr(request, "c2c_request_id", None),
    }
    fields.update({name: value for name, value in values.items() if value is not None})


class Nesting(threading.local):
    """How many lines this thread is in the middle of: an object's ``__str__`` may log, and so on without end."""

    level = 0


nesting = Nesting()
MAX_NESTING = 3
"""Lines within lines that are still written; deeper ones are not."""


class JsonLogHandler(_StreamHandler):
    """Writes JSON lines to a text stream: ``sys.stdout`` by default, or ``"stdout"`` or ``"stderr"`` by name."""

    def __init__(self, stream: IO[str] | str | None = None) -> None:
        if stream is None or isinstance(stream, str):
            stream = _stream(stream or "stdout")
        super().__init__(stream)

    def format(self, record: logging.LogRecord) -> str:
        """The line without its newline; the formatter is not asked."""
        return log_lines.json_line(record, log_context(record))[:-1].decode()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line. What goes wrong is reported on stderr, as `logging` does."""
        depth = nesting
        if depth.level >= MAX_NESTING:
            return
        depth.level += 1
        try:
            log_lines.write_line(self.stream, log_lines.json_line(record, log_context(record)))
        except Exception:
            self.handleError(record)
        finally:
            depth.level -= 1


def _stream(name: str) -> IO[str]:
    word = name.removeprefix("ext://").removeprefix("sys.")
    if word not in ("stdout", "stderr"):
        raise ValueError(f"the stream of a JsonLogHandler is {name!r}; expected a stream, 'stdout' or 'stderr'")
    stream: IO[str] = getattr(sys, word)
    return stream


class PyramidCeeSysLogHandler(logging.Handler):
    """Sends CEE datagrams by UDP.

    ``address``: ``(host, port)``, or the host with the port as second argument, or the path of a Unix socket.
    ``facility``: a syslog facility by name or number (default ``user``), or any other text; a text is also what
    ``source_facility`` says. ``max_bytes``: longer datagrams are shortened; many receivers take less than the
    65507 bytes of UDP (rsyslog: ``maxMessageSize``, 8 KiB). Other keywords are fields of every line.
    """

    def __init__(
        self,
        address: tuple[str, int] | str = ("localhost", 514),
        port: int | str | socket.SocketKind | None = None,
        debugging_fields: bool = True,
        extra_fields: bool = True,
        facility: str | int | None = None,
        *,
        socktype: int = socket.SOCK_DGRAM,
        max_bytes: int = log_lines.MAX_DATAGRAM,
        **fields: object,
    ) -> None:
        super().__init__()
        if isinstance(port, socket.SocketKind):  # the predecessor's second argument
            socktype, port = port, None
        if socktype != socket.SOCK_DGRAM:
            raise ValueError(f"socktype is {socktype!r}; expected SOCK_DGRAM: CEE lines are sent by UDP")
        if max_bytes < log_lines.MIN_LIMIT:
            raise ValueError(f"max_bytes is {max_bytes!r}; expected {log_lines.MIN_LIMIT} or more")
        host, number = (address, port) if isinstance(address, str) else (address[0], address[1])
        self.max_bytes = max_bytes
        self.facility = _facility_number(facility)
        self._source = facility if isinstance(facility, str) else None
        self._left_out = () if debugging_fields else _DEBUGGING
        self._extra_fields = extra_fields
        self._fields = fields
        self._sender = Sender(host, 514 if number is None else int(number))

    def emit(self, record: logging.LogRecord) -> None:
        """Send one datagram. What goes wrong in making it is reported on stderr, as `logging` does."""
        depth = nesting
        if depth.level >= MAX_NESTING:
            return
        depth.level += 1
        try:
            self._sender.send(log_lines.datagram_of(self._encode(record), self.facility, self.max_bytes))
        except Exception:
            self.handleError(record)
        finally:
            depth.level -= 1

    def format(self, record: logging.LogRecord) -> str:
        """The message part of the datagram; the formatter is not asked."""
        datagram = log_lines.datagram_of(self._encode(record), self.facility, self.max_bytes)
        return datagram[datagram.index(b">") + 1 : -1].decode()

    def close(self) -> None:
        """Send what waits for a name, if it is resolved within a second, and let go of the socket."""
        self._sender.close()
        super().close()

    def _encode(self, record: logging.LogRecord) -> dict[str, Any]:
        fields: dict[str, Any] = log_lines.encode(record, log_context(record), self._extra_fields)
        if self._source is not None:
            fields["source_facility"] = self._source
        for name in self._left_out:
            del fields[name]
        for name, value in self._fields.items():
            if name not in fields:  # a record's own extra= says more than the constant
                log_lines.add_extra(fields, name, value)
        return fields


def _facility_number(facility: str | int | None) -> int:
    if isinstance(facility, int):
        return facility
    return _FACILITIES.get((facility or "user").lower(), log_lines.LOG_USER)
