"""Where stories are kept. What a method returns has reached the disk.

Passages are only ever added; undo and redo move the head along the line of places it has been.
Every statement carries the owner, so what belongs to another writer is as if it were not there.
One running program owns a store: opening it settles what a crash left unfinished.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from storygen.errors import StoryError
from storygen.story.database import Database
from storygen.story.schema import head_moves, passages, stories
from storygen.story.tree import Passage, Role, State, Story, StoryTree, no_passage

HEAD: Final = "head"  # as a parent: wherever the story's head is
INTERRUPTED: Final = "interrupted"  # finish_reason of a passage that a crash cut off

MAX_TEXT = 2_000_000
MAX_TITLE = 500
MAX_SEARCH = 500
MAX_PAGE = 1000


class StoryStore:
    """All stories of all writers. Every method but open and close acts for one owner.

    An id that is unknown, deleted or another owner's raises StoryError, always in the same words;
    so does a database that cannot be used. Methods may be called by any number of tasks at once.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(cls, url: str) -> "StoryStore":
        """The store at a SQLAlchemy URL such as sqlite+aiosqlite:////home/me/stories.db.

        Makes what is missing, checks what is there and brings it up to date. Passages that were
        being written when the last program ended are complete now, with the reason INTERRUPTED.
        """
        store = cls(await Database.open(url))
        async with store._database.write() as connection:
            await connection.execute(
                passages.update()
                .where(passages.c.state == "streaming")
                .values(state="complete", finish_reason=INTERRUPTED)
            )
        return store

    async def close(self) -> None:
        """Let go of the database. Safe to call twice."""
        await self._database.close()

    async def create_story(
        self,
        owner: str,
        *,
        story_id: str | None = None,
        title: str = "",
        settings: dict[str, Any] | None = None,
    ) -> Story:
        """A new story without passages."""
        new_id, now = _new_id(story_id), datetime.now(UTC)
        row = {
            "id": new_id,
            "owner": owner,
            "title": _within(title, MAX_TITLE, "title"),
            "settings": settings or {},
            "passage_count": 0,
            "head_number": 0,
            "created_at": now,
            "updated_at": now,
        }
        async with self._database.write() as connection:
            await _insert(connection, stories, row)
            return await _story(connection, owner, new_id)

    async def story(self, owner: str, story_id: str) -> Story:
        """The story of this id."""
        async with self._database.read() as connection:
            return await _story(connection, owner, story_id)

    async def stories(
        self,
        owner: str,
        *,
        search: str = "",
        limit: int = 50,
        before: tuple[datetime, str] | None = None,
    ) -> list[Story]:
        """The owner's stories, the last changed first.

        search keeps those with this text in the title or in any passage, on any branch; case
        counts only beyond ASCII. before, the (updated_at, id) of the last story already shown,
        gives the next page.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise StoryError(f"A page of {limit} stories cannot be shown: 1 to {MAX_PAGE} can.")
        query = _story_query(owner).order_by(stories.c.updated_at.desc(), stories.c.id.desc())
        if needle := _within(search, MAX_SEARCH, "search").strip():
            query = query.where(_mentions(owner, needle))
        if before is not None:
            query = query.where(sa.tuple_(stories.c.updated_at, stories.c.id) < before)
        async with self._database.read() as connection:
            rows = await connection.execute(query.limit(limit))
            return [_as_story(row) for row in rows.mappings()]

    async def rename(self, owner: str, story_id: str, title: str) -> Story:
        """Give a story another title."""
        return await self._changed(owner, story_id, title=_within(title, MAX_TITLE, "title"))

    async def update_settings(self, owner: str, story_id: str, settings: dict[str, Any]) -> Story:
        """Replace a story's settings."""
        return await self._changed(owner, story_id, settings=settings)

    async def delete_story(self, owner: str, story_id: str) -> None:
        """Hide a story until restore_story brings it back."""
        async with self._database.write() as connection:
            await _hold(
                connection,
                owner,
                story_id,
                deleted_at=datetime.now(UTC),
                updated_at=stories.c.updated_at,  # so that it comes back to its place
            )

    async def restore_story(self, owner: str, story_id: str) -> Story:
        """Show a deleted story again, just as it was."""
        async with self._database.write() as connection:
            await connection.execute(
                stories.update()
                .where(stories.c.id == story_id, stories.c.owner == owner)
                .values(deleted_at=None)
            )
            return await _story(connection, owner, story_id)

    async def tree(self, owner: str, story_id: str) -> StoryTree:
        """All passages of a story, and its head."""
        query = (
            sa.select(passages)
            .where(passages.c.story_id == story_id, passages.c.owner == owner)
            .order_by(passages.c.number)
        )
        async with self._database.read() as connection:
            story = await _story(connection, owner, story_id)
            rows = await connection.execute(query)
            return StoryTree([_as_passage(row) for row in rows.mappings()], story.head_id)

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
    ) -> Passage:
        """Add a passage after parent_id, or at the beginning for None, and move the head to it.

        The text is stored as it is; see schema.WholeText for the two characters that cannot be.
        """
        row = {
            "id": _new_id(passage_id),
            "story_id": story_id,
            "owner": owner,
            "role": role,
            "text": _within(text, MAX_TEXT, "passage"),
            "state": state,
            "model": model,
            "params": params,
            "created_at": datetime.now(UTC),
        }
        async with self._database.write() as connection:
            held = await _hold(
                connection,
                owner,
                story_id,
                passage_count=stories.c.passage_count + 1,
                head_number=stories.c.head_number + 1,
            )
            row["number"] = held["passage_count"]
            row["parent_id"] = await _parent(connection, held, parent_id)
            added = await _insert(connection, passages, row)
            await _record_move(connection, held, added["id"])
            return _as_passage(added)

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
        """
        mine = (passages.c.id == passage_id, passages.c.owner == owner)
        values = {"text": _within(text, MAX_TEXT, "passage"), "state": state}
        async with self._database.write() as connection:
            grown = await connection.execute(
                passages.update()
                .where(*mine, passages.c.state == "streaming")
                .values(finish_reason=finish_reason, **values)
                .returning(passages)
            )
            if row := grown.mappings().one_or_none():
                return _as_passage(row)
            if (await connection.execute(sa.select(passages.c.id).where(*mine))).first() is None:
                raise no_passage(passage_id)
            raise StoryError(
                f"Passage {passage_id} is complete and stays as it is. Add another version instead."
            )

    async def move_head(self, owner: str, story_id: str, passage_id: str | None) -> Story:
        """Stand at another passage, or before the first one. Where the head is already, no move."""
        async with self._database.write() as connection:
            if passage_id is not None:
                await _require_passage(connection, owner, story_id, passage_id)
            story = await _story(connection, owner, story_id)
            if passage_id == story.head_id:
                return story
            held = await _hold(connection, owner, story_id, head_number=stories.c.head_number + 1)
            await _record_move(connection, held, passage_id)
            return await _story(connection, owner, story_id)

    async def undo(self, owner: str, story_id: str) -> Story:
        """Put the head back to where it was before its last move."""
        async with self._database.write() as connection:
            back = stories.c.head_number - 1
            held = await _hold(connection, owner, story_id, head_number=back)
            if held["head_number"] < 0:
                raise StoryError("There is nothing to undo: this is where the story began.")
            return await _story(connection, owner, story_id)

    async def redo(self, owner: str, story_id: str) -> Story:
        """Make the last undone move of the head again."""
        async with self._database.write() as connection:
            forth = stories.c.head_number + 1
            held = await _hold(connection, owner, story_id, head_number=forth)
            if held["head_number"] > await _last_move(connection, owner, story_id):
                raise StoryError(
                    "There is nothing to redo: nothing was undone since the last move."
                )
            return await _story(connection, owner, story_id)

    async def can_redo(self, owner: str, story_id: str) -> bool:
        """Whether redo would find a move that was undone."""
        async with self._database.read() as connection:
            await _story(connection, owner, story_id)
            mine = (stories.c.id == story_id, stories.c.owner == owner)
            query = sa.select(stories.c.head_number).where(*mine)
            here = (await connection.execute(query)).scalar_one()
            return here < await _last_move(connection, owner, story_id)

    async def _changed(self, owner: str, story_id: str, **values: object) -> Story:
        async with self._database.write() as connection:
            await _hold(connection, owner, story_id, **values)
            return await _story(connection, owner, story_id)


async def _hold(
    connection: AsyncConnection, owner: str, story_id: str, **values: object
) -> Mapping[str, Any]:
    """Change a story's row, if only its time, and return it.

    As the first statement of a transaction it also keeps every other writer of the story waiting.
    """
    changed = await connection.execute(
        stories.update()
        .where(stories.c.id == story_id, stories.c.owner == owner, stories.c.deleted_at.is_(None))
        .values({"updated_at": datetime.now(UTC)} | values)
        .returning(stories)
    )
    row = changed.mappings().one_or_none()
    if row is None:
        raise _no_story(story_id)
    return dict(row)


async def _story(connection: AsyncConnection, owner: str, story_id: str) -> Story:
    found = await connection.execute(_story_query(owner).where(stories.c.id == story_id))
    row = found.mappings().one_or_none()
    if row is None:
        raise _no_story(story_id)
    return _as_story(row)


def _story_query(owner: str) -> sa.Select[Any]:
    """An owner's stories that are not deleted, each with its head."""
    at_head = sa.and_(
        head_moves.c.story_id == stories.c.id,
        head_moves.c.owner == stories.c.owner,
        head_moves.c.number == stories.c.head_number,
    )
    return (
        sa.select(stories, head_moves.c.passage_id.label("head_id"))
        .select_from(stories.outerjoin(head_moves, at_head))
        .where(stories.c.owner == owner, stories.c.deleted_at.is_(None))
    )


