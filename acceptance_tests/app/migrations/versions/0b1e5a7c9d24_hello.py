"""The table of greetings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0b1e5a7c9d24"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "hello",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("value", sa.String, nullable=False, unique=True),
    )


def downgrade() -> None:
    op.drop_table("hello")
