"""Stories as a list shows them: made, named, found, put away, deleted and restored."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

import sqlalchemy as sa

from storygen.errors import StoryError
from storygen.story.database import Database, ask
from storygen.story.growing import Growing
from storygen.story.quota import Quota, size_of_story
from storygen.story.rows import MAX_SEARCH, MAX_TITLE, as_story, new_id, new_story, within
from storygen.story.schema import stories
from storygen.story.statements import (
    UNFINISHED,
    gently,
    hold,
    insert,
    mentions,
    story_of,
    story_query,
)
from storygen.story.tree import Story

MAX_PAGE = 1000


class _ChangedMeanwhile(StoryError):
    """The settings are not any more those that were read."""


class StoryList:
    """The part of StoryStore that knows nothing of passages."""

    def __init__(self, database: Database, growing: Growing, room: int) -> None:
        self._database, self._growing = database, growing
        self._quota = Quota(growing, room)
        self._settling = WeakValueDictionary[tuple[str, str], asyncio.Lock]()
        self._searching = WeakValueDictionary[str, asyncio.Lock]()

    async def create_story(
        self,
        owner: str,
        *,
        story_id: str | None = None,
        title: str = "",
        settings: dict[str, Any] | None = None,
    ) -> Story:
        """A new story without passages."""
        row = new_story(owner, new_id(story_id), title, settings or {}, datetime.now(UTC))
        size = size_of_story(json.dumps(row["settings"]))
        async with self._quota.room(owner, size), self._growing.change() as connection:
            added = await insert(connection, stories, row)
            return await story_of(connection, owner, added["id"])

    async def story(self, owner: str, story_id: str) -> Story:
        """The story of this id."""
        async with self._database.read() as connection:
            return await story_of(connection, owner, story_id)

    async def stories(
        self,
        owner: str,
        *,
        search: str = "",
        limit: int = 50,
        before: tuple[datetime, str] | None = None,
        archived: bool = False,
        deleted: bool = False,
    ) -> list[Story]:
        """The owner's stories, the last changed first: those at hand, or those that were archived
        or deleted.

        search keeps those with this text in the title or in any passage, on any branch; case
        counts only beyond ASCII. All that an owner keeps is read for one, so they go one after
        another. before, the (updated_at, id) of the last story already shown,
        gives the next page.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise StoryError(f"A page of {limit} stories cannot be shown: 1 to {MAX_PAGE} can.")
        query = story_query(owner, deleted=deleted)
        query = query.order_by(stories.c.updated_at.desc(), stories.c.id.desc())
        if not deleted:
            query = query.where((stories.c.archived_at.is_not(None)) == archived)
        if before is not None:
            query = query.where(sa.tuple_(stories.c.updated_at, stories.c.id) < before)
        query = query.limit(limit)
        if needle := within(search, MAX_SEARCH, "search").strip():
            async with self._searching.setdefault(owner, asyncio.Lock()):
                return await self._found(query.where(mentions(owner, needle)))
        return await self._found(query)

    async def titles(self, owner: str) -> dict[str, str]:
        """The titles, by their ids, of all stories that are not deleted: those at hand and then the
        archived, the last changed first. Of stories whole, a thousand may fill a gigabyte."""
        query = (
            sa.select(stories.c.id, stories.c.title)
            .where(
                stories.c.owner == owner,
                stories.c.deleted_at.is_(None),
                stories.c.head_number != UNFINISHED,
            )
            .order_by(
                stories.c.archived_at.is_not(None),
                stories.c.updated_at.desc(),
                stories.c.id.desc(),
            )
        )
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return {row["id"]: row["title"] async for row in gently(rows.mappings())}

    async def rename(self, owner: str, story_id: str, title: str) -> Story:
        """Give a story another title."""
        return await self._changed(owner, story_id, title=within(title, MAX_TITLE, "title"))

    async def update_settings(self, owner: str, story_id: str, settings: dict[str, Any]) -> Story:
        """Change some of a story's settings and leave the others."""
        return await self.change_settings(owner, story_id, lambda before: before | settings)

    async def change_settings(
        self, owner: str, story_id: str, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> Story:
        """Put what change makes of a story's settings in their place; where it raises, nothing is
        changed, and where somebody else changes them meanwhile, it is asked again."""
        # In the order in which they came: the last one holds.
        async with self._settling.setdefault((owner, story_id), asyncio.Lock()):
            while True:
                settings = (await self.story(owner, story_id)).settings
                before, after = json.dumps(settings), change(settings)
                size = len(json.dumps(after)) - len(before)
                with suppress(_ChangedMeanwhile):
                    async with self._quota.room(owner, size), self._growing.change() as connection:
                        held = await hold(connection, owner, story_id)
                        if json.dumps(held["settings"]) != before:
                            raise _ChangedMeanwhile
                        await hold(connection, owner, story_id, settings=after)
                        return await story_of(connection, owner, story_id)

    async def archive(self, owner: str, story_id: str, *, archived: bool) -> Story:
        """Put a story away from the list, or back to its place there."""
        moment = datetime.now(UTC) if archived else None
        return await self._changed(
            owner, story_id, archived_at=moment, updated_at=stories.c.updated_at
        )

    async def delete_story(self, owner: str, story_id: str) -> None:
        """Hide a story until restore_story brings it back."""
        async with self._growing.change() as connection:
            await hold(
                connection,
                owner,
                story_id,
                deleted_at=datetime.now(UTC),
                updated_at=stories.c.updated_at,  # so that it comes back to its place
            )
        self._quota.freed(owner)

    async def restore_story(self, owner: str, story_id: str) -> Story:
        """Show a deleted story again, just as it was."""
        async with self._growing.change() as connection:
            await connection.execute(
                stories.update()
                .where(
                    stories.c.id == story_id,
                    stories.c.owner == owner,
                    stories.c.head_number != UNFINISHED,
                )
                .values(deleted_at=None)
            )
            return await story_of(connection, owner, story_id)

    async def _found(self, query: sa.Select[Any]) -> list[Story]:
        async with self._database.read() as connection:
            rows = await ask(connection, query)
            return [as_story(row) async for row in gently(rows.mappings())]

    async def _changed(self, owner: str, story_id: str, **values: object) -> Story:
        async with self._growing.change() as connection:
            await hold(connection, owner, story_id, **values)
            return await story_of(connection, owner, story_id)
