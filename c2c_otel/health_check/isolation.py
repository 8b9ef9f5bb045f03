"""A request of its own for each check: checks run in parallel, and one that fails leaves nothing to another.

It is a copy of the request that is served, a GET without body. Properties that an application has given to requests
(``request.dbsession``, say) are made anew for it, in a transaction that is aborted in the end.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pyramid.request import apply_request_extensions
from pyramid.threadlocal import RequestContext

__all__ = ["isolated"]

_KEPT = ("context", "invoke_subrequest", "matchdict", "matched_route", "root", "subpath", "traversed", "view_name")
_TRANSACTION = ("repoze.tm.active", "tm.active", "tm.manager")


@contextmanager
def isolated(request: Any) -> Iterator[Any]:
    """The copy, as Pyramid's current request in this thread. What it holds is let go in the end, by ``aborted``
    transactions, finished callbacks and closed sessions; what these raise counts as the check's failure."""
    if not hasattr(request, "copy_get"):  # pyramid.testing.DummyRequest
        yield request
        return
    own = _copy(request)
    with ExitStack() as stack:
        context = RequestContext(own)
        context.begin()
        stack.callback(context.end)
        _enter_scope(own, stack)
        _begin_transaction(own, stack)
        stack.callback(_finish, own)
        yield own


def _copy(request: Any) -> Any:
    own = request.copy_get()
    own.registry = request.registry
    apply_request_extensions(own)
    held = vars(request)
    for name in _KEPT:
        if name in held:
            setattr(own, name, held[name])
    for key in _TRANSACTION:
        own.environ.pop(key, None)
    return own


def _enter_scope(own: Any, stack: ExitStack) -> None:
    """Sessions of `c2c_otel.db` belong to the request in whose scope they are used."""
    scopes = sys.modules.get("c2c_otel.db.scope")
    if scopes is None:
        return
    mine = scopes.Scope(own)
    own.environ[scopes.ENVIRON_KEY] = mine
    token = scopes.current.set(mine)
    stack.callback(scopes.current.reset, token)
    stack.callback(mine.close)


def _begin_transaction(own: Any, stack: ExitStack) -> None:
    """As pyramid_tm's tween does."""
    manager = getattr(own, "tm", None)
    if manager is None:
        return
    environ = own.environ
    environ["tm.active"], environ["tm.manager"] = True, manager
    manager.begin()

    def end() -> None:
        environ.pop("tm.active", None)
        manager.abort()

    stack.callback(end)


def _finish(own: Any) -> None:
    if own.finished_callbacks:
        own._process_finished_callbacks()
