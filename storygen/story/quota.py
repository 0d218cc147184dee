"""How much each user may keep. What was deleted counts, too, but gives way when room is needed."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from storygen.errors import DatabaseError, StoryError
from storygen.story.growing import Growing
from storygen.story.purge import ADDING, purge
from storygen.story.schema import head_moves, passages, stories
from storygen.story.statements import UNFINISHED

# Bytes of a row beside its texts: ids, times, and its place in indexes.
STORY = 2_500  # with its title
PASSAGE = 1_500  # with what its writer says of it
MOVE = 250  # of the head
MEASURED_FOR = 600.0  # seconds for which a measure is believed, with what was added since
REFUSED_FOR = 5.0  # seconds for which who had no room is not measured anew, but for a deletion
MEGABYTE = 1_000_000


class _Account:
    """What an owner keeps, as far as is known."""

    def __init__(self) -> None:
        self.deciding = asyncio.Lock()  # about one request of the owner after another
        self.measured_at = -math.inf
        self.kept_at = -math.inf
        self.kept = 0  # as it was measured then: what was not deleted
        self.used = 0  # as it was measured, with what was let in since
        self.grown = 0  # ever, without being asked for
        self.storing = 0  # requests that were let in and are not stored yet
        self.all_stored = asyncio.Event()
        self.all_stored.set()


class Quota:
    """A limit for each user, in bytes; 0: none."""

    def __init__(self, growing: Growing, limit: int) -> None:
        self._growing, self._limit = growing, limit
        self._accounts: dict[str, _Account] = {}

    @asynccontextmanager
    async def room(self, owner: str, size: int) -> AsyncIterator[None]:
        """Room for what is stored within; raises StoryError where there is none. Whoever has it
        asks for no more within: where the owner has to be measured, what was let in is stored
        before, so that it is neither missed nor counted twice."""
        if not self._limit:
            yield
            return
        account = self._accounts.setdefault(owner, _Account())
        async with account.deciding:
            is_old = time.monotonic() - account.measured_at > MEASURED_FOR
            if size > 0 and (is_old or account.used + size > self._limit):
                if time.monotonic() - account.kept_at < REFUSED_FOR:
                    self._require(account.kept, size)
                await account.all_stored.wait()
                await self._make_room(owner, account, size)
            account.used += size
            account.storing += 1
            account.all_stored.clear()
        try:
            yield
        except BaseException as error:
            if isinstance(error, StoryError) and not isinstance(error, DatabaseError):
                account.used -= size  # it was refused
            else:
                account.measured_at = -math.inf  # some of it may be stored
            raise
        finally:
            account.storing -= 1
            if not account.storing:
                account.all_stored.set()

    def add(self, owner: str, size: int) -> None:
        """Count what was stored already."""
        if account := self._accounts.get(owner):
            account.used += size
            account.grown += size

    def freed(self, owner: str) -> None:
        """Measure before the next refusal: the owner deleted something."""
        if account := self._accounts.get(owner):
            account.kept_at = -math.inf

    async def _make_room(self, owner: str, account: _Account, size: int) -> None:
        """Measure, and purge the owner's deleted stories, the oldest first, as far as needed."""
        grown = account.grown
        sizes = await self._sizes(owner)
        kept = sum(bytes_ for bytes_, deleted_at, _ in sizes if deleted_at is None)
        account.kept, account.kept_at = kept, time.monotonic()
        self._require(kept, size)
        used = sum(bytes_ for bytes_, *_ in sizes)
        deleted = [story for story in sizes if story[1] is not None]
        for bytes_, _, story_id in sorted(deleted, key=lambda story: story[1]):
            if used + size <= self._limit:
                break
            if await purge(self._growing.change, owner, story_id):
                used -= bytes_
        self._require(used, size)  # one may have been restored meanwhile
        account.measured_at = time.monotonic()
        account.used = used + account.grown - grown

    def _require(self, kept: int, size: int) -> None:
        if kept + size > self._limit:
            raise StoryError(
                f"Your stories take {_megabytes(kept)} of the {_megabytes(self._limit)} MB that "
                f"each writer has here, and this would add {_megabytes(size)}: nothing was added. "
                "Export stories that you need no more and delete them, or ask whoever runs this "
                "page for more room (STORYGEN_STORAGE_MB)."
            )

    async def _sizes(self, owner: str) -> list[tuple[int, Any, str]]:
        """Bytes, when it was deleted, and id of each story."""
        async with self._growing.database.read() as connection:
            octets = _octets(connection.dialect.name)
            texts = sum(map(octets, (passages.c.text, passages.c.params, passages.c.model)))
            source: Any = stories
            whole: Any = STORY + octets(stories.c.settings)
            for table, size in ((passages, PASSAGE + texts), (head_moves, sa.literal(MOVE))):
                theirs = _of_each(owner, table, size)
                source = source.outerjoin(theirs, theirs.c.story_id == stories.c.id)
                whole += sa.func.coalesce(theirs.c.n, 0)
            query = (
                sa.select(whole, stories.c.deleted_at, stories.c.id, stories.c.head_number)
                .select_from(source)
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
        PASSAGE
        + sum(size_of_text(row.get(name) or "") for name in ("text", "model"))
        + (0 if row.get("params") is None else len(json.dumps(row["params"])))
        for row in rows
    )


def size_of_text(text: str) -> int:
    """Bytes of a text, with the longest that may be stored for what a database cannot hold."""
    return len(text.replace("\0", "\ufffd").encode("utf-8", "surrogatepass"))


def size_of_story(settings: str) -> int:
    """Bytes of a story with these settings, as JSON, and no passages."""
    return STORY + len(settings)


def _of_each(owner: str, table: sa.Table, size: sa.ColumnElement[int]) -> sa.Subquery:
    """Bytes of a table's rows for each of the owner's stories."""
    mine = sa.select(stories.c.id).where(stories.c.owner == owner)
    return (
        sa.select(table.c.story_id, sa.func.sum(size).label("n"))
        .where(table.c.owner == owner, table.c.story_id.in_(mine))
        .group_by(table.c.story_id)
        .subquery()
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
