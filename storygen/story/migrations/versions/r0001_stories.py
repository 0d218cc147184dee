"""Stories, their passages, and the places the head has been."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "stories",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("passage_count", sa.Integer, nullable=False),
        sa.Column("head_number", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_stories"),
        sa.UniqueConstraint("id", "owner", name="uq_stories_id_owner"),
    )
    op.create_index("ix_stories_owner_updated_at_id", "stories", ["owner", "updated_at", "id"])
    op.create_table(
        "passages",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("story_id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("parent_id", sa.Text, nullable=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("model", sa.Text, nullable=True),
        sa.Column("params", sa.JSON, nullable=True),
        sa.Column("finish_reason", sa.String(16), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_passages"),
        sa.UniqueConstraint("story_id", "id", name="uq_passages_story_id_id"),
        sa.UniqueConstraint("story_id", "number", name="uq_passages_story_id_number"),
        sa.ForeignKeyConstraint(
            ["story_id", "owner"],
            ["stories.id", "stories.owner"],
            name="fk_passages_story_id_owner",
        ),
        sa.ForeignKeyConstraint(
            ["story_id", "parent_id"],
            ["passages.story_id", "passages.id"],
            name="fk_passages_story_id_parent_id",
        ),
    )
    op.create_table(
        "head_moves",
        sa.Column("story_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("passage_id", sa.Text, nullable=True),
        sa.PrimaryKeyConstraint("story_id", "number", name="pk_head_moves"),
        sa.ForeignKeyConstraint(
            ["story_id", "owner"],
            ["stories.id", "stories.owner"],
            name="fk_head_moves_story_id_owner",
        ),
        sa.ForeignKeyConstraint(
            ["story_id", "passage_id"],
            ["passages.story_id", "passages.id"],
            name="fk_head_moves_story_id_passage_id",
        ),
    )