def _mentions(owner: str, needle: str) -> sa.ColumnElement[bool]:
    """Whether a story has this text in its title or in a passage."""
    in_passage = sa.exists().where(
        passages.c.story_id == stories.c.id,
        passages.c.owner == owner,
        passages.c.text.icontains(needle, autoescape=True),
    )
    return sa.or_(stories.c.title.icontains(needle, autoescape=True), in_passage)


async def _parent(
    connection: AsyncConnection, held: Mapping[str, Any], parent_id: str | None
) -> str | None:
    """The passage after which one is added to a held story whose head has just been counted on."""
    story_id, owner = held["id"], held["owner"]
    if parent_id == HEAD:
        query = sa.select(head_moves.c.passage_id).where(
            head_moves.c.story_id == story_id,
            head_moves.c.owner == owner,
            head_moves.c.number == held["head_number"] - 1,
        )
        return (await connection.execute(query)).scalar_one_or_none()
    if parent_id is not None:
        await _require_passage(connection, owner, story_id, parent_id)
    return parent_id


async def _require_passage(
    connection: AsyncConnection, owner: str, story_id: str, passage_id: str
) -> None:
    query = sa.select(passages.c.id).where(
        passages.c.id == passage_id, passages.c.story_id == story_id, passages.c.owner == owner
    )
    if (await connection.execute(query)).first() is None:
        raise no_passage(passage_id)


