"""What follows a passage is found by an index: a deleted story could not be purged without."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add an index; nothing that is there changes."""
    op.create_index("ix_passages_story_id_parent_id", "passages", ["story_id", "parent_id"])
