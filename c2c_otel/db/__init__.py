"""Database sessions that read from a replica and write to the primary.

    from c2c_otel import db

    def main(global_config, **settings):
        config = Configurator(settings=settings)
        config.include("c2c_otel")
        models.DBSession, _, _ = db.setup_session(config, "sqlalchemy", "sqlalchemy_slave")

GET, HEAD and OPTIONS use the replica, all else the primary; who is in doubt is asked in this order:

1. the read-only switch (`c2c_otel.db_maintenance`): nothing is written, on whichever server;
2. the application: `use_primary`, `use_replica`, `primary`, `replica`;
3. ``force_master``, then ``force_slave``: regular expressions that are matched from the start of ``"POST /path"``;
4. the method.

Where the replica is down, lags or has been promoted, the primary takes its place. Needs the extra ``postgresql``.
"""

from __future__ import annotations

try:
    import sqlalchemy as _sqlalchemy  # noqa: F401 - to say what is missing
    import zope.sqlalchemy as _zope_sqlalchemy  # noqa: F401 - likewise
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"c2c_otel.db needs {error.name}. Run: pip install 'c2c-otel[postgresql]'", name=error.name
    ) from error

from c2c_otel.db.readonly import ReadOnlyError
from c2c_otel.db.scope import primary, replica, use_primary, use_replica
from c2c_otel.db.session import RoutedSession, ScopedSession
from c2c_otel.db.setup import create_session, setup_session

__all__ = [
    "setup_session",
    "create_session",
    "use_primary",
    "use_replica",
    "primary",
    "replica",
    "ReadOnlyError",
    "RoutedSession",
    "ScopedSession",
]
