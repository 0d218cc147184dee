"""Stories, passages and marks as rows of the database, and the bounds of what a row may hold."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from storygen.errors import StoryError
from storygen.story.tree import Mark, Passage, Story

# States of rows alone: of one whose passage is as its source in all but its place, and of one that
# nobody sees yet, nor any that follows it.
COPY: Final = "copy"
HIDDEN: Final = "hidden"

MAX_TEXT = 2_000_000
MAX_TITLE = 500
MAX_SEARCH = 500
MAX_NAME = 200


def new_story(
    owner: str, story_id: str, title: str, settings: dict[str, Any], now: datetime
) -> dict[str, Any]:
    """The row of a story without passages."""
    return {
        "id": story_id,
        "owner": owner,
        "title": within(title, MAX_TITLE, "title"),
        "settings": settings,
        "passage_count": 0,
        "head_number": 0,
        "created_at": now,
        "updated_at": now,
    }


def row_of(passage: Passage, owner: str, number: int, source: Passage | None) -> dict[str, Any]:
    """The row of a complete passage. What is as in its source is not stored again."""
    own = {
        "text": within(passage.text, MAX_TEXT, "passage"),
        "state": "complete",
        "model": passage.model,
        "params": passage.params,
        "finish_reason": passage.finish_reason,
    }
    if source is not None and all(getattr(source, name) == own[name] for name in own):
        own = {"text": "", "state": COPY, "model": None, "params": None, "finish_reason": None}
    return own | {
        "id": passage.id,
        "story_id": passage.story_id,
        "owner": owner,
        "number": number,
        "parent_id": passage.parent_id,
        "source_id": passage.source_id,
        "role": passage.role,
        "created_at": passage.created_at,
    }


def as_passage(row: Mapping[Any, Any], known: Mapping[str, Passage] | None = None) -> Passage:
    """The passage of a row; what a copy does not say is that of its source, which is known."""
    values = {name: value for name, value in row.items() if name not in ("owner", "number")}
    if row["state"] != COPY:
        return Passage(**values)
    source = (known or {})[row["source_id"]]
    places = ("id", "story_id", "parent_id", "source_id", "role", "created_at")
    return replace(source, **{name: values[name] for name in places})


def as_mark(row: Mapping[Any, Any]) -> Mark:
    """What a row says of its passage."""
    return Mark(row["name"], row["favourite"], row["rating"], row["deleted"])


def as_story(row: Mapping[Any, Any]) -> Story:
    """The story of a row that was joined with its head."""
    names = ("id", "owner", "title", "created_at", "updated_at", "head_id", "settings")
    values = {name: row[name] for name in (*names, "passage_count")}
    return Story(**values, archived=row["archived_at"] is not None)


def new_id(given: str | None = None) -> str:
    """The id given, if it is a UUID as str(uuid4()) writes it, or a new one."""
    if given is None:
        return str(uuid4())
    try:
        is_uuid = str(UUID(given)) == given
    except ValueError:
        is_uuid = False
    if not is_uuid:
        raise StoryError(f"{given[:40]!r} is not a UUID. Leave it out to get a new one.")
    return given


def within(text: str, limit: int, noun: str) -> str:
    """The text, if it is no longer than may be stored."""
    if len(text) > limit:
        raise StoryError(
            f"This {noun} has {len(text):,} characters: at most {limit:,} can be taken."
        )
    return text
