"""One table, and a session for each request, on the primary or its replica, that commits with the transaction."""

from __future__ import annotations

import sqlalchemy
from pyramid.config import Configurator
from sqlalchemy import orm

from c2c_otel import db


class Base(orm.DeclarativeBase):
    pass


class Hello(Base):
    """A greeting."""

    __tablename__ = "hello"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    value: orm.Mapped[str] = orm.mapped_column(unique=True)


def includeme(config: Configurator) -> None:
    """``sqlalchemy.*`` settings, ``sqlalchemy_slave.*`` where there is a replica -> ``request.dbsession``; the table
    and one row are made where missing."""
    session, primary, _ = db.setup_session(config, "sqlalchemy", "sqlalchemy_slave")
    create(primary)
    config.add_request_method(lambda request: session(), "dbsession", reify=True)


def create(engine: sqlalchemy.Engine) -> None:
    """The table with its first row, where it is not there yet. Several workers come here at once: who is late finds
    it done."""
    try:
        if not sqlalchemy.inspect(engine).has_table(Hello.__tablename__):
            with engine.begin() as connection:
                Base.metadata.create_all(connection)
                connection.execute(sqlalchemy.insert(Hello).values(value="world"))
    except sqlalchemy.exc.DatabaseError:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.select(Hello.id).limit(1))
    engine.dispose()  # a preloading arbiter must not hand its connections to the workers
