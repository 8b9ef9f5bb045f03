"""The request id as PostgreSQL's ``application_name``: in ``pg_stat_activity`` and, by ``%a``, in the server's log.

Each transaction that begins while a request is served begins with ``SET LOCAL application_name = '{id}'``. LOCAL:
the end of the transaction, however it comes, gives the connection its old name back, so a pooled connection never
shows the id of a request that is over. SET and not ``set_config()``: a query would take the transaction's snapshot,
and ``SET TRANSACTION ISOLATION LEVEL`` or ``LOCK TABLE`` must come before that. As SET takes no bound parameter,
the id is written as a literal in which everything but letters, digits and a few signs is escaped.

In autocommit mode there is no transaction: there the name is set for the session when SQLAlchemy's (virtual)
transaction begins and reset when it ends.

It costs one round trip a transaction, and only where ``C2C_SQL_REQUEST_ID`` is on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from c2c_otel import current_request, telemetry
from c2c_otel.patches import Patches
from c2c_otel_exporters import guard

__all__ = ["install", "literal", "uninstall"]

_BEGINS = ("_begin_impl", "_begin_twophase_impl")
_ENDS = ("_commit_impl", "_rollback_impl")
_NAMED = "_c2c_otel_application_name"
"""In the ``info`` of a driver's connection: it has a session-wide name of ours that must be reset."""

_MAX_BYTES = 63
"""NAMEDATALEN - 1: PostgreSQL cuts the rest."""

_UNSAFE = re.compile(r"[^A-Za-z0-9 _.,;=/+@-]")
_Method = Callable[..., Any]

_patches: Patches | None = None
_has_named = False
"""Whether this process has ever given a name to a session."""


def install() -> None:
    """Replace methods of SQLAlchemy's ``Connection``; the setting is looked at when a transaction begins.
    Idempotent."""
    global _patches
    if _patches is not None:
        return
    from sqlalchemy.engine import Connection

    _patches = Patches()
    for names, make in ((_BEGINS, _beginning), (_ENDS, _ending)):
        for name in names:
            if hasattr(Connection, name):
                _patches.replace(Connection, name, functools.partial(make, _patches))


def uninstall() -> None:
    """Undo `install`."""
    global _patches
    if _patches is not None:
        _patches.undo()
        _patches = None


def literal(request_id: str) -> str:
    r"""A PostgreSQL string constant of at most 63 bytes, safe under any setting and any driver's placeholders.

    >>> literal("it's 100%")
    "E'it\\x27s 100\\x25'"
    """
    text = request_id.encode("ascii", "replace").decode("ascii")[:_MAX_BYTES]
    return "E'" + _UNSAFE.sub(_escape, text) + "'"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if 0x20 <= code < 0x7F else "?"


def _beginning(patches: Patches, original: _Method) -> _Method:
    def begin(connection: Any, transaction: Any) -> Any:
        result = original(connection, transaction)
        if connection.dialect.name == "postgresql" and patches.active:
            try:
                _begin(connection)
            except Exception:
                guard.failed("sql_request_id.begin")
        return result

    return begin


def _ending(patches: Patches, original: _Method) -> _Method:
    def end(connection: Any) -> Any:
        if _has_named and patches.active and connection.dialect.name == "postgresql":
            try:
                _end(connection)
            except Exception:
                guard.failed("sql_request_id.end")
        return original(connection)

    return end


def _begin(connection: Any) -> None:
    if not telemetry.get().settings.sql_request_id:
        return
    proxy = connection.connection
    request = current_request.get()
    if request is None:
        if proxy.info.pop(_NAMED, None):  # left by an end that failed
            _execute(connection, "RESET application_name")
        return
    name = literal(request.request_id)
    if connection._is_autocommit_isolation():
        global _has_named
        _has_named = proxy.info[_NAMED] = True
        _execute(connection, f"SET application_name = {name}")
    else:
        _execute(connection, f"SET LOCAL application_name = {name}")


def _end(connection: Any) -> None:
    if not connection._still_open_and_dbapi_connection_is_valid:
        return
    info = connection.connection.info
    if _NAMED in info and connection._is_autocommit_isolation() and _execute(connection, "RESET application_name"):
        del info[_NAMED]


def _execute(connection: Any, statement: str) -> bool:
    """Run a statement that neither spans, measurements nor SQLAlchemy's own log see. A server that refuses or is
    gone is the next statement's affair: the application sees it there, where SQLAlchemy handles it."""
    proxy = connection.connection
    try:
        cursor = proxy.cursor()
        try:
            cursor.execute(statement)
        finally:
            cursor.close()
    except connection.dialect.loaded_dbapi.Error as error:
        guard.dropped("sql_request_id", reason=type(error).__qualname__)
        _forget_failure(connection)
        return False
    return True


def _forget_failure(connection: Any) -> None:
    """A refused statement would make all that follow in the transaction fail; nothing else ran in it yet."""
    try:
        connection.dialect.do_rollback(connection.connection)
    except Exception:
        pass
