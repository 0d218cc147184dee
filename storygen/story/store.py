"""Where stories are kept. What a method returns has reached the disk.

Passages are only ever added: an edit adds copies of what follows it. Undo and redo move the head
along the line of places it has been.
Every statement carries the owner, so what belongs to another writer is as if it were not there.
What a program that ended left unfinished is settled by the next one, see growing.py.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from storygen.errors import StoryError
from storygen.story.claims import Claims, claims_on
from storygen.story.copies import add_copies, add_whole, moved, reworded
from storygen.story.database import Database
from storygen.story.growing import Growing, Owed
from storygen.story.listing import StoryList
from storygen.story.quota import MOVE, size_of, size_of_story, size_of_text
from storygen.story.rows import (
    HIDDEN,
    MAX_NAME,
    MAX_TEXT,
    as_mark,
    as_passage,
    new_id,
    new_story,
    row_of,
    within,
)
from storygen.story.schema import marks as marks_table
from storygen.story.schema import passages as passages_table
from storygen.story.schema import stories
from storygen.story.statements import (
    HEAD,
    hold,
    insert,
    last_move,
    last_number,
    marks_of,
    parent_of,
    passages_of,
    record_move,
    require_passage,
    story_of,
)
from storygen.story.tree import (
    Mark,
    Passage,
    Role,
    State,
    Story,
    StoryTree,
)

REMEMBERED = 16  # stories whose complete passages are kept at hand
MOST_REMEMBERED = 50_000_000  # characters of them, by which their passages count
PASSAGE = 500  # characters that a passage counts for beside its text


class _Read(NamedTuple):
    """The passages of a story before the first that is not stored whole."""

    passages: list[Passage]
    last: int  # number of the last one
    size: int  # characters that they count for


class StoryStore(StoryList):
    """All stories of all writers. Every method but open and close acts for one owner.

    An id that is unknown, deleted or another owner's raises StoryError, always in the same words;
    so does a database that cannot be used. Methods may be called by any number of tasks at once.
    """

    def __init__(self, database: Database, growing: Growing, room: int = 0) -> None:
        super().__init__(database, growing, room)
        self._read: OrderedDict[tuple[str, str], _Read] = OrderedDict()  # by owner and id

    @classmethod
    async def open(cls, url: str, room: int = 0) -> "StoryStore":
        """The store at a SQLAlchemy URL such as sqlite+aiosqlite:////home/me/stories.db, with room
        for so many bytes of each owner; 0: any number.

        Makes what is missing, checks what is there and brings it up to date. Passages that were
        being written when the last program ended are complete now, with the reason INTERRUPTED.
        """
        database = await Database.open(url, is_served=True)
        try:
            store = cls(database, Growing(database, await claims_on(database)), room)
        except BaseException:
            await database.close()
            raise
        try:
            await store._growing.settle(passages_table.c.state == "streaming")
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def database(self) -> Database:
        """The database the stories are in; accounts are kept there, too."""
        return self._database

    @property
    def growing(self) -> Growing:
        """The passages that grow, and the changes that must wait for what is owed."""
        return self._growing

    @property
    def claims(self) -> Claims:
        """What this program has to itself of a database that others may share."""
        return self._growing.claims

    async def close(self) -> None:
        """Let go of the database. Safe to call twice. Raises DatabaseError where the end of a
        passage could not be stored to the last."""
        try:
            await self._growing.close()
        finally:
            await self._database.close()

    async def add_story(
        self,
        owner: str,
        *,
        title: str,
        settings: dict[str, Any],
        passages: Sequence[Passage],
        head_id: str | None,
        marks: Mapping[str, Mark] | None = None,
    ) -> Story:
        """A new story with all these passages, parents before their children, at this head.

        Every id becomes a new one. One that names no earlier passage raises StoryError.
        """
        story_id, now = new_id(), datetime.now(UTC)
        rows = await asyncio.to_thread(moved, owner, story_id, passages, head_id, marks or {})
        size = await asyncio.to_thread(size_of, rows.passages)
        size += size_of_story(json.dumps(settings)) + (0 if head_id is None else MOVE)
        story = new_story(owner, story_id, title, settings, now)
        async with self._quota.room(owner, size):
            return await add_whole(self._growing, story, rows)

    async def begin_story(
        self,
        owner: str,
        *,
        story_id: str,
        title: str,
        settings: dict[str, Any],
        texts: Sequence[str],
        passage_id: str,
    ) -> list[Passage]:
        """A new story that begins with what its writer wrote: one passage or more, the last under
        passage_id and with the head. All of it is stored at once, or nothing."""
        story = new_story(owner, new_id(story_id), title, settings, datetime.now(UTC))
        story |= {"passage_count": len(texts), "head_number": 1}
        size = size_of_story(json.dumps(settings)) + _size(texts)
        async with self._quota.room(owner, size), self._growing.change() as connection:
            held = await insert(connection, stories, story)
            return await self._tell(connection, held, None, texts, passage_id)

    async def tree(self, owner: str, story_id: str) -> StoryTree:
        """All passages of a story, and its head.

        Complete passages never change, so of a story that was asked for lately only those since
        are read.
        """
        await self._growing.pay()
        known = self._read.pop((owner, story_id), _Read([], 0, 0))
        read = list(known.passages)
        by_id = {passage.id: passage for passage in read}
        growing: list[Mapping[Any, Any]] = []
        hidden: set[str] = set()
        whole, last = len(read), known.last
        async with self._database.read() as connection:
            story = await story_of(connection, owner, story_id)
            async for row in passages_of(connection, owner, story_id, after=last):
                if row["state"] == HIDDEN or row["parent_id"] in hidden:
                    hidden.add(row["id"])
                    continue
                read.append(as_passage(row, by_id))
                by_id[row["id"]] = read[-1]
                if row["state"] == "streaming":
                    growing.append(row)
                if not growing and not hidden:
                    whole, last = len(read), row["number"]
            said = {
                row["passage_id"]: as_mark(row)
                async for row in marks_of(connection, owner, story_id)
                if row["passage_id"] not in hidden
            }
            left = await self._growing.abandoned(connection, growing)
        if left:
            self._read[owner, story_id] = known
            await self._growing.settle(passages_table.c.id.in_(left))
            return await self.tree(owner, story_id)
        size = sum(PASSAGE + len(p.text) for p in read[len(known.passages) : whole])
        self._remember((owner, story_id), _Read(read[:whole], last, known.size + size))
        return StoryTree(read, story.head_id, said)

    def _remember(self, key: tuple[str, str], read: "_Read") -> None:
        self._read[key] = read
        while len(self._read) > 1 and (
            len(self._read) > REMEMBERED
            or sum(read.size for read in self._read.values()) > MOST_REMEMBERED
        ):
            self._read.popitem(last=False)

    async def add_passage(
        self,
        owner: str,
        story_id: str,
        role: Role,
        text: str,
        *,
        parent_id: str | None = HEAD,
        passage_id: str | None = None,
        model: str | None = None,
        params: dict[str, Any] | None = None,
        state: State = "complete",
        move_head: bool = True,
    ) -> Passage:
        """Add a passage after parent_id, or at the beginning for None, and move the head to it.

        The text is stored as it is; see schema.WholeText for the two characters that cannot be.
        """
        given = new_id(passage_id)
        row: dict[str, Any] = {
            "id": given,
            "story_id": story_id,
            "owner": owner,
            "role": role,
            "text": within(text, MAX_TEXT, "passage"),
            "state": state,
            "model": model,
            "params": params,
            "created_at": datetime.now(UTC),
        }
        size = size_of([row]) + (MOVE if move_head else 0)
        async with (
            self._quota.room(owner, size),
            self._growing.claimed(given, state),
            self._growing.change() as connection,
        ):
            held = await hold(
                connection,
                owner,
                story_id,
                passage_count=stories.c.passage_count + 1,
                head_number=stories.c.head_number + int(move_head),
            )
            row["number"] = 1 + await last_number(connection, held)
            row["parent_id"] = await parent_of(connection, held, parent_id, moved=move_head)
            added = await insert(connection, passages_table, row)
            if move_head:
                await record_move(connection, held, added["id"])
            return as_passage(added)

    async def add_writing(
        self, owner: str, story_id: str, texts: Sequence[str], *, passage_id: str
    ) -> list[Passage]:
        """What its writer adds to the end of a story, as begin_story takes it."""
        async with self._quota.room(owner, _size(texts)), self._growing.change() as connection:
            held = await hold(
                connection,
                owner,
                story_id,
                passage_count=stories.c.passage_count + len(texts),
                head_number=stories.c.head_number + 1,
            )
            parent_id = await parent_of(connection, held, HEAD, moved=True)
            return await self._tell(connection, held, parent_id, texts, passage_id)

    async def _tell(
        self,
        connection: AsyncConnection,
        held: Mapping[str, Any],
        parent_id: str | None,
        texts: Sequence[str],
        passage_id: str,
    ) -> list[Passage]:
        """The writer's passages, one after another, in a story that counts them already."""
        now, story_id = datetime.now(UTC), held["id"]
        first = 1 + await last_number(connection, held)
        ids = [*(new_id() for _ in texts[1:]), new_id(passage_id)]
        added = []
        for number, (given, text) in enumerate(zip(ids, texts, strict=True), first):
            told = Passage(given, story_id, parent_id, "writer", text, now)
            row = row_of(told, held["owner"], number, None)
            added.append(as_passage(await insert(connection, passages_table, row)))
            parent_id = given
        await record_move(connection, held, passage_id)
        return added

    async def rewrite(self, owner: str, story_id: str, texts: Mapping[str, str]) -> Story:
        """Give passages of the active branch other texts, by their ids.

        From the first that changes on, the branch is copied, with what the writer said of it, and
        the head moved to the copy's end, so that undo brings the old words back; what differs in
        nothing changes nothing. What another window adds before that is kept, where undo finds it.
        """
        tree = await self.tree(owner, story_id)
        rows = await asyncio.to_thread(reworded, owner, tree, texts)
        if not rows.passages:
            return await self.story(owner, story_id)
        size = MOVE + await asyncio.to_thread(size_of, rows.passages)
        async with self._quota.room(owner, size):
            return await add_copies(self._growing, owner, story_id, rows)

    async def mark(self, owner: str, story_id: str, passage_id: str, **changes: Any) -> Mark:
        """Say something of a passage: any field of Mark."""
        async with self._growing.change() as connection:
            await hold(connection, owner, story_id, updated_at=stories.c.updated_at)
            await require_passage(connection, owner, story_id, passage_id)
            key = {"story_id": story_id, "owner": owner, "passage_id": passage_id}
            mine = [marks_table.c[name] == value for name, value in key.items()]
            found = await connection.execute(sa.select(marks_table).where(*mine))
            row = found.mappings().one_or_none()
            mark = replace(as_mark(row) if row else Mark(), **changes)
            within(mark.name, MAX_NAME, "name")
            await connection.execute(marks_table.delete().where(*mine))
            await connection.execute(marks_table.insert().values(key | asdict(mark)))
            return mark

    async def grow_passage(
        self,
        owner: str,
        passage_id: str,
        text: str,
        *,
        state: State = "streaming",
        finish_reason: str | None = None,
    ) -> Passage:
        """Replace the text of a passage that is being streamed; state `complete` ends that.

        A passage goes on growing in a story that was deleted meanwhile: restored, it is whole.
        Where the database cannot be used, DatabaseError is raised, and the text is stored before
        anything else is once it can be.
        """
        owing = Owed(owner, within(text, MAX_TEXT, "passage"), state, finish_reason)
        try:
            return await self._growing.grow(passage_id, owing)
        finally:
            if state == "complete":  # what a model wrote is never refused, but it counts
                self._quota.add(owner, size_of_text(text))

    async def move_head(self, owner: str, story_id: str, passage_id: str | None) -> Story:
        """Stand at another passage, or before the first one. Where the head is already, no move."""
        async with self._quota.room(owner, MOVE), self._growing.change() as connection:
            await hold(connection, owner, story_id, updated_at=stories.c.updated_at)
            if passage_id is not None:
                await require_passage(connection, owner, story_id, passage_id)
            story = await story_of(connection, owner, story_id)
            if passage_id == story.head_id:
                return story
            held = await hold(connection, owner, story_id, head_number=stories.c.head_number + 1)
            await record_move(connection, held, passage_id)
            return await story_of(connection, owner, story_id)

    async def undo(self, owner: str, story_id: str) -> Story:
        """Put the head back to where it was before its last move."""
        async with self._growing.change() as connection:
            back = stories.c.head_number - 1
            held = await hold(connection, owner, story_id, head_number=back)
            if held["head_number"] < 0:
                raise StoryError("There is nothing to undo: this is where the story began.")
            return await story_of(connection, owner, story_id)

    async def redo(self, owner: str, story_id: str) -> Story:
        """Make the last undone move of the head again."""
        async with self._growing.change() as connection:
            forth = stories.c.head_number + 1
            held = await hold(connection, owner, story_id, head_number=forth)
            if held["head_number"] > await last_move(connection, owner, story_id):
                raise StoryError(
                    "There is nothing to redo: nothing was undone since the last move."
                )
            return await story_of(connection, owner, story_id)

    async def can_redo(self, owner: str, story_id: str) -> bool:
        """Whether redo would find a move that was undone."""
        async with self._database.read() as connection:
            await story_of(connection, owner, story_id)
            mine = (stories.c.id == story_id, stories.c.owner == owner)
            query = sa.select(stories.c.head_number).where(*mine)
            here = (await connection.execute(query)).scalar_one()
            return here < await last_move(connection, owner, story_id)


def _size(texts: Sequence[str]) -> int:
    """Bytes of what is told in one move."""
    return MOVE + size_of([{"text": text} for text in texts])
