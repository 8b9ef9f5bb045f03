"""One table, and a session for each request, on the primary or its replica, that commits with the transaction."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pyramid.config import Configurator
from sqlalchemy import orm

from c2c_otel import db

ALEMBIC_INI = Path(__file__).with_name("alembic.ini")


class Base(orm.DeclarativeBase):
    pass


class Hello(Base):
    """A greeting."""

    __tablename__ = "hello"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    value: orm.Mapped[str] = orm.mapped_column(unique=True)


def includeme(config: Configurator) -> db.ScopedSession:
    """``sqlalchemy.*`` settings, ``sqlalchemy_slave.*`` where there is a replica -> ``request.dbsession``; the table
    and one row are made where missing."""
    session, primary, _ = db.setup_session(config, "sqlalchemy", "sqlalchemy_slave")
    create(primary)
    config.add_request_method(lambda request: session(), "dbsession", reify=True)
    return session


def create(engine: sqlalchemy.Engine) -> None:
    """The table with its first row, as the migrations make it, where it is not there yet. Several workers come here at
    once: who is late finds it done."""
    try:
        if not sqlalchemy.inspect(engine).has_table(Hello.__tablename__):
            with engine.begin() as connection:
                Base.metadata.create_all(connection)
                connection.execute(sqlalchemy.insert(Hello).values(value="world"))
                scripts = ScriptDirectory(str(ALEMBIC_INI.with_name("migrations")))
                MigrationContext.configure(connection).stamp(scripts, "head")
    except sqlalchemy.exc.DatabaseError:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.select(Hello.id).limit(1))
    engine.dispose()  # a preloading arbiter must not hand its connections to the workers
