import sqlalchemy as sa
from c2cwsgiutils.db import setup_session
from sqlalchemy.orm import declarative_base

DBSession = None
Base = declarative_base()


class Hello(Base):
    __tablename__ = 'hello'
    id = sa.Column(sa.Integer, primary_key=True)
    value = sa.Column(sa.Unicode, nullable=False)


def init(config):
    global DBSession
    # the master, the slave
    DBSession, master, _ = setup_session(config, 'sqlalchemy', 'sqlalchemy_slave', force_master=['GET /api/hello'])
    Base.metadata.create_all(master)
    with master.begin() as connection:
        connection.execute(sa.insert(Hello).values(value='world'))
