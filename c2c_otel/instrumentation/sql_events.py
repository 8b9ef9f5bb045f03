"""The two uses of SQLAlchemy's events: SQL comments as the contrib package adds them, and the way out where a
future SQLAlchemy lacks the methods that are wrapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy
from opentelemetry.instrumentation.sqlcommenter_utils import _add_sql_comment
from opentelemetry.instrumentation.utils import _get_opentelemetry_values
from opentelemetry.trace import Span
from sqlalchemy import event
from sqlalchemy.engine import Engine

from c2c_otel_exporters import guard

if TYPE_CHECKING:
    from c2c_otel.instrumentation.sqlalchemy import Call, Calls

__all__ = ["Commenter", "commenter", "listen", "remove"]

Commenter = Callable[[Any, Any, Span], None]

_CALL = "_c2c_otel_call"
_listening: list[tuple[str, Callable[..., Any]]] = []


def commenter(
    enable_commenter: bool = False,
    commenter_options: Mapping[str, bool] | None = None,
    enable_attribute_commenter: bool = False,
    **_: Any,
) -> Commenter | None:
    """What appends ``/*traceparent='...'*/`` to a statement, or None. The arguments are contrib's."""
    if not enable_commenter:
        return None
    options = dict(commenter_options or {})

    def add(connection: Any, context: Any, span: Span) -> None:
        try:
            values = {"db_driver": connection.engine.driver, "db_framework": f"sqlalchemy:{sqlalchemy.__version__}"}
            if options.get("opentelemetry_values", True):
                values.update(_get_opentelemetry_values())
            values = {key: value for key, value in values.items() if options.get(key, True)}
            context.statement = _add_sql_comment(context.statement, **values)
            if enable_attribute_commenter:
                span.set_attribute("db.query.text", context.statement)
        except Exception:
            guard.failed("sqlalchemy.comment")

    return add


def listen(calls: Calls) -> None:
    """Listen to every engine, those that exist included."""

    def before(connection: Any, _c: Any, _s: str, _p: Any, context: Any, _m: bool) -> None:
        setattr(context, _CALL, calls.begin(connection, context))

    def after(_k: Any, _c: Any, _s: str, _p: Any, context: Any, _m: bool) -> None:
        finish(context, None)

    def handle_error(failure: Any) -> None:
        finish(failure.execution_context, failure.original_exception)

    def finish(context: Any, error: BaseException | None) -> None:
        call: Call | None = getattr(context, _CALL, None)
        if call is not None:
            delattr(context, _CALL)
            calls.finish(call, error, context if error is None else None)

    for name, listener in (
        ("before_cursor_execute", before),
        ("after_cursor_execute", after),
        ("handle_error", handle_error),
    ):
        event.listen(Engine, name, listener)
        _listening.append((name, listener))


def remove() -> None:
    """Stop listening."""
    while _listening:
        name, listener = _listening.pop()
        event.remove(Engine, name, listener)
