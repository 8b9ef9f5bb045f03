"""zope.sqlalchemy, for sessions that serve requests with transaction managers of their own."""

from __future__ import annotations

from typing import Any

import zope.sqlalchemy
from sqlalchemy import event
from transaction._transaction import Status

from c2c_otel.db import scope

__all__ = ["register"]


class _Current:
    """The manager for what joins a transaction now."""

    def get(self) -> Any:
        return scope.transaction_manager().get()


def register(session: Any) -> None:
    """Join this registry's sessions to the transaction of the request, or of the thread outside of requests."""
    events = zope.sqlalchemy.register(session, transaction_manager=_Current())
    event.remove(session, "before_commit", events.before_commit)
    event.listen(session, "before_commit", _before_commit)


def _before_commit(session: Any) -> None:
    """As zope.sqlalchemy's, for a transaction that may end after its request, where another manager is current."""
    assert (
        session.in_nested_transaction()
        or session.c2c_transaction_manager.get().status == Status.COMMITTING
        or scope.transaction_manager().get().status == Status.COMMITTING
    ), "Transaction must be committed using the transaction manager"
