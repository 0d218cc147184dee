"""Passages that are being written: claimed, stored again and again, settled if their program ended.

What cannot be stored when it comes is owed: it is kept, and goes before every later change.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from storygen.errors import DatabaseError, StoryError
from storygen.story.claims import Claims
from storygen.story.database import Database
from storygen.story.rows import as_passage
from storygen.story.schema import passages as passages_table
from storygen.story.tree import PICKED, Passage, State, no_passage

INTERRUPTED: Final = "interrupted"  # finish_reason of a passage that a crash cut off
MOST_OWED = 100  # passages that are kept while the database cannot be used


@dataclass(frozen=True)
class Owed:
    """What a growing passage should be, where that could not be stored yet."""

    owner: str
    text: str
    state: State
    finish_reason: str | None


class Growing:
    """The passages of a database that grow, and the changes that must wait for what is owed."""

    def __init__(self, database: Database, claims: Claims) -> None:
        self.database, self.claims = database, claims
        self._owed: dict[str, Owed] = {}

    async def close(self) -> None:
        """Store what is owed, and claim nothing any more. DatabaseError if it still cannot be."""
        try:
            await self.pay()
        finally:
            await self.claims.close()

    async def settle(self, which: sa.ColumnElement[bool]) -> None:
        """Say of abandoned passages that they are complete."""
        growing = sa.and_(which, passages_table.c.state == "streaming")
        async with self.database.write() as connection:
            found = (await connection.execute(sa.select(passages_table).where(growing))).mappings()
            rows = {row["id"]: row for row in found}
            for passage_id in await self.claims.abandoned(connection, list(rows)):
                reason = PICKED if PICKED in (rows[passage_id]["params"] or {}) else INTERRUPTED
                await connection.execute(
                    passages_table.update()
                    .where(growing, passages_table.c.id == passage_id)
                    .values(state="complete", finish_reason=reason)
                )

    async def abandoned(
        self, connection: AsyncConnection, rows: Sequence[Mapping[Any, Any]]
    ) -> list[str]:
        """Passages that a program sharing the database was writing when it ended."""
        growing = [row["id"] for row in rows if row["state"] == "streaming"]
        if not self.database.is_shared:
            return []
        return await self.claims.abandoned(connection, growing)

    @asynccontextmanager
    async def change(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, in which what is owed is stored first."""
        async with self.database.write() as connection:
            owed = dict(self._owed)  # by now: what came while others wrote is newer
            for passage_id, owing in owed.items():
                await connection.execute(
                    passages_table.update()
                    .where(
                        passages_table.c.id == passage_id,
                        passages_table.c.owner == owing.owner,
                        passages_table.c.state == "streaming",
                    )
                    .values(text=owing.text, state=owing.state, finish_reason=owing.finish_reason)
                )
            yield connection
        for passage_id, owing in owed.items():
            if self._owed.get(passage_id) is owing:
                del self._owed[passage_id]
            if owing.state == "complete":
                await self.claims.let_go(passage_id)

    async def pay(self) -> None:
        """Store what could not be stored when it came; DatabaseError if it still cannot be."""
        if not self._owed:
            return
        try:
            async with self.change():
                pass
        except DatabaseError as error:
            n = len(self._owed)
            ends = "The end of a passage is" if n == 1 else f"The ends of {n} passages are"
            raise DatabaseError(f"{ends} not stored. {error}") from error

    @asynccontextmanager
    async def claimed(self, passage_id: str, state: State) -> AsyncIterator[None]:
        """Around the storing of a passage: it is claimed if it will grow."""
        if state != "streaming":
            yield
            return
        await self.claims.take(passage_id)
        try:
            yield
        except BaseException:
            await self.claims.let_go(passage_id)
            raise

    async def grow(self, passage_id: str, owing: Owed) -> Passage:
        """Store a growing passage as it is now; DatabaseError where it is owed instead."""
        try:
            passage = await self._grown(passage_id, owing)
        except DatabaseError:
            if passage_id in self._owed or len(self._owed) < MOST_OWED:
                self._owed[passage_id] = owing
            raise
        if owing.state == "complete":
            await self.claims.let_go(passage_id)
        return passage

    async def _grown(self, passage_id: str, owing: Owed) -> Passage:
        mine = (passages_table.c.id == passage_id, passages_table.c.owner == owing.owner)
        values = {"text": owing.text, "state": owing.state, "finish_reason": owing.finish_reason}
        await self.claims.keep()
        async with self.change() as connection:
            grown = await connection.execute(
                passages_table.update()
                .where(*mine, passages_table.c.state == "streaming")
                .values(values)
                .returning(passages_table)
            )
            if row := grown.mappings().one_or_none():
                return as_passage(row)
            if (
                await connection.execute(sa.select(passages_table.c.id).where(*mine))
            ).first() is None:
                raise no_passage(passage_id)
            raise StoryError(
                f"Passage {passage_id} is complete and stays as it is. Add another version instead."
            )
