"""Deleted stories gone for good: after some days, or when their owner needs the room.

In small transactions, so that nobody's change waits for them. A story that is cut off in between,
or while it was added, is one that nobody can see, and goes with the next round; so do copies of
passages that were cut off.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from storygen.errors import DatabaseError
from storygen.story.growing import Growing
from storygen.story.schema import IS_HIDDEN, head_moves, marks, passages, stories
from storygen.story.statements import UNFINISHED

BATCH = 200  # rows
ROUND_SECONDS = 3600.0
ADDING = timedelta(days=1)  # longer than any story is being added

Change = Callable[[], AbstractAsyncContextManager[AsyncConnection]]  # a transaction

logger = logging.getLogger(__name__)


async def attend(growing: Growing, days: int) -> None:
    """Purge what was deleted so many days ago, from time to time; 0 keeps it."""
    while True:
        try:
            await purge_copies(growing)
            count = await purge_old(growing, days)
            if count:
                logger.info("Purged stories", extra={"fields": {"count": count}})
        except DatabaseError as error:
            logger.warning("Deleted stories were not purged: %s", error)
        await asyncio.sleep(ROUND_SECONDS)


async def purge_old(growing: Growing, days: int) -> int:
    """Purge what was deleted so many days ago, and what was never whole; how many stories."""
    now = datetime.now(UTC)
    is_old = sa.and_(stories.c.head_number == UNFINISHED, stories.c.deleted_at < now - ADDING)
    if days:
        is_old = sa.or_(is_old, stories.c.deleted_at < now - timedelta(days=days))
    async with growing.database.read() as connection:
        found = (
            await connection.execute(sa.select(stories.c.owner, stories.c.id).where(is_old))
        ).all()
    for owner, story_id in found:
        await purge(growing.change, owner, story_id)
    return len(found)


async def purge(change: Change, owner: str, story_id: str) -> bool:
    """Purge a deleted story; False where it was restored meanwhile."""
    async with change() as connection:
        hidden = await connection.execute(
            stories.update()
            .where(
                stories.c.id == story_id,
                stories.c.owner == owner,
                stories.c.deleted_at.is_not(None),
            )
            .values(head_number=UNFINISHED)
        )
        if not hidden.rowcount:
            return False
    for column in (head_moves.c.number, marks.c.passage_id, passages.c.number):
        table = column.table
        mine = (table.c.story_id == story_id, table.c.owner == owner)
        # Of passages the last first: none goes before those that follow it.
        some = sa.select(column).where(*mine).order_by(column.desc()).limit(BATCH)
        is_left = True
        while is_left:
            async with change() as connection:
                keys = (await connection.execute(some)).scalars().all()
                await connection.execute(table.delete().where(*mine, column.in_(keys)))
            is_left = len(keys) == BATCH
    async with change() as connection:
        await connection.execute(
            stories.delete().where(stories.c.id == story_id, stories.c.owner == owner)
        )
    return True


async def purge_copies(growing: Growing) -> None:
    """Purge what an edit copied of a branch and never finished, unless it still may."""
    columns = (passages.c.owner, passages.c.story_id, passages.c.id)
    async with growing.database.read() as connection:
        hidden = (await connection.execute(sa.select(*columns).where(IS_HIDDEN))).all()
        left = await growing.claims.abandoned(connection, [row.id for row in hidden])
    for owner, story_id, first in hidden:
        if first in left:
            await _purge_from(growing, owner, story_id, first)


async def _purge_from(growing: Growing, owner: str, story_id: str, first: str) -> None:
    """Purge a passage and all that follow it, the last first."""
    mine = (passages.c.story_id == story_id, passages.c.owner == owner)
    copies = sa.select(passages.c.id, passages.c.number).where(*mine, passages.c.id == first)
    found = copies.cte("copies", recursive=True)
    after = sa.select(passages.c.id, passages.c.number).where(
        *mine, passages.c.parent_id == found.c.id
    )
    found = found.union_all(after)
    async with growing.database.read() as connection:
        query = sa.select(found.c.id).order_by(found.c.number.desc())
        ids = (await connection.execute(query)).scalars().all()
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        async with growing.change() as connection:
            for table, key in ((marks, marks.c.passage_id), (passages, passages.c.id)):
                of_story = (table.c.story_id == story_id, table.c.owner == owner)
                await connection.execute(table.delete().where(*of_story, key.in_(batch)))
