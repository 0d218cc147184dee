"""The tables that stories are kept in. A change here needs a migration beside the others.

The owner stands in every table and the foreign keys carry it along, so a passage cannot come to
belong to another writer's story.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from storygen.text import whole_characters


class WholeText(TypeDecorator[str]):
    """Text as it was given, but for what the database cannot hold.

    A lone surrogate becomes U+FFFD, and so does NUL on PostgreSQL; SQLite holds NUL.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """value as it is stored."""
        if value is None:
            return None
        text = whole_characters(value)
        return text.replace("\0", "\ufffd") if dialect.name == "postgresql" else text


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, always with its time zone outside and always UTC inside.

    SQLite keeps no time zone, so what it gives back is said to be UTC again.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """value in UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """value in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

stories = Table(
    "stories",
    metadata,
    Column("id", WholeText, primary_key=True),
    Column("owner", WholeText, nullable=False),
    Column("title", WholeText, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("passage_count", Integer, nullable=False),
    Column("head_number", Integer, nullable=False),  # where in head_moves the writer stands
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("deleted_at", UtcDateTime, nullable=True),
    Column("archived_at", UtcDateTime, nullable=True),
    UniqueConstraint("id", "owner"),
    Index(None, "owner", "updated_at", "id"),
)

# Of a copy that nobody sees yet, see copies.py. Without a parameter, so that the index is used.
IS_HIDDEN = text("state = 'hidden'")

passages = Table(
    "passages",
    metadata,
    Column("id", WholeText, primary_key=True),
    Column("story_id", WholeText, nullable=False),
    Column("owner", WholeText, nullable=False),
    Column(
        "number", Integer, nullable=False
    ),  # from 1 in each story: the order, whatever clocks do
    Column("parent_id", WholeText, nullable=True),
    Column("role", String(16), nullable=False),
    Column("text", WholeText, nullable=False),
    Column("state", String(16), nullable=False),
    Column("model", WholeText, nullable=True),
    Column("params", JSON(none_as_null=True), nullable=True),
    Column("finish_reason", String(16), nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("source_id", WholeText, nullable=True),  # of a copy: the passage that was edited
    UniqueConstraint("story_id", "id"),
    UniqueConstraint("story_id", "number"),
    Index("ix_passages_story_id_parent_id", "story_id", "parent_id"),  # for whoever deletes one
    Index("ix_passages_hidden", "state", sqlite_where=IS_HIDDEN, postgresql_where=IS_HIDDEN),
    ForeignKeyConstraint(["story_id", "owner"], ["stories.id", "stories.owner"]),
    ForeignKeyConstraint(["story_id", "parent_id"], ["passages.story_id", "passages.id"]),
)

# Every place the head has been, in order: number 1 on; before the first move it is nowhere (0).
# Undo and redo change only stories.head_number; a new move cuts off what lies beyond it.
head_moves = Table(
    "head_moves",
    metadata,
    Column("story_id", WholeText, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("owner", WholeText, nullable=False),
    Column("passage_id", WholeText, nullable=True),
    ForeignKeyConstraint(["story_id", "owner"], ["stories.id", "stories.owner"]),
    ForeignKeyConstraint(["story_id", "passage_id"], ["passages.story_id", "passages.id"]),
)

# What the writer says of a passage: the only things about one that ever change.
marks = Table(
    "marks",
    metadata,
    Column("story_id", WholeText, primary_key=True),
    Column("passage_id", WholeText, primary_key=True),
    Column("owner", WholeText, nullable=False),
    Column("name", WholeText, nullable=False),
    Column("favourite", Boolean, nullable=False),
    Column("rating", Integer, nullable=False),
    Column("deleted", Boolean, nullable=False),
    ForeignKeyConstraint(["story_id", "owner"], ["stories.id", "stories.owner"]),
    ForeignKeyConstraint(["story_id", "passage_id"], ["passages.story_id", "passages.id"]),
)

# Who may write here, where more than one shares an installation. An owner is a user's id.
users = Table(
    "users",
    metadata,
    Column("id", WholeText, primary_key=True),
    Column("name", WholeText, nullable=False),
    Column("known_as", WholeText, nullable=False),  # the name as names are compared
    Column("password_hash", WholeText, nullable=True),  # none where a proxy says who it is
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime, nullable=True),
    UniqueConstraint("known_as"),
)

# Each browser in which somebody is signed in. Its secret is not kept, only what it hashes to.
sign_ins = Table(
    "sign_ins",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("user_id", WholeText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    ForeignKeyConstraint(["user_id"], ["users.id"]),
    Index(None, "user_id"),
)

# With what programs ask for a user. The key is not kept, only what it hashes to.
api_keys = Table(
    "api_keys",
    metadata,
    Column("key_hash", String(64), primary_key=True),
    Column("user_id", WholeText, nullable=False),
    Column("label", WholeText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime, nullable=True),
    ForeignKeyConstraint(["user_id"], ["users.id"]),
    Index(None, "user_id"),
)
