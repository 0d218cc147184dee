"""How much each user may keep. What was deleted counts, too, but gives way when room is needed."""

import json
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from storygen.errors import StoryError
from storygen.story.growing import Growing
from storygen.story.purge import ADDING, purge
from storygen.story.schema import passages, stories
from storygen.story.statements import UNFINISHED

ROW = 500  # bytes of a passage or a story beside its text: ids, times, and its place in indexes
MEASURED_FOR = 600.0  # seconds for which a measure is believed, with what was added since
MEGABYTE = 1_000_000


class Quota:
    """A limit for each user, in bytes; 0: none."""

    def __init__(self, growing: Growing, limit: int) -> None:
        self._growing, self._limit = growing, limit
        self._used: dict[str, tuple[float, int]] = {}  # when it was measured, and what it is now

    async def take(self, owner: str, size: int) -> None:
        """Count what is about to be stored; raises StoryError where there is no room for it."""
        if not self._limit:
            return
        when, used = self._used.get(owner, (-MEASURED_FOR, 0))
        if time.monotonic() - when > MEASURED_FOR or used + size > self._limit:
            await self._make_room(owner, size)
        self.add(owner, size)

    def add(self, owner: str, size: int) -> None:
        """Count what was stored already."""
        if owner in self._used:
            when, used = self._used[owner]
            self._used[owner] = when, used + size

    async def _make_room(self, owner: str, size: int) -> None:
        """Measure, and purge the owner's deleted stories, the oldest first, as far as needed."""
        sizes = await self._sizes(owner)
        kept = sum(bytes_ for bytes_, deleted_at, _ in sizes if deleted_at is None)
        if kept + size > self._limit:
            raise StoryError(
                f"Your stories take {_megabytes(kept)} of the {_megabytes(self._limit)} MB that "
                f"each writer has here, and this would add {_megabytes(size)}: nothing was added. "
                "Export stories that you need no more and delete them, or ask whoever runs this "
                "page for more room (STORYGEN_STORAGE_MB)."
            )
        used = sum(bytes_ for bytes_, *_ in sizes)
        deleted = [story for story in sizes if story[1] is not None]
        for bytes_, _, story_id in sorted(deleted, key=lambda story: story[1]):
            if used + size <= self._limit:
                break
            await purge(self._growing, owner, story_id)
            used -= bytes_
        self._used[owner] = time.monotonic(), used

    async def _sizes(self, owner: str) -> list[tuple[int, Any, str]]:
        """Bytes, when it was deleted, and id of each story."""
        async with self._growing.database.read() as connection:
            octets = _octets(connection.dialect.name)
            told = (
                sa.select(
                    passages.c.story_id,
                    sa.func.sum(ROW + octets(passages.c.text) + octets(passages.c.params)).label(
                        "n"
                    ),
                )
                .where(passages.c.owner == owner)
                .where(
                    passages.c.story_id.in_(sa.select(stories.c.id).where(stories.c.owner == owner))
                )
                .group_by(passages.c.story_id)
                .subquery()
            )
            whole = ROW + octets(stories.c.settings) + sa.func.coalesce(told.c.n, 0)
            query = (
                sa.select(whole, stories.c.deleted_at, stories.c.id, stories.c.head_number)
                .select_from(stories.outerjoin(told, told.c.story_id == stories.c.id))
                .where(stories.c.owner == owner)
            )
            rows = (await connection.execute(query)).all()
        adding = datetime.now(UTC) - ADDING  # what is being added is hidden, and will be kept
        return [
            (int(n), None if number == UNFINISHED and when > adding else when, story_id)
            for n, when, story_id, number in rows
        ]


def size_of(rows: Iterable[Mapping[str, Any]]) -> int:
    """Bytes of passages, as they will be measured."""
    return sum(
        ROW
        + len(row["text"].encode("utf-8", "replace"))
        + (len(json.dumps(row["params"])) if row.get("params") else 0)
        for row in rows
    )


def _octets(dialect: str) -> Any:
    """Bytes of a column's text, in the words of the database."""

    def octets(column: sa.Column[Any]) -> sa.ColumnElement[int]:
        if dialect == "sqlite":
            length: Any = sa.func.length(sa.cast(column, sa.LargeBinary))
        else:
            length = sa.func.octet_length(sa.cast(column, sa.Text))
        return sa.func.coalesce(length, 0)

    return octets


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.{0 if size >= 10 * MEGABYTE else 1}f}"
