"""What an edit copies is hidden until all of it is stored, and found where that never happened.

A program without this migration would show it, and number passages as if nothing were hidden.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add an index; nothing that is there changes."""
    hidden = sa.text("state = 'hidden'")
    op.create_index(
        "ix_passages_hidden",
        "passages",
        ["state"],
        sqlite_where=hidden,
        postgresql_where=hidden,
    )
