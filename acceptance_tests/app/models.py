"""One table, and a session for each request that commits with the transaction."""

from __future__ import annotations

from typing import Any

import sqlalchemy
import zope.sqlalchemy
from pyramid.config import Configurator
from sqlalchemy import orm


class Base(orm.DeclarativeBase):
    pass


class Hello(Base):
    """A greeting."""

    __tablename__ = "hello"

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    value: orm.Mapped[str] = orm.mapped_column(unique=True)


def includeme(config: Configurator) -> None:
    """``sqlalchemy.*`` settings -> ``request.dbsession``; the table and one row are made where missing."""
    engine = sqlalchemy.engine_from_config(config.registry.settings, "sqlalchemy.")
    create(engine)
    factory = orm.sessionmaker(bind=engine)

    def dbsession(request: Any) -> orm.Session:
        session = factory()
        zope.sqlalchemy.register(session, transaction_manager=request.tm)
        return session

    config.add_request_method(dbsession, reify=True)


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
