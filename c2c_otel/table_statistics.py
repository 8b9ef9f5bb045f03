"""How many rows the tables of a PostgreSQL have, how big they and their indexes are, how the indexes are used.

Each question is a read-only transaction of its own, with a time limit: what one table cannot answer (a lock, a right
that is missing, a broken page) is lost, and nothing else.

| kind | path | value |
|---|---|---|
| ``count`` | schema, table | rows |
| ``size`` | schema, table | bytes, with TOAST and the maps of free space and visibility |
| ``index_size`` | schema, table, index, ``main`` or ``fsm`` | bytes of that file |
| ``index_usage`` | schema, table, index, ``scan``, ``read`` or ``fetch`` | how often since the statistics began |
| ``count`` | the parts of a name | what a query of the operator's says |

A partitioned table has the rows and the size of all its partitions, which are tables themselves. A table from which
others inherit has their rows, as for a ``SELECT``. Views, materialized views, foreign and temporary tables are left
out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import sqlalchemy
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

__all__ = ["MeasureError", "Reader", "Table", "UnreachableError", "Value", "database_url"]

_CONNECT_SECONDS = 10
_LOCK_SECONDS = 5.0
"""A table that somebody changes is not waited for longer than this."""


class MeasureError(Exception):
    """What the database said instead of an answer, in one line, without the statement."""


class UnreachableError(MeasureError):
    """No connection to the database."""


class Value(NamedTuple):
    """One number. ``path`` and ``tags`` are the same names, for those who join parts and for those who have labels."""

    kind: str
    path: tuple[str, ...]
    tags: tuple[tuple[str, str], ...]
    value: float


class Table(NamedTuple):
    """An ordinary or a partitioned table."""

    schema: str
    name: str
    oid: int

    @property
    def path(self) -> tuple[str, str]:
        return self.schema, self.name

    @property
    def tags(self) -> tuple[tuple[str, str], ...]:
        return ("schema", self.schema), ("table", self.name)


def database_url(text: str) -> URL:
    """A URL of PostgreSQL, with the driver that is installed where it names none. Raises ValueError, without the URL
    in it: it may hold a password."""
    try:
        url = sqlalchemy.make_url(text)
    except (SQLAlchemyError, ValueError):
        raise ValueError("expected a URL such as postgresql://user@host/name") from None
    if url.drivername == "postgres":  # as libpq takes it, too
        url = url.set(drivername="postgresql")
    if url.get_backend_name() != "postgresql":
        raise ValueError(f"expected a URL of PostgreSQL, not of {url.get_backend_name()}")
    if url.drivername != "postgresql":
        return url
    for driver in ("psycopg", "psycopg2"):
        if importlib.util.find_spec(driver) is not None:
            return url.set(drivername=f"postgresql+{driver}")
    raise ValueError("there is no driver for PostgreSQL; run: pip install 'c2c-otel[postgresql]'")


def _reason(error: SQLAlchemyError) -> str:
    said = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    return " ".join(said.split()) or type(error).__name__


class Reader:
    """Asks one database; not thread-safe. ``timeout``: seconds for each statement, 0 for no limit. What fails raises
    `MeasureError`.

    ``exact``: rows are counted, which reads each table. Otherwise they are what the last ANALYZE (or VACUUM) has
    estimated; only a table that has rows and has never been analysed is counted.
    """

    def __init__(self, url: URL, *, timeout: float = 60.0, exact: bool = False) -> None:
        own = {"connect_timeout": _CONNECT_SECONDS, "application_name": "c2c-otel-stats-db"}
        libpq = url.get_driver_name() in ("psycopg", "psycopg2")
        arguments = {key: value for key, value in own.items() if libpq and key not in url.query}
        self._engine = sqlalchemy.create_engine(url, connect_args=arguments)
        self._timeout = timeout
        self._exact = exact

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sqlalchemy.Connection]:
        try:
            connection = self._engine.connect()
        except SQLAlchemyError as error:
            raise UnreachableError(_reason(error)) from error
        limits = {"all": _milliseconds(self._timeout), "lock": _milliseconds(_LOCK_SECONDS)}
        try:
            with connection, connection.begin():
                connection.execute(_LIMITS, limits)  # of the transaction: a pooler between us need not know of them
                yield connection
        except SQLAlchemyError as error:
            raise MeasureError(_reason(error)) from error

    def tables(self, schemas: Iterable[str]) -> tuple[list[Table], set[str]]:
        """The tables in these schemas, by name, and those of the schemas that are not there."""
        wanted = sorted(set(schemas))
        with self._transaction() as connection:
            there = {row.name for row in connection.execute(_SCHEMAS, {"schemas": wanted})}
            rows = connection.execute(_TABLES, {"schemas": wanted})
            return [Table(row.schema, row.name, row.oid) for row in rows], set(wanted) - there

    def exists(self, table: Table) -> bool:
        """Whether it has not been dropped meanwhile."""
        with self._transaction() as connection:
            return connection.execute(_EXISTS, {"oid": table.oid}).scalar() is not None

    def count(self, table: Table) -> list[Value]:
        """Its rows."""
        with self._transaction() as connection:
            if self._exact:
                rows = self._counted(connection, table.schema, table.name)
            else:
                rows = self._estimated(connection, table)
        return [Value("count", table.path, table.tags, rows)]

    def _estimated(self, connection: sqlalchemy.Connection, table: Table) -> int:
        """The estimates of the table, its partitions and heirs.

        PostgreSQL 14 and newer say -1 for one that was never analysed; older ones say 0 rows on 0 pages.
        """
        rows = 0
        for part in connection.execute(_ESTIMATES, {"oid": table.oid}).all():
            if part.size == 0:
                continue
            unknown = part.reltuples < 0 or (part.reltuples == 0 and part.relpages == 0)
            rows += self._counted(connection, part.schema, part.name, "ONLY ") if unknown else round(part.reltuples)
        return rows

    def _counted(self, connection: sqlalchemy.Connection, schema: str, name: str, only: str = "") -> int:
        quote = connection.dialect.identifier_preparer.quote_identifier
        statement = f"SELECT count(*) FROM {only}{quote(schema)}.{quote(name)}"  # noqa: S608 - quoted names
        return int(connection.execution_options(no_parameters=True).exec_driver_sql(statement).scalar_one())

    def size(self, table: Table) -> list[Value]:
        """Its bytes; none where it is gone."""
        with self._transaction() as connection:
            size = connection.execute(_SIZE, {"oid": table.oid}).scalar()
        return [] if size is None else [Value("size", table.path, table.tags, int(size))]

    def indexes(self, table: Table) -> list[Value]:
        """The sizes and the usage of its indexes."""
        with self._transaction() as connection:
            rows = connection.execute(_INDEXES, {"oid": table.oid}).all()
        values = []
        for row in rows:
            for kind, tag, whats in (("index_size", "fork", _FORKS), ("index_usage", "action", _ACTIONS)):
                for what in whats:
                    tags = (*table.tags, ("index", row.name), (tag, what))
                    value = int(getattr(row, f"size_{what}" if whats is _FORKS else what) or 0)
                    values.append(Value(kind, (*table.path, row.name, what), tags, value))
        return values

    def query(self, statement: str) -> list[Value]:
        """What a query of the operator's says: rows of a name, which may have dots, and a number."""
        with self._transaction() as connection:
            result = connection.execution_options(no_parameters=True).exec_driver_sql(statement)
            rows = result.all() if result.returns_rows else []
            if not result.returns_rows or len(result.keys()) != 2:
                raise MeasureError("expected a query with two columns, a name and a number")
        return [_extra(row) for row in rows]


