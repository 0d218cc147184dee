"""What a writer says of passages, copies that edits make, and stories put away."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add to the tables; nothing that is there changes."""
    op.add_column("stories", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    # Without a foreign key: SQLite could only add one by copying the table that all others name.
    op.add_column("passages", sa.Column("source_id", sa.Text, nullable=True))
    op.create_table(
        "marks",
        sa.Column("story_id", sa.Text, nullable=False),
        sa.Column("passage_id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("favourite", sa.Boolean, nullable=False),
        sa.Column("rating", sa.Integer, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("story_id", "passage_id", name="pk_marks"),
        sa.ForeignKeyConstraint(
            ["story_id", "owner"],
            ["stories.id", "stories.owner"],
            name="fk_marks_story_id_owner",
        ),
        sa.ForeignKeyConstraint(
            ["story_id", "passage_id"],
            ["passages.story_id", "passages.id"],
            name="fk_marks_story_id_passage_id",
        ),
    )
