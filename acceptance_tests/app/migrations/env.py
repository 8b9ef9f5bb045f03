"""What ``alembic -c acceptance_tests/app/alembic.ini -x url=sqlite:///demo.sqlite upgrade head`` runs."""

from __future__ import annotations

import sqlalchemy
from alembic import context

engine = sqlalchemy.create_engine(context.get_x_argument(as_dictionary=True)["url"])
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