def _extra(row: Sequence[object]) -> Value:
    name, value = row
    try:
        number = float(value)  # type: ignore[arg-type] # what float() refuses is what the except is for
    except (TypeError, ValueError):
        raise MeasureError(f"the value of {name!r} is {value!r}; expected a number") from None
    return Value(
        "count", tuple(str(name).split(".")), (("metric", str(name)),), int(number) if number % 1 == 0 else number
    )


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


_FORKS = ("main", "fsm")
_ACTIONS = ("scan", "read", "fetch")

# Transactions that may write could do so through a function that an --extra calls; here they cannot.
_LIMITS = sqlalchemy.text("""
    SELECT set_config('transaction_read_only', 'on', true),
        set_config('statement_timeout', :all, true), set_config('lock_timeout', :lock, true)
""")
_SCHEMAS = sqlalchemy.text("SELECT nspname AS name FROM pg_catalog.pg_namespace WHERE nspname = ANY(:schemas)")
_TABLES = sqlalchemy.text("""
    SELECT n.nspname AS schema, c.relname AS name, CAST(c.oid AS bigint) AS oid
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname = ANY(:schemas) ORDER BY 1, 2
""")
_EXISTS = sqlalchemy.text("SELECT 1 FROM pg_catalog.pg_class WHERE oid = CAST(:oid AS oid)")
_ESTIMATES = sqlalchemy.text("""
    WITH RECURSIVE tree(oid) AS (
        SELECT CAST(:oid AS oid)
        UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid
    )
    SELECT n.nspname AS schema, c.relname AS name, c.reltuples, c.relpages, pg_relation_size(c.oid) AS size
    FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r'
""")
_SIZE = sqlalchemy.text("""
    WITH RECURSIVE tree(oid) AS (
        SELECT CAST(:oid AS oid)
        UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid
    )
    SELECT CASE WHEN c.relkind = 'p'
        THEN (SELECT coalesce(sum(pg_table_size(tree.oid)), 0) FROM tree)
        ELSE pg_table_size(c.oid) END
    FROM pg_catalog.pg_class c WHERE c.oid = CAST(:oid AS oid)
""")
_INDEXES = sqlalchemy.text("""
    SELECT c.relname AS name, s.idx_scan AS scan, s.idx_tup_read AS read, s.idx_tup_fetch AS fetch,
        pg_relation_size(c.oid, 'main') AS size_main, pg_relation_size(c.oid, 'fsm') AS size_fsm
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    LEFT JOIN pg_catalog.pg_stat_all_indexes s ON s.indexrelid = c.oid
    WHERE i.indrelid = CAST(:oid AS oid) AND c.relkind = 'i' ORDER BY 1
""")