async def _record_move(
    connection: AsyncConnection, held: Mapping[str, Any], passage_id: str | None
) -> None:
    """Write down where a held story's head is now; what was undone can no longer be redone."""
    move = {
        "story_id": held["id"],
        "owner": held["owner"],
        "number": held["head_number"],
        "passage_id": passage_id,
    }
    await connection.execute(
        head_moves.delete().where(
            head_moves.c.story_id == move["story_id"],
            head_moves.c.owner == move["owner"],
            head_moves.c.number >= move["number"],
        )
    )
    await connection.execute(head_moves.insert().values(move))


async def _last_move(connection: AsyncConnection, owner: str, story_id: str) -> int:
    query = sa.select(sa.func.coalesce(sa.func.max(head_moves.c.number), 0)).where(
        head_moves.c.story_id == story_id, head_moves.c.owner == owner
    )
    return (await connection.execute(query)).scalar_one()


async def _insert(
    connection: AsyncConnection, table: sa.Table, row: dict[str, Any]
) -> Mapping[str, Any]:
    """Insert a row under an id that nobody has, whoever's it may be; the row as it is stored."""
    try:
        inserted = await connection.execute(table.insert().values(row).returning(table))
    except sa.exc.IntegrityError as error:
        raise StoryError(f"The id {row['id']} is taken. Leave it out to get a new one.") from error
    return inserted.mappings().one()


def _new_id(given: str | None) -> str:
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


def _within(text: str, limit: int, noun: str) -> str:
    if len(text) > limit:
        raise StoryError(
            f"This {noun} has {len(text):,} characters: at most {limit:,} can be taken."
        )
    return text


def _no_story(story_id: str) -> StoryError:
    return StoryError(
        f"There is no story {story_id[:40]!r}. Choose one from the history, or begin a new one."
    )


def _as_story(row: Mapping[Any, Any]) -> Story:
    names = ("id", "owner", "title", "created_at", "updated_at", "head_id", "settings")
    return Story(**{name: row[name] for name in names})


def _as_passage(row: Mapping[Any, Any]) -> Passage:
    hidden = ("owner", "number")
    return Passage(**{name: value for name, value in row.items() if name not in hidden})
